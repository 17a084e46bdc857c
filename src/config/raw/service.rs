//! The tables `[[service]]` and `[service.sticky]`: each value read and checked by itself, and which
//! keys the chosen algorithm and the chosen kind of stickiness leave a meaning.
//!
//! It must not know pools.

use super::timeouts::{self, RawTimeouts};
use crate::balance::{
    Algorithm, LastResort, Listen, Mss, OnDown, Prefixes, Priority, ServiceSettings, Stickiness, Tuning, UnknownTcp,
    is_prime,
};
use crate::config::address;
use crate::config::fields::Fields;
use crate::config::problem::{Draft, Span};
use crate::config::values;
use crate::ids::PoolId;
use crate::time::Duration;
use ipnet::IpNet;
use serde_spanned::Spanned;
use toml::de::DeTable;

/// The words for the classes.
pub(crate) const CLASSES: [(&str, Priority); 3] =
    [("low", Priority::Low), ("normal", Priority::Normal), ("high", Priority::High)];
/// What counts as one client where that is its network.
const NETWORK: Prefixes = Prefixes { v4: 24, v6: 64 };
/// Most entries of a Maglev table: 64 MiB of them.
const MOST_ENTRIES: u64 = 1 << 24;
/// Most clients that a service remembers.
const MOST_SLOTS: u64 = 100_000_000;

/// One `[[service]]`.
pub(crate) struct RawService {
    pub(crate) name: Option<Spanned<String>>,
    pub(crate) listen: Vec<Spanned<Listen>>,
    pub(crate) pool: Option<Spanned<String>>,
    /// What needs no other table; the algorithm is `None` where its word is wrong.
    pub(crate) settings: ServiceSettings,
    pub(crate) algorithm: Option<Algorithm>,
    /// Where `algorithm` stands, if it does.
    pub(crate) algorithm_place: Option<Span>,
    /// Where `maglev-table` stands, if it does.
    pub(crate) table_place: Option<Span>,
    pub(crate) last_resort_pool: Option<Spanned<String>>,
    /// Where it says that connections are adopted, if it does.
    pub(crate) adopts: Option<Span>,
    /// The NAT pool, with full NAT alone.
    pub(crate) nat_pool: Option<Spanned<String>>,
    /// The clients that full NAT is for; none are all.
    pub(crate) nat_for: Vec<IpNet>,
    pub(crate) timeouts: Vec<RawTimeouts>,
    pub(crate) group: Option<Spanned<String>>,
    /// Whether every value of it could be read.
    pub(crate) is_whole: bool,
}

