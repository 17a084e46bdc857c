//! Notations that several tables share: names, addresses, networks, ports, prefix lengths.
//!
//! It must not compare one value with another, except those of one array.

use super::address;
use super::fields::{Fields, Value, found, items};
use super::problem::Draft;
use super::words::quoted;
use crate::balance::{Prefixes, Protocol};
use ipnet::IpNet;
use serde_spanned::Spanned;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use toml::de::DeValue;

/// Reads the name of a pool, service or rule.
pub(super) fn name(fields: &mut Fields<'_, '_>, form: &str) -> Option<Spanned<String>> {
    let value = fields.required("name", form)?;
    name_of(fields, "name", value, form)
}

/// Reads a value as a name.
pub(super) fn name_of(
    fields: &mut Fields<'_, '_>,
    key: &str,
    value: &Value<'_>,
    form: &str,
) -> Option<Spanned<String>> {
    name_with(fields, key, value, form, &['-', '_', '.'])
}

/// Reads the name of a server.
pub(super) fn server_name(fields: &mut Fields<'_, '_>, form: &str) -> Option<Spanned<String>> {
    let value = fields.required("name", form)?;
    name_with(fields, "name", value, form, &['-', '_', '.', ':', '[', ']'])
}

fn name_with(
    fields: &mut Fields<'_, '_>,
    key: &str,
    value: &Value<'_>,
    form: &str,
    signs: &[char],
) -> Option<Spanned<String>> {
    let name = fields.string(key, value, form)?;
    let text = name.get_ref();
    let sound = text.chars().all(|c| c.is_alphanumeric() || signs.contains(&c));
    if sound && fields.length_fits(key, text.chars().count()) {
        return Some(name);
    }
    let help = format!("allowed: {}", fields.takes(key));
    fields.drafts.push(Draft::error(name.span(), format!("{} is not a valid name", quoted(text))).help(help));
    None
}

/// Reads the string of a key, if present.
pub(super) fn text(fields: &mut Fields<'_, '_>, key: &str, form: &str) -> Option<Spanned<String>> {
    let value = fields.value(key)?;
    fields.string(key, value, form)
}

/// Reads the name of a network interface, if present.
pub(super) fn interface(fields: &mut Fields<'_, '_>, key: &str, form: &str) -> Option<Spanned<String>> {
    let name = text(fields, key, form)?;
    // The kernel refuses the first group, and takes `%` as a pattern for a name that it chooses.
    let bad = |c: char| matches!(c, '/' | ':' | '%') || c.is_whitespace() || c.is_control();
    let text = name.get_ref();
    if fields.length_fits(key, text.len()) && !text.contains(bad) && text != "." && text != ".." {
        return Some(name);
    }
    let title = format!("{} is not a valid interface name", quoted(text));
    let help = format!("allowed: {} without spaces, \"/\", \":\" and \"%\", such as `{form}`", fields.takes(key));
    fields.drafts.push(Draft::error(name.span(), title).help(help));
    None
}

/// Reads the name of a protocol, if present; `None` where it is wrong.
pub(super) fn protocol(fields: &mut Fields<'_, '_>, key: &str) -> Option<Option<Protocol>> {
    if fields.value(key).is_none() {
        return Some(None);
    }
    let word = text(fields, key, "protocol = \"tcp\"")?;
    match address::protocol(word.get_ref()) {
        Ok(protocol) => Some(Some(protocol)),
        Err(wrong) => {
            fields.drafts.push(Draft::error(word.span(), wrong.title).help(wrong.help));
            None
        }
    }
}

/// Whether `ports` makes sense for a protocol; an echo identifier is not a port.
pub(super) fn has_ports(protocol: Protocol) -> bool {
    protocol.has_ports() && protocol != Protocol::Icmp
}

/// The words of a key that takes one address per family.
pub(super) struct OnePerFamily {
    pub(super) key: &'static str,
    pub(super) form: &'static str,
    /// How the addresses are written.
    pub(super) forms: &'static str,
    /// What has the addresses: `a server`.
    pub(super) owner: &'static str,
    /// What an unusable address cannot be: `a server address`.
    pub(super) role: &'static str,
    /// What to use instead of an unusable address.
    pub(super) remedy: &'static str,
    /// What to do with a second address of one family.
    pub(super) second: &'static str,
}

/// Reads at most one usable address of each family.
pub(super) fn one_per_family(
    fields: &mut Fields<'_, '_>,
    value: &Value<'_>,
    words: &OnePerFamily,
) -> Vec<Spanned<IpAddr>> {
    let Some(texts) = fields.strings(words.key, value, words.form) else { return Vec::new() };
    if items(value).is_empty() {
        fields.drafts.push(Draft::error(value.span(), format!("{} needs an address", words.owner)).help(words.forms));
    }
    let mut addresses: Vec<Spanned<IpAddr>> = Vec::with_capacity(texts.len());
    for text in texts {
        let Ok(address) = text.get_ref().parse::<IpAddr>() else {
            let title = format!("{} is not an IP address", quoted(text.get_ref()));
            fields.drafts.push(Draft::error(text.span(), title).help(words.forms));
            continue;
        };
        let twin = addresses.iter().find(|other| other.get_ref().is_ipv4() == address.is_ipv4());
        if let Some(why) = address::unusable(address) {
            let title = format!("{address} cannot be {}: {why}", words.role);
            fields.drafts.push(Draft::error(text.span(), title).help(words.remedy));
        } else if let Some(twin) = twin {
            let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
            let draft = Draft::error(text.span(), format!("{} has two {family} addresses", words.owner));
            fields.drafts.push(draft.also(twin.span(), "the first").help(words.second));
        } else {
            addresses.push(Spanned::new(text.span(), address));
        }
    }
    addresses
}

