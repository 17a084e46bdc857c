//! The status of the gateway: what it is, how full its stores are, and what is short of room.

use super::figures::percent;
use super::{count, duration, printable};
use crate::control::protocol::{HttpRow, Status};
use crate::engine::PressureRow;

/// Prints the status of the gateway.
pub fn status_text(status: &Status) -> String {
    let offload = if status.offload { "on" } else { "off" };
    let lost = if status.lost == 0 { String::new() } else { format!(", {} packets lost in them", count(status.lost)) };
    let room = |used, max| format!("{} of {} ({})", count(used), count(max), percent(used, max));
    let mut text = format!(
        "equipoise {}, process {}, up {}\n\
         device     {}, MTU {} bytes, segmentation offload {offload}, {} {}{lost}\n\
         services   {}\n\
         servers    {}\n\
         flows      {}\n\
         half-open  {}\n",
        status.version,
        status.pid,
        duration(status.uptime_ms),
        printable(status.device.clone()),
        count(u64::from(status.mtu)),
        count(status.queues),
        if status.queues == 1 { "queue" } else { "queues" },
        count(status.services),
        count(status.servers),
        room(status.flows.saturating_sub(status.half_open), status.max_flows),
        room(status.half_open, status.max_half_open),
    );
    if let Some(shortcut) = &status.shortcut {
        let (flows, packets) = (room(shortcut.flows, shortcut.max_flows), count(shortcut.packets));
        text.push_str(&format!("shortcut   {flows} carried by the kernel; so far {packets} packets\n"));
    }
    if status.pressures.is_empty() {
        text.push_str("pressure   none\n");
    }
    for (place, row) in status.pressures.iter().enumerate() {
        let head = if place == 0 { "pressure" } else { "" };
        text.push_str(&format!("{head:<9}  {}\n", pressure(row)));
    }
    system(status, &mut text);
    if let Some(pair) = &status.pair {
        let known = if pair.in_step { "in step with" } else { "NOT in step with" };
        text.push_str(&format!("pair       {}, {known} {}\n", pair.role, printable(pair.peer.clone())));
    }
    if let Some(HttpRow { listen, error }) = &status.http {
        let error = error.as_ref().map_or(String::new(), |error| format!(": {}", printable(error.clone())));
        text.push_str(&format!("http       {listen}{error}\n"));
    }
    if status.lost_log_lines > 0 {
        let lost = count(status.lost_log_lines);
        text.push_str(&format!("log        {lost} lines lost: stderr was not read fast enough\n"));
    }
    text
}

/// Says what does not work of what the gateway installed, and what was restored.
fn system(status: &Status, text: &mut String) {
    if status.troubles.is_empty() {
        text.push_str("system     complete\n");
    }
    for (place, row) in status.troubles.iter().enumerate() {
        let head = if place == 0 { "system" } else { "" };
        let next = row.next_ms.map_or(String::new(), |next| format!("; it is restored in {}", duration(next)));
        let (part, what, since) = (printable(row.part.clone()), printable(row.what.clone()), duration(row.for_ms));
        text.push_str(&format!("{head:<9}  {part} {what} (for {since}{next})\n"));
    }
    if let Some(last) = &status.last_repair {
        let parts = if status.repairs == 1 { "part" } else { "parts" };
        let (repairs, ago, what) = (count(status.repairs), duration(last.ago_ms), printable(last.what.clone()));
        text.push_str(&format!("repairs    {repairs} {parts} since the start, the last {ago} ago: {what}\n"));
    }
}

