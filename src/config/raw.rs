//! The file's tables as they are written: each value read and checked by itself, with its place.
//!
//! It must not compare one value with another; that is `check.rs`.

use super::address;
use super::fields::{Fields, did_you_mean, list, quoted};
use super::problem::{Draft, Span};
use super::raw_gateway;
use super::settings::GatewaySettings;
use crate::balance::{Algorithm, Listen, UnknownTcp};
use crate::flow::TableSettings;
use serde_spanned::Spanned;
use std::net::IpAddr;
use toml::de::DeTable;

/// Characters of a name at most.
const LONGEST_NAME: usize = 64;

/// The whole file.
pub(super) struct Raw {
    pub(super) seed: u64,
    pub(super) table: TableSettings,
    pub(super) gateway: GatewaySettings,
    /// Device addresses with their places.
    pub(super) device_addresses: Vec<Spanned<IpAddr>>,
    pub(super) pools: Vec<RawPool>,
    pub(super) services: Vec<RawService>,
    /// Whether any service stands in the file, well written or not.
    pub(super) has_services: bool,
    /// Whether the array of pools itself could be read.
    pub(super) pools_are_whole: bool,
}

/// One `[[pool]]`.
pub(super) struct RawPool {
    pub(super) span: Span,
    /// `None` where it was missing or wrong.
    pub(super) name: Option<Spanned<String>>,
    pub(super) servers: Vec<RawServer>,
    /// Whether every server of it could be read; where not, nothing is concluded from what it lacks.
    pub(super) is_whole: bool,
}

/// One `[[pool.server]]`.
pub(super) struct RawServer {
    pub(super) name: Option<Spanned<String>>,
    /// At most one of each family.
    pub(super) addresses: Vec<Spanned<IpAddr>>,
    pub(super) port: Option<u16>,
    pub(super) weight: Spanned<u16>,
}

/// One `[[service]]`.
pub(super) struct RawService {
    pub(super) name: Option<Spanned<String>>,
    pub(super) listen: Vec<Spanned<Listen>>,
    pub(super) pool: Option<Spanned<String>>,
    pub(super) algorithm: Algorithm,
    pub(super) unknown_tcp: UnknownTcp,
}

/// Reads the top of the file and all below it.
pub(super) fn read(root: &DeTable<'_>, drafts: &mut Vec<Draft>) -> Raw {
    let known = ["seed", "gateway", "flows", "timeouts", "pool", "service"];
    let mut fields = Fields::new(root, 0..0, "the top level", &known, drafts);
    let seed = fields.number("seed", 0..=u64::MAX).map_or(0, Spanned::into_inner);
    let (gateway, device_addresses) = raw_gateway::gateway(&mut fields);
    let table = TableSettings {
        max_flows: raw_gateway::max_flows(&mut fields).unwrap_or(TableSettings::default().max_flows),
        timeouts: raw_gateway::timeouts(&mut fields),
    };
    let errors = fields.drafts.len();
    let pool_tables = fields.tables("pool", "[[pool]]");
    let pools_are_whole = fields.drafts.len() == errors;
    let pools = pool_tables.into_iter().map(|(table, span)| pool(table, span, fields.drafts)).collect();
    let has_services = fields.value("service").is_some();
    let service_tables = fields.tables("service", "[[service]]");
    let services = service_tables.into_iter().map(|(table, span)| service(table, span, fields.drafts)).collect();
    Raw { seed, table, gateway, device_addresses, pools, services, has_services, pools_are_whole }
}

fn pool(table: &DeTable<'_>, span: Span, drafts: &mut Vec<Draft>) -> RawPool {
    let mut fields = Fields::new(table, span.clone(), "[[pool]]", &["name", "server"], drafts);
    let name = name(&mut fields, "name = \"web\"");
    let errors = fields.drafts.len();
    let tables = fields.tables("server", "[[pool.server]]");
    let mut is_whole = fields.drafts.len() == errors;
    let mut servers = Vec::with_capacity(tables.len());
    for (table, span) in tables {
        let (server, whole) = server(table, span, fields.drafts);
        is_whole &= whole;
        servers.push(server);
    }
    RawPool { span, name, servers, is_whole }
}

fn server(table: &DeTable<'_>, span: Span, drafts: &mut Vec<Draft>) -> (RawServer, bool) {
    let known = ["name", "address", "port", "weight"];
    let mut fields = Fields::new(table, span.clone(), "[[pool.server]]", &known, drafts);
    let name = name(&mut fields, "name = \"web-1\"");
    let addresses = server_addresses(&mut fields);
    let port = fields.number("port", 1..=65_535).map(|port| *port.get_ref() as u16);
    let weight = fields.number("weight", 0..=65_535);
    let weight = weight.map_or(Spanned::new(span.clone(), 1), |w| Spanned::new(w.span(), *w.get_ref() as u16));
    let whole = fields.is_clean();
    (RawServer { name, addresses, port, weight }, whole)
}

