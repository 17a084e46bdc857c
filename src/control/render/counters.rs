//! The counters as tables: packets by fate, flows by state and cause of end, device; and whether they add up.

use super::figures::percent;
use super::{Columns, Fit, Width, bytes, count, within};
use crate::control::protocol::DeviceCounters;
use crate::engine::{Consumed, Counters, Ended};
use crate::flow::{Class, TimeoutState};

/// How the tables are made narrower.
const WRAPPED: &[Fit] = &[Fit::Wrap(20)];

/// Prints the counters: packets by fate, with a description of each kind, their sum, the flows, and those of the device
/// if given. Rows at zero are left out unless `all` is set.
pub fn counters_table(counters: &Counters, device: Option<&DeviceCounters>, all: bool, width: Width) -> String {
    let mut text = packets(counters, all, width);
    text.push_str(&within(&sum_line(counters), width));
    if let Some(device) = device {
        text.push_str(&within(&lost_line(device), width));
    }
    text.push('\n');
    text.push_str(&flows(counters, all, width));
    if let Some(device) = device {
        text.push('\n');
        text.push_str(&device_table(device, all, width));
    }
    text
}

/// Prints the sum of the packets: `in 9 = forwarded 7 + consumed 1 + dropped 1: adds up`.
fn sum_line(counters: &Counters) -> String {
    let verdict = if counters.add_up() { "adds up" } else { "DOES NOT ADD UP, please report this bug in equipoise" };
    format!(
        "in {} = forwarded {} + consumed {} + dropped {}: {verdict}\n",
        count(counters.packets_in),
        count(counters.forwarded()),
        count(counters.consumed()),
        count(counters.dropped()),
    )
}

/// Prints what the engine never saw, if anything: `before that, the device lost 4,006 of 5,006 (80.0 %): …`.
fn lost_line(device: &DeviceCounters) -> String {
    if device.lost == 0 {
        return String::new();
    }
    let offered = device.read + device.lost;
    format!(
        "before that, the device lost {} of {} ({}): they came faster than they were read\n",
        count(device.lost),
        count(offered),
        percent(device.lost, offered)
    )
}

fn packets(counters: &Counters, all: bool, width: Width) -> String {
    let mut columns = Columns::new([">PACKETS", "FATE", "KIND", "MEANING"]).fits_by(WRAPPED);
    let mut row = |packets: u64, fate: &str, kind: &str, meaning: String| {
        columns.row([count(packets), fate.into(), kind.into(), meaning]);
    };
    row(counters.packets_in, "in", "", format!("{} received by the engine", bytes(counters.bytes_in)));
    row(counters.translated, "forwarded", "translated", "rewritten for their flow".into());
    if all || counters.foreign > 0 {
        row(counters.foreign, "forwarded", "foreign", "part of no service, passed unchanged".into());
    }
    for consumed in counters.consumed.iter().filter(|c| all || c.count > 0) {
        row(consumed.count, "consumed", consumed.kind.name(), Consumed::text(consumed.kind).into());
    }
    for dropped in counters.dropped.iter().filter(|c| all || c.count > 0) {
        row(dropped.count, "dropped", dropped.kind.name(), dropped.kind.text().into());
    }
    if all || counters.transmitted > 0 {
        row(
            counters.transmitted,
            "sent",
            "own",
            "replies, probes, fragments, packets of the other family; not in the sum".into(),
        );
    }
    columns.into_text(width)
}

