//! The program beside the engine, through BPF_PROG_TEST_RUN: what it carries is the same, byte for byte.

use super::*;
use crate::capture::Reader;
use crate::config::Settings;
use crate::engine::{Engine, Forwarded, Verdict};
use crate::flow::Key;
use crate::gateway::testing::{namespace, tun};
use crate::packet::{Meta, TcpFlags, Transport, checksum, parse};
use aya::programs::{TestRun, TestRunOptions};
use std::collections::HashMap;
use std::fs::File;
use std::path::{Path as FilePath, PathBuf};

/// TCX_REDIRECT.
const REDIRECTED: u32 = 7;
/// A test run takes less than a page.
const MOST: usize = 3500;
/// Packets after which a flow is offered here.
const SOON: u64 = 1;

/// Runs a test with the program in a namespace with a device towards everything; not in a user namespace, where no program may
/// be loaded.
fn bench(label: &str, test: impl FnOnce(&mut Bench) + Send) {
    let Some(ns) = namespace(label) else { return };
    let run = || {
        let shortcut = match Shortcut::load(64) {
            Ok(shortcut) => shortcut,
            Err(e) if e.errno == Some(libc::EPERM) => return println!("SKIPPED: {e}; {}", e.fix()),
            Err(e) => panic!("{e}; {}", e.fix()),
        };
        let own = tun("eqtest0");
        for words in [
            "link set eqtest0 up",
            "link add out type veth peer name far",
            "link set out mtu 65535 up",
            "link set far mtu 65535 up",
            "addr add 203.0.113.1/24 dev out",
            "addr add 2001:db8:ffff::1/64 dev out nodad",
            "route add default via 203.0.113.2",
            "-6 route add default via 2001:db8:ffff::2",
        ] {
            ip(words);
        }
        for name in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            crate::gateway::sysctl::set(&format!("net/{name}"), "1").unwrap();
        }
        let mut bench = Bench { shortcut, paths: HashMap::new(), carried: 0, own };
        bench.shortcut.set_own(index("eqtest0")).unwrap();
        test(&mut bench);
    };
    ns.run(run).unwrap();
}

fn ip(words: &str) {
    assert!(std::process::Command::new("ip").args(words.split(' ')).status().unwrap().success(), "{words}");
}

fn index(device: &str) -> u32 {
    let text = std::fs::read_to_string(format!("/sys/class/net/{device}/ifindex"));
    text.map_or_else(|_| nix_index(device), |text| text.trim().parse().unwrap())
}

/// The same where /sys shows another namespace.
fn nix_index(device: &str) -> u32 {
    crate::gateway::netlink::Netlink::open().unwrap().link(device).unwrap().unwrap().index
}

struct Bench {
    shortcut: Shortcut,
    /// By place.
    paths: HashMap<u32, Path>,
    carried: usize,
    #[allow(dead_code, reason = "held, not read")]
    own: tun_tap::Iface,
}

impl Bench {
    /// Runs the program with a packet; returns what it becomes if it is carried.
    fn run(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        let kind: [u8; 2] = if packet[0] >> 4 == 6 { [0x86, 0xdd] } else { [8, 0] };
        let frame = [&[0; 12][..], &kind, packet].concat();
        let mut after = vec![0; frame.len() + 64];
        let options = TestRunOptions { data_in: Some(&frame), data_out: Some(&mut after), ..TestRunOptions::new() };
        let result = self.shortcut.program().unwrap().test_run(options).unwrap();
        after.truncate(result.data_size_out as usize);
        if result.return_value == u32::MAX {
            assert_eq!(after, frame, "what goes on goes on unchanged");
            return None;
        }
        assert_eq!(result.return_value, REDIRECTED, "{}", crate::packet::describe(packet));
        self.carried += 1;
        Some(after.split_off(14))
    }

    /// Does what a driver does between two packets.
    fn keep_up(&mut self, engine: &mut Engine, now: Instant) {
        while let Some(place) = engine.poll_left() {
            self.shortcut.remove(place).unwrap();
            let (_, report) = self.shortcut.report(now, place);
            engine.left(now, place, None, &Carried { packets: [0; 2], bytes: [0; 2], ..report });
        }
        while let Some(path) = engine.poll_path(now) {
            self.shortcut.put(&path).unwrap();
            self.paths.insert(path.place, path);
        }
    }

    /// Hands a packet to the program and to the engine, and compares what becomes of it.
    fn compare(&mut self, engine: &mut Engine, now: Instant, packet: &[u8]) {
        let what = || crate::packet::describe(packet);
        let place = engine.path_of(packet);
        let before = place.filter(|_| packet.len() <= MOST);
        let before = before.map(|place| (self.paths[&place], self.shortcut.report(now, place).1.sequence));
        let carried = if packet.len() <= MOST { self.run(packet) } else { None };
        let mut bytes = packet.to_vec();
        let verdict = engine.handle_packet(now, &mut bytes, Meta::default());
        let fits = before.is_some_and(|(path, sequence)| fits(packet, &path, &sequence));
        assert_eq!(carried.is_some(), fits, "{}: {verdict:?}", what());
        if let Some(carried) = carried {
            let Verdict::Forward { len, why: Forwarded::Translated { .. } } = verdict else {
                panic!("{}: {verdict:?}", what())
            };
            let mut want = bytes[..len].to_vec();
            (0..2).for_each(|_| hop(&mut want));
            assert_eq!(carried[..len], want, "{}", what());
            assert_eq!(carried[len..], packet[len..], "what is behind it");
        }
        if let Some(place) = place.filter(|_| engine.path_of(packet).is_some()) {
            // Both have seen it now, and have learned the same.
            let (_, report) = self.shortcut.report(now, place);
            let nothing = Carried { packets: [0; 2], bytes: [0; 2], ..report };
            let known = engine.carried(now, place, None, &nothing).unwrap();
            if fits {
                assert_eq!(report.sequence, known, "{}", what());
            }
            self.shortcut.set_sequence(place, &known);
        }
        self.keep_up(engine, now);
    }
}