fn server_addresses(fields: &mut Fields<'_, '_>) -> Vec<Spanned<IpAddr>> {
    let form = "address = \"10.0.2.11\"";
    let forms = "write \"10.0.2.11\", \"2001:db8::11\", or an array of one of each; the port is a key of its own";
    let Some(value) = fields.required("address", form) else { return Vec::new() };
    let Some(texts) = fields.strings("address", value, form) else { return Vec::new() };
    if texts.is_empty() && value.get_ref().as_array().is_some_and(|items| items.is_empty()) {
        fields.drafts.push(Draft::error(value.span(), "a server needs an address").help(forms));
    }
    let mut addresses: Vec<Spanned<IpAddr>> = Vec::with_capacity(texts.len());
    for text in texts {
        let Ok(address) = text.get_ref().parse::<IpAddr>() else {
            let title = format!("{} is not an IP address", quoted(text.get_ref()));
            fields.drafts.push(Draft::error(text.span(), title).help(forms));
            continue;
        };
        let twin = addresses.iter().find(|other| other.get_ref().is_ipv4() == address.is_ipv4());
        if let Some(why) = address::unusable(address) {
            let title = format!("{address} cannot be a server address: {why}");
            fields.drafts.push(
                Draft::error(text.span(), title)
                    .help("use the unicast address by which this gateway reaches the server"),
            );
        } else if let Some(twin) = twin {
            let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
            let draft = Draft::error(text.span(), format!("a server has two {family} addresses"))
                .also(twin.span(), "the first")
                .help("give each address a [[pool.server]] of its own; only one IPv4 and one IPv6 address make one server");
            fields.drafts.push(draft);
        } else {
            addresses.push(Spanned::new(text.span(), address));
        }
    }
    addresses
}

fn service(table: &DeTable<'_>, span: Span, drafts: &mut Vec<Draft>) -> RawService {
    let known = ["name", "listen", "pool", "algorithm", "unknown-tcp"];
    let mut fields = Fields::new(table, span, "[[service]]", &known, drafts);
    let name = name(&mut fields, "name = \"web\"");
    let listen = service_listen(&mut fields);
    let pool = fields.required("pool", "pool = \"web\"");
    let pool = pool.and_then(|value| fields.string("pool", value, "pool = \"web\""));
    let algorithms = [("round-robin", Algorithm::RoundRobin)];
    let algorithm = fields.word("algorithm", &algorithms).unwrap_or_default();
    let unknown_tcp = fields.word("unknown-tcp", &[("reset", UnknownTcp::Reset), ("drop", UnknownTcp::Drop)]);
    RawService { name, listen, pool, algorithm, unknown_tcp: unknown_tcp.unwrap_or_default() }
}

fn service_listen(fields: &mut Fields<'_, '_>) -> Vec<Spanned<Listen>> {
    let form = "listen = \"192.0.2.80:80/tcp\"";
    let Some(value) = fields.required("listen", form) else { return Vec::new() };
    let Some(texts) = fields.strings("listen", value, form) else { return Vec::new() };
    if value.get_ref().as_array().is_some_and(|items| items.is_empty()) {
        let draft = Draft::error(value.span(), "a service that listens on nothing");
        fields.drafts.push(draft.help(format!("write at least one address, such as `{form}`")));
    }
    let mut all = Vec::with_capacity(texts.len());
    for text in texts {
        match address::listen(text.get_ref()) {
            Ok(listen) => all.push(Spanned::new(text.span(), listen)),
            Err(wrong) => fields.drafts.push(Draft::error(text.span(), wrong.title).help(wrong.help)),
        }
    }
    all
}

/// The name of a pool, server or service. Names stand in tables, labels and command lines, so
/// nothing that would need quotes there is part of one.
fn name(fields: &mut Fields<'_, '_>, form: &str) -> Option<Spanned<String>> {
    let value = fields.required("name", form)?;
    let name = fields.string("name", value, form)?;
    let text = name.get_ref();
    let sound = text.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if sound && (1..=LONGEST_NAME).contains(&text.chars().count()) {
        return Some(name);
    }
    let help = format!("1 to {LONGEST_NAME} letters, digits, \"-\", \"_\" and \".\" are allowed");
    fields.drafts.push(Draft::error(name.span(), format!("{} is not a name", quoted(text))).help(help));
    None
}

/// The error for a service whose pool is not in the file.
pub(super) fn unknown_pool(name: &Spanned<String>, pools: &[&str]) -> Draft {
    let help = match pools {
        [] => "add a [[pool]] with that name".to_string(),
        _ => format!("{}pools in this file: {}", did_you_mean(name.get_ref(), pools.iter().copied()), list(pools)),
    };
    Draft::error(name.span(), format!("there is no pool {}", quoted(name.get_ref()))).help(help)
}
