//! The tables `[[pool.monitor]]`: what all types share. Ranges and contradictions within one monitor are
//! judged by `health::settings`; here each gets its place.
//!
//! It must not know pools.

use super::probe;
use crate::config::fields::{Fields, quoted};
use crate::config::problem::{Draft, Span};
use crate::config::values;
use crate::health::settings::{Initial, LEAST_INTERVAL, MOST_SAMPLES, MonitorSettings, Probe};
use crate::time::Duration;
use serde_spanned::Spanned;
use toml::de::DeTable;

/// Longest time between two probes, and longest wait for an answer.
const LONGEST: Duration = Duration::from_secs(86_400);

/// One `[[pool.monitor]]`.
pub(crate) struct RawMonitor {
    /// Its name, or its type where it has none.
    pub(crate) name: Option<Spanned<String>>,
    pub(crate) span: Span,
    /// `None` where its type is missing or wrong.
    pub(crate) settings: Option<MonitorSettings>,
}

impl RawMonitor {
    /// Where it is named, or where it stands.
    pub(crate) fn place(&self) -> Span {
        self.name.as_ref().map_or(self.span.clone(), Spanned::span)
    }
}

/// The types, and the keys that each has beside the common ones.
const TYPES: [(&str, &[&str]); 5] =
    [("icmp", &[]), ("tcp", &["ports"]), ("http", &probe::HTTP), ("udp", &probe::UDP), ("dns", &probe::DNS)];
const COMMON: [&str; 12] = [
    "name",
    "type",
    "interval",
    "timeout",
    "samples",
    "max-lost",
    "max-latency",
    "fall",
    "rise",
    "initial",
    "jitter",
    "ports",
];

/// Reads one `[[pool.monitor]]`.
pub(crate) fn monitor(table: &DeTable<'_>, span: Span, drafts: &mut Vec<Draft>) -> RawMonitor {
    let mut known = COMMON.to_vec();
    for key in TYPES.iter().flat_map(|(_, keys)| keys.iter()) {
        if !known.contains(key) {
            known.push(key);
        }
    }
    let mut fields = Fields::new(table, span.clone(), "[[pool.monitor]]", &known, drafts);
    let words = TYPES.map(|kind| (kind.0, kind));
    let kind = fields.required("type", "type = \"tcp\"").and_then(|_| fields.word("type", &words));
    let form = "name = \"web-page\"";
    let name = match fields.value("name") {
        Some(value) => values::name_of(&mut fields, "name", value, form),
        None => kind.zip(fields.value("type")).map(|(kind, value)| Spanned::new(value.span(), kind.0.to_string())),
    };
    let Some((word, own)) = kind else { return RawMonitor { name, span, settings: None } };
    for (key, types) in belongs() {
        let help = format!("it belongs to type {types}: choose that, or remove it");
        fields.fits(key, own.contains(&key), &format!("with type {}", quoted(word)), &help);
    }
    let probe = match word {
        "http" => probe::http(&mut fields),
        "udp" => probe::udp(&mut fields),
        "dns" => probe::dns(&mut fields),
        "tcp" => Probe::Tcp,
        _ => Probe::Icmp,
    };
    let settings = common(&mut fields, name.as_ref().map_or(word, |name| name.get_ref().as_str()), probe);
    if fields.is_clean() {
        contradictions(&mut fields, &settings);
    }
    RawMonitor { name, span, settings: Some(settings) }
}

/// Each key that only some types have, with these types as the operator writes them.
fn belongs() -> Vec<(&'static str, String)> {
    let mut keys: Vec<(&str, Vec<&str>)> = Vec::new();
    for (word, own) in TYPES {
        for key in own {
            match keys.iter_mut().find(|(known, _)| known == key) {
                Some((_, types)) => types.push(word),
                None => keys.push((key, vec![word])),
            }
        }
    }
    let or = |types: Vec<&str>| types.into_iter().map(quoted).collect::<Vec<_>>().join(" or ");
    keys.into_iter().map(|(key, types)| (key, or(types))).collect()
}