/// Whether the program has to carry a packet of a flow, by the engine's own parser.
fn fits(packet: &[u8], path: &Path, sequence: &Sequence) -> bool {
    const FLAGS: u8 = 0x37;
    const AHEAD: u32 = 2 << 20;
    let parsed = parse(packet).unwrap();
    let Transport::Tcp { src, dst, flags, seq, .. } = parsed.transport else { return false };
    let header = if parsed.addresses.is_v6() { 40 } else { 20 };
    let hops = packet[if parsed.addresses.is_v6() { 7 } else { 8 }];
    let of = |ends: &Key| (ends.addresses, ends.src_port, ends.dst_port) == (parsed.addresses, src, dst);
    let side = path.ends.iter().position(of).unwrap();
    let end = seq.wrapping_add(parsed.payload_len() as u32);
    let is_near = end.wrapping_sub(sequence.next[side]).wrapping_add(AHEAD) <= 2 * AHEAD;
    let is_short = parsed.len <= usize::from(path.mtu[side]);
    let is_whole = parsed.offset == header && (header == 40 || packet[6] & !0x40 == 0 && packet[7] == 0);
    flags.0 & FLAGS == TcpFlags::ACK && is_whole && is_near && is_short && hops > 2
}

/// Takes a hop off a packet, as a router does.
fn hop(packet: &mut [u8]) {
    if packet[0] >> 4 == 6 {
        packet[7] -= 1;
        return;
    }
    packet[8] -= 1;
    packet[10..12].fill(0);
    let sum = !checksum::fold(checksum::add(0, &packet[..20]));
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// An engine that offers flows soon.
fn engine(settings: &Settings) -> Engine {
    let mut engine = Engine::new(settings);
    engine.offer_paths(64);
    engine.offer_paths_after(SOON);
    engine
}

fn settings_of(file: &FilePath) -> Settings {
    let text = std::fs::read_to_string(file).unwrap();
    let mut settings = crate::config::parse(&text, "config.toml").unwrap();
    settings.gateway.mtu = 65_535;
    settings
}

/// Hands all packets of a capture to both.
fn replay(bench: &mut Bench, settings: &Settings, capture: File) {
    let mut engine = engine(settings);
    let mut reader = Reader::new(capture).unwrap();
    let mut now = Instant::ZERO;
    while let Ok(Some(frame)) = reader.next_frame() {
        now = now.max(Instant::from_nanos(frame.at));
        while engine.poll_timeout().is_some_and(|due| due <= now) {
            engine.handle_timeout(now);
            while let Some(place) = engine.poll_due() {
                let (_, report) = bench.shortcut.report(now, place);
                engine.carried(now, place, None, &Carried { packets: [0; 2], bytes: [0; 2], ..report });
            }
        }
        if let Ok(at) = frame.link.ip_offset(&frame.data)
            && at < frame.data.len()
            && parse(&frame.data[at..]).is_ok()
        {
            bench.compare(&mut engine, now, &frame.data[at..]);
        }
    }
    engine.offer_paths(0);
    bench.keep_up(&mut engine, now);
}

/// Captures below the manifest's directory.
fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_program_makes_of_every_golden_packet_what_the_engine_makes_of_it() {
    bench("eq-short1", |bench| {
        for case in std::fs::read_dir(root().join("pcap-tests/cases")).unwrap() {
            let case = case.unwrap().path();
            let inputs = ["in.pcapng", "in.pcap", "in.pcap.gz"].map(|name| case.join(name));
            let input = inputs.into_iter().find(|path| path.exists()).unwrap();
            // Some cases are about files that cannot be read.
            let (Ok(file), true) = (File::open(&input), case.join("config.toml").exists()) else { continue };
            if Reader::new(File::open(&input).unwrap()).is_ok() {
                replay(bench, &settings_of(&case.join("config.toml")), file);
            }
        }
        assert!(bench.carried > 100, "{}", bench.carried);
    });
}

#[test]
fn the_program_makes_of_every_packet_of_real_programs_what_the_engine_makes_of_it() {
    bench("eq-short2", |bench| {
        let captures = root().join("fixtures/captures");
        let settings = settings_of(&captures.join("gateway.toml"));
        for name in ["http.pcap", "iperf3.pcap.gz", "partial.pcap", "raw.pcap", "spread.pcapng", "vlan.pcap"] {
            replay(bench, &settings, File::open(captures.join(name)).unwrap());
        }
        assert!(bench.carried > 500, "{}", bench.carried);
    });
}
