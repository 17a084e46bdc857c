//! Notations that several tables share: names, addresses, networks, ports, prefixes.
//!
//! It must not compare one value with another, but for those of one array.

use super::address;
use super::fields::{Fields, Value, found, items, quoted};
use super::problem::Draft;
use crate::balance::{Prefixes, Protocol};
use ipnet::IpNet;
use serde_spanned::Spanned;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use toml::de::DeValue;

/// Characters of a name at most.
const LONGEST_NAME: usize = 64;
/// Bytes of an interface's name at most: `IFNAMSIZ` less its closing zero.
const LONGEST_INTERFACE: usize = 15;

/// The name of a pool, server, service or rule.
pub(super) fn name(fields: &mut Fields<'_, '_>, form: &str) -> Option<Spanned<String>> {
    let value = fields.required("name", form)?;
    name_of(fields, "name", value, form)
}

/// A value as a name. Names stand in tables, labels and command lines, so nothing that would need
/// quotes there is part of one.
pub(super) fn name_of(
    fields: &mut Fields<'_, '_>,
    key: &str,
    value: &Value<'_>,
    form: &str,
) -> Option<Spanned<String>> {
    let name = fields.string(key, value, form)?;
    let text = name.get_ref();
    let sound = text.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if sound && (1..=LONGEST_NAME).contains(&text.chars().count()) {
        return Some(name);
    }
    let help = format!("1 to {LONGEST_NAME} letters, digits, \"-\", \"_\" and \".\" are allowed");
    fields.drafts.push(Draft::error(name.span(), format!("{} is not a name", quoted(text))).help(help));
    None
}

/// The string of a key, if it is there.
pub(super) fn text(fields: &mut Fields<'_, '_>, key: &str, form: &str) -> Option<Spanned<String>> {
    let value = fields.value(key)?;
    fields.string(key, value, form)
}

/// The name of a network interface, if the key is there.
pub(super) fn interface(fields: &mut Fields<'_, '_>, key: &str, form: &str) -> Option<Spanned<String>> {
    let name = text(fields, key, form)?;
    // The kernel refuses the first group, and takes `%` as the pattern of a name of its choice.
    let bad = |c: char| matches!(c, '/' | ':' | '%') || c.is_whitespace() || c.is_control();
    let text = name.get_ref();
    if (1..=LONGEST_INTERFACE).contains(&text.len()) && !text.contains(bad) && text != "." && text != ".." {
        return Some(name);
    }
    let title = format!("{} cannot be the name of a device", quoted(text));
    let help =
        format!("1 to {LONGEST_INTERFACE} bytes without spaces, \"/\", \":\" and \"%\" are allowed, such as `{form}`");
    fields.drafts.push(Draft::error(name.span(), title).help(help));
    None
}

/// A protocol by its name, if the key is there; `None` where the name is wrong.
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

/// Whether `ports` can be said of a protocol; an echo identifier is none.
pub(super) fn has_ports(protocol: Protocol) -> bool {
    protocol.has_ports() && protocol != Protocol::Icmp
}

/// What is said of addresses of which there may be one of each family.
pub(super) struct OnePerFamily {
    pub(super) key: &'static str,
    pub(super) form: &'static str,
    /// How they are written.
    pub(super) forms: &'static str,
    /// What the addresses are of: `a server`.
    pub(super) owner: &'static str,
    /// What an address that cannot be used cannot be: `a server address`.
    pub(super) role: &'static str,
    /// What to use there.
    pub(super) remedy: &'static str,
    /// What to do with the second of a family.
    pub(super) second: &'static str,
}

/// At most one usable address of each family.
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

/// Networks or single addresses; empty where the key is absent or wrong.
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
                let title = format!("{net} has bits set behind its prefix");
                let help = format!("write \"{}\" for the network, or \"{}\" for the address", net.trunc(), net.addr());
                fields.drafts.push(Draft::error(text.span(), title).help(help));
            }
            Some(net) => all.push(Spanned::new(text.span(), net)),
        }
    }
    all
}

/// Ranges of ports, first and last: `80`, `"8000-8010"`, or an array of both.
pub(super) fn port_ranges(fields: &mut Fields<'_, '_>, key: &str) -> Vec<(u16, u16)> {
    ranges(fields, key, 1..=65_535, "80, \"8000-8100\"", |text| {
        address::port_range(text).map_err(|wrong| (wrong.title, wrong.help))
    })
}

/// Ranges of HTTP statuses, first and last: `200`, `"200-299"`, or an array of both.
pub(super) fn status_ranges(fields: &mut Fields<'_, '_>, key: &str) -> Vec<(u16, u16)> {
    ranges(fields, key, 100..=999, "200, \"200-299\"", |text| {
        let status = |text: &str| (text.len() == 3).then(|| text.parse().ok()).flatten();
        let range = text.split_once('-').unwrap_or((text, text));
        match (status(range.0), status(range.1)) {
            (Some(first), Some(last)) if (100..=last).contains(&first) => Ok((first, last)),
            (Some(first), Some(last)) if last < first => {
                Err((format!("the range {first}-{last} is reversed"), format!("write \"{last}-{first}\"")))
            }
            _ => Err((
                format!("{} is neither a status nor a range of them", quoted(text)),
                "write 200, \"200-299\", or an array of both".to_string(),
            )),
        }
    })
}

fn ranges(
    fields: &mut Fields<'_, '_>,
    key: &str,
    numbers: RangeInclusive<u64>,
    forms: &str,
    read: impl Fn(&str) -> Result<(u16, u16), (String, String)>,
) -> Vec<(u16, u16)> {
    let Some(value) = fields.value(key) else { return Vec::new() };
    refuse_empty(fields, key, value);
    let mut all = Vec::new();
    for item in items(value) {
        match item.get_ref() {
            DeValue::Integer(_) => {
                let number = fields.number_of(key, item, numbers.clone());
                all.extend(number.map(|number| (*number.get_ref() as u16, *number.get_ref() as u16)));
            }
            DeValue::String(text) => match read(text) {
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

/// An empty array would mean nothing at all; that it means anything is surely not what was meant.
fn refuse_empty(fields: &mut Fields<'_, '_>, key: &str, value: &Value<'_>) {
    if items(value).is_empty() {
        let help = format!("name one at least, or leave `{key}` out");
        fields.drafts.push(Draft::error(value.span(), format!("`{key}` is empty")).help(help));
    }
}

/// Lengths of prefixes under two keys, IPv4's first.
pub(super) fn prefixes(fields: &mut Fields<'_, '_>, keys: [&str; 2], default: Prefixes) -> Prefixes {
    Prefixes {
        v4: fields.count(keys[0], 1..=32).unwrap_or(default.v4),
        v6: fields.count(keys[1], 1..=128).unwrap_or(default.v6),
    }
}

/// An address if it is IPv4.
pub(super) fn v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

/// An address if it is IPv6.
pub(super) fn v6(address: IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V6(address) => Some(address),
        IpAddr::V4(_) => None,
    }
}
