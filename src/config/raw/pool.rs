//! The tables `[[pool]]`, `[[pool.server]]` and `[pool.passive]`: each value read and checked by itself.
//!
//! It must not know services.

use super::monitor::{self, RawMonitor};
use crate::balance::{Admin, Passive, ServerSettings};
use crate::config::fields::{Fields, found};
use crate::config::keys;
use crate::config::problem::{Draft, Span};
use crate::config::values::{self, OnePerFamily};
use crate::config::words::quoted;
use crate::health::settings::Floor;
use crate::ids::PoolId;
use crate::sources::{self, From};
use crate::time::Duration;
use serde_spanned::Spanned;
use std::net::IpAddr;
use toml::de::{DeTable, DeValue};

/// The words for the administrative state of a server.
pub(crate) const STATES: [(&str, Admin); 3] =
    [("enabled", Admin::Enabled), ("draining", Admin::Draining), ("disabled", Admin::Disabled)];

/// One `[[pool]]`.
pub(crate) struct RawPool {
    pub(crate) span: Span,
    /// `None` where it is missing or wrong.
    pub(crate) name: Option<Spanned<String>>,
    pub(crate) servers: Vec<RawServer>,
    /// Whether every server of it is here and could be read; if not, nothing is concluded from what it lacks.
    pub(crate) is_whole: bool,
    pub(crate) passive: Option<RawPassive>,
    pub(crate) floor: Option<Spanned<Floor>>,
    /// Where it takes servers from besides the file.
    pub(crate) source: Option<RawSource>,
    /// Path MTU towards its servers.
    pub(crate) mtu: Option<Spanned<u16>>,
    pub(crate) monitors: Vec<RawMonitor>,
    /// Whether the array of monitors itself could be read.
    pub(crate) monitors_are_whole: bool,
}

impl RawPool {
    /// The place of its name, or of the table where it has none.
    pub(crate) fn place(&self) -> Span {
        self.name.as_ref().map_or(self.span.clone(), Spanned::span)
    }
}

/// Where a pool takes servers from besides the file.
pub(crate) struct RawSource {
    /// The place of the key that names it.
    pub(crate) place: Span,
    pub(crate) from: From,
    pub(crate) least: u32,
}

/// One `[[pool.server]]`.
pub(crate) struct RawServer {
    pub(crate) name: Option<Spanned<String>>,
    /// At most one of each family.
    pub(crate) addresses: Vec<Spanned<IpAddr>>,
    /// The place of `weight`, or of the server where it has none.
    pub(crate) weight_place: Span,
    /// The place of `priority`, if present.
    pub(crate) priority_place: Option<Span>,
    /// What depends on no other table.
    pub(crate) settings: ServerSettings,
}

impl RawServer {
    /// Whether it has an address of a family.
    pub(crate) fn has(&self, v4: bool) -> bool {
        self.addresses.iter().any(|address| address.get_ref().is_ipv4() == v4)
    }

    /// Whether it gets new flows at the start.
    pub(crate) fn takes_flows(&self) -> bool {
        self.settings.weight > 0 && self.settings.admin == Admin::Enabled
    }
}

/// `[pool.passive]`.
pub(crate) struct RawPassive {
    pub(crate) settings: Passive,
    /// The places of `hold` and `longest` where both are present.
    pub(crate) places: Option<(Span, Span)>,
}

/// Reads one `[[pool]]`.
pub(crate) fn pool(table: &DeTable<'_>, span: Span, drafts: &mut Vec<Draft>) -> RawPool {
    let mut fields = Fields::new(table, span.clone(), &keys::POOL, drafts);
    let name = values::name(&mut fields, "name = \"web\"");
    let slow_start = fields.duration_or_default("slow-start");
    let (floor, passive) = (floor(&mut fields), passive(&mut fields));
    let mtu = fields.number("mtu").map(|mtu| Spanned::new(mtu.span(), mtu.into_inner() as u16));
    let source = source(&mut fields);
    let is_alone = !["servers-file", "servers-dns"].into_iter().any(|key| fields.key(key).is_some());
    let errors = fields.drafts.len();
    let tables = fields.tables(&keys::SERVER);
    let mut is_whole = is_alone && fields.drafts.len() == errors;
    let mut servers = Vec::with_capacity(tables.len());
    for (table, span) in tables {
        let (server, whole) = server(table, span, slow_start, fields.drafts);
        is_whole &= whole;
        servers.push(server);
    }
    let errors = fields.drafts.len();
    let tables = fields.tables(&keys::MONITOR);
    let monitors_are_whole = fields.drafts.len() == errors;
    let monitors = tables.into_iter().map(|(table, span)| monitor::monitor(table, span, fields.drafts)).collect();
    RawPool { span, name, servers, is_whole, passive, floor, source, mtu, monitors, monitors_are_whole }
}

/// Reads where servers come from.
fn source(fields: &mut Fields<'_, '_>) -> Option<RawSource> {
    fields.only_one_of(&["servers-file", "servers-dns"]);
    let (file, dns) = (path(fields), name_in_dns(fields));
    let is_known = ["servers-file", "servers-dns"].into_iter().any(|key| fields.key(key).is_some());
    let help = "add `servers-file` or `servers-dns`, or remove this";
    let least = if fields.fits("servers-least", is_known, "without a source of servers", help) {
        fields.count_or_default("servers-least")
    } else {
        1
    };
    let has_ports = dns.as_ref().is_some_and(|name| name.get_ref().starts_with('_'));
    let by_address = fields.key("servers-dns").is_some() && !has_ports;
    let help = "SRV records and the lines of a file have a port of their own; remove this";
    let port = match fields.fits("servers-port", by_address, "on these servers", help) {
        true => fields.count("servers-port"),
        false => None,
    };
    let (place, from) = match (file, dns) {
        (Some(path), _) => (path.span(), From::File(path.into_inner().into())),
        (None, Some(name)) if has_ports => (name.span(), From::Services(name.into_inner())),
        (None, Some(name)) => (name.span(), From::Addresses { name: name.into_inner(), port }),
        (None, None) => return None,
    };
    Some(RawSource { place, from, least })
}

