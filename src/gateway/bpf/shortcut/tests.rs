//! The program beside the engine, through BPF_PROG_TEST_RUN: what it carries is the same, byte for byte.

use super::*;
use crate::capture::Reader;
use crate::config::Settings;
use crate::engine::{Engine, Forwarded, Verdict};
use crate::flow::Key;
use crate::gateway::testing::{namespace, tun};
use crate::packet::{Meta, TcpFlags, Transport, checksum, parse};
use aya::programs::{TestRun, TestRunOptions};
use etherparse::PacketBuilder;
use std::collections::HashMap;
use std::fs::File;
use std::net::IpAddr;
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
            "addr add 169.254.77.1/30 dev out",
            "addr add 2001:db8:ffff::1/64 dev out nodad",
            "neigh add 169.254.77.2 lladdr 02:00:00:00:00:02 dev out",
            "neigh add 2001:db8:ffff::2 lladdr 02:00:00:00:00:02 dev out",
            "route add default via 169.254.77.2",
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

    /// Runs the program with several segments of so many bytes of data together, whose number the device does not tell.
    fn run_super_packet(&mut self, packet: &[u8], size: u32) -> bool {
        // `gso_segs` and `gso_size` of `struct __sk_buff`, which has 192 bytes.
        const SIZE: usize = 176;
        let frame = [&[0; 12][..], &[8, 0], packet].concat();
        let (mut after, mut context) = (vec![0; frame.len() + 64], [0; 192]);
        context[SIZE..SIZE + 4].copy_from_slice(&size.to_ne_bytes());
        let options = TestRunOptions {
            data_in: Some(&frame),
            data_out: Some(&mut after),
            ctx_in: Some(&context),
            ..TestRunOptions::new()
        };
        self.shortcut.program().unwrap().test_run(options).unwrap().return_value == REDIRECTED
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

const CLIENT: ([u8; 4], [u8; 16]) = ([198, 51, 100, 7], [7; 16]);
const SERVICE: ([u8; 4], [u8; 16]) = ([192, 0, 2, 80], [8; 16]);
const SERVER: ([u8; 4], [u8; 16]) = ([10, 0, 2, 1], [9; 16]);
const NEXT: u32 = 1_000_000;

/// A flow of each family, and a segment of its client that is carried.
fn flow(v6: bool) -> (Path, Vec<u8>) {
    let mut segment = Vec::new();
    if v6 {
        let builder = PacketBuilder::ipv6(CLIENT.1, SERVICE.1, 64).tcp(4000, 80, NEXT, 99).ack(7);
        builder.write(&mut segment, &[0; 100]).unwrap();
    } else {
        let builder = PacketBuilder::ipv4(CLIENT.0, SERVICE.0, 64).tcp(4000, 80, NEXT, 99).ack(7);
        builder.write(&mut segment, &[0; 100]).unwrap();
    }
    let address = |(v4, v6_address): ([u8; 4], [u8; 16])| {
        if v6 { IpAddr::V6(v6_address.into()) } else { IpAddr::V4(v4.into()) }
    };
    let key = |src, src_port, dst, dst_port| {
        let addresses = crate::packet::Addresses::new(address(src), address(dst)).unwrap();
        Key { addresses, src_port, dst_port, protocol: crate::packet::Protocol::Tcp }
    };
    let path = Path {
        place: u32::from(v6),
        flow: crate::ids::FlowId { index: 0, generation: 0 },
        ends: [key(CLIENT, 4000, SERVICE, 80), key(SERVER, 8080, CLIENT, 4000)],
        mtu: [1500; 2],
        sequence: Sequence { next: [NEXT, 7], acked: [7, NEXT] },
    };
    (path, segment)
}

#[test]
fn what_is_not_like_almost_all_goes_on_to_the_gateway() {
    bench("eq-short3", |bench| {
        for v6 in [false, true] {
            let (path, segment) = flow(v6);
            assert!(bench.run(&segment).is_none(), "it is not carried yet");
            bench.shortcut.put(&path).unwrap();
            assert!(bench.run(&segment).is_some());
            let tcp = if v6 { 40 } else { 20 };
            let refused = |bench: &mut Bench, what: &str, change: &dyn Fn(&mut Vec<u8>)| {
                let mut changed = segment.clone();
                change(&mut changed);
                assert!(bench.run(&changed).is_none(), "v6: {v6}, {what}");
            };
            for flags in [0x11, 0x12, 0x14, 0x30, 0x00, 0x02, 0x04] {
                refused(bench, &format!("flags {flags:#x}"), &|p| p[tcp + 13] = flags);
            }
            // PSH, ECE and CWR say nothing.
            for flags in [0x18, 0x50, 0x90] {
                let mut pushed = segment.clone();
                pushed[tcp + 13] = flags;
                assert!(bench.run(&pushed).is_some());
            }
            for hops in 0..3 {
                refused(bench, "its last hops", &|p| p[if v6 { 7 } else { 8 }] = hops);
            }
            refused(bench, "another port", &|p| p[tcp + 1] ^= 1);
            refused(bench, "another address", &|p| p[if v6 { 30 } else { 17 }] ^= 1);
            refused(bench, "another protocol", &|p| p[if v6 { 6 } else { 9 }] = 17);
            refused(bench, "a number far ahead", &|p| {
                p[tcp + 4..][..4].copy_from_slice(&(NEXT + (3 << 20)).to_be_bytes())
            });
            refused(bench, "a number far behind", &|p| {
                p[tcp + 4..][..4].copy_from_slice(&NEXT.wrapping_sub(3 << 20).to_be_bytes())
            });
            refused(bench, "a header that is too short", &|p| p[tcp + 12] = 0x40);
            refused(bench, "a header beyond the packet", &|p| {
                p.truncate(tcp + 20);
                p[tcp + 12] = 0xf0;
                let at = if v6 { 4 } else { 2 };
                let len: u16 = if v6 { 20 } else { 40 };
                p[at..at + 2].copy_from_slice(&len.to_be_bytes());
            });
            refused(bench, "a length beyond the packet", &|p| p[if v6 { 4 } else { 2 }] = 1);
            refused(bench, "too long", &|p| {
                p.resize(1501, 0);
                let at = if v6 { 4 } else { 2 };
                let len = if v6 { 1461u16 } else { 1501 };
                p[at..at + 2].copy_from_slice(&len.to_be_bytes());
            });
            if v6 {
                refused(bench, "destination options", &|p| p[6] = 60);
            } else {
                for fragment in [0x2000u16, 0x0001, 0x8000] {
                    refused(bench, "a fragment", &|p| p[6..8].copy_from_slice(&fragment.to_be_bytes()));
                }
                refused(bench, "options", &|p| p[0] = 0x46);
            }
            // Nobody there, no way on, and one that leads back.
            let next = if v6 { "2001:db8:ffff::2" } else { "169.254.77.2" };
            ip(&format!("neigh del {next} dev out"));
            assert!(bench.run(&segment).is_none(), "the kernel asks for the neighbour, and answers if there is none");
            ip(&format!("neigh add {next} lladdr 02:00:00:00:00:02 dev out"));
            assert!(bench.run(&segment).is_some());
            ip(if v6 { "-6 route del default" } else { "route del default" });
            assert!(bench.run(&segment).is_none());
            ip(if v6 { "-6 route add default dev eqtest0" } else { "route add default dev eqtest0" });
            assert!(bench.run(&segment).is_none());
            ip(if v6 { "-6 route del default" } else { "route del default" });
            // A way that takes less.
            let via = if v6 {
                "-6 route add default via 2001:db8:ffff::2 mtu 1280"
            } else {
                "route add default via 169.254.77.2 mtu lock 120"
            };
            ip(via);
            let carried = bench.run(&segment).is_some();
            assert_eq!(carried, v6, "120 bytes of IPv4 are fewer than it has");
            bench.shortcut.remove(path.place).unwrap();
            assert!(bench.run(&segment).is_none());
        }
    });
}

#[test]
fn segments_together_count_as_the_packets_that_they_stand_for() {
    bench("eq-short4", |bench| {
        let (path, segment) = flow(false);
        bench.shortcut.put(&path).unwrap();
        // 100 bytes of data.
        for (size, packets) in [(0, 1), (100, 2), (60, 4), (50, 6), (33, 10)] {
            assert!(bench.run_super_packet(&segment, size), "{size}");
            assert_eq!(bench.shortcut.packets(path.place), packets, "{size}");
        }
    });
}
