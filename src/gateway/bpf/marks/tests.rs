//! The programs beside a reference in Rust, through BPF_PROG_TEST_RUN.

use super::*;
use crate::capture::Reader;
use crate::flow::Key;
use crate::gateway::testing::settings;
use crate::packet::{Parsed, Transport, error_kind, parse, quote};
use aya::programs::{TestRun, TestRunOptions};
use std::path::Path;

const SERVER: &str = "10.9.0.2";
const SERVER6: &str = "fd09::2";

fn loaded(servers: &[&str], keys: u32) -> Option<Marks> {
    let servers: Vec<_> = servers.iter().map(|server| (*server, None)).collect();
    let settings = settings(&[("192.0.2.1", crate::balance::Protocol::Tcp, 80, 80)], &servers);
    match Marks::with_room(&settings, keys) {
        Ok(marks) => Some(marks),
        // In a user namespace there is no right to load programs.
        Err(e) if e.errno == Some(libc::EPERM) => {
            println!("SKIPPED: {e}; {}", e.fix());
            None
        }
        Err(e) => panic!("{e}; {}", e.fix()),
    }
}

impl Marks {
    /// Runs a program with a packet that has a mark; returns the mark that it has then.
    fn run(&mut self, name: &str, packet: &[u8], mark: u32) -> u32 {
        let kind: [u8; 2] = if packet[0] >> 4 == 6 { [0x86, 0xdd] } else { [8, 0] };
        // A test run takes less than a page, and the programs look at the headers alone.
        let frame = [&[0; 12][..], &kind, &packet[..packet.len().min(2000)]].concat();
        // `struct __sk_buff`; the mark is its third word.
        let mut context = [0u8; 192];
        context[8..12].copy_from_slice(&mark.to_ne_bytes());
        let mut after = [0u8; 192];
        let options = TestRunOptions {
            data_in: Some(&frame),
            ctx_in: Some(&context),
            ctx_out: Some(&mut after),
            ..TestRunOptions::new()
        };
        let result = self.program(name).unwrap().test_run(options).unwrap();
        assert_eq!(result.return_value, u32::MAX, "the packet goes on to other programs");
        u32::from_ne_bytes(after[8..12].try_into().unwrap())
    }

    fn arrives(&mut self, packet: &[u8]) -> bool {
        self.run(ARRIVE, packet, 0) == IN
    }

    fn emerges(&mut self, packet: &[u8]) {
        assert_eq!(self.run(EMERGE, packet, 0), OUT);
    }

    fn keys(&self) -> Vec<Key> {
        let mut keys = Vec::new();
        let mut last = None;
        while let Some(next) = self.next(last.as_ref()) {
            keys.push(next.key());
            last = Some(next);
        }
        keys
    }
}

/// The reference: what a packet is to the programs, by the engine's own parser.
#[derive(Debug, PartialEq)]
enum Is {
    /// Of a flow, with a key: whether its replies can have a key, and whether it can be a reply.
    Keyed { key: Key, asks: bool, answers: bool },
    /// An error about a packet with this key.
    About(Key),
    /// Neither, or a fragment.
    Else,
}

fn reference(packet: &[u8], parsed: &Parsed) -> Is {
    let key = |src_port, dst_port| Key {
        addresses: parsed.addresses,
        src_port,
        dst_port,
        protocol: Protocol::of_number(parsed.protocol),
    };
    let (key, asks, answers) = match parsed.transport {
        _ if !parsed.whole => return Is::Else,
        Transport::Tcp { src, dst, flags, .. } => (key(src, dst), !flags.rst(), true),
        Transport::Udp { src, dst, .. } | Transport::Sctp { src, dst, .. } => (key(src, dst), true, true),
        Transport::Echo { id, request, .. } => (key(id, id), request, !request),
        // ICMP of the other family is no flow's.
        Transport::Other if key(0, 0).protocol == Protocol::Icmp => return Is::Else,
        Transport::Other => (key(0, 0), true, true),
        Transport::Icmp { .. } if error_kind(packet, parsed).is_some() => {
            return match quote(packet, parsed) {
                Ok(about) if !about.later => Is::About(Key {
                    addresses: about.addresses,
                    src_port: about.src_port,
                    dst_port: about.dst_port,
                    protocol: about.protocol,
                }),
                _ => Is::Else,
            };
        }
        _ => return Is::Else,
    };
    Is::Keyed { key, asks, answers }
}

