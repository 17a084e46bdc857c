//! The tables `[gateway]` and `[flows]`: each value read and checked by itself.
//!
//! It must not know services and pools.

use crate::config::address;
use crate::config::fields::Fields;
use crate::config::keys;
use crate::config::problem::{Draft, Span};
use crate::config::settings::GatewaySettings;
use crate::config::values::{self, OnePerFamily, v4, v6};
use crate::config::words::quoted;
use ipnet::IpNet;
use serde_spanned::Spanned;
use std::net::IpAddr;
use std::path::PathBuf;
use toml::de::DeTable;

/// `[gateway]`.
pub(crate) struct RawGateway {
    pub(crate) settings: GatewaySettings,
    /// Device addresses with their places.
    pub(crate) addresses: Vec<Spanned<IpAddr>>,
    /// Source addresses of probes, at most one of each family.
    pub(crate) probes: Vec<Spanned<IpAddr>>,
    /// Where `announce` is written.
    pub(crate) announce: Option<Span>,
    /// Whether `probe-address` is present and cannot be read.
    pub(crate) probes_are_wrong: bool,
}

/// Reads `[gateway]`.
pub(crate) fn gateway(top: &mut Fields<'_, '_>) -> RawGateway {
    let empty = DeTable::new();
    let (table, span) = top.table(&keys::GATEWAY).unwrap_or((&empty, 0..0));
    let mut fields = Fields::new(table, span, &keys::GATEWAY, top.drafts);
    let (nets, addresses) = addresses(&mut fields);
    let errors = fields.drafts.len();
    let probes = fields.value("probe-address");
    let probes = probes.map_or(Vec::new(), |value| values::one_per_family(&mut fields, value, &PROBES));
    let probes_are_wrong = fields.drafts.len() > errors;
    let device = values::interface(&mut fields, "device", "device = \"equipoise0\"");
    let device = device.map_or_else(|| fields.default_text("device").into(), Spanned::into_inner);
    let settings = GatewaySettings {
        device,
        offload: fields.flag_or_default("offload"),
        shortcut: fields.flag_or_default("shortcut"),
        mtu: fields.count_or_default("mtu"),
        client_mtu: fields.count("client-mtu"),
        addresses: nets,
        probe_v4: probes.iter().find_map(|address| v4(*address.get_ref())),
        probe_v6: probes.iter().find_map(|address| v6(*address.get_ref())),
        announce: fields.flag_or_default("announce"),
        keep_fallback: fields.flag_or_default("keep-fallback"),
        state_file: state_file(&mut fields),
        state_interval: fields.duration_or_default("state-interval"),
        control_socket: control_socket(&mut fields),
        route_table: route_table(&mut fields),
        rule_priority: fields.count_or_default("rule-priority"),
    };
    let announce = fields.key("announce");
    RawGateway { settings, addresses, probes, announce, probes_are_wrong }
}

const PROBES: OnePerFamily = OnePerFamily {
    key: "probe-address",
    form: "probe-address = \"192.0.2.1\"",
    forms: "write \"192.0.2.1\", \"2001:db8::1\", or an array of one of each",
    owner: "`probe-address`",
    role: "the source of probes",
    remedy: "use a unicast address that is routed to this gateway and assigned to no interface",
    second: "one address of each family serves all monitors; remove the other",
};

fn addresses(fields: &mut Fields<'_, '_>) -> (Vec<IpNet>, Vec<Spanned<IpAddr>>) {
    let form = "addresses = [\"192.0.2.1/24\"]";
    let (mut nets, mut places) = (Vec::new(), Vec::new());
    let Some(value) = fields.value("addresses") else { return (nets, places) };
    for text in fields.strings("addresses", value, form).unwrap_or_default() {
        let Ok(net) = text.get_ref().parse::<IpNet>() else {
            let title = format!("{} is not an address with a prefix length", quoted(text.get_ref()));
            fields.drafts.push(Draft::error(text.span(), title).help("write \"192.0.2.1/24\" or \"2001:db8::1/64\""));
            continue;
        };
        if let Some(why) = address::unusable(net.addr()) {
            let title = format!("{} cannot be an address of the device: {why}", net.addr());
            fields
                .drafts
                .push(Draft::error(text.span(), title).help("use a unicast address, or leave `addresses` out"));
        } else {
            nets.push(net);
            places.push(Spanned::new(text.span(), net.addr()));
        }
    }
    (nets, places)
}

fn control_socket(fields: &mut Fields<'_, '_>) -> PathBuf {
    let default = fields.default_text("control-socket");
    let form = format!("control-socket = \"{default}\"");
    let Some(path) = values::text(fields, "control-socket", &form) else { return default.into() };
    if !fields.length_fits("control-socket", path.get_ref().len()) || path.get_ref().contains('\0') {
        let title = "`control-socket` is not a valid socket path";
        let help = format!("allowed: {}, such as \"{default}\"", fields.takes("control-socket"));
        fields.drafts.push(Draft::error(path.span(), title).help(help));
    }
    path.into_inner().into()
}

fn state_file(fields: &mut Fields<'_, '_>) -> Option<PathBuf> {
    let path = values::text(fields, "state-file", "state-file = \"/var/lib/equipoise/state\"")?;
    let text = path.get_ref();
    if !fields.length_fits("state-file", text.len()) || text.ends_with('/') || text.contains('\0') {
        let title = "`state-file` is not the path of a file";
        let help = format!("allowed: {}, such as \"/var/lib/equipoise/state\"", fields.takes("state-file"));
        fields.drafts.push(Draft::error(path.span(), title).help(help));
    }
    Some(path.into_inner().into())
}