/// Says what is full, since when, and what has given way: `the flow table is full for 4m05s: 1,204 over flows gave way, 5
/// attempts refused`.
fn pressure(row: &PressureRow) -> String {
    let gave_way = row.gave_way.iter().filter(|gave| gave.count > 0);
    let gave_way = gave_way.map(|gave| format!("{} {}", count(gave.count), gave.kind.name())).collect::<Vec<_>>();
    let gave_way = if gave_way.is_empty() { "no".into() } else { gave_way.join(", ") };
    let (full, since, refused) = (row.of.text(), duration(row.for_ms), count(row.refused));
    format!("{full} is full for {since}: {gave_way} flows gave way, {refused} attempts refused")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::{RepairRow, TroubleRow};
    use crate::engine::{Count, Short, Shortcut};
    use crate::flow::Class;

    fn status(pressures: Vec<PressureRow>) -> Status {
        Status {
            protocol: 1,
            version: "0.1.0".into(),
            pid: 77,
            uptime_ms: 3_720_000,
            device: "equipoise0".into(),
            mtu: 1500,
            offload: true,
            queues: 3,
            state_file: None,
            lost: 0,
            services: 2,
            servers: 3,
            flows: 131_172,
            max_flows: 262_144,
            half_open: 100,
            max_half_open: 1_000_000,
            pressures,
            repairs: 0,
            last_repair: None,
            troubles: Vec::new(),
            shortcut: None,
            pair: None,
            lost_log_lines: 0,
            http: None,
        }
    }

    #[test]
    fn what_the_kernel_carries_has_a_line() {
        let shortcut = Shortcut { flows: 12, max_flows: 16_384, packets: 1_234_567, bytes: 1 << 30 };
        let text = status_text(&Status { shortcut: Some(shortcut), ..status(Vec::new()) });
        let want = "shortcut   12 of 16,384 (0.0 %) carried by the kernel; so far 1,234,567 packets\n";
        assert!(text.contains(want), "{text}");
    }

    #[test]
    fn the_status_is_readable_at_a_glance() {
        let want = "\
equipoise 0.1.0, process 77, up 1h02m
device     equipoise0, MTU 1,500 bytes, segmentation offload on, 3 queues
services   2
servers    3
flows      131,072 of 262,144 (50.0 %)
half-open  100 of 1,000,000 (0.0 %)
pressure   none
system     complete
";
        assert_eq!(status_text(&status(Vec::new())), want);
        let lossy = Status { lost_log_lines: 4_321, ..status(Vec::new()) };
        let want = format!("{want}log        4,321 lines lost: stderr was not read fast enough\n");
        assert_eq!(status_text(&lossy), want);
        let row = |error: Option<&str>| {
            Some(HttpRow { listen: "127.0.0.1:9480".parse().unwrap(), error: error.map(str::to_owned) })
        };
        let text = |error| status_text(&Status { http: row(error), ..status(Vec::new()) });
        assert!(text(None).ends_with("system     complete\nhttp       127.0.0.1:9480\n"));
        assert!(text(Some("in use")).ends_with("http       127.0.0.1:9480: in use\n"));
    }

    #[test]
    fn what_is_full_is_named_with_its_figures() {
        let row = |of, for_ms, given: [u64; 5], refused| {
            let gave_way = Class::ALL.into_iter().zip(given).map(|(kind, count)| Count { kind, count });
            PressureRow { of, for_ms, gave_way: gave_way.collect(), refused }
        };
        let rows = vec![
            row(Short::Table, 245_000, [1_204, 30, 0, 0, 0], 5),
            row(Short::HalfOpen, 2_000, [0, 0, 0, 0, 9_000_000], 0),
            row(Short::Ports, 0, [0; 5], 1),
        ];
        let want = "\
pressure   the flow table is full for 4m05s: 1,204 over, 30 brief flows gave way, 5 attempts refused
           the store of half-open flows is full for 2.0s: 9,000,000 half-open flows gave way, 0 attempts refused
           the half of the NAT ports to a server that half-open and brief flows may have is full for 0.0s: no flows gave way, 1 attempts refused
system     complete
";
        let got = status_text(&status(rows));
        assert!(got.ends_with(want), "{got}");
    }

    #[test]
    fn what_is_missing_in_the_system_is_named_and_so_is_the_last_repair() {
        let row = |part: &str, what: &str, next_ms, times| TroubleRow {
            part: part.into(),
            what: what.into(),
            for_ms: 1_500,
            next_ms,
            times,
        };
        let troubles = vec![
            row("IPv4 rule \"priority 4243\"", "is gone for the 5th time", Some(700), 5),
            row("route 192.0.2.80/32 to device equipoise0", "has no effect: 192.0.2.80 is an address of eth0", None, 0),
        ];
        let last_repair = Some(RepairRow { what: "device equipoise0 was gone".into(), ago_ms: 62_000 });
        let got = status_text(&Status { repairs: 1_042, last_repair, troubles, ..status(Vec::new()) });
        let want = "\
pressure   none
system     IPv4 rule \"priority 4243\" is gone for the 5th time (for 1.5s; it is restored in 0.7s)
           route 192.0.2.80/32 to device equipoise0 has no effect: 192.0.2.80 is an address of eth0 (for 1.5s)
repairs    1,042 parts since the start, the last 1m02s ago: device equipoise0 was gone
";
        assert!(got.ends_with(want), "{got}");
    }
}
