//! The tables `[[pool.monitor]]`: what all types share. Contradictions within one monitor are found by
//! `health::settings`; here each gets its place in the file.
//!
//! It must not know pools.

use super::probe;
use crate::config::fields::Fields;
use crate::config::keys;
use crate::config::problem::{Draft, Span};
use crate::config::values;
use crate::config::words::{list, quoted};
use crate::health::settings::{MonitorSettings, Probe, ProbeKind};
use crate::state::Health;
use serde_spanned::Spanned;
use toml::de::DeTable;

/// One `[[pool.monitor]]`.
pub(crate) struct RawMonitor {
    /// Its name, or its type where it has none.
    pub(crate) name: Option<Spanned<String>>,
    pub(crate) span: Span,
    /// `None` where its type is missing or wrong.
    pub(crate) settings: Option<MonitorSettings>,
}

impl RawMonitor {
    /// The place of its name, or of the table where it has none.
    pub(crate) fn place(&self) -> Span {
        self.name.as_ref().map_or(self.span.clone(), Spanned::span)
    }
}

/// The words for the health of a server before the first verdict.
pub(crate) const INITIAL: [(&str, Health); 3] =
    [("up", Health::Up), ("down", Health::Down), ("unknown", Health::Unknown)];

/// Reads one `[[pool.monitor]]`.
pub(crate) fn monitor(table: &DeTable<'_>, span: Span, drafts: &mut Vec<Draft>) -> RawMonitor {
    let mut fields = Fields::new(table, span.clone(), &keys::MONITOR, drafts);
    let words = ProbeKind::ALL.map(|kind| (kind.name(), kind));
    let kind = fields.required("type", "type = \"tcp\"").and_then(|_| fields.word("type", &words));
    let form = "name = \"web-page\"";
    let name = match fields.value("name") {
        Some(value) => values::name_of(&mut fields, "name", value, form),
        None => kind.zip(fields.value("type")).map(|(kind, value)| Spanned::new(value.span(), kind.name().to_string())),
    };
    let Some(kind) = kind else { return RawMonitor { name, span, settings: None } };
    for (key, when) in keys::MONITOR.keys.iter().filter_map(|key| Some((key.name, key.when?))) {
        let help = match when.is {
            [kind] => format!("use type {}, or remove the key", quoted(kind)),
            types => format!("use one of the types {}, or remove the key", list(types)),
        };
        fields.fits(key, when.is.contains(&kind.name()), &format!("with type {}", quoted(kind.name())), &help);
    }
    let probe = match kind {
        ProbeKind::Http => probe::http(&mut fields),
        ProbeKind::Udp => probe::udp(&mut fields),
        ProbeKind::Dns => probe::dns(&mut fields),
        ProbeKind::Tcp => Probe::Tcp,
        ProbeKind::Icmp => Probe::Icmp,
    };
    let settings = common(&mut fields, name.as_ref().map_or(kind.name(), |name| name.get_ref().as_str()), probe);
    if fields.is_clean() {
        contradictions(&mut fields, &settings);
    }
    RawMonitor { name, span, settings: Some(settings) }
}

fn common(fields: &mut Fields<'_, '_>, name: &str, probe: Probe) -> MonitorSettings {
    MonitorSettings {
        name: name.into(),
        // With ICMP the key has already been refused.
        ports: if probe == Probe::Icmp { Vec::new() } else { ports(fields) },
        probe,
        interval: fields.duration_or_default("interval"),
        timeout: fields.duration_or_default("timeout"),
        samples: fields.count_or_default("samples"),
        max_lost: fields.count("max-lost"),
        max_latency: fields.duration("max-latency").map(Spanned::into_inner),
        fall: fields.count_or_default("fall"),
        rise: fields.count_or_default("rise"),
        initial: fields.choice("initial", &INITIAL).unwrap_or_default(),
        jitter_percent: fields.count_or_default("jitter"),
    }
}

/// Reads single ports: each is one more probe per server.
fn ports(fields: &mut Fields<'_, '_>) -> Vec<u16> {
    let ranges = values::port_ranges(fields, "ports");
    let single = ranges.iter().all(|(first, last)| first == last);
    if let (false, Some(value)) = (single, fields.value("ports")) {
        let draft = Draft::error(value.span(), "a monitor probes single ports, not ranges");
        fields.drafts.push(draft.help("list them: `ports = [80, 443]`"));
    }
    ranges.into_iter().map(|(first, _)| first).collect()
}

/// Reports what the settings themselves find wrong, each at the key that it names.
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
        // An error of a regular expression shows the expression first; its last line says what is wrong.
        let text = text.lines().last().unwrap_or(text).trim_start_matches("error: ");
        let colon = if text.starts_with("must") { "" } else { ":" };
        let value = fields.key(key).and_then(|_| fields.value(key)).map(|value| value.span());
        let draft = Draft::error(value.unwrap_or(fields.span.clone()), format!("`{key}`{colon} {text}"));
        let help = help(key, text, fields);
        fields.drafts.push(draft.help(help));
    }
}

fn help(key: &str, text: &str, fields: &Fields<'_, '_>) -> String {
    let default = |key| keys::MONITOR.key(key).map(|key| key.default.to_string()).unwrap_or_default();
    match key {
        "load-regex" if text.contains("group `load`") => "for example 'load=(?<load>[0-9]+)'".into(),
        "expect-regex" | "load-regex" => {
            "the syntax is that of the Rust crate `regex`, over bytes: ASCII classes, no look-around, no \
             backreferences; in single quotes no backslash has to be doubled"
                .into()
        }
        "max-latency" => {
            format!("`timeout` is {} by default; without `max-latency` no latency is too high", default("timeout"))
        }
        "max-lost" => {
            format!("`samples` is {} by default; without `max-lost` only failures in a row count", default("samples"))
        }
        "path" => format!("the default is {}", default("path")),
        "headers" => "write `headers = { \"X-Probe\" = \"1\" }`; the request must fit in one packet".into(),
        "query" => "write a name in ASCII, such as \"www.example.com\"".into(),
        "payload" | "payload-hex" => format!("allowed: {}", fields.takes(key)),
        _ => "see the example configuration".into(),
    }
}
