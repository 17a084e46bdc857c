//! A capture in the making: packets at times, after link headers, in a file of some format.
//!
//! It must not know what the packets mean.

use equipoise::capture::{Link, Writer};
use flate2::write::GzEncoder;
use std::io::Write;

/// When every film begins: 2023-11-14 22:13:20 UTC.
const START: u64 = 1_700_000_000_000_000_000;
/// The addresses in Ethernet frames: the gateway's, then the other's.
const MACS: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];

/// A file format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// pcapng, little-endian, nanoseconds.
    Pcapng,
    /// pcapng, big-endian, 2^-20 s, timestamps relative to an hour before the film.
    PcapngBig,
    /// pcap, little-endian, microseconds.
    Pcap,
    /// pcap, big-endian, microseconds.
    PcapBig,
    /// pcap, little-endian, nanoseconds.
    PcapNanos,
    /// pcap, little-endian, microseconds, gzipped.
    PcapGzip,
}

struct Shot {
    at: u64,
    link: Link,
    header: Vec<u8>,
    packet: Vec<u8>,
    /// Octets that were on the wire and not captured.
    missing: u32,
}

/// A capture in the making.
pub struct Film {
    /// The format of the file; all but pcapng have one link type.
    pub format: Format,
    /// The link type of the packets that follow.
    pub link: Link,
    /// VLAN tags of the packets that follow, as in the frame.
    pub tags: Vec<u8>,
    now: u64,
    shots: Vec<Shot>,
}

impl Film {
    /// An empty capture: pcapng, Ethernet.
    pub fn new() -> Film {
        Film { format: Format::Pcapng, link: Link::Ethernet, tags: Vec::new(), now: START, shots: Vec::new() }
    }

    /// Adds a packet, one millisecond after the previous one.
    pub fn show(&mut self, packet: Vec<u8>) {
        let kind = if packet.first().is_some_and(|first| first >> 4 == 6) { [0x86, 0xdd] } else { [0x08, 0x00] };
        let header = match self.link {
            Link::Ethernet => [&MACS[..], &self.tags, &kind].concat(),
            Link::Raw(_) => Vec::new(),
            // To us, Ethernet, a source address of six octets.
            Link::Cooked => [&[0, 0, 0, 1, 0, 6][..], &MACS[6..], &[0, 0], &kind].concat(),
            // The same, on interface 3.
            Link::Cooked2 => [&kind[..], &[0, 0, 0, 0, 0, 3, 0, 1, 0, 6], &MACS[6..], &[0, 0]].concat(),
            // AF_INET, and Darwin's AF_INET6; null in little-endian byte order, loop in network byte order.
            Link::Null(0) => vec![if kind[0] == 8 { 2 } else { 30 }, 0, 0, 0],
            Link::Null(_) => vec![0, 0, 0, if kind[0] == 8 { 2 } else { 30 }],
            Link::Ppp(9) => vec![0xff, 3, 0, if kind[0] == 8 { 0x21 } else { 0x57 }],
            link => panic!("no film of link type {}", link.number()),
        };
        self.frame(header, packet);
    }

    /// Adds all of them, each one millisecond after the previous one.
    pub fn show_all(&mut self, packets: impl IntoIterator<Item = Vec<u8>>) {
        packets.into_iter().for_each(|packet| self.show(packet));
    }

    /// Adds a frame with a given link header.
    pub fn frame(&mut self, header: Vec<u8>, packet: Vec<u8>) {
        self.shots.push(Shot { at: self.now, link: self.link, header, packet, missing: 0 });
        self.now += 1_000_000;
    }

    /// States that the last frame was longer than what was captured of it.
    pub fn cut(&mut self, missing: u32) {
        self.shots.last_mut().expect("a frame").missing = missing;
    }

    /// Advances the time.
    pub fn wait_ms(&mut self, ms: u64) {
        self.now += ms * 1_000_000;
    }

    /// Advances the time, to the nanosecond.
    pub fn wait_ns(&mut self, ns: u64) {
        self.now += ns;
    }