fn route_table(fields: &mut Fields<'_, '_>) -> u32 {
    let number = fields.count_or_default("route-table");
    if let (253..=255, Some(value)) = (number, fields.value("route-table")) {
        let title = format!("routing table {number} belongs to the system");
        let help = format!(
            "253 is \"default\", 254 \"main\", 255 \"local\"; use another number from {}",
            fields.takes("route-table")
        );
        fields.drafts.push(Draft::error(value.span(), title).help(help));
    }
    number
}

/// Reads `[flows]`: the most flows and half-open flows, and the most new ones per second.
pub(crate) fn flows(top: &mut Fields<'_, '_>) -> ((u32, u32), Option<u32>) {
    let empty = DeTable::new();
    let (table, span) = top.table(&keys::FLOWS).unwrap_or((&empty, 0..0));
    let mut fields = Fields::new(table, span, &keys::FLOWS, top.drafts);
    ((fields.count_or_default("max"), fields.count_or_default("half-open")), fields.count("rate"))
}

#[cfg(test)]
mod tests {
    use crate::config::settings::GatewaySettings;
    use crate::config::{AnswerSettings, parse_with_warnings};
    use crate::flow::{FragmentSettings, TableSettings};
    use crate::time::Duration;

    const REST: &str = "[[pool]]\nname='p'\nserver=[{name='s',address='10.0.0.1'}]\n[[service]]\nname='x'\nlisten='192.0.2.80:1/tcp'\npool='p'\n";

    #[test]
    fn values_at_the_bounds_are_accepted_and_those_beyond_are_refused() {
        for (table, key, good, bad) in [
            ("flows", "max", vec!["1", "100_000_000"], vec!["0", "100_000_001", "-1", "1.0", "'1'"]),
            ("gateway", "mtu", vec!["1280", "65535", "0x5dc"], vec!["1279", "65536", "99999999999999999999999999"]),
            ("gateway", "client-mtu", vec!["1280", "65535"], vec!["1279", "65536", "'1500'"]),
            (
                "gateway",
                "route-table",
                vec!["1", "252", "256", "4294967295"],
                vec!["0", "253", "254", "255", "4294967296"],
            ),
            ("gateway", "rule-priority", vec!["1", "32764"], vec!["0", "32765"]),
            (
                "gateway",
                "device",
                vec!["'a'", "'fifteen-bytes-x'"],
                vec!["''", "'sixteen-bytes-xx'", "'a b'", "'a/b'", "'..'", "'a%d'", "'a:b'"],
            ),
            (
                "gateway",
                "addresses",
                vec!["'192.0.2.1/24'", "['192.0.2.1/24','2001:db8::1/64']", "[]"],
                vec!["'192.0.2.1'", "'192.0.2.1/33'", "'127.0.0.1/8'", "[1]"],
            ),
            ("gateway", "control-socket", vec!["'x'"], vec!["''", "\"a\\u0000b\"", "1"]),
            ("gateway", "offload", vec!["true", "false"], vec!["'yes'", "1"]),
            ("gateway", "shortcut", vec!["true", "false"], vec!["'on'", "1"]),
            ("gateway", "announce", vec!["true", "false"], vec!["'eth0'", "1"]),
            ("gateway", "keep-fallback", vec!["true", "false"], vec!["'yes'", "0"]),
            (
                "gateway",
                "state-file",
                vec!["'x'", "'/var/lib/equipoise/state'"],
                vec!["''", "'/x/'", "\"/a\\u0000b\"", "1"],
            ),
            ("gateway", "state-interval", vec!["'1s'", "'1h'"], vec!["'999ms'", "'2h'", "10"]),
            (
                "timeouts",
                "icmp",
                vec!["'60s'", "'1m'", "'2h 4m'", "'1ns'"],
                vec!["'0s'", "'0'", "''", "'5'", "'1 parsec'", "60", "'-1s'"],
            ),
        ] {
            for (values, valid) in [(good, true), (bad, false)] {
                for value in values {
                    let text = format!("[{table}]\n{key} = {value}\n{REST}");
                    let got = parse_with_warnings(&text, "x.toml");
                    assert_eq!(got.is_ok(), valid, "{key} = {value}");
                    if let Err(error) = got {
                        assert_eq!(error.problems().len(), 1, "{error}");
                        assert_eq!(error.problems()[0].line, 2, "{error}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_timeout_below_the_rfc_is_used_with_a_warning() {
        for (key, floor) in [
            ("tcp-opening", 240),
            ("tcp-established", 7440),
            ("tcp-closing", 240),
            ("tcp-reset", 240),
            ("udp-one-way", 120),
            ("udp-two-way", 120),
            ("icmp", 60),
        ] {
            for (seconds, warnings) in [(floor, 0), (floor - 1, 1)] {
                let text = format!("[timeouts]\n{key} = '{seconds}s'\n{REST}");
                let parsed = parse_with_warnings(&text, "x.toml").expect("valid");
                assert_eq!(parsed.warnings.len(), warnings, "{key} = {seconds} s");
                let t = &parsed.settings.table.timeouts;
                let got = match key {
                    "tcp-opening" => t.opening,
                    "tcp-established" => t.established,
                    "tcp-closing" => t.closing,
                    "tcp-reset" => t.reset,
                    "udp-one-way" => t.udp_one_way,
                    "udp-two-way" => t.udp_two_way,
                    _ => t.icmp,
                };
                assert_eq!(got, Duration::from_secs(seconds), "{key}");
            }
        }
    }

    #[test]
    fn absent_tables_give_the_defaults() {
        let settings = parse_with_warnings(REST, "x.toml").expect("valid").settings;
        assert_eq!((settings.gateway, settings.table), (GatewaySettings::default(), TableSettings::default()));
        assert_eq!((settings.answers, settings.fragments), (AnswerSettings::default(), FragmentSettings::default()));
    }
}
