//! The tables `[[service]]` and `[service.sticky]`: each value read and checked by itself, and which keys have an effect
//! with the chosen algorithm and the chosen kind of stickiness.
//!
//! It must not know pools.

use super::timeouts::{self, RawTimeouts};
use crate::balance::{
    Algorithm, LastResort, Listen, Mss, OnDown, Prefixes, Priority, ServiceSettings, Stickiness, Tuning, UnknownTcp,
    is_prime,
};
use crate::config::address;
use crate::config::fields::Fields;
use crate::config::keys;
use crate::config::problem::{Draft, Span};
use crate::config::values;
use crate::ids::PoolId;
use ipnet::IpNet;
use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

/// The words for the priorities.
pub(crate) const PRIORITIES: [(&str, Priority); 3] =
    [("low", Priority::Low), ("normal", Priority::Normal), ("high", Priority::High)];

/// The words for what happens to a TCP packet of no flow.
pub(crate) const UNKNOWN_TCP: [(&str, UnknownTcp); 3] =
    [("reset", UnknownTcp::Reset), ("drop", UnknownTcp::Drop), ("adopt", UnknownTcp::Adopt)];
/// The words for what happens to the flows of a server that goes down.
pub(crate) const ON_DOWN: [(&str, Option<OnDown>); 3] =
    [("repick", None), ("keep", Some(OnDown::Keep)), ("reset", Some(OnDown::Reset))];
/// The words for what answers a new flow that no server can take.
pub(crate) const LAST_RESORTS: [(&str, LastResort); 3] =
    [("drop", LastResort::Drop), ("reset", LastResort::Reset), ("unreachable", LastResort::Unreachable)];

/// One `[[service]]`.
pub(crate) struct RawService {
    pub(crate) name: Option<Spanned<String>>,
    pub(crate) listen: Vec<Spanned<Listen>>,
    pub(crate) pool: Option<Spanned<String>>,
    /// What depends on no other table.
    pub(crate) settings: ServiceSettings,
    /// `None` where its word is wrong.
    pub(crate) algorithm: Option<Algorithm>,
    /// The place of `algorithm`, if present.
    pub(crate) algorithm_place: Option<Span>,
    /// The place of `maglev-table`, if present.
    pub(crate) table_place: Option<Span>,
    pub(crate) last_resort_pool: Option<Spanned<String>>,
    /// The place that asks for connections to be adopted, if any.
    pub(crate) adopts: Option<Span>,
    /// The NAT pool, with full NAT only.
    pub(crate) nat_pool: Option<Spanned<String>>,
    /// The clients that full NAT is for; empty: all.
    pub(crate) nat_for: Vec<IpNet>,
    pub(crate) timeouts: Vec<RawTimeouts>,
    pub(crate) group: Option<Spanned<String>>,
    /// Whether every value of it could be read.
    pub(crate) is_whole: bool,
}

/// What counts as one client.
#[derive(Clone, Copy, PartialEq)]
enum Client {
    /// Each connection.
    Connection,
    /// Its address.
    Address,
    /// The network that its address is in.
    Network,
}

/// Reads one `[[service]]`.
pub(crate) fn service(table: &DeTable<'_>, span: Span, drafts: &mut Vec<Draft>) -> RawService {
    let mut fields = Fields::new(table, span, &keys::SERVICE, drafts);
    let name = values::name(&mut fields, "name = \"web\"");
    let listen = listens(&mut fields);
    let pool = fields.required("pool", "pool = \"web\"");
    let pool = pool.and_then(|value| fields.string("pool", value, "pool = \"web\""));
    let algorithm = fields.choice("algorithm", &Algorithm::ALL.map(|a| (a.name(), a)));
    fields.only_one_of(&["last-resort", "last-resort-pool"]);
    let settings = settings(&mut fields, algorithm);
    let last_resort_pool = values::text(&mut fields, "last-resort-pool", "last-resort-pool = \"sorry\"");
    let (nat_pool, nat_for) = nat(&mut fields);
    let (algorithm_place, table_place) = (fields.key("algorithm"), fields.key("maglev-table"));
    let (sticky, group) = sticky(&mut fields);
    let timeouts = timeouts::entries(&mut fields);
    let adopts = adopts(&mut fields, settings.unknown_tcp, algorithm, nat_pool.is_some() && nat_for.is_empty());
    let is_whole = fields.is_clean();
    let settings = ServiceSettings { sticky, ..settings };
    RawService {
        name,
        listen,
        pool,
        settings,
        algorithm,
        algorithm_place,
        table_place,
        last_resort_pool,
        adopts,
        nat_pool,
        nat_for,
        timeouts,
        group,
        is_whole,
    }
}

