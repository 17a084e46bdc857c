//! The tables `[[pool]]`, `[[pool.server]]` and `[pool.passive]`: each value read and checked by itself.
//!
//! It must not know services.

use super::monitor::{self, RawMonitor};
use crate::balance::{Admin, Passive, ServerSettings};
use crate::config::fields::{Fields, found};
use crate::config::problem::{Draft, Span};
use crate::config::values::{self, OnePerFamily};
use crate::health::settings::Floor;
use crate::ids::PoolId;
use crate::time::Duration;
use serde_spanned::Spanned;
use std::net::IpAddr;
use toml::de::{DeTable, DeValue};

/// Most flows that a limit can name; the table holds no more.
pub(crate) const MOST_FLOWS: u64 = 100_000_000;
/// Longest time over which a weight can rise.
const LONGEST_START: Duration = Duration::from_secs(86_400);

/// One `[[pool]]`.
pub(crate) struct RawPool {
    pub(crate) span: Span,
    /// `None` where it was missing or wrong.
    pub(crate) name: Option<Spanned<String>>,
    pub(crate) servers: Vec<RawServer>,
    /// Whether every server of it could be read; where not, nothing is concluded from what it lacks.
    pub(crate) is_whole: bool,
    pub(crate) passive: Option<RawPassive>,
    pub(crate) floor: Option<Spanned<Floor>>,
    /// MTU of the way to its servers.
    pub(crate) mtu: Option<Spanned<u16>>,
    pub(crate) monitors: Vec<RawMonitor>,
    /// Whether the array of monitors itself could be read.
    pub(crate) monitors_are_whole: bool,
}

impl RawPool {
    /// Where it is named, or where it stands.
    pub(crate) fn place(&self) -> Span {
        self.name.as_ref().map_or(self.span.clone(), Spanned::span)
    }
}

/// One `[[pool.server]]`.
pub(crate) struct RawServer {
    pub(crate) name: Option<Spanned<String>>,
    /// At most one of each family.
    pub(crate) addresses: Vec<Spanned<IpAddr>>,
    /// Where `weight` stands, or the server.
    pub(crate) weight_place: Span,
    /// Where `priority` stands, if it does.
    pub(crate) priority_place: Option<Span>,
    /// What needs no other table.
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
    /// Where both stand in the file: `hold` and `longest`.
    pub(crate) places: Option<(Span, Span)>,
}

/// Reads one `[[pool]]`.
pub(crate) fn pool(table: &DeTable<'_>, span: Span, drafts: &mut Vec<Draft>) -> RawPool {
    let known = ["name", "slow-start", "floor", "mtu", "passive", "monitor", "server"];
    let mut fields = Fields::new(table, span.clone(), "[[pool]]", &known, drafts);
    let name = values::name(&mut fields, "name = \"web\"");
    let slow_start = slow_start(&mut fields).unwrap_or_default();
    let (floor, passive) = (floor(&mut fields), passive(&mut fields));
    let mtu = fields.number("mtu", 576..=65_535).map(|mtu| Spanned::new(mtu.span(), mtu.into_inner() as u16));
    let errors = fields.drafts.len();
    let tables = fields.tables("server", "[[pool.server]]");
    let mut is_whole = fields.drafts.len() == errors;
    let mut servers = Vec::with_capacity(tables.len());
    for (table, span) in tables {
        let (server, whole) = server(table, span, slow_start, fields.drafts);
        is_whole &= whole;
        servers.push(server);
    }
    let errors = fields.drafts.len();
    let tables = fields.tables("monitor", "[[pool.monitor]]");
    let monitors_are_whole = fields.drafts.len() == errors;
    let monitors = tables.into_iter().map(|(table, span)| monitor::monitor(table, span, fields.drafts)).collect();
    RawPool { span, name, servers, is_whole, passive, floor, mtu, monitors, monitors_are_whole }
}

fn slow_start(fields: &mut Fields<'_, '_>) -> Option<Duration> {
    fields.duration_in("slow-start", Duration::ZERO..=LONGEST_START).map(Spanned::into_inner)
}

