//! Timeouts as they are written, `[timeouts]` and `[[service.timeouts]]`, and the profiles that they make.
//!
//! It must not know the other keys of a service.

use super::service::RawService;
use crate::balance::{Listen, PortTimeouts, Protocol};
use crate::config::fields::Fields;
use crate::config::keys;
use crate::config::problem::{Draft, Span};
use crate::config::values;
use crate::flow::{MOST_PROFILES, Timeouts};
use crate::time::Duration;
use std::collections::BTreeSet;
use toml::de::DeTable;

/// The keys, in the order of the fields of [`Timeouts`].
pub(crate) const KEYS: [&str; 7] =
    ["tcp-opening", "tcp-established", "tcp-closing", "tcp-reset", "udp-one-way", "udp-two-way", "icmp"];
/// The last of the ports whose UDP flows may be shorter-lived (RFC 4787, REQ-5a).
const LAST_WELL_KNOWN: u16 = 1023;

/// Ports on which a UDP exchange is a question and an answer, and how long its flow lives by default (RFC 4787, REQ-5a):
/// longer than clients of the protocol wait for an answer.
const WELL_KNOWN: [(u16, Duration); 3] =
    [(53, Duration::from_secs(30)), (123, Duration::from_secs(60)), (161, Duration::from_secs(60))];

/// The timeouts that one table gives, in the order of [`KEYS`].
type Given = [Option<Duration>; KEYS.len()];

/// One `[[service.timeouts]]`.
pub(crate) struct RawTimeouts {
    span: Span,
    given: Given,
    /// Empty: all ports.
    ports: Vec<(u16, u16)>,
    protocol: Option<Protocol>,
}

impl RawTimeouts {
    fn matches(&self, protocol: Protocol, port: u16) -> bool {
        let of_port = |range: &(u16, u16)| values::has_ports(protocol) && range.0 <= port && port <= range.1;
        self.protocol.is_none_or(|own| own == protocol) && (self.ports.is_empty() || self.ports.iter().any(of_port))
    }
}

/// Warns of entries for ports on which their service does not listen.
pub(crate) fn unused(service: &RawService, drafts: &mut Vec<Draft>) {
    for entry in service.timeouts.iter().filter(|entry| !entry.ports.is_empty()) {
        let listens = |listen: &Listen| {
            let overlaps = |range: &(u16, u16)| range.0 <= listen.last_port && listen.first_port <= range.1;
            values::has_ports(listen.protocol)
                && entry.protocol.is_none_or(|own| own == listen.protocol)
                && entry.ports.iter().any(overlaps)
        };
        if !service.listen.iter().any(|listen| listens(listen.get_ref())) {
            let title = "these timeouts have no effect: the service does not listen on any of the ports";
            let help = "`ports` are those in `listen`, not those of the servers; correct them, or remove the table";
            drafts.push(Draft::warning(entry.span.clone(), title).help(help));
        }
    }
}

/// Reads `[timeouts]`; a timeout shorter than an RFC asks for is used, with a warning.
pub(crate) fn timeouts(top: &mut Fields<'_, '_>) -> Timeouts {
    let empty = DeTable::new();
    let (table, span) = top.table(&keys::TIMEOUTS).unwrap_or((&empty, 0..0));
    let mut fields = Fields::new(table, span, &keys::TIMEOUTS, top.drafts);
    let [opening, established, closing, reset, udp_one_way, udp_two_way, icmp] =
        KEYS.map(|key| fields.default_duration(key));
    let mut timeouts = Timeouts { opening, established, closing, reset, udp_one_way, udp_two_way, icmp };
    lay_over(&mut timeouts, &given(&mut fields, &[]));
    timeouts
}

/// Reads the entries of one service.
pub(crate) fn entries(service: &mut Fields<'_, '_>) -> Vec<RawTimeouts> {
    let tables = service.tables(&keys::SERVICE_TIMEOUTS);
    tables.into_iter().map(|(table, span)| entry(table, span, service.drafts)).collect()
}

