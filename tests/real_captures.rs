//! The captures of real programs in `fixtures/captures/`, through the built command: the same bytes each time, every
//! checksum valid, and the same packets as the kernel's own NAT, or the live gateway, sent.
//!
//! What the captures contain is stated by tshark, in the table of their README.md; this must not know the engine.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "helpers of a test program")]

#[path = "captures/mod.rs"]
mod captures;
#[path = "captures/damage.rs"]
mod damage;
#[path = "common/oracle.rs"]
mod oracle;

use captures::{Flow, Row, frames, ip, replay, rows};
use equipoise::engine::{Counters, FlowRow, ServerRow};
use equipoise::replay::Summary;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;

/// A replay's report in JSON, by kind of line.
struct Report(Vec<Value>);

impl Report {
    fn new(text: &[u8]) -> Report {
        let text = std::str::from_utf8(text).unwrap();
        Report(
            text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {line}"))).collect(),
        )
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &Value> {
        self.0.iter().filter_map(move |line| line.get(name))
    }

    fn rows<T: DeserializeOwned>(&self, name: &str) -> Vec<T> {
        self.all(name).map(|value| serde_json::from_value(value.clone()).unwrap()).collect()
    }

    fn one<T: DeserializeOwned>(&self, name: &str) -> T {
        let mut rows = self.rows(name);
        assert_eq!(rows.len(), 1, "{name}");
        rows.remove(0)
    }

    /// For each packet of the output, in order: the number of its input frame, `None` for the engine's own; and
    /// whether it was translated.
    fn sources(&self) -> Vec<(Option<u64>, bool)> {
        let source = |line: &Value| match (line.get("packet"), line.get("sent")) {
            (Some(packet), _) if packet["verdict"] == "forward" => {
                Some((packet["number"].as_u64(), packet["why"] == "translated"))
            }
            (_, Some(_)) => Some((None, false)),
            _ => None,
        };
        self.0.iter().filter_map(source).collect()
    }
}

/// Checks what must hold for every successful replay: totals that add up, and an output whose checksums are as valid
/// as those of the input.
pub fn is_sound(input: &[u8], report: &[u8], output: &[u8]) -> Result<(), String> {
    let report = Report::new(report);
    let (summary, totals) = (report.one::<Summary>("summary"), report.one::<Counters>("counters"));
    let flows: u64 = report.rows::<FlowRow>("flow").iter().map(|flow| flow.packets_in + flow.packets_out).sum();
    let servers: u64 = report.rows::<ServerRow>("server").iter().map(|row| row.packets_in + row.packets_out).sum();
    // A half-open flow counts no more than 15 packets of a side.
    let counted = report.rows::<FlowRow>("flow").iter().all(|flow| flow.packets_in.max(flow.packets_out) != 15);
    let ended: u64 = totals.flows_ended.iter().map(|count| count.count).sum();
    let (input, output) = (frames(input), frames(output));
    let sources = report.sources();
    for (what, is, want) in [
        ("frames = packets + skipped", summary.frames, summary.packets + summary.skipped),
        ("a line a packet", report.all("packet").count() as u64, summary.packets),
        ("a line a skipped frame", report.all("skipped").count() as u64, summary.skipped),
        ("packets in", totals.packets_in, summary.packets),
        (
            "in = forwarded + consumed + dropped",
            totals.packets_in,
            totals.forwarded() + totals.consumed() + totals.dropped(),
        ),
        ("written = forwarded + transmitted", summary.written, totals.forwarded() + totals.transmitted),
        ("packets of the servers", servers, totals.translated),
        (
            "packets of the flows, where none has ended",
            if ended == 0 && counted { flows } else { totals.translated },
            totals.translated,
        ),
        ("flows = opened - ended", totals.flows, totals.flows_opened - ended),
        ("packets of the output", output.len() as u64, summary.written),
        ("lines of packets that went out", sources.len() as u64, summary.written),
    ] {
        if is != want {
            return Err(format!("{what}: {is}, want {want}"));
        }
    }
    for (out, (number, _)) in output.iter().zip(sources) {
        let packet = ip(out).ok_or("a packet went out that is none")?;
        let right = match number.map(|number| ip(&input[number as usize - 1]).expect("a packet for each frame")) {
            Some(came) if oracle::is_valid(came) => oracle::check(packet),
            Some(came) if oracle::check_partial(came).is_ok() => oracle::check_partial(packet),
            // What arrives invalid must leave invalid, but how it is invalid does not matter.
            Some(_) => Ok(()),
            None => oracle::check(packet),
        };
        right.map_err(|e| format!("out of frame {number:?}: {e}"))?;
    }
    Ok(())
}

#[test]
fn every_file_is_named_in_the_readme_with_its_size() {
    let mut there: Vec<String> =
        captures::dir().read_dir().unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    there.sort();
    let mut named: Vec<String> = rows().into_iter().map(|row| row.name).collect();
    named.extend(["README.md".to_owned(), "gateway.toml".to_owned()]);
    named.sort();
    assert_eq!(there, named);
    let mut all = 0;
    for row in rows() {
        let len = fs::metadata(row.path()).unwrap().len();
        assert_eq!(len, row.bytes, "{}", row.name);
        all += len;
    }
    assert!(all < 1_500_000, "{all} bytes");
    let readme = fs::read_to_string(captures::dir().join("README.md")).unwrap();
    for row in captures::inputs() {
        let line = format!("| {} |", row.stem());
        assert!(readme.contains(&line), "README.md does not say what is in {}", row.name);
    }
}

#[test]
fn two_replays_give_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    for row in captures::inputs() {
        let runs: Vec<_> = ["a.pcapng", "b.pcapng"]
            .map(|name| {
                let out = dir.path().join(name);
                let json = replay(&row.path(), Some(&out), &["--json"]);
                let text = replay(&row.path(), None, &[]);
                assert!(json.status.success() && text.status.success(), "{}: {json:?}", row.name);
                assert!(json.stderr.is_empty() && text.stderr.is_empty(), "{}: {json:?}", row.name);
                (json.stdout, text.stdout, fs::read(out).unwrap())
            })
            .into();
        assert!(runs[0] == runs[1], "{}: two replays differ", row.name);
    }
}

