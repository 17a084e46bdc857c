//! A node of a pair whose peer sends any bytes.

use super::drive::{Drive, Input};
use super::{SETTINGS, books_balance};
use equipoise::config::Settings;
use equipoise::engine::Engine;
use equipoise::packet::Meta;
use equipoise::sync::{Command, HEADER, Node, SyncSettings};
use equipoise::time::Instant;

fn sync_settings(names: [&str; 2]) -> SyncSettings {
    SyncSettings {
        node: names[0].into(),
        peer: names[1].into(),
        key: b"key".to_vec(),
        instance: 1 + u64::from(names[0] > names[1]),
        fingerprint: 0,
        learning: std::time::Duration::from_secs(5),
    }
}

/// One end of a pair.
struct End {
    engine: Engine,
    node: Node,
}

impl End {
    fn new(settings: &Settings, now: Instant, names: [&str; 2]) -> End {
        let mut engine = Engine::new(settings);
        let mut node = Node::new(sync_settings(names), now, &mut engine).unwrap();
        node.follow_health(now, &mut engine, true);
        node.hold_answers(true);
        End { engine, node }
    }

    fn output(&mut self, now: Instant) -> Vec<u8> {
        let mut out = Vec::new();
        self.node.poll_output(now, &mut self.engine, &mut out);
        assert!(out.len() < 1 << 18, "{} bytes at once", out.len());
        out
    }
}

/// Two ends of which each has proved who it is.
fn greeted(settings: &Settings, now: Instant) -> [End; 2] {
    let mut ends = [["first", "other"], ["other", "first"]].map(|names| End::new(settings, now, names));
    ends[1].node.command(now, &mut ends[1].engine, Command::Activate);
    ends.iter_mut().enumerate().for_each(|(at, end)| end.node.connected(now, &mut end.engine, [at as u8; 32]));
    for _ in 0..2 {
        for from in 0..2 {
            let out = ends[from].output(now);
            let End { engine, node } = &mut ends[1 - from];
            node.handle_input(now, engine, &out);
        }
    }
    ends
}

/// Any bytes as frames of a peer that has proved who it is, with commands, packets and time between them: whatever they make
/// of an engine, its books balance, the node knows what it has told, and all flows end.
///
/// A step is a kind, a length of two bytes and a body; the kinds are those of frames, and 0 for what is none.
pub fn sync_target(bytes: &[u8]) {
    let settings: Settings =
        equipoise::config::parse(SETTINGS, "engine.toml").unwrap_or_else(|error| panic!("{error}"));
    let mut now = Instant::from_nanos(1 << 58);
    let [End { engine, node }, mut other] = greeted(&settings, now);
    let mut end = End { engine, node };
    let names = other.output(now);
    end.node.handle_input(now, &mut end.engine, &names);
    let mut rest = bytes;
    while let [kind, high, low, ..] = *rest {
        let len = usize::from(u16::from_be_bytes([high, low])).min(rest.len() - 3);
        let (body, more) = rest[3..].split_at(len);
        rest = more;
        if kind != 0 {
            let mut frame = vec![1, kind];
            frame.extend((body.len() as u16).to_be_bytes());
            frame.extend([0, 0, 0, 0, 0, 0, 0, 2]);
            frame.extend((u64::MAX / 2).to_be_bytes());
            assert_eq!(frame.len(), HEADER);
            frame.extend_from_slice(body);
            end.node.handle_input(now, &mut end.engine, &frame);
            continue;
        }
        let command = |number| [Command::Activate, Command::StandBy, Command::Yield][number];
        match body {
            [number @ 0..=2, ..] => end.node.command(now, &mut end.engine, command(usize::from(*number))),
            [3, packet @ ..] => {
                let mut packet = packet.to_vec();
                end.engine.handle_packet(now, &mut packet, Meta::default());
            }
            [4, raw @ ..] => end.node.handle_input(now, &mut end.engine, raw),
            [_, tenths, ..] => {
                now = Instant::from_nanos(now.as_nanos() + u64::from(*tenths) * 100_000_000);
                end.engine.handle_timeout(now);
                end.node.handle_timeout(now, &mut end.engine);
            }
            _ => _ = end.output(now),
        }
        while end.engine.poll_event().is_some() || end.node.poll_event().is_some() {}
    }
    for _ in 0..50 {
        end.node.handle_timeout(now, &mut end.engine);
        end.output(now);
    }
    books_balance(&end.engine, now);
    assert_eq!(end.node.audit(&mut end.engine, 0, u32::MAX).0, None, "the book is wrong");
    end.node.disconnected(now, &mut end.engine);
    end.node.command(now, &mut end.engine, Command::Activate);
    let mut drive = Drive { servers: 1, rules: 1, engine: end.engine, now, last: Vec::new(), left: Vec::new() };
    for _ in 0..20 {
        // As long as every timeout.
        drive.wait(20_000_000_000);
    }
    assert_eq!(drive.engine.counters().flows, 0);
}

/// Returns the frames about flows that a peer sends after it was the target `engine` with an input, as the target `sync`
/// reads them.
pub fn sync_after(bytes: &[u8]) -> Vec<u8> {
    let settings: Settings =
        equipoise::config::parse(SETTINGS, "engine.toml").unwrap_or_else(|error| panic!("{error}"));
    let mut drive = Drive::new(&settings);
    let mut input = Input(bytes);
    while !input.0.is_empty() {
        drive.step(&mut input);
    }
    let now = drive.now;
    let mut ends = [["first", "other"], ["other", "first"]].map(|names| End::new(&settings, now, names));
    let node = Node::new(sync_settings(["other", "first"]), now, &mut drive.engine).unwrap();
    ends[1] = End { engine: drive.engine, node };
    let End { engine, node } = &mut ends[1];
    node.command(now, engine, Command::Activate);
    ends.iter_mut().enumerate().for_each(|(at, end)| end.node.connected(now, &mut end.engine, [at as u8; 32]));
    let mut sent = Vec::new();
    for _ in 0..3 {
        for from in 0..2 {
            let out = ends[from].output(now);
            let End { engine, node } = &mut ends[1 - from];
            node.handle_input(now, engine, &out);
            if from == 1 {
                sent.extend(out);
            }
        }
    }
    let (mut steps, mut rest) = (Vec::new(), &sent[..]);
    while let [_, kind, high, low, ..] = *rest {
        let frame = &rest[..HEADER + usize::from(u16::from_be_bytes([high, low]))];
        rest = &rest[frame.len()..];
        // Greetings and names have come before.
        if kind > 3 {
            steps.extend([kind, high, low]);
            steps.extend_from_slice(&frame[HEADER..]);
        }
    }
    steps
}