fn settings(fields: &mut Fields<'_, '_>, algorithm: Option<Algorithm>) -> ServiceSettings {
    ServiceSettings {
        enabled: fields.flag_or_default("enabled"),
        algorithm: algorithm.unwrap_or_default(),
        tuning: tuning(fields, algorithm),
        on_down: fields.choice("on-down", &ON_DOWN).flatten(),
        last_resort: fields.choice("last-resort", &LAST_RESORTS).unwrap_or_default(),
        unknown_tcp: fields.choice("unknown-tcp", &UNKNOWN_TCP).unwrap_or_default(),
        priority: fields.choice("priority", &PRIORITIES).unwrap_or_default(),
        mss: mss(fields).unwrap_or_default(),
        ..ServiceSettings::new("", Vec::new(), PoolId(0))
    }
}

/// Reads `nat` and what belongs to it: the NAT pool's name, and the clients that full NAT is for.
fn nat(fields: &mut Fields<'_, '_>) -> (Option<Spanned<String>>, Vec<IpNet>) {
    let full = fields.choice("nat", &[("destination", false), ("full", true)]);
    let help = "write `nat = \"full\"` to translate the source too, or remove the key";
    for key in ["nat-pool", "full-nat-for"] {
        fields.fits(key, full != Some(false), "with nat = \"destination\"", help);
    }
    if full != Some(true) {
        return (None, Vec::new());
    }
    let form = "nat-pool = \"out\"";
    let pool = fields.required("nat-pool", form);
    let pool = pool.and_then(|value| fields.string("nat-pool", value, form));
    let networks = values::networks(fields, "full-nat-for").into_iter().map(Spanned::into_inner).collect();
    (pool, networks)
}

/// Reads `mss-clamp`: "off", "auto" or a number of bytes.
fn mss(fields: &mut Fields<'_, '_>) -> Option<Mss> {
    match fields.value("mss-clamp").map(|value| value.get_ref()) {
        None | Some(DeValue::String(_)) => fields.choice("mss-clamp", &[("off", Mss::Off), ("auto", Mss::Auto)]),
        Some(_) => fields.count("mss-clamp").map(Mss::To),
    }
}

/// Refuses to adopt connections where their server could not be found again; returns the place that asks for it.
fn adopts(
    fields: &mut Fields<'_, '_>,
    unknown_tcp: UnknownTcp,
    algorithm: Option<Algorithm>,
    full_nat: bool,
) -> Option<Span> {
    let finds = algorithm.is_none_or(|algorithm| matches!(algorithm, Algorithm::SourceHash | Algorithm::Maglev));
    let place = fields.value("unknown-tcp").filter(|_| unknown_tcp == UnknownTcp::Adopt)?.span();
    if !finds {
        let name = algorithm.unwrap_or_default().name();
        let title = format!("`unknown-tcp = \"adopt\"` cannot be combined with algorithm \"{name}\"");
        let help = "a connection whose flow was lost must go to the same server again: use the algorithm \"maglev\" or \
                    \"source-hash\", or write \"reset\" or \"drop\"";
        fields.drafts.push(Draft::error(place.clone(), title).help(help));
    }
    if full_nat {
        let title = "`unknown-tcp = \"adopt\"` cannot be combined with full NAT";
        let help = "a server knows a connection by its source, which is lost with the flow: write \"reset\" or \"drop\", or \
                    limit full NAT to the clients that need it by `full-nat-for`";
        fields.drafts.push(Draft::error(place.clone(), title).help(help));
    }
    (finds && !full_nat).then_some(place)
}

fn listens(fields: &mut Fields<'_, '_>) -> Vec<Spanned<Listen>> {
    let form = "listen = \"192.0.2.80:80/tcp\"";
    let Some(value) = fields.required("listen", form) else { return Vec::new() };
    let Some(texts) = fields.strings("listen", value, form) else { return Vec::new() };
    if value.get_ref().as_array().is_some_and(|items| items.is_empty()) {
        let draft = Draft::error(value.span(), "a service needs a listen address");
        fields.drafts.push(draft.help(format!("write at least one, such as `{form}`")));
    }
    let mut all = Vec::with_capacity(texts.len());
    for text in texts {
        match address::listen(text.get_ref()) {
            Ok(listens) => all.extend(listens.into_iter().map(|listen| Spanned::new(text.span(), listen))),
            Err(wrong) => fields.drafts.push(Draft::error(text.span(), wrong.title).help(wrong.help)),
        }
    }
    all
}