fn entry(table: &DeTable<'_>, span: Span, drafts: &mut Vec<Draft>) -> RawTimeouts {
    let mut fields = Fields::new(table, span.clone(), &keys::SERVICE_TIMEOUTS, drafts);
    let protocol = values::protocol(&mut fields, "protocol").flatten();
    let with = protocol.map(|protocol| format!("with protocol \"{}\"", protocol.name())).unwrap_or_default();
    let help = "this protocol has no ports: name another protocol, or remove the key";
    fields.fits("ports", protocol.is_none_or(values::has_ports), &with, help);
    let ports = values::port_ranges(&mut fields, "ports");
    if let Some(protocol) = protocol {
        for key in KEYS.iter().filter(|key| !key.starts_with(family(protocol))) {
            let help = "it belongs to another protocol: move the key to a table of its own, or remove it";
            fields.fits(key, false, &with, help);
        }
    }
    let given = given(&mut fields, &ports);
    if fields.is_clean() && given.iter().all(Option::is_none) {
        let help = format!("add one of {}, or remove the table", KEYS.join(", "));
        fields.drafts.push(Draft::error(span.clone(), "[[service.timeouts]] sets no timeout").help(help));
    }
    RawTimeouts { span, given, ports, protocol }
}

/// What the keys of a protocol's timeouts begin with: anything but TCP and ICMP is timed like UDP.
pub(crate) fn family(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp | Protocol::Icmp => protocol.name(),
        _ => Protocol::Udp.name(),
    }
}

/// Reads the timeouts of a table that applies to `ports`; empty: all.
fn given(fields: &mut Fields<'_, '_>, ports: &[(u16, u16)]) -> Given {
    let well_known = !ports.is_empty() && ports.iter().all(|range| range.1 <= LAST_WELL_KNOWN);
    KEYS.map(|key| {
        let timeout = fields.duration(key)?;
        let recommended = keys::TIMEOUTS.key(key).and_then(|key| key.recommended);
        if let Some(recommended) = recommended.filter(|r| *timeout.get_ref() < r.least)
            && !(well_known && key.starts_with("udp"))
        {
            let least = keys::duration(recommended.least);
            let title = format!("`{key}` is shorter than {least}, the minimum in {}", recommended.source);
            let help = "live flows that are silent for that long are cut off; the value is used as it is";
            fields.drafts.push(Draft::warning(timeout.span(), title).help(help));
        }
        Some(timeout.into_inner())
    })
}

fn lay_over(timeouts: &mut Timeouts, given: &Given) {
    let Timeouts { opening, established, closing, reset, udp_one_way, udp_two_way, icmp } = timeouts;
    let places = [opening, established, closing, reset, udp_one_way, udp_two_way, icmp];
    for (place, given) in places.into_iter().zip(given) {
        *place = given.unwrap_or(*place);
    }
}

/// Gives each service its profiles, and returns those other than `base`; equal ones are merged.
pub(crate) fn resolve(services: &mut [RawService], base: &Timeouts, drafts: &mut Vec<Draft>) -> Vec<Timeouts> {
    let mut profiles = vec![*base];
    for service in services {
        // In the order of the settings' rows; SCTP too, which a rule may bring without a listen address.
        let listens = service.listen.iter().map(|listen| listen.get_ref().protocol);
        let named = service.timeouts.iter().filter_map(|entry| entry.protocol);
        let usual = [Protocol::Tcp, Protocol::Udp, Protocol::Icmp, Protocol::Sctp];
        let protocols: BTreeSet<_> = usual.into_iter().chain(listens).chain(named).collect();
        for protocol in protocols {
            if of_protocol(service, protocol, &mut profiles).is_none() {
                let span = service.timeouts.first().map_or(0..0, |entry| entry.span.clone());
                let title = format!("there are more than {MOST_PROFILES} different sets of timeouts");
                drafts.push(Draft::error(span, title).help("give more ports and services the same timeouts"));
                return Vec::new();
            }
        }
    }
    profiles.split_off(1)
}