/// All packets of a golden case that the engine's parser accepts.
fn packets(case: &Path) -> Vec<Vec<u8>> {
    let input =
        ["in.pcapng", "in.pcap", "in.pcap.gz"].map(|name| case.join(name)).into_iter().find(|path| path.exists());
    let file = std::fs::File::open(input.expect("a capture")).unwrap();
    let mut reader = Reader::new(file).unwrap();
    let mut packets = Vec::new();
    while let Ok(Some(frame)) = reader.next_frame() {
        if let Ok(at) = frame.link.ip_offset(&frame.data)
            && at < frame.data.len()
        {
            packets.push(frame.data[at..].to_vec());
        }
    }
    packets
}

#[test]
fn the_programs_judge_every_golden_packet_as_the_reference_does() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("pcap-tests/cases");
    let (mut keyed, mut about) = (0, 0);
    for case in std::fs::read_dir(cases).unwrap() {
        let case = case.unwrap().path();
        let packets = packets(&case);
        let whole = packets.iter().filter_map(|packet| Some((packet, parse(packet).ok()?))).collect::<Vec<_>>();
        // Every destination is a server, so every packet that asks must leave a key.
        let servers: BTreeSet<String> = whole.iter().map(|(_, parsed)| parsed.addresses.dst().to_string()).collect();
        let servers: Vec<&str> = servers.iter().map(String::as_str).collect();
        let Some(mut marks) = loaded(&servers, 64) else { return };
        for packet in &packets {
            if parse(packet).is_err() && packet.len() >= 40 {
                // Whatever it is: it comes to no harm, and is not marked without a key.
                marks.run(ARRIVE, packet, 0);
            }
        }
        for (packet, parsed) in &whole {
            let what = || format!("{}: {}", case.display(), crate::packet::describe(packet));
            match reference(packet, parsed) {
                Is::Keyed { key, asks, answers } => {
                    keyed += 1;
                    marks.emerges(packet);
                    let want = if asks { vec![key.reversed()] } else { Vec::new() };
                    assert_eq!(marks.keys(), want, "{}", what());
                    want.iter().for_each(|key| assert!(marks.remove(&Reply::new(key))));
                    assert!(!marks.arrives(packet), "{}: without its key", what());
                    marks.store(&key).unwrap();
                    assert_eq!(marks.arrives(packet), answers, "{}: with its key", what());
                    assert!(marks.remove(&Reply::new(&key)));
                }
                Is::About(key) => {
                    about += 1;
                    assert!(!marks.arrives(packet), "{}", what());
                    marks.store(&key.reversed()).unwrap();
                    assert!(marks.arrives(packet), "{}", what());
                    assert!(marks.remove(&Reply::new(&key.reversed())));
                }
                Is::Else => {
                    marks.run(ARRIVE, packet, 0);
                    marks.emerges(packet);
                    marks.keys().iter().for_each(|key| assert!(marks.remove(&Reply::new(key))));
                }
            }
        }
    }
    assert!(keyed > 2000 && about > 40, "{keyed} {about}");
}

/// A datagram of one family from a server's port 53 to a client's port.
fn datagram(v6: bool, port: u16, len: usize) -> Vec<u8> {
    use etherparse::PacketBuilder;
    let mut packet = Vec::new();
    let data = vec![7; len];
    if v6 {
        let server = SERVER6.parse::<Ipv6Addr>().unwrap().octets();
        PacketBuilder::ipv6(server, [7; 16], 64).udp(53, port).write(&mut packet, &data).unwrap();
    } else {
        PacketBuilder::ipv4([10, 9, 0, 2], [198, 51, 100, 7], 64).udp(53, port).write(&mut packet, &data).unwrap();
    }
    packet
}