fn common(fields: &mut Fields<'_, '_>, name: &str, probe: Probe) -> MonitorSettings {
    let default = MonitorSettings::new(name, probe);
    let many = 1..=u64::from(u32::MAX);
    let initial = [("up", Initial::Up), ("down", Initial::Down), ("unknown", Initial::Unknown)];
    // A port of ICMP has been refused already.
    let ports = if default.probe == Probe::Icmp { Vec::new() } else { ports(fields) };
    let mut time = |key, least| fields.duration_in(key, least..=LONGEST).map(Spanned::into_inner);
    let least = Duration::from_millis(1);
    let (interval, timeout) = (time("interval", LEAST_INTERVAL), time("timeout", least));
    let max_latency = time("max-latency", least);
    MonitorSettings {
        ports,
        interval: interval.unwrap_or(default.interval),
        timeout: timeout.unwrap_or(default.timeout),
        max_latency,
        samples: fields.count("samples", 1..=u64::from(MOST_SAMPLES)).unwrap_or(default.samples),
        max_lost: fields.count("max-lost", 0..=u64::from(MOST_SAMPLES)),
        fall: fields.count("fall", many.clone()).unwrap_or(default.fall),
        rise: fields.count("rise", many).unwrap_or(default.rise),
        initial: fields.word("initial", &initial).unwrap_or_default(),
        jitter_percent: fields.count("jitter", 0..=50).unwrap_or(default.jitter_percent),
        ..default
    }
}

/// Single ports: each is one more probe a server.
fn ports(fields: &mut Fields<'_, '_>) -> Vec<u16> {
    let ranges = values::port_ranges(fields, "ports");
    let single = ranges.iter().all(|(first, last)| first == last);
    if let (false, Some(value)) = (single, fields.value("ports")) {
        let draft = Draft::error(value.span(), "a monitor probes single ports, no ranges");
        fields.drafts.push(draft.help("write them one by one: `ports = [80, 443]`"));
    }
    ranges.into_iter().map(|(first, _)| first).collect()
}

/// What the settings themselves say is wrong, each at the key that it begins with.
fn contradictions(fields: &mut Fields<'_, '_>, settings: &MonitorSettings) {
    for problem in settings.problems() {
        let (place, text) = match problem.split_once(": ") {
            Some((place, text)) if !place.contains(' ') => (place.replace('_', "-"), text),
            _ => ("expect-regex".to_string(), problem.as_str()),
        };
        let key = match (place.as_str(), &settings.probe) {
            ("name", Probe::Dns { .. }) => "query",
            ("load", _) => "load-regex",
            ("payload", _) if fields.value("payload").is_none() => "payload-hex",
            ("expect-regex", Probe::Http(http)) if http.expect.is_none() => "load-regex",
            (key, _) => key,
        };
        // An error of a regular expression draws the expression first; its last line says what is wrong.
        let text = text.lines().last().unwrap_or(text).trim_start_matches("error: ");
        let colon = if text.starts_with("must") { "" } else { ":" };
        let value = fields.value(key).map(|value| value.span());
        let draft = Draft::error(value.unwrap_or(fields.span.clone()), format!("`{key}`{colon} {text}"));
        let help = match key {
            "load-regex" if text.contains("group `load`") => "such as 'load=(?<load>[0-9]+)'",
            "expect-regex" | "load-regex" => {
                "the notation is that of the crate regex, over bytes: ASCII classes, no look-around, no \
                 back-references; single quotes spare doubling each backslash"
            }
            "max-latency" => "the default of `timeout` is \"3s\"; without `max-latency` none is too high",
            "max-lost" => "the default of `samples` is 10; without `max-lost` only failures in a row count",
            "path" => "the default is \"/\"",
            "headers" => "write `headers = { \"X-Probe\" = \"1\" }`; the request must fit one packet",
            "query" => "write a name in ASCII, such as \"www.example.com\"",
            _ => "see the example configuration",
        };
        fields.drafts.push(draft.help(help));
    }
}