/// Returns the ports of a service whose timeouts are short by default, and how short.
pub(crate) fn well_known<'a>(
    listens: impl Iterator<Item = &'a Listen> + Clone,
    protocol: Protocol,
) -> Vec<(u16, Duration)> {
    let listens =
        |port: u16| listens.clone().any(|on| on.protocol == protocol && (on.first_port..=on.last_port).contains(&port));
    WELL_KNOWN.into_iter().filter(|(port, _)| protocol == Protocol::Udp && listens(*port)).collect()
}

/// Makes the profiles of a service for one protocol; `None` where there are too many.
fn of_protocol(service: &mut RawService, protocol: Protocol, profiles: &mut Vec<Timeouts>) -> Option<()> {
    // Tables with ports win over those without, and earlier ones over later ones: the winner is laid over last.
    let (all, some): (Vec<_>, Vec<_>) = service.timeouts.iter().partition(|entry| entry.ports.is_empty());
    let order: Vec<&RawTimeouts> = some.into_iter().chain(all).rev().collect();
    let well_known = well_known(service.listen.iter().map(|listen| listen.get_ref()), protocol);
    let mut starts: Vec<u32> = vec![0, 1 << 16];
    starts.extend(well_known.iter().flat_map(|(port, _)| [u32::from(*port), u32::from(*port) + 1]));
    for (first, last) in order.iter().flat_map(|entry| &entry.ports) {
        starts.extend([u32::from(*first), u32::from(*last) + 1]);
    }
    starts.sort_unstable();
    starts.dedup();
    for pair in starts.windows(2) {
        let (first_port, last_port) = (pair[0] as u16, (pair[1] - 1) as u16);
        let mut timeouts = profiles[0];
        for (_, short) in well_known.iter().filter(|(port, _)| (first_port..=last_port).contains(port)) {
            timeouts.udp_one_way = timeouts.udp_one_way.min(*short);
            timeouts.udp_two_way = timeouts.udp_two_way.min(*short);
        }
        order
            .iter()
            .filter(|entry| entry.matches(protocol, first_port))
            .for_each(|e| lay_over(&mut timeouts, &e.given));
        let known = profiles.iter().position(|profile| *profile == timeouts);
        let profile = known.unwrap_or(profiles.len());
        if profile > MOST_PROFILES {
            return None;
        }
        if known.is_none() {
            profiles.push(timeouts);
        }
        if profile != 0 {
            service.settings.timeouts.push(PortTimeouts { protocol, first_port, last_port, profile: profile as u8 });
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse_with_warnings;

    const REST: &str = "[[pool]]\nname='p'\nserver=[{name='s',address='10.0.0.1'}]\n[[service]]\nname='x'\nlisten='192.0.2.80:1-9999/udp'\npool='p'\n";

    #[test]
    fn for_each_key_the_first_entry_with_the_port_wins_then_one_without_ports_then_the_global_one() {
        let text = format!(
            "[timeouts]\nicmp='99s'\n{REST}[[service.timeouts]]\nprotocol='gre'\nudp-two-way='240s'\n\
             [[service.timeouts]]\nudp-one-way='200s'\nudp-two-way='210s'\n\
             [[service.timeouts]]\nports=53\nudp-one-way='30s'\n\
             [[service.timeouts]]\nports='50-60'\nprotocol='udp'\nudp-one-way='40s'\nudp-two-way='41s'\n"
        );
        let parsed = parse_with_warnings(&text, "x.toml").expect("valid");
        assert_eq!(parsed.warnings.len(), 0, "RFC 4787, REQ-5a");
        let (table, service) = (&parsed.settings.table, &parsed.settings.services[0]);
        for (protocol, port, one, two) in [
            (Protocol::Udp, 53, 30, 41),
            (Protocol::Udp, 50, 40, 41),
            (Protocol::Udp, 60, 40, 41),
            (Protocol::Udp, 61, 200, 210),
            (Protocol::Udp, 49, 200, 210),
            (Protocol::Udp, 65_535, 200, 210),
            (Protocol::Tcp, 53, 30, 210),
            (Protocol::Icmp, 53, 200, 210),
            (Protocol::Sctp, 53, 30, 210),
            (Protocol::Sctp, 54, 200, 210),
            (Protocol::Ip(47), 0, 200, 240),
        ] {
            let t = table.profiles[usize::from(service.profile(protocol, port)) - 1];
            let got = [t.udp_one_way, t.udp_two_way, t.icmp].map(|d| d.as_secs());
            assert_eq!(got, [one, two, 99], "{protocol:?} {port}");
        }
        assert_eq!(table.profiles.len(), 5, "equal ones are merged");
    }

    #[test]
    fn questions_to_well_known_ports_live_shortly_unless_the_file_says_otherwise() {
        let rest =
            REST.replace("1-9999/udp", "53/udp','192.0.2.80:53/tcp','192.0.2.80:100-200/udp','192.0.2.80:443/udp");
        let rest = rest.replace("listen='", "listen=['").replace("443/udp'", "443/udp']");
        let of = |file: &str, protocol, port| {
            let settings = parse_with_warnings(file, "x.toml").expect("valid").settings;
            let profile = settings.services[0].profile(protocol, port);
            let all: Vec<_> = std::iter::once(settings.table.timeouts).chain(settings.table.profiles).collect();
            [all[usize::from(profile)].udp_one_way, all[usize::from(profile)].udp_two_way].map(|span| span.as_secs())
        };
        for (port, want) in [(53, 30), (123, 60), (161, 60), (124, 300), (443, 300)] {
            assert_eq!(of(&rest, Protocol::Udp, port), [want; 2], "{port}");
        }
        assert_eq!(of(&rest, Protocol::Tcp, 53), [300; 2]);
        let short = format!("[timeouts]\nudp-two-way='45s'\n{rest}");
        assert_eq!((of(&short, Protocol::Udp, 53), of(&short, Protocol::Udp, 123)), ([30, 30], [60, 45]));
        let own = format!("{rest}[[service.timeouts]]\nports=53\nudp-two-way='5m'\n");
        assert_eq!(of(&own, Protocol::Udp, 53), [30, 300]);
    }

    #[test]
    fn keys_without_effect_are_refused_and_short_timeouts_get_a_warning() {
        for (lines, errors, warnings) in [
            ("udp-one-way='119s'", 0, 1),
            ("ports='53'\nudp-one-way='1s'", 0, 0),
            ("ports='1023-1024'\nudp-one-way='119s'", 0, 1),
            ("ports='53'\ntcp-established='1h'", 0, 1),
            ("ports='53'", 1, 0),
            ("", 1, 0),
            ("ports='0'\nicmp='60s'", 1, 0),
            ("ports='9-8'\nicmp='60s'", 1, 0),
            ("protocol='icmp'\nports='53'\nicmp='60s'", 1, 0),
            ("protocol='tcp'\nudp-one-way='300s'", 1, 0),
            ("protocol='sctp'\nports='53'\nudp-one-way='300s'", 0, 1),
            ("ports=10000\nudp-one-way='300s'", 0, 1),
            ("protocol='sctp'\ntcp-opening='300s'", 1, 0),
            ("protocol='ip-89'\nudp-one-way='300s'", 0, 0),
            ("protocol='esp'\nports='53'\nudp-one-way='300s'", 1, 0),
            ("protocol='ip-51'\nudp-one-way='300s'", 1, 0),
            ("udp='300s'", 1, 0),
        ] {
            let got = parse_with_warnings(&format!("{REST}[[service.timeouts]]\n{lines}\n"), "x.toml");
            let counts = match &got {
                Ok(parsed) => (0, parsed.warnings.len()),
                Err(error) => (error.problems().len(), 0),
            };
            assert_eq!(counts, (errors, warnings), "{lines}");
        }
    }

    #[test]
    fn the_number_of_different_sets_of_timeouts_is_limited() {
        // Two of the 255 are those of well-known ports.
        for (count, valid) in [(253, true), (254, false)] {
            let entry = |at: u32| format!("[[service.timeouts]]\nports={}\nudp-one-way='{}s'\n", 1000 + at, 300 + at);
            let text: String = std::iter::once(REST.to_string()).chain((1..=count).map(entry)).collect();
            let got = parse_with_warnings(&text, "x.toml");
            assert_eq!(got.is_ok(), valid, "{count}");
        }
    }
}