/// The fragments of a datagram: the first, and two that follow.
fn fragments(v6: bool, port: u16, id: u8) -> [Vec<u8>; 3] {
    let whole = datagram(v6, port, 3000);
    let header = if v6 { 40 } else { 20 };
    [0, 1000, 2000].map(|at| {
        let end = (at + 1000).min(whole.len() - header);
        let field = (at as u16 / 8) << if v6 { 3 } else { 0 };
        let more = end < whole.len() - header;
        let mut piece = whole[..header].to_vec();
        if v6 {
            piece[6] = 44;
            piece.extend([17, 0]);
            piece.extend((field | u16::from(more)).to_be_bytes());
            piece.extend([0, 0, 0, id]);
        } else {
            piece[5] = id;
            piece[6..8].copy_from_slice(&(field | if more { 0x2000 } else { 0 }).to_be_bytes());
        }
        piece.extend(&whole[header + at..header + end]);
        piece
    })
}

#[test]
fn fragments_follow_their_first_and_those_before_it_take_it_with_them() {
    let Some(mut marks) = loaded(&[SERVER, SERVER6], 16) else { return };
    for v6 in [false, true] {
        let key = |port| {
            let packet = datagram(v6, port, 10);
            Key { addresses: parse(&packet).unwrap().addresses, src_port: 53, dst_port: port, protocol: Protocol::Udp }
        };
        marks.store(&key(4711)).unwrap();
        // (port, order of the pieces, whether they are ours)
        for (id, (port, order, want)) in [
            (4711, [0, 1, 2], true),
            (4711, [0, 2, 1], true),
            (4711, [2, 0, 1], true),
            (4712, [0, 1, 2], false),
            // Which packet it is of turns out only later: the engine passes all of it.
            (4712, [1, 0, 2], true),
        ]
        .into_iter()
        .enumerate()
        {
            let pieces = fragments(v6, port, id as u8);
            for piece in order {
                assert_eq!(marks.arrives(&pieces[piece]), want, "v6: {v6}, {port} {order:?} {piece}");
            }
        }
        // Of somebody else.
        let mut foreign = fragments(v6, 4711, 99)[1].clone();
        foreign[if v6 { 23 } else { 15 }] ^= 0x40;
        assert!(!marks.arrives(&foreign));
    }
}

#[test]
fn marks_of_others_stay_and_ours_are_nobody_elses_to_set() {
    let Some(mut marks) = loaded(&[SERVER], 16) else { return };
    let packet = datagram(false, 4711, 10);
    assert_eq!(marks.run(ARRIVE, &packet, IN | OUT | 0x55), 0x55);
    let addresses = parse(&packet).unwrap().addresses;
    marks.store(&Key { addresses, src_port: 53, dst_port: 4711, protocol: Protocol::Udp }).unwrap();
    assert_eq!(marks.run(ARRIVE, &packet, OUT | 0x55), IN | 0x55);
    assert_eq!(marks.run(EMERGE, &packet, IN | 0x55), OUT | 0x55);
}

#[test]
fn without_room_for_a_key_everything_from_servers_is_marked_until_the_keys_are_complete() {
    let Some(mut marks) = loaded(&[SERVER, SERVER6], 2) else { return };
    for v6 in [false, true] {
        let towards = |port| {
            let mut packet = datagram(v6, port, 10);
            // The other way round.
            let (at, len) = if v6 { (8, 16) } else { (12, 4) };
            let (a, b) = packet[at..at + 2 * len].split_at_mut(len);
            a.swap_with_slice(b);
            let ports = if v6 { 40 } else { 20 };
            let (a, b) = packet[ports..ports + 4].split_at_mut(2);
            a.swap_with_slice(b);
            packet
        };
        (1..=3).for_each(|port| marks.emerges(&towards(port)));
        assert_eq!(marks.keys().len(), 2);
        let (broad, missed) = marks.missing();
        assert!(broad, "the third found no room");
        for port in [1, 3, 4] {
            assert!(marks.arrives(&datagram(v6, port, 10)), "{port}");
        }
        marks.is_complete(missed - 1).unwrap();
        assert!(marks.missing().0, "one more was missed meanwhile");
        marks.is_complete(missed).unwrap();
        assert!(!marks.missing().0);
        assert!(marks.arrives(&datagram(v6, 1, 10)) && !marks.arrives(&datagram(v6, 4, 10)));
        marks.keys().iter().for_each(|key| assert!(marks.remove(&Reply::new(key))));
    }
}