/// Reads one `[[service]]`.
pub(crate) fn service(table: &DeTable<'_>, span: Span, drafts: &mut Vec<Draft>) -> RawService {
    let known = [
        "name",
        "listen",
        "pool",
        "algorithm",
        "rate-window",
        "maglev-table",
        "hash",
        "hash-ipv4-prefix",
        "hash-ipv6-prefix",
        "sticky",
        "on-down",
        "last-resort",
        "last-resort-pool",
        "class",
        "unknown-tcp",
        "mss-clamp",
        "nat",
        "nat-pool",
        "full-nat-for",
        "timeouts",
    ];
    let mut fields = Fields::new(table, span, "[[service]]", &known, drafts);
    let name = values::name(&mut fields, "name = \"web\"");
    let listen = listens(&mut fields);
    let pool = fields.required("pool", "pool = \"web\"");
    let pool = pool.and_then(|value| fields.string("pool", value, "pool = \"web\""));
    let algorithm = fields.word_or("algorithm", &Algorithm::ALL.map(|a| (a.name(), a)), Algorithm::default());
    let unknown_tcp = [("reset", UnknownTcp::Reset), ("drop", UnknownTcp::Drop), ("adopt", UnknownTcp::Adopt)];
    let on_down = [("repick", None), ("keep", Some(OnDown::Keep)), ("reset", Some(OnDown::Reset))];
    let last_resort =
        [("drop", LastResort::Drop), ("reset", LastResort::Reset), ("unreachable", LastResort::Unreachable)];
    fields.only_one_of(&["last-resort", "last-resort-pool"]);
    let settings = ServiceSettings {
        algorithm: algorithm.unwrap_or_default(),
        tuning: tuning(&mut fields, algorithm),
        on_down: fields.word("on-down", &on_down).flatten(),
        last_resort: fields.word("last-resort", &last_resort).unwrap_or_default(),
        unknown_tcp: fields.word("unknown-tcp", &unknown_tcp).unwrap_or_default(),
        priority: fields.word("class", &CLASSES).unwrap_or_default(),
        mss: mss(&mut fields).unwrap_or_default(),
        ..ServiceSettings::new("", Vec::new(), PoolId(0))
    };
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

/// Reads `nat` and what belongs to it: the NAT pool's name, and the clients that full NAT is for.
fn nat(fields: &mut Fields<'_, '_>) -> (Option<Spanned<String>>, Vec<IpNet>) {
    let full = fields.word_or("nat", &[("destination", false), ("full", true)], false);
    let help = "write `nat = \"full\"` to translate the source too, or remove it";
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
    if fields.value("mss-clamp")?.get_ref().as_str().is_some() {
        return fields.word("mss-clamp", &[("off", Mss::Off), ("auto", Mss::Auto)]);
    }
    // RFC 9293, 3.7.1: without the option an end sends 536 bytes.
    fields.count("mss-clamp", 536..=65_495).map(Mss::To)
}

/// A connection can be adopted only where its server can be found again. Gives the place that asks for it.
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
        let title = format!("`unknown-tcp = \"adopt\"` cannot go with algorithm \"{name}\"");
        let help = "a connection whose flow is lost must go to the same server again: choose the algorithm \"maglev\" or \
                    \"source-hash\", or write \"reset\" or \"drop\"";
        fields.drafts.push(Draft::error(place.clone(), title).help(help));
    }
    if full_nat {
        let title = "`unknown-tcp = \"adopt\"` cannot go with full NAT";
        let help = "a server knows a connection by its source, which is lost with the flow: write \"reset\" or \"drop\", or \
                    name those that full NAT is for in `full-nat-for`";
        fields.drafts.push(Draft::error(place.clone(), title).help(help));
    }
    (finds && !full_nat).then_some(place)
}

fn listens(fields: &mut Fields<'_, '_>) -> Vec<Spanned<Listen>> {
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
            Ok(listens) => all.extend(listens.into_iter().map(|listen| Spanned::new(text.span(), listen))),
            Err(wrong) => fields.drafts.push(Draft::error(text.span(), wrong.title).help(wrong.help)),
        }
    }
    all
}

/// What the algorithm is told. Where its word is wrong (`None`), no key is out of place.
fn tuning(fields: &mut Fields<'_, '_>, algorithm: Option<Algorithm>) -> Tuning {
    use Algorithm::{ConnectionRate, Maglev, SourceHash};
    let mut tuning = Tuning::default();
    let with = format!("with algorithm \"{}\"", algorithm.unwrap_or_default().name());
    let hashed = algorithm.is_none_or(|algorithm| matches!(algorithm, SourceHash | Maglev));
    let hashing = "it belongs to the algorithms \"source-hash\" and \"maglev\": choose one of them, or remove it";
    let help = "it belongs to the algorithm \"connection-rate\": choose that, or remove it";
    if fields.fits("rate-window", algorithm.is_none_or(|a| a == ConnectionRate), &with, help) {
        let limits = Duration::from_millis(100)..=Duration::from_secs(3600);
        let window = fields.duration_in("rate-window", limits);
        tuning.rate_window = window.map_or(tuning.rate_window, Spanned::into_inner);
    }
    let help = "it belongs to the algorithm \"maglev\": choose that, or remove it";
    if fields.fits("maglev-table", algorithm.is_none_or(|a| a == Maglev), &with, help) {
        tuning.maglev_table = maglev_table(fields).unwrap_or(tuning.maglev_table);
    }
    let (flow, address, network) = (None, Some(Prefixes::ADDRESS), Some(NETWORK));
    let default = if algorithm == Some(SourceHash) { address } else { flow };
    let hash = if fields.fits("hash", hashed, &with, hashing) {
        let words = [("flow", flow), ("address", address), ("network", network)];
        let words = if algorithm == Some(SourceHash) { &words[1..] } else { &words[..] };
        fields.word_or("hash", words, default)
    } else {
        Some(default)
    };
    tuning.hash = hash.unwrap_or(default);
    let keys = ["hash-ipv4-prefix", "hash-ipv6-prefix"];
    if !hashed {
        for key in keys {
            fields.fits(key, false, &with, hashing);
        }
    } else if prefixes_fit(fields, keys, hash.is_none_or(|hash| hash == network), "hash") {
        tuning.hash = Some(values::prefixes(fields, keys, NETWORK));
    }
    tuning
}

