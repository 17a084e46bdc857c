//! The tables `[gateway]` and `[flows]`: each value read and checked by itself.
//!
//! It must not know services and pools.

use super::pool::MOST_FLOWS;
use crate::config::address;
use crate::config::fields::{Fields, quoted};
use crate::config::problem::Draft;
use crate::config::settings::GatewaySettings;
use crate::config::values::{self, OnePerFamily, v4, v6};
use ipnet::IpNet;
use serde_spanned::Spanned;
use std::net::IpAddr;
use std::path::PathBuf;

/// Bytes of a Unix socket's path at most: `sun_path` less its closing zero (unix(7)).
const LONGEST_SOCKET: usize = 107;

/// `[gateway]`.
pub(crate) struct RawGateway {
    pub(crate) settings: GatewaySettings,
    /// Device addresses with their places.
    pub(crate) addresses: Vec<Spanned<IpAddr>>,
    /// Where probes come from: at most one address of each family.
    pub(crate) probes: Vec<Spanned<IpAddr>>,
    /// Whether `probe-address` stands there and cannot be read.
    pub(crate) probes_are_wrong: bool,
}

/// Reads `[gateway]`.
pub(crate) fn gateway(top: &mut Fields<'_, '_>) -> RawGateway {
    let defaults = GatewaySettings::default();
    let Some((table, span)) = top.table("gateway", "[gateway]") else {
        return RawGateway { settings: defaults, addresses: Vec::new(), probes: Vec::new(), probes_are_wrong: false };
    };
    let known = [
        "device",
        "offload",
        "mtu",
        "client-mtu",
        "addresses",
        "probe-address",
        "control-socket",
        "route-table",
        "rule-priority",
    ];
    let mut fields = Fields::new(table, span, "[gateway]", &known, top.drafts);
    let (nets, addresses) = addresses(&mut fields);
    let errors = fields.drafts.len();
    let probes = fields.value("probe-address");
    let probes = probes.map_or(Vec::new(), |value| values::one_per_family(&mut fields, value, &PROBES));
    let probes_are_wrong = fields.drafts.len() > errors;
    let device = values::interface(&mut fields, "device", "device = \"equipoise0\"");
    let settings = GatewaySettings {
        device: device.map_or(defaults.device, Spanned::into_inner),
        offload: fields.flag("offload").unwrap_or(defaults.offload),
        mtu: fields.count("mtu", 1280..=65_535).unwrap_or(defaults.mtu),
        client_mtu: fields.count("client-mtu", 1280..=65_535),
        addresses: nets,
        probe_v4: probes.iter().find_map(|address| v4(*address.get_ref())),
        probe_v6: probes.iter().find_map(|address| v6(*address.get_ref())),
        control_socket: control_socket(&mut fields).unwrap_or(defaults.control_socket),
        route_table: route_table(&mut fields).unwrap_or(defaults.route_table),
        rule_priority: rule_priority(&mut fields).unwrap_or(defaults.rule_priority),
    };
    RawGateway { settings, addresses, probes, probes_are_wrong }
}

const PROBES: OnePerFamily = OnePerFamily {
    key: "probe-address",
    form: "probe-address = \"192.0.2.1\"",
    forms: "write \"192.0.2.1\", \"2001:db8::1\", or an array of one of each",
    owner: "`probe-address`",
    role: "the source of probes",
    remedy: "use a unicast address that is routed to this gateway and assigned to nothing",
    second: "one of each family serves all monitors; remove the other",
};

fn addresses(fields: &mut Fields<'_, '_>) -> (Vec<IpNet>, Vec<Spanned<IpAddr>>) {
    let form = "addresses = [\"192.0.2.1/24\"]";
    let (mut nets, mut places) = (Vec::new(), Vec::new());
    let Some(value) = fields.value("addresses") else { return (nets, places) };
    for text in fields.strings("addresses", value, form).unwrap_or_default() {
        let Ok(net) = text.get_ref().parse::<IpNet>() else {
            let title = format!("{} is not an address with its network's prefix length", quoted(text.get_ref()));
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

fn control_socket(fields: &mut Fields<'_, '_>) -> Option<PathBuf> {
    let value = fields.value("control-socket")?;
    let path = fields.string("control-socket", value, "control-socket = \"/run/equipoise.sock\"")?.into_inner();
    if (1..=LONGEST_SOCKET).contains(&path.len()) && !path.contains('\0') {
        return Some(path.into());
    }
    let title = "`control-socket` cannot be the path of a socket";
    let help = format!("1 to {LONGEST_SOCKET} bytes are allowed, such as \"/run/equipoise.sock\"");
    fields.drafts.push(Draft::error(value.span(), title).help(help));
    None
}

fn route_table(fields: &mut Fields<'_, '_>) -> Option<u32> {
    let number = fields.number("route-table", 1..=u64::from(u32::MAX))?;
    if !(253..=255).contains(number.get_ref()) {
        return u32::try_from(number.into_inner()).ok();
    }
    let title = format!("routing table {} is the system's own", number.get_ref());
    let help = "253 is \"default\", 254 \"main\", 255 \"local\"; choose another number from 1 to 4294967295";
    fields.drafts.push(Draft::error(number.span(), title).help(help));
    None
}

/// The two rules must be read after the table "local" (priority 0) and before "main" (32766).
fn rule_priority(fields: &mut Fields<'_, '_>) -> Option<u32> {
    fields.count("rule-priority", 1..=32_764)
}

/// Reads `[flows]`: the most flows, and how many may open a second.
pub(crate) fn flows(top: &mut Fields<'_, '_>) -> (Option<u32>, Option<u32>) {
    let Some((table, span)) = top.table("flows", "[flows]") else { return (None, None) };
    let mut fields = Fields::new(table, span, "[flows]", &["max", "rate"], top.drafts);
    (fields.count("max", 1..=MOST_FLOWS), fields.count("rate", 1..=u64::from(u32::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse_with_warnings;
    use crate::flow::TableSettings;
    use crate::time::Duration;

    const REST: &str = "[[pool]]\nname='p'\nserver=[{name='s',address='10.0.0.1'}]\n[[service]]\nname='x'\nlisten='192.0.2.80:1/tcp'\npool='p'\n";

    #[test]
    fn limits_are_taken_and_one_beyond_is_refused() {
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
    fn a_timeout_below_the_rfc_is_used_and_warned_of() {
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
    fn an_absent_table_is_the_defaults() {
        let settings = parse_with_warnings(REST, "x.toml").expect("valid").settings;
        assert_eq!((settings.gateway, settings.table), (GatewaySettings::default(), TableSettings::default()));
    }
}