/// A number of servers, or a share of them in percent.
fn floor(fields: &mut Fields<'_, '_>) -> Option<Spanned<Floor>> {
    let value = fields.value("floor")?;
    let forms = "write the number of servers that stay in, such as 1, or their share, such as \"50%\"";
    let draft = match value.get_ref() {
        DeValue::Integer(_) => {
            let count = fields.number_of("floor", value, 1..=u64::from(u32::MAX))?;
            return Some(Spanned::new(value.span(), Floor::Count(*count.get_ref() as u32)));
        }
        DeValue::String(text) => {
            let percent = text.strip_suffix('%').filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            match percent.and_then(|percent| percent.parse().ok()) {
                Some(percent @ 1..=100) => return Some(Spanned::new(value.span(), Floor::Percent(percent))),
                _ => Draft::error(value.span(), "`floor` is no share of 1% to 100%"),
            }
        }
        other => Draft::error(value.span(), "`floor` must be a number or a share").label(found(other)),
    };
    fields.drafts.push(draft.help(forms));
    None
}

/// Reads `[pool.passive]`. Of `hold` and `longest`, one that is absent follows the other as far as it must.
fn passive(pool: &mut Fields<'_, '_>) -> Option<RawPassive> {
    let (table, span) = pool.table("passive", "[pool.passive]")?;
    let known = ["failures", "within", "hold", "longest"];
    let mut fields = Fields::new(table, span, "[pool.passive]", &known, pool.drafts);
    let limits = || Duration::from_millis(100)..=Duration::from_secs(86_400);
    let default = Passive::default();
    let failures = fields.count("failures", 1..=1000).unwrap_or(default.failures);
    let within = fields.duration_in("within", limits()).map_or(default.within, Spanned::into_inner);
    let (hold, longest) = (fields.duration_in("hold", limits()), fields.duration_in("longest", limits()));
    let places = hold.as_ref().zip(longest.as_ref()).map(|(hold, longest)| (hold.span(), longest.span()));
    let (hold, longest) = match (hold.map(Spanned::into_inner), longest.map(Spanned::into_inner)) {
        (Some(hold), None) => (hold, default.longest.max(hold)),
        (None, Some(longest)) => (default.hold.min(longest), longest),
        (hold, longest) => (hold.unwrap_or(default.hold), longest.unwrap_or(default.longest)),
    };
    Some(RawPassive { settings: Passive { failures, within, hold, longest }, places })
}

fn server(table: &DeTable<'_>, span: Span, slow: Duration, drafts: &mut Vec<Draft>) -> (RawServer, bool) {
    let known = ["name", "address", "port", "weight", "max-flows", "slow-start", "backup", "priority", "state"];
    let mut fields = Fields::new(table, span.clone(), "[[pool.server]]", &known, drafts);
    let name = values::name(&mut fields, "name = \"web-1\"");
    let addresses = match fields.required("address", ADDRESSES.form) {
        Some(value) => values::one_per_family(&mut fields, value, &ADDRESSES),
        None => Vec::new(),
    };
    let words = [("enabled", Admin::Enabled), ("draining", Admin::Draining), ("disabled", Admin::Disabled)];
    let default = ServerSettings::new("", PoolId(0));
    let settings = ServerSettings {
        port: fields.count("port", 1..=65_535),
        weight: fields.count("weight", 0..=65_535).unwrap_or(default.weight),
        max_flows: fields.count("max-flows", 1..=MOST_FLOWS),
        slow_start: slow_start(&mut fields).unwrap_or(slow),
        backup: fields.flag("backup").unwrap_or(default.backup),
        priority: fields.count("priority", 1..=65_535).unwrap_or(default.priority),
        admin: fields.word("state", &words).unwrap_or(default.admin),
        ..default
    };
    let weight_place = fields.value("weight").map_or(span, |weight| weight.span());
    let priority_place = fields.value("priority").map(|priority| priority.span());
    let whole = fields.is_clean();
    (RawServer { name, addresses, weight_place, priority_place, settings }, whole)
}

const ADDRESSES: OnePerFamily = OnePerFamily {
    key: "address",
    form: "address = \"10.0.2.11\"",
    forms: "write \"10.0.2.11\", \"2001:db8::11\", or an array of one of each; the port is a key of its own",
    owner: "a server",
    role: "a server address",
    remedy: "use the unicast address by which this gateway reaches the server",
    second: "give each address a [[pool.server]] of its own; only one IPv4 and one IPv6 address make one server",
};