/// Whether there are lengths of prefixes to read under two keys: they need a `word` of "network".
fn prefixes_fit(fields: &mut Fields<'_, '_>, keys: [&str; 2], fits: bool, word: &str) -> bool {
    let with = format!("with this `{word}`");
    let help =
        format!("write `{word} = \"network\"` to choose how many bits of a client's address count, or remove it");
    let [v4, v6] = keys.map(|key| fields.fits(key, fits, &with, &help));
    v4 || v6
}

fn maglev_table(fields: &mut Fields<'_, '_>) -> Option<u32> {
    let size = fields.number("maglev-table", 2..=MOST_ENTRIES)?;
    let number = *size.get_ref() as u32;
    if is_prime(number) {
        return Some(number);
    }
    let below = (2..number).rev().find(|n| is_prime(*n));
    let next = below.into_iter().chain((number..MOST_ENTRIES as u32).find(|n| is_prime(*n)));
    let next: Vec<String> = next.map(|n| n.to_string()).collect();
    let draft = Draft::error(size.span(), format!("`maglev-table` must be a prime, and {number} is none"));
    let help = format!("the nearest are {}; 65537 and 655373 are the usual ones", next.join(" and "));
    fields.drafts.push(draft.help(help));
    None
}

/// Reads `[service.sticky]`; the second value is the group's name.
fn sticky(service: &mut Fields<'_, '_>) -> (Option<Stickiness>, Option<Spanned<String>>) {
    let Some((table, span)) = service.table("sticky", "[service.sticky]") else { return (None, None) };
    let known = ["by", "ipv4-prefix", "ipv6-prefix", "idle", "slots", "group"];
    let mut fields = Fields::new(table, span, "[service.sticky]", &known, service.drafts);
    let words = [("address", Some(Prefixes::ADDRESS)), ("network", Some(NETWORK)), ("connection", None)];
    let by = fields.word_or("by", &words, Some(Prefixes::ADDRESS));
    if by == Some(None) {
        for key in &known[1..] {
            let help = "each connection is by itself: choose \"address\" or \"network\", or remove it";
            fields.fits(key, false, "with by = \"connection\"", help);
        }
        return (None, None);
    }
    let keys = ["ipv4-prefix", "ipv6-prefix"];
    let mut prefixes = by.flatten().unwrap_or(Prefixes::ADDRESS);
    if prefixes_fit(&mut fields, keys, by.is_none_or(|by| by == Some(NETWORK)), "by") {
        prefixes = values::prefixes(&mut fields, keys, NETWORK);
    }
    let idle = fields.duration("idle").map_or(Duration::from_secs(300), Spanned::into_inner);
    let slots = fields.count("slots", 1..=MOST_SLOTS).unwrap_or(65_536);
    let form = "group = \"shop\"";
    let group = fields.value("group").and_then(|value| values::name_of(&mut fields, "group", value, form));
    (Some(Stickiness { prefixes, idle, slots, group: 0 }), group)
}