/// Reads `servers-file`.
fn path(fields: &mut Fields<'_, '_>) -> Option<Spanned<String>> {
    let path = values::text(fields, "servers-file", "servers-file = \"/etc/equipoise/web.servers\"")?;
    // The directory in which the gateway is started must not matter.
    if path.get_ref().starts_with('/') && !path.get_ref().contains('\0') && !path.get_ref().ends_with('/') {
        return Some(path);
    }
    let title = "`servers-file` is not an absolute path of a file";
    let help = format!("write {}, such as \"/etc/equipoise/web.servers\"", fields.takes("servers-file"));
    fields.drafts.push(Draft::error(path.span(), title).help(help));
    None
}

/// Reads `servers-dns`.
fn name_in_dns(fields: &mut Fields<'_, '_>) -> Option<Spanned<String>> {
    let name = values::text(fields, "servers-dns", "servers-dns = \"_web._tcp.example\"")?;
    if sources::is_name(name.get_ref()) {
        return Some(name);
    }
    let title = format!("{} is not a domain name", quoted(name.get_ref()));
    let help = "write \"_web._tcp.example\" for SRV records, or \"web.example\" for addresses";
    fields.drafts.push(Draft::error(name.span(), title).help(help));
    None
}

/// Reads a number of servers, or a percentage of them.
fn floor(fields: &mut Fields<'_, '_>) -> Option<Spanned<Floor>> {
    let value = fields.value("floor")?;
    let forms = "write the number of servers that stay in service, such as 1, or their share, such as \"50%\"";
    let draft = match value.get_ref() {
        DeValue::Integer(_) => {
            let count = fields.number_of("floor", value)?;
            return Some(Spanned::new(value.span(), Floor::Count(*count.get_ref() as u32)));
        }
        DeValue::String(text) => {
            let percent = text.strip_suffix('%').filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            match percent.and_then(|percent| percent.parse().ok()) {
                Some(percent @ 1..=100) => return Some(Spanned::new(value.span(), Floor::Percent(percent))),
                _ => Draft::error(value.span(), "`floor` is not a share from 1% to 100%"),
            }
        }
        other => Draft::error(value.span(), "`floor` must be a number or a share").label(found(other)),
    };
    fields.drafts.push(draft.help(forms));
    None
}

/// Reads `[pool.passive]`. Where only one of `hold` and `longest` is present, the default of the other gives way to it.
fn passive(pool: &mut Fields<'_, '_>) -> Option<RawPassive> {
    let (table, span) = pool.table(&keys::PASSIVE)?;
    let mut fields = Fields::new(table, span, &keys::PASSIVE, pool.drafts);
    let (failures, within) = (fields.count_or_default("failures"), fields.duration_or_default("within"));
    let defaults = ["hold", "longest"].map(|key| fields.default_duration(key));
    let (hold, longest) = (fields.duration("hold"), fields.duration("longest"));
    let places = hold.as_ref().zip(longest.as_ref()).map(|(hold, longest)| (hold.span(), longest.span()));
    let (hold, longest) = match (hold.map(Spanned::into_inner), longest.map(Spanned::into_inner)) {
        (Some(hold), None) => (hold, defaults[1].max(hold)),
        (None, Some(longest)) => (defaults[0].min(longest), longest),
        (hold, longest) => (hold.unwrap_or(defaults[0]), longest.unwrap_or(defaults[1])),
    };
    Some(RawPassive { settings: Passive { failures, within, hold, longest }, places })
}

/// Reads one `[[pool.server]]`; `slow` is the pool's `slow-start`. The second value is whether all of it could be read.
pub(crate) fn server(table: &DeTable<'_>, span: Span, slow: Duration, drafts: &mut Vec<Draft>) -> (RawServer, bool) {
    let mut fields = Fields::new(table, span.clone(), &keys::SERVER, drafts);
    let name = values::server_name(&mut fields, "name = \"web-1\"");
    let addresses = match fields.required("address", ADDRESSES.form) {
        Some(value) => values::one_per_family(&mut fields, value, &ADDRESSES),
        None => Vec::new(),
    };
    let settings = ServerSettings {
        port: fields.count("port"),
        weight: fields.count_or_default("weight"),
        max_flows: fields.count("max-flows"),
        slow_start: fields.duration("slow-start").map_or(slow, Spanned::into_inner),
        backup: fields.flag_or_default("backup"),
        priority: fields.count_or_default("priority"),
        admin: fields.choice("state", &STATES).unwrap_or_default(),
        ..ServerSettings::new("", PoolId(0))
    };
    let weight_place = fields.value("weight").map_or(span, |weight| weight.span());
    let priority_place = fields.value("priority").map(|priority| priority.span());
    let whole = fields.is_clean();
    (RawServer { name, addresses, weight_place, priority_place, settings }, whole)
}

const ADDRESSES: OnePerFamily = OnePerFamily {
    key: "address",
    form: "address = \"10.0.2.11\"",
    forms: "write \"10.0.2.11\", \"2001:db8::11\", or an array of one of each; the port has a key of its own",
    owner: "a server",
    role: "a server address",
    remedy: "use the unicast address at which this gateway reaches the server",
    second: "a server has at most one IPv4 and one IPv6 address: give each further address a [[pool.server]] of its own",
};