/// Reads the parameters of the algorithm. Where its word is wrong (`None`), no key is out of place.
fn tuning(fields: &mut Fields<'_, '_>, algorithm: Option<Algorithm>) -> Tuning {
    use Algorithm::{ConnectionRate, Maglev, SourceHash};
    let mut tuning = Tuning::default();
    let with = format!("with algorithm \"{}\"", algorithm.unwrap_or_default().name());
    let help = "use the algorithm \"connection-rate\", or remove the key";
    if fields.fits("rate-window", algorithm.is_none_or(|a| a == ConnectionRate), &with, help) {
        tuning.rate_window = fields.duration_or_default("rate-window");
    }
    let help = "use the algorithm \"maglev\", or remove the key";
    if fields.fits("maglev-table", algorithm.is_none_or(|a| a == Maglev), &with, help) {
        tuning.maglev_table = maglev_table(fields);
    }
    let (flow, address, network) =
        (("flow", Client::Connection), ("address", Client::Address), ("network", Client::Network));
    let words = if algorithm == Some(SourceHash) { &[address, network][..] } else { &[flow, address, network] };
    let hashed = algorithm.is_none_or(|algorithm| matches!(algorithm, SourceHash | Maglev));
    let hashing = "use the algorithm \"source-hash\" or \"maglev\", or remove the key";
    let hash = match fields.fits("hash", hashed, &with, hashing) {
        true => fields.word("hash", words),
        false => Some(words[0].1),
    };
    let keys = ["hash-ipv4-prefix", "hash-ipv6-prefix"];
    if !hashed {
        for key in keys {
            fields.fits(key, false, &with, hashing);
        }
        return tuning;
    }
    tuning.hash = prefixes(fields, keys, hash, "hash");
    tuning
}

/// Reads what makes one client; none: each connection by itself. Prefix lengths need a `word` of "network"; where that
/// word is wrong (`client` is `None`), they are not out of place.
fn prefixes(fields: &mut Fields<'_, '_>, keys: [&str; 2], client: Option<Client>, word: &str) -> Option<Prefixes> {
    let fits = client.is_none_or(|client| client == Client::Network);
    let with = format!("with this `{word}`");
    let help = format!("write `{word} = \"network\"`, or remove the key");
    for key in keys {
        fields.fits(key, fits, &with, &help);
    }
    match client {
        Some(Client::Connection) => None,
        Some(Client::Address) => Some(Prefixes::ADDRESS),
        Some(Client::Network) | None => Some(values::prefixes(fields, keys)),
    }
}

fn maglev_table(fields: &mut Fields<'_, '_>) -> u32 {
    let size: u32 = fields.count_or_default("maglev-table");
    if let (false, Some(value)) = (is_prime(size), fields.value("maglev-table")) {
        let most = fields.takes("maglev-table").most().map_or(size, |most| most as u32);
        let below = (2..size).rev().find(|n| is_prime(*n));
        let nearest = below.into_iter().chain((size..=most).find(|n| is_prime(*n)));
        let nearest: Vec<String> = nearest.map(|n| n.to_string()).collect();
        let draft = Draft::error(value.span(), format!("`maglev-table` must be a prime number, which {size} is not"));
        let help = format!("the nearest are {}; 65537 and 655373 are the usual ones", nearest.join(" and "));
        fields.drafts.push(draft.help(help));
    }
    size
}

/// Reads `[service.sticky]`; the second value is the group's name.
fn sticky(service: &mut Fields<'_, '_>) -> (Option<Stickiness>, Option<Spanned<String>>) {
    let Some((table, span)) = service.table(&keys::STICKY) else { return (None, None) };
    let mut fields = Fields::new(table, span, &keys::STICKY, service.drafts);
    let words = [("address", Client::Address), ("network", Client::Network), ("connection", Client::Connection)];
    let by = fields.choice("by", &words);
    if by == Some(Client::Connection) {
        for key in keys::STICKY.keys.iter().filter(|key| key.name != "by") {
            let help = "each connection is by itself: write \"address\" or \"network\", or remove the key";
            fields.fits(key.name, false, "with by = \"connection\"", help);
        }
        return (None, None);
    }
    let prefixes = prefixes(&mut fields, ["ipv4-prefix", "ipv6-prefix"], by, "by").unwrap_or(Prefixes::ADDRESS);
    let (idle, slots) = (fields.duration_or_default("idle"), fields.count_or_default("slots"));
    let form = "group = \"shop\"";
    let group = fields.value("group").and_then(|value| values::name_of(&mut fields, "group", value, form));
    (Some(Stickiness { prefixes, idle, slots, group: 0 }), group)
}