#[test]
fn counts_match_tshark_and_every_checksum_is_valid() {
    let dir = tempfile::tempdir().unwrap();
    for row in captures::inputs() {
        let out = dir.path().join("out.pcapng");
        let json = replay(&row.path(), Some(&out), &["--json"]).stdout;
        let input = fs::read(row.path()).unwrap();
        is_sound(&input, &json, &fs::read(&out).unwrap()).unwrap_or_else(|e| panic!("{}: {e}", row.name));
        // In these captures nothing is invalid to begin with.
        for frame in frames(&input).iter().filter_map(ip) {
            let right = oracle::check(frame).or_else(|_| oracle::check_partial(frame));
            right.unwrap_or_else(|e| panic!("{}: {e}", row.name));
        }
        let report = Report::new(&json);
        let summary: Summary = report.one("summary");
        let totals = report.one::<Counters>("counters");
        let is = (summary.frames, totals.flows_opened, summary.partial_checksums, summary.back_in_time);
        assert_eq!(is, (row.frames, row.flows.unwrap(), row.partial, 0), "{}", row.name);
        let text = String::from_utf8(replay(&row.path(), None, &[]).stdout).unwrap();
        let total = format!("frames {} = packets {} + skipped {}", summary.frames, summary.packets, summary.skipped);
        assert!(text.contains(&total) && text.contains(": adds up"), "{}: {text}", row.name);
    }
}

/// Packets of TCP, UDP and echo, by flow and direction, in order: other packets are the hosts' own business.
fn by_flow<'p>(packets: impl Iterator<Item = &'p [u8]>) -> BTreeMap<Flow, Vec<&'p [u8]>> {
    let mut flows: BTreeMap<Flow, Vec<&[u8]>> = BTreeMap::new();
    for packet in packets {
        if let Some(flow) = Flow::of(packet) {
            flows.entry(flow).or_default().push(packet);
        }
    }
    flows
}