fn flows(counters: &Counters, all: bool, width: Width) -> String {
    let mut columns = Columns::new([">FLOWS", "STATE", "MEANING"]).fits_by(WRAPPED);
    let room = |flows, max| format!("of {} ({})", count(max), percent(flows, max));
    let in_table = counters.flows - counters.half_open;
    columns.row([count(in_table), "in the table".into(), room(in_table, counters.max_flows)]);
    if all || counters.half_open > 0 {
        let half_open = room(counters.half_open, counters.max_half_open);
        columns.row([count(counters.half_open), "half-open".into(), half_open]);
    }
    if let Some(shortcut) = &counters.shortcut {
        let meaning = format!(
            "by the kernel, past the device: so far {} packets, {}; not among those above",
            count(shortcut.packets),
            bytes(shortcut.bytes)
        );
        columns.row([count(shortcut.flows), "carried".into(), meaning]);
    }
    for state in counters.states.iter().filter(|c| all || c.count > 0) {
        columns.row([count(state.count), state.kind.name().into(), state_text(state.kind).into()]);
    }
    columns.row([count(counters.flows_opened), "opened".into(), "since the start".into()]);
    for ended in counters.flows_ended.iter().filter(|c| all || c.count > 0) {
        columns.row([count(ended.count), ended.kind.name().into(), ended_text(ended.kind).into()]);
    }
    for gave in counters.gave_way.iter().filter(|c| all || c.count > 0) {
        columns.row([count(gave.count), format!("evicted, {}", gave.kind.name()), class_text(gave.kind).into()]);
    }
    columns.into_text(width)
}

const fn state_text(state: TimeoutState) -> &'static str {
    match state {
        TimeoutState::Opening => "TCP, handshake not complete",
        TimeoutState::Established => "TCP, handshake complete",
        TimeoutState::Closing => "TCP, closed by both ends",
        TimeoutState::Reset => "TCP, reset by one end",
        TimeoutState::UdpOneWay => "UDP, sent by the client only",
        TimeoutState::UdpTwoWay => "UDP, sent by both sides",
        TimeoutState::Icmp => "ICMP echo",
    }
}

const fn ended_text(ended: Ended) -> &'static str {
    match ended {
        Ended::Expired => "ended: no packet within the timeout of its state",
        Ended::Evicted => "ended: gave way to another flow where there was no room",
        Ended::Replaced => "ended: replaced by a new connection with its addresses and ports",
        Ended::Killed => "ended: removed by an operator",
        Ended::ServerDown => "ended: its server went down or was disabled",
        Ended::Drained => "ended: the deadline of its draining server passed",
    }
}

const fn class_text(class: Class) -> &'static str {
    match class {
        Class::Over => "gave way to another flow: closed or reset",
        Class::Brief => "gave way to another flow: datagrams that were no conversation",
        Class::Conversing => "gave way to another flow: conversations of datagrams, idle",
        Class::Settled => "gave way to another flow: idle for minutes",
        Class::HalfOpen => "gave way to another SYN: the oldest whose handshake was incomplete",
    }
}

