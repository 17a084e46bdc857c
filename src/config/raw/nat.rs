//! The tables `[[nat-pool]]`: each value read and checked by itself.
//!
//! It must not know services.

use crate::config::address;
use crate::config::fields::Fields;
use crate::config::keys;
use crate::config::problem::{Draft, Span, grouped};
use crate::config::values;
use crate::config::words::quoted;
use crate::flow::{NatPoolSettings, Pooling};
use ipnet::IpNet;
use serde_spanned::Spanned;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use toml::de::DeTable;

/// The words for which address of a pool a client's flows get.
pub(crate) const POOLING: [(&str, Pooling); 2] = [("paired", Pooling::Paired), ("arbitrary", Pooling::Arbitrary)];

/// One `[[nat-pool]]`.
pub(crate) struct RawNatPool {
    pub(crate) name: Option<Spanned<String>>,
    pub(crate) settings: NatPoolSettings,
    /// The texts that named the addresses: first and last address of each.
    pub(crate) places: Vec<Spanned<(IpAddr, IpAddr)>>,
    /// Whether every value of it could be read.
    pub(crate) is_whole: bool,
}

impl RawNatPool {
    /// Whether it has IPv4 addresses, and whether it has IPv6 addresses.
    pub(crate) fn families(&self) -> [bool; 2] {
        [!self.settings.v4.is_empty(), !self.settings.v6.is_empty()]
    }
}

/// Reads one `[[nat-pool]]`.
pub(crate) fn nat_pool(table: &DeTable<'_>, span: Span, drafts: &mut Vec<Draft>) -> RawNatPool {
    let mut fields = Fields::new(table, span, &keys::NAT_POOL, drafts);
    let name = values::name(&mut fields, "name = \"out\"");
    let places = addresses(&mut fields);
    let (first_port, last_port) = ports(&mut fields);
    let mut settings = NatPoolSettings {
        name: String::new(),
        v4: Vec::new(),
        v6: Vec::new(),
        first_port,
        last_port,
        hold: fields.duration_or_default("hold"),
        parity: fields.flag_or_default("keep-parity"),
        range_class: fields.flag_or_default("keep-range"),
        pooling: fields.choice("pooling", &POOLING).unwrap_or_default(),
    };
    keeps_range(&mut fields, &settings);
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

/// `keep-range` needs ports on both sides of 1024.
fn keeps_range(fields: &mut Fields<'_, '_>, settings: &NatPoolSettings) {
    let Some(place) = fields.key("keep-range").filter(|_| settings.range_class) else { return };
    let lacking = if settings.first_port >= 1024 {
        "below 1024"
    } else if settings.last_port < 1024 {
        "above 1023"
    } else {
        return;
    };
    let draft = Draft::error(place, format!("`keep-range` needs `ports` {lacking} too"));
    fields.drafts.push(draft.help("write `ports = \"512-65535\"`, or leave `keep-range` out (RFC 4787, REQ-3a)"));
}

/// Reads `"1024-65535"`.
fn ports(fields: &mut Fields<'_, '_>) -> (u16, u16) {
    let default = fields.default_text("ports");
    let text = values::text(fields, "ports", &format!("ports = \"{default}\""));
    let read = address::port_range(text.as_ref().map_or(default, |text| text.get_ref()));
    if let (Err(wrong), Some(text)) = (&read, &text) {
        fields.drafts.push(Draft::error(text.span(), wrong.title.as_str()).help(wrong.help.as_str()));
    }
    read.unwrap_or_default()
}

fn addresses(fields: &mut Fields<'_, '_>) -> Vec<Spanned<(IpAddr, IpAddr)>> {
    let form = "addresses = [\"10.0.2.100\", \"10.0.3.0/28\"]";
    let Some(value) = fields.required("addresses", form) else { return Vec::new() };
    let texts = fields.strings("addresses", value, form).unwrap_or_default();
    let most = fields.takes("addresses").most().unwrap_or(u64::MAX);
    let (mut all, mut count) = (Vec::new(), 0u128);
    for text in texts {
        match range(text.get_ref()) {
            Err((title, help)) => fields.drafts.push(Draft::error(text.span(), title).help(help)),
            Ok((first, last)) => {
                count = count.saturating_add(size(first, last));
                if count > u128::from(most) {
                    let title = format!("more than {} addresses in a NAT pool", grouped(most as usize));
                    let help = format!(
                        "allowed: {}, each good for 64,512 flows per protocol; spread the services over several NAT pools",
                        fields.takes("addresses")
                    );
                    fields.drafts.push(Draft::error(text.span(), title).help(help));
                    return Vec::new();
                }
                all.push(Spanned::new(text.span(), (first, last)));
            }
        }
    }
    if all.is_empty() && fields.is_clean() {
        let draft = Draft::error(value.span(), "a NAT pool needs an address");
        fields.drafts.push(draft.help(format!("name at least one, such as `{form}`")));
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

/// Reads an address, a network, or `first-last`.
fn range(text: &str) -> Result<(IpAddr, IpAddr), (String, String)> {
    let forms = "write an address, a network such as \"10.0.3.0/28\", or a range such as \"10.0.3.1-10.0.3.9\"";
    let wrong =
        || (format!("{} is not an address, a network or a range of addresses", quoted(text)), forms.to_string());
    let (first, last) = if let Some((first, last)) = text.split_once('-') {
        let parse = |text: &str| text.trim().parse::<IpAddr>().map_err(|_| wrong());
        (parse(first)?, parse(last)?)
    } else if let Ok(address) = text.parse::<IpAddr>() {
        (address, address)
    } else {
        let net = text.parse::<IpNet>().map_err(|_| wrong())?;
        if net.trunc() != net {
            return Err(values::host_bits(net, &net.trunc().to_string(), &net.addr().to_string()));
        }
        (net.network(), net.broadcast())
    };
    if first.is_ipv4() != last.is_ipv4() {
        return Err((format!("{} mixes IPv4 and IPv6", quoted(text)), forms.to_string()));
    }
    if first > last {
        return Err((format!("the range {} is reversed", quoted(text)), format!("write \"{last}-{first}\"")));
    }
    for end in [first, last] {
        if let Some(why) = address::unusable(end) {
            let help = "use unicast addresses that the servers' network routes to this gateway";
            return Err((format!("{end} cannot be a source address: {why}"), help.into()));
        }
    }
    Ok((first, last))
}