/// A forwarding kernel decrements the hop limit, which shows in the IPv4 header checksum (that one is checked by the
/// oracle). Its own echo replies also have an identification or flow label (RFC 6437) of their own.
fn as_the_kernel_forwards(packet: &[u8], own: bool) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let v4 = packet[0] >> 4 == 4;
    if !own {
        packet[if v4 { 8 } else { 7 }] -= 1;
    }
    unsummed(packet, own)
}

/// Masks the IPv4 header checksum.
fn unsummed(mut packet: Vec<u8>, own: bool) -> Vec<u8> {
    if packet[0] >> 4 == 4 {
        packet[10..12].fill(0);
    }
    match packet[0] >> 4 {
        4 if own => packet[4..8].fill(0),
        6 if own => packet[1..4].fill(0),
        _ => {}
    }
    packet
}

/// Replays a capture; returns the output's packets without foreign ones, each with whether it is the engine's own.
fn output(row: &Row) -> Vec<(Vec<u8>, bool)> {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.pcapng");
    let report = Report::new(&replay(&row.path(), Some(&out), &["--json"]).stdout);
    let sent = frames(&fs::read(out).unwrap());
    let each = sent.iter().zip(report.sources());
    each.filter(|(_, (number, translated))| *translated || number.is_none())
        .map(|(frame, (number, _))| (ip(frame).unwrap().to_vec(), number.is_none()))
        .collect()
}

#[test]
fn the_kernels_own_nat_sent_the_same_packets() {
    let mut compared = 0;
    for (row, kernel) in captures::compared("kernel") {
        let ours = output(&row);
        let theirs = frames(&fs::read(kernel.path()).unwrap());
        for packet in theirs.iter().filter_map(ip).filter(|packet| Flow::of(packet).is_some()) {
            let right = oracle::check(packet).or_else(|_| oracle::check_partial(packet));
            right.unwrap_or_else(|e| panic!("{}: {e}", kernel.name));
        }
        let theirs = by_flow(theirs.iter().filter_map(ip));
        let (own, ours): (Vec<_>, Vec<_>) = ours.into_iter().partition(|(_, own)| *own);
        let own_flows: Vec<_> = own.iter().filter_map(|(packet, _)| Flow::of(packet)).collect();
        let mut wanted = by_flow(ours.iter().map(|(packet, _)| &packet[..]));
        wanted.extend(by_flow(own.iter().map(|(packet, _)| &packet[..])));
        let names = |flows: &BTreeMap<Flow, Vec<&[u8]>>| {
            flows.iter().map(|(flow, packets)| (*flow, packets.len())).collect::<Vec<_>>()
        };
        assert_eq!(names(&wanted), names(&theirs), "{}: flows and packets of each", row.name);
        for (flow, packets) in &wanted {
            let own = own_flows.contains(flow);
            for (i, (ours, theirs)) in packets.iter().zip(&theirs[flow]).enumerate() {
                let (ours, theirs) = (as_the_kernel_forwards(ours, own), unsummed(theirs.to_vec(), own));
                assert_eq!(ours, theirs, "{}: packet {i} of {flow:?}", row.name);
                compared += 1;
            }
        }
    }
    // The captures of the kernel's NAT hold this many comparable packets.
    assert!(compared > 700, "{compared} packets compared");
}

#[test]
fn a_replay_repeats_what_the_live_gateway_sent() {
    for (row, live) in captures::compared("live") {
        let (ours, theirs) = (output(&row), frames(&fs::read(live.path()).unwrap()));
        let (ours, theirs) = (by_flow(ours.iter().map(|(p, _)| &p[..])), by_flow(theirs.iter().filter_map(ip)));
        assert_eq!(ours.values().map(Vec::len).sum::<usize>() as u64, live.frames, "{}", row.name);
        assert!(ours == theirs, "{}: the replay's packets are not those of the live gateway", row.name);
    }
}