/// Reads networks or single addresses; empty where the key is absent or wrong.
pub(super) fn networks(fields: &mut Fields<'_, '_>, key: &str) -> Vec<Spanned<IpNet>> {
    let form = format!("{key} = \"203.0.113.0/24\"");
    let forms = "write a network such as \"203.0.113.0/24\" or \"2001:db8::/32\", an address, or an array of them";
    let Some(value) = fields.value(key) else { return Vec::new() };
    refuse_empty(fields, key, value);
    let mut all = Vec::new();
    for text in fields.strings(key, value, &form).unwrap_or_default() {
        let written = text.get_ref();
        let net = written.parse::<IpNet>().ok().or_else(|| written.parse::<IpAddr>().ok().map(IpNet::from));
        match net {
            None => {
                let title = format!("{} is neither a network nor an IP address", quoted(written));
                fields.drafts.push(Draft::error(text.span(), title).help(forms));
            }
            Some(net) if net.trunc() != net => {
                let (title, help) = host_bits(net, &net.trunc().to_string(), &net.addr().to_string());
                fields.drafts.push(Draft::error(text.span(), title).help(help));
            }
            Some(net) => all.push(Spanned::new(text.span(), net)),
        }
    }
    all
}

/// The title and help for a network with bits set after its prefix.
pub(super) fn host_bits(net: IpNet, network: &str, address: &str) -> (String, String) {
    let title = format!("{net} has bits set after its prefix");
    (title, format!("write \"{network}\" for the network, or \"{address}\" for the address"))
}

/// Reads ranges of ports, first and last: `80`, `"8000-8010"`, or an array of both.
pub(super) fn port_ranges(fields: &mut Fields<'_, '_>, key: &str) -> Vec<(u16, u16)> {
    ranges(fields, key, "80, \"8000-8100\"", |text, _| {
        address::port_range(text).map_err(|wrong| (wrong.title, wrong.help))
    })
}

/// Reads ranges of HTTP statuses, first and last: `200`, `"200-299"`, or an array of both.
pub(super) fn status_ranges(fields: &mut Fields<'_, '_>, key: &str) -> Vec<(u16, u16)> {
    ranges(fields, key, "200, \"200-299\"", |text, allowed| {
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let status = |text: &str| {
            text.parse::<u16>()
                .ok()
                .filter(|s| digits(text) && !text.starts_with('0') && allowed.contains(&u64::from(*s)))
        };
        let range = text.split_once('-').unwrap_or((text, text));
        match (status(range.0), status(range.1)) {
            (Some(first), Some(last)) if first <= last => Ok((first, last)),
            (Some(first), Some(last)) => {
                Err((format!("the range {first}-{last} is reversed"), format!("write \"{last}-{first}\"")))
            }
            _ => Err((
                format!("{} is neither a status nor a range of statuses", quoted(text)),
                "write 200, \"200-299\", or an array of both".to_string(),
            )),
        }
    })
}

fn ranges(
    fields: &mut Fields<'_, '_>,
    key: &str,
    forms: &str,
    read: impl Fn(&str, std::ops::RangeInclusive<u64>) -> Result<(u16, u16), (String, String)>,
) -> Vec<(u16, u16)> {
    let Some(value) = fields.value(key) else { return Vec::new() };
    let allowed = fields.bounds(key);
    refuse_empty(fields, key, value);
    let mut all = Vec::new();
    for item in items(value) {
        match item.get_ref() {
            DeValue::Integer(_) => {
                let number = fields.number_of(key, item);
                all.extend(number.map(|number| (*number.get_ref() as u16, *number.get_ref() as u16)));
            }
            DeValue::String(text) => match read(text, allowed.clone()) {
                Ok(range) => all.push(range),
                Err((title, help)) => fields.drafts.push(Draft::error(item.span(), title).help(help)),
            },
            other => {
                let title = format!("`{key}` must be numbers or ranges");
                let help = format!("write {forms}, or an array of both");
                fields.drafts.push(Draft::error(item.span(), title).label(found(other)).help(help));
            }
        }
    }
    all
}

/// Refuses an empty array: it would match nothing, which cannot be what was meant.
fn refuse_empty(fields: &mut Fields<'_, '_>, key: &str, value: &Value<'_>) {
    if items(value).is_empty() {
        let help = format!("name at least one, or leave `{key}` out");
        fields.drafts.push(Draft::error(value.span(), format!("`{key}` is empty")).help(help));
    }
}

/// Reads prefix lengths under two keys, that of IPv4 first.
pub(super) fn prefixes(fields: &mut Fields<'_, '_>, keys: [&str; 2]) -> Prefixes {
    Prefixes { v4: fields.count_or_default(keys[0]), v6: fields.count_or_default(keys[1]) }
}

/// Returns an address if it is IPv4.
pub(super) fn v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

/// Returns an address if it is IPv6.
pub(super) fn v6(address: IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V6(address) => Some(address),
        IpAddr::V4(_) => None,
    }
}
