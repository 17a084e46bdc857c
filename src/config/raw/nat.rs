//! The tables `[[nat-pool]]`: each value read and checked by itself.
//!
//! It must not know services.

use crate::config::address;
use crate::config::fields::{Fields, quoted};
use crate::config::problem::{Draft, Span};
use crate::config::values;
use crate::flow::{NatPoolSettings, Pooling};
use crate::time::Duration;
use ipnet::IpNet;
use serde_spanned::Spanned;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use toml::de::DeTable;

/// Most addresses of a pool: each has room for 64,512 flows of a protocol.
const MOST_ADDRESSES: usize = 4096;
/// Longest time that a freed port rests.
const LONGEST_HOLD: Duration = Duration::from_secs(3600);

/// One `[[nat-pool]]`.
pub(crate) struct RawNatPool {
    pub(crate) name: Option<Spanned<String>>,
    pub(crate) settings: NatPoolSettings,
    /// The texts that named the addresses: first and last of each.
    pub(crate) places: Vec<Spanned<(IpAddr, IpAddr)>>,
    /// Whether every value of it could be read.
    pub(crate) is_whole: bool,
}

/// Reads one `[[nat-pool]]`.
pub(crate) fn nat_pool(table: &DeTable<'_>, span: Span, drafts: &mut Vec<Draft>) -> RawNatPool {
    let known = ["name", "addresses", "ports", "hold", "keep-parity", "keep-range", "pooling"];
    let mut fields = Fields::new(table, span, "[[nat-pool]]", &known, drafts);
    let name = values::name(&mut fields, "name = \"out\"");
    let defaults = NatPoolSettings::new("");
    let places = addresses(&mut fields);
    let (first_port, last_port) = ports(&mut fields).unwrap_or((defaults.first_port, defaults.last_port));
    let pooling = [("paired", Pooling::Paired), ("arbitrary", Pooling::Arbitrary)];
    let hold = fields.duration_in("hold", Duration::ZERO..=LONGEST_HOLD);
    let mut settings = NatPoolSettings {
        first_port,
        last_port,
        hold: hold.map_or(defaults.hold, Spanned::into_inner),
        parity: fields.flag("keep-parity").unwrap_or_default(),
        range_class: fields.flag("keep-range").unwrap_or_default(),
        pooling: fields.word("pooling", &pooling).unwrap_or_default(),
        ..defaults
    };
    if settings.range_class && first_port >= 1024 {
        let place = fields.key("keep-range").unwrap_or(0..0);
        let draft = Draft::error(place, "`keep-range` with no port under 1024 to give");
        fields.drafts.push(draft.help("write `ports = \"512-65535\"`, or leave `keep-range` out (RFC 4787, REQ-3a)"));
    }
    if settings.range_class && last_port < 1024 {
        let place = fields.key("keep-range").unwrap_or(0..0);
        let draft = Draft::error(place, "`keep-range` with no port above 1023 to give");
        fields.drafts.push(draft.help("write `ports = \"512-65535\"`, or leave `keep-range` out (RFC 4787, REQ-3a)"));
    }
    for place in &places {
        match *place.get_ref() {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                settings.v4.extend((u32::from(first)..=u32::from(last)).map(Ipv4Addr::from));
            }
            (IpAddr::V6(first), IpAddr::V6(last)) => {
                settings.v6.extend((u128::from(first)..=u128::from(last)).map(Ipv6Addr::from));
            }
            _ => {}
        }
    }
    settings.v4.sort_unstable();
    settings.v4.dedup();
    settings.v6.sort_unstable();
    settings.v6.dedup();
    let is_whole = fields.is_clean();
    RawNatPool { name, settings, places, is_whole }
}

/// `"1024-65535"`.
fn ports(fields: &mut Fields<'_, '_>) -> Option<(u16, u16)> {
    let value = fields.value("ports")?;
    let text = fields.string("ports", value, "ports = \"1024-65535\"")?;
    match address::port_range(text.get_ref()) {
        Ok(range) => Some(range),
        Err(wrong) => {
            fields.drafts.push(Draft::error(text.span(), wrong.title).help(wrong.help));
            None
        }
    }
}

fn addresses(fields: &mut Fields<'_, '_>) -> Vec<Spanned<(IpAddr, IpAddr)>> {
    let form = "addresses = [\"10.0.2.100\", \"10.0.3.0/28\"]";
    let Some(value) = fields.required("addresses", form) else { return Vec::new() };
    let texts = fields.strings("addresses", value, form).unwrap_or_default();
    let (mut all, mut count) = (Vec::new(), 0u128);
    for text in texts {
        match range(text.get_ref()) {
            Err((title, help)) => fields.drafts.push(Draft::error(text.span(), title).help(help)),
            Ok((first, last)) => {
                count = count.saturating_add(size(first, last));
                if count > MOST_ADDRESSES as u128 {
                    let draft =
                        Draft::error(text.span(), format!("more than {MOST_ADDRESSES} addresses in a NAT pool"));
                    let help = "each gives 64,512 flows of a protocol: name fewer, or spread services over pools";
                    fields.drafts.push(draft.help(help));
                    return Vec::new();
                }
                all.push(Spanned::new(text.span(), (first, last)));
            }
        }
    }
    if all.is_empty() && fields.is_clean() {
        let draft = Draft::error(value.span(), "a NAT pool without addresses");
        fields.drafts.push(draft.help(format!("name one at least, such as `{form}`")));
    }
    all
}

fn size(first: IpAddr, last: IpAddr) -> u128 {
    match (first, last) {
        (IpAddr::V4(a), IpAddr::V4(b)) => u128::from(u32::from(b) - u32::from(a)) + 1,
        (IpAddr::V6(a), IpAddr::V6(b)) => (u128::from(b) - u128::from(a)).saturating_add(1),
        _ => 0,
    }
}

/// An address, a network, or `first-last`.
fn range(text: &str) -> Result<(IpAddr, IpAddr), (String, String)> {
    let forms = "write an address, a network such as \"10.0.3.0/28\", or \"10.0.3.1-10.0.3.9\"";
    let wrong = || (format!("{} is neither an address nor a range of them", quoted(text)), forms.to_string());
    let (first, last) = if let Some((first, last)) = text.split_once('-') {
        let parse = |text: &str| text.trim().parse::<IpAddr>().map_err(|_| wrong());
        (parse(first)?, parse(last)?)
    } else if let Ok(address) = text.parse::<IpAddr>() {
        (address, address)
    } else {
        let net = text.parse::<IpNet>().map_err(|_| wrong())?;
        if net.trunc() != net {
            let help = format!("write \"{}\" for the network, or \"{}\" for the address", net.trunc(), net.addr());
            return Err((format!("{net} has bits set behind its prefix"), help));
        }
        (net.network(), net.broadcast())
    };
    if first.is_ipv4() != last.is_ipv4() || first > last {
        return Err((format!("{} is no range", quoted(text)), "the first address must not be behind the last".into()));
    }
    for end in [first, last] {
        if let Some(why) = address::unusable(end) {
            let help = "use unicast addresses that the servers' network routes to this gateway";
            return Err((format!("{end} cannot be a source address: {why}"), help.into()));
        }
    }
    Ok((first, last))
}