fn device_table(device: &DeviceCounters, all: bool, width: Width) -> String {
    let rows = [
        (device.read, "read", bytes(device.read_bytes)),
        (device.written, "written", bytes(device.written_bytes)),
        (device.super_packets, "super-packets", "read or written; each counts as several packets above".into()),
        (device.bad_headers, "bad headers", "reads with an invalid device header".into()),
        (device.read_failures, "read failures", "reads that failed".into()),
        (device.lost, "lost", "packets lost in its queues before they were read; super-packets count as one".into()),
        (device.write_failures, "write failures", "packets lost because the device did not accept them".into()),
        (device.lost_log_lines, "lost log lines", "stderr was not read fast enough".into()),
    ];
    let mut columns = Columns::new([">DEVICE", "WHAT", "MEANING"]).fits_by(WRAPPED);
    for (i, (number, what, meaning)) in rows.into_iter().enumerate() {
        if all || number > 0 || i < 2 {
            columns.row([count(number), what.into(), meaning]);
        }
    }
    columns.into_text(width)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Count, Reason};

    fn counters() -> Counters {
        let mut counters = Counters {
            shortcut: None,
            packets_in: 1_015,
            bytes_in: 1_500_000,
            translated: 1_000,
            foreign: 0,
            consumed: Consumed::ALL.map(|kind| Count { kind, count: 0 }).into(),
            dropped: Reason::ALL.iter().map(|kind| Count { kind: *kind, count: 0 }).collect(),
            transmitted: 5,
            flows: 12,
            max_flows: 262_144,
            half_open: 0,
            max_half_open: 1_000_000,
            gave_way: Class::ALL.map(|kind| Count { kind, count: 0 }).into(),
            flows_opened: 20,
            flows_ended: Ended::ALL.map(|kind| Count { kind, count: 0 }).into(),
            states: TimeoutState::ALL.map(|kind| Count { kind, count: 0 }).into(),
        };
        counters.consumed[0].count = 5;
        counters.dropped[Reason::NoService as usize].count = 10;
        counters.flows_ended[0].count = 8;
        counters.states[1].count = 12;
        counters
    }

    #[test]
    fn totals_name_their_reasons_and_add_up() {
        let device = DeviceCounters { read: 1_015, read_bytes: 1_500_000, ..DeviceCounters::default() };
        let want = "\
PACKETS  FATE       KIND        MEANING
  1,015  in                     1.4 MiB received by the engine
  1,000  forwarded  translated  rewritten for their flow
      5  consumed   echo        echo request to a service address, replied to
     10  dropped    no-service  no service on this port of the service address
      5  sent       own         replies, probes, fragments, packets of the other family; not in the sum
in 1,015 = forwarded 1,000 + consumed 5 + dropped 10: adds up

FLOWS  STATE         MEANING
   12  in the table  of 262,144 (0.0 %)
   12  established   TCP, handshake complete
   20  opened        since the start
    8  expired       ended: no packet within the timeout of its state

DEVICE  WHAT     MEANING
 1,015  read     1.4 MiB
     0  written  0 B
";
        assert_eq!(counters_table(&counters(), Some(&device), false, Width::Any), want);
    }

    #[test]
    fn what_the_device_lost_stands_below_the_sum() {
        let device = DeviceCounters { read: 1_000, lost: 4_006, ..DeviceCounters::default() };
        let got = counters_table(&counters(), Some(&device), false, Width::Any);
        let want =
            "adds up\nbefore that, the device lost 4,006 of 5,006 (80.0 %): they came faster than they were read\n";
        assert!(got.contains(want) && got.contains("\n 4,006  lost "), "{got}");
    }

    #[test]
    fn half_open_flows_are_told_apart_and_what_gave_way_is_shown_by_class() {
        let mut counters = counters();
        (counters.flows, counters.half_open) = (500_012, 500_000);
        (counters.states[0].count, counters.flows_ended[1].count) = (500_000, 7);
        (counters.gave_way[0].count, counters.gave_way[4].count) = (2, 5);
        let want = "\
  FLOWS  STATE               MEANING
     12  in the table        of 262,144 (0.0 %)
500,000  half-open           of 1,000,000 (50.0 %)
500,000  opening             TCP, handshake not complete
     12  established         TCP, handshake complete
     20  opened              since the start
      8  expired             ended: no packet within the timeout of its state
      7  evicted             ended: gave way to another flow where there was no room
      2  evicted, over       gave way to another flow: closed or reset
      5  evicted, half-open  gave way to another SYN: the oldest whose handshake was incomplete
";
        let got = counters_table(&counters, None, false, Width::Any);
        assert!(got.ends_with(want), "{got}");
    }

    #[test]
    fn totals_that_do_not_add_up_say_so() {
        let mut counters = counters();
        counters.translated -= 1;
        let got = counters_table(&counters, None, false, Width::Any);
        assert!(got.contains("in 1,015 = forwarded 999 + consumed 5 + dropped 10: DOES NOT ADD UP"), "{got}");
        assert!(!got.contains("DEVICE"), "{got}");
    }

    #[test]
    fn all_shows_every_reason_state_and_cause() {
        let got = counters_table(&counters(), Some(&DeviceCounters::default()), true, Width::Any);
        let names = Reason::ALL.iter().map(|r| r.name());
        let names = names.chain(TimeoutState::ALL.map(TimeoutState::name)).chain(Ended::ALL.map(Ended::name));
        for name in names.chain(["foreign", "reset", "write failures"]) {
            assert!(got.contains(&format!("  {name}")), "{name} is missing:\n{got}");
        }
    }
}
