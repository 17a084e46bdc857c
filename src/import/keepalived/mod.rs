//! Reads keepalived.conf: virtual servers, their groups, real servers and checks.
//!
//! [`tree`] makes blocks of lines, [`virtuals`] reads virtual and real servers, [`checks`] their checks. Defaults are those
//! that keepalived 2.2.7 reports of the same file (`keepalived --dump-conf`).

mod checks;
mod tree;
mod virtuals;

use super::ipvs::Found;
use super::{Notes, Place};
use tree::Item;

/// What a note says about blocks that are for others than IPVS.
const OTHERS: [(&str, &str); 14] = [
    ("vrrp_instance", "two gateways share flows and addresses by docs/sync.md; keepalived may go on to move addresses"),
    ("vrrp_sync_group", "two gateways share flows and addresses by docs/sync.md"),
    ("vrrp_script", "see docs/sync.md"),
    ("vrrp_track_process", "see docs/sync.md"),
    ("vrrp_track_file", "see docs/sync.md"),
    ("track_file", "write weights with `eqctl server weight`, or a servers-file"),
    ("bfd_instance", "use a monitor of the pool"),
    ("static_ipaddress", "configure addresses with the system; a service address belongs to no interface"),
    ("static_routes", "configure routes with the system"),
    ("static_rules", "configure rules with the system"),
    ("linkbeat_interfaces", "configure interfaces with the system"),
    ("garp_group", "addresses are announced by `announce` in [gateway]"),
    ("SSL", "there are no monitors over TLS"),
    ("net_namespace", "start the gateway in the namespace"),
];

/// Reads a configuration.
pub(super) fn read(text: &str, notes: &mut Notes) -> Found {
    let items = tree::read(text, notes);
    let mut found = Found::default();
    for item in items.iter().filter(|item| item.word() == "global_defs") {
        globals(item, &mut found, notes);
    }
    let groups: Vec<&Item> = items.iter().filter(|item| item.word() == "virtual_server_group").collect();
    let mut used = Vec::new();
    for item in &items {
        match item.word() {
            "virtual_server" => virtuals::read(item, (&groups, &mut used), &mut found, notes),
            "global_defs" | "virtual_server_group" => {}
            word => {
                let known = OTHERS.iter().find(|(own, _)| *own == word);
                let todo = known.map_or("write by hand what it is for", |(_, todo)| todo);
                notes.add(item.place(), format!("{word} is not about virtual servers"), todo);
            }
        }
    }
    for group in groups.iter().filter(|group| !used.contains(&group.argument(1).unwrap_or_default().to_owned())) {
        notes.add(group.place(), "no virtual server uses this group", "nothing to do");
    }
    found
}

/// Reads `lvs_timeouts`, and lists what else would have an effect.
fn globals(item: &Item, found: &mut Found, notes: &mut Notes) {
    for own in &item.items {
        match own.word() {
            "lvs_timeouts" => {
                let mut words = own.words.iter().skip(1).map(|word| word.text.as_str());
                while let (Some(name), Some(value)) = (words.next(), words.next()) {
                    let seconds = value.parse().ok().filter(|seconds| *seconds > 0);
                    match name {
                        "tcp" => found.timeouts.tcp = seconds,
                        "tcpfin" => found.timeouts.fin = seconds,
                        "udp" => found.timeouts.udp = seconds,
                        _ => {}
                    }
                }
            }
            "lvs_sync_daemon" => {
                notes.add(
                    own.place(),
                    "lvs_sync_daemon has no counterpart",
                    "two gateways share flows by docs/sync.md",
                );
            }
            "router_id" | "enable_script_security" | "script_user" | "lvs_flush" | "lvs_flush_onstop" => {}
            word if word.starts_with("vrrp_") => {}
            word if word.starts_with("smtp") || word.starts_with("notification") => {
                notes.add(
                    own.place(),
                    format!("{word} has no counterpart"),
                    "`eqctl events --follow --json` reports events to a program",
                );
            }
            word => notes.add(own.place(), format!("{word} has no counterpart"), "nothing to do for virtual servers"),
        }
    }
}

/// A number of seconds, perhaps with a fraction, in milliseconds.
fn millis(item: &Item, notes: &mut Notes) -> Option<u64> {
    let text = item.argument(1);
    let seconds = text.and_then(|text| text.parse::<f64>().ok()).filter(|seconds| (0.0..=86_400.0).contains(seconds));
    if seconds.is_none() {
        notes.add(
            item.place(),
            format!("{} has no number of seconds", item.word()),
            "the default is written; correct it",
        );
    }
    seconds.map(|seconds| (seconds * 1000.0).round() as u64)
}

fn number(item: &Item, notes: &mut Notes) -> Option<u64> {
    let number = item.argument(1).and_then(|text| text.parse().ok());
    if number.is_none() {
        notes.add(item.place(), format!("{} has no number", item.word()), "the default is written; correct it");
    }
    number
}

/// Lists a setting that has no counterpart.
fn unknown(item: &Item, notes: &mut Notes) {
    let (what, todo): (_, &str) = match item.word() {
        "notify_up" | "notify_down" | "quorum_up" | "quorum_down" => {
            ("starts a program, which has no counterpart", "let it read `eqctl events --follow --json`")
        }
        "smtp_alert" => ("sends mail, which has no counterpart", "let a program read `eqctl events --follow --json`"),
        "fast_recovery" => ("has no counterpart", "nothing to do: one success brings a server back (rise = 1)"),
        "warmup" => ("has no counterpart", "nothing to do: probes are spread by themselves"),
        "log_all_failures" => ("has no counterpart", "nothing to do: `eqctl monitors` shows each result"),
        "bindto" | "bind_if" | "bind_port" | "fwmark" => {
            ("has no counterpart", "probes come from probe-address in [gateway]")
        }
        "ha_suspend" => ("has no counterpart", "see docs/sync.md: the standby does not probe"),
        "omega" => ("has no counterpart", "nothing to do unless programs are started at the end"),
        _ => ("has no counterpart", "write by hand what it is for"),
    };
    notes.add(item.place(), format!("{} {what}", item.word()), todo);
}

/// The place of a file's end.
fn place_of(line: usize, column: usize) -> Place {
    Place { line, column }
}