    /// Sets the time to this many milliseconds after the beginning.
    pub fn at_ms(&mut self, ms: u64) {
        self.now = START + ms * 1_000_000;
    }

    /// Returns the file's name and bytes.
    pub fn develop(&self) -> (&'static str, Vec<u8>) {
        match self.format {
            Format::Pcapng => ("in.pcapng", self.pcapng()),
            Format::PcapngBig => ("in.pcapng", self.pcapng_big()),
            Format::Pcap | Format::PcapBig | Format::PcapNanos => ("in.pcap", self.pcap()),
            Format::PcapGzip => {
                let mut packed = GzEncoder::new(Vec::new(), flate2::Compression::default());
                packed.write_all(&self.pcap()).expect("memory");
                ("in.pcap.gz", packed.finish().expect("memory"))
            }
        }
    }

    fn pcapng(&self) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new()).expect("memory");
        for shot in &self.shots {
            assert_eq!(shot.missing, 0, "the writer cannot cut a packet: use pcap");
            writer.frame(shot.at, shot.link, &shot.header, &shot.packet).expect("memory");
        }
        writer.finish().expect("memory")
    }

    /// pcap-savefile(5).
    fn pcap(&self) -> Vec<u8> {
        let big = self.format == Format::PcapBig;
        let nanos = self.format == Format::PcapNanos;
        let long = |value: u32| if big { value.to_be_bytes() } else { value.to_le_bytes() };
        let short = |value: u16| if big { value.to_be_bytes() } else { value.to_le_bytes() };
        let mut file = Vec::new();
        file.extend(long(if nanos { 0xa1b2_3c4d } else { 0xa1b2_c3d4 }));
        file.extend([short(2), short(4)].concat());
        let link = self.shots.first().expect("a frame").link;
        file.extend([long(0), long(0), long(262_144), long(link.number() as u32)].concat());
        for shot in &self.shots {
            assert_eq!(shot.link, link, "one link type a pcap");
            let len = (shot.header.len() + shot.packet.len()) as u32;
            let fraction = shot.at % 1_000_000_000 / if nanos { 1 } else { 1000 };
            file.extend(long((shot.at / 1_000_000_000) as u32));
            file.extend(long(fraction as u32));
            file.extend([long(len), long(len + shot.missing)].concat());
            file.extend([&shot.header[..], &shot.packet].concat());
        }
        file
    }

    /// pcapng, 4.1 to 4.3, with `if_tsresol` (9) of 2^-20 s and `if_tsoffset` (14).
    fn pcapng_big(&self) -> Vec<u8> {
        let offset = START / 1_000_000_000 - 3600;
        let mut file = Vec::new();
        let mut block = |kind: u32, body: &[u8]| {
            let padded = body.len().next_multiple_of(4);
            let len = (padded as u32 + 12).to_be_bytes();
            file.extend([&kind.to_be_bytes()[..], &len, body, &[0; 3][..padded - body.len()], &len].concat());
        };
        block(0x0a0d_0d0a, &[&0x1a2b_3c4du32.to_be_bytes()[..], &[0, 1, 0, 0], &[0xff; 8]].concat());
        let link = self.shots.first().expect("a frame").link;
        let options = [&[0, 9, 0, 1, 0x80 | 20, 0, 0, 0, 0, 14, 0, 8][..], &offset.to_be_bytes(), &[0; 4]].concat();
        block(1, &[&(link.number() as u16).to_be_bytes()[..], &[0; 2], &[0; 4], &options].concat());
        for shot in &self.shots {
            assert_eq!(shot.link, link, "one link type here");
            let len = (shot.header.len() + shot.packet.len()) as u32;
            let units = u128::from(shot.at - offset * 1_000_000_000) * (1 << 20) / 1_000_000_000;
            let words = [0, (units >> 32) as u32, units as u32, len, len + shot.missing];
            let words: Vec<u8> = words.into_iter().flat_map(u32::to_be_bytes).collect();
            block(6, &[&words[..], &shot.header, &shot.packet].concat());
        }
        file
    }
}
