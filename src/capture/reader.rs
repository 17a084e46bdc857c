//! Reads pcap and pcapng, gzipped or not, frame by frame, from any source of bytes.
//!
//! pcap-parser finds the blocks; timestamps are computed here, because it drops binary resolutions and reads offsets
//! in the wrong byte order.

use super::error::CaptureError;
use super::link::Link;
use flate2::read::MultiGzDecoder;
use pcap_parser::pcapng::{Block, PcapNGOption};
use pcap_parser::traits::{PcapNGPacketBlock, PcapReaderIterator};
use pcap_parser::{InterfaceDescriptionBlock, OptionCode, PcapBlockOwned, PcapError, PcapHeader, create_reader};
use std::io::{self, Cursor, Read};
use std::sync::{Arc, Mutex};

/// Room for the largest block; a longer one is damage.
const MOST: usize = 1 << 19;

/// A frame of a capture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its number, from 1.
    pub number: u64,
    /// Nanoseconds since 1970, 0 if the capture has no timestamp.
    pub at: u64,
    /// The name of the ingress interface, if the capture states it (pcapng, 4.2: `if_name`).
    pub interface: Option<Arc<str>>,
    /// Its link type.
    pub link: Link,
    /// The bytes that were captured.
    pub data: Vec<u8>,
    /// Its length on the wire.
    pub original_len: usize,
}

/// An interface of a pcapng section.
#[derive(Debug, Clone)]
struct Interface {
    name: Option<Arc<str>>,
    link: Link,
    snaplen: u32,
    units_per_second: u128,
    /// Seconds to add.
    offset: i64,
}

/// Reads a capture.
pub struct Reader<'r> {
    blocks: Box<dyn PcapReaderIterator + Send + 'r>,
    /// Whether it is pcapng.
    is_ng: bool,
    legacy: Option<(bool, Interface)>,
    interfaces: Vec<Interface>,
    big_endian: bool,
    packets: u64,
    offset: u64,
    source_failed: Arc<Mutex<Option<io::Error>>>,
}

/// Fills a buffer as far as the source goes, since a short read is not the end of a file. An error ends the source
/// and is kept: pcap-parser would discard it, along with the packets before it.
struct Source<R> {
    inner: R,
    ended: bool,
    failed: Arc<Mutex<Option<io::Error>>>,
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buf.len() && !self.ended {
            match self.inner.read(&mut buf[filled..]) {
                Ok(0) => self.ended = true,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.ended = true;
                    if let Ok(mut failed) = self.failed.lock() {
                        *failed = Some(error);
                    }
                }
            }
        }
        Ok(filled)
    }
}

impl<'r> Reader<'r> {
    /// Opens a capture; the first bytes determine the format.
    pub fn new(mut source: impl Read + Send + 'r) -> Result<Self, CaptureError> {
        let mut head = Vec::new();
        source.by_ref().take(4).read_to_end(&mut head).map_err(CaptureError::Io)?;
        if head.is_empty() {
            return Err(CaptureError::Empty);
        }
        let whole = Cursor::new(head.clone()).chain(source);
        if head.starts_with(&[0x1f, 0x8b]) {
            let mut plain = MultiGzDecoder::new(whole);
            let mut head = Vec::new();
            let read = plain.by_ref().take(4).read_to_end(&mut head);
            read.map_err(|error| damaged_gzip(0, 0, &error))?;
            return Self::plain(head.clone(), Cursor::new(head).chain(plain));
        }
        Self::plain(head, whole)
    }

    fn plain(head: Vec<u8>, source: impl Read + Send + 'r) -> Result<Self, CaptureError> {
        const MAGICS: [[u8; 4]; 5] = [
            [0x0a, 0x0d, 0x0d, 0x0a],
            [0xd4, 0xc3, 0xb2, 0xa1],
            [0xa1, 0xb2, 0xc3, 0xd4],
            [0x4d, 0x3c, 0xb2, 0xa1],
            [0xa1, 0xb2, 0x3c, 0x4d],
        ];
        if !MAGICS.iter().any(|magic| head == magic) {
            let begins = if head.iter().all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace()) {
                format!("the text {:?}", String::from_utf8_lossy(&head))
            } else {
                format!("the bytes {head:02x?}")
            };
            return Err(CaptureError::NotACapture { begins });
        }
        let failed = Arc::default();
        let source = Source { inner: source, ended: false, failed: Arc::clone(&failed) };
        let blocks = create_reader(MOST, source);
        let error = failed.lock().ok().and_then(|mut failed| failed.take_if(|_| blocks.is_err()));
        if let Some(error) = error {
            return Err(of_source(0, 0, error));
        }
        let what = || "the capture header is truncated or invalid".into();
        Ok(Reader {
            blocks: blocks.map_err(|_| CaptureError::Damaged { packets: 0, offset: 0, what: what() })?,
            is_ng: head[..] == MAGICS[0],
            legacy: None,
            interfaces: Vec::new(),
            big_endian: false,
            packets: 0,
            offset: 0,
            source_failed: failed,
        })
    }

    /// Returns the next frame; `None` at the end.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, CaptureError> {
        loop {
            if self.is_ng && short_block(self.blocks.data()) {
                return Err(self.damaged("a block states a length shorter than its own framing".into()));
            }
            let (size, found) = match self.blocks.next() {
                Ok((size, block)) => (size, take_block(&block)),
                Err(PcapError::Eof) => return self.source_error().map_or(Ok(None), Err),
                Err(PcapError::Incomplete(_)) => {
                    let refilled = self.blocks.refill().is_ok();
                    if let Some(error) = self.source_error() {
                        return Err(error);
                    }
                    if !refilled {
                        return Err(self.cut_off());
                    }
                    continue;
                }
                Err(PcapError::UnexpectedEof) => return Err(self.source_error().unwrap_or(self.cut_off())),
                Err(PcapError::BufferTooSmall) => {
                    return Err(self.damaged(format!("a block or packet states a length of more than {MOST} bytes")));
                }
                Err(_) => return Err(self.damaged("a block's type, length or contents make no sense".into())),
            };
            let frame = self.take(found)?;
            self.blocks.consume(size);
            self.offset += size as u64;
            if frame.is_some() {
                return Ok(frame);
            }
        }
    }

    fn take(&mut self, found: Found) -> Result<Option<Frame>, CaptureError> {
        match found {
            Found::Nothing => Ok(None),
            Found::Section { big_endian } => {
                self.big_endian = big_endian;
                self.interfaces.clear();
                Ok(None)
            }
            Found::Header { nanos, link, snaplen } => {
                let units_per_second = if nanos { 1_000_000_000 } else { 1_000_000 };
                self.legacy = Some((nanos, Interface { name: None, link, snaplen, units_per_second, offset: 0 }));
                Ok(None)
            }
            Found::Interface(description) => {
                self.interfaces.push(description.checked(self.big_endian));
                Ok(None)
            }
            Found::Legacy { seconds, fraction, caplen, original_len, data } => {
                let Some((_, interface)) = self.legacy.clone() else {
                    return Err(self.damaged("a packet before the header".into()));
                };
                let at = u128::from(seconds) * 1_000_000_000
                    + u128::from(fraction) * (1_000_000_000 / interface.units_per_second);
                self.frame(&interface, at.try_into().unwrap_or(u64::MAX), caplen, original_len, data)
            }
            Found::Obsolete { swapped, .. } if swapped != self.big_endian => Ok(None),
            Found::Obsolete { block, .. } => match obsolete(&block, self.big_endian) {
                Some(found) => self.take(found),
                None => Err(self.damaged("a packet block shorter than its header".into())),
            },
            Found::Packet { interface, time, caplen, original_len, data } => {
                let Some(interface) = self.interfaces.get(interface as usize).cloned() else {
                    return Err(self
                        .damaged(format!("a packet names interface {interface}, which has no interface description")));
                };
                let caplen = match caplen {
                    Some(caplen) => caplen,
                    None if interface.snaplen == 0 => original_len,
                    None => original_len.min(interface.snaplen),
                };
                let at = time.map_or(0, |units| nanos(units, &interface));
                self.frame(&interface, at, caplen, original_len, data)
            }
        }
    }

    fn frame(
        &mut self,
        interface: &Interface,
        at: u64,
        caplen: u32,
        original_len: u32,
        mut data: Vec<u8>,
    ) -> Result<Option<Frame>, CaptureError> {
        let link = interface.link;
        if caplen as usize > data.len() {
            return Err(self.damaged(format!(
                "a packet says that {caplen} bytes of it were captured, but {} are there",
                data.len()
            )));
        }
        data.truncate(caplen as usize);
        self.packets += 1;
        let original_len = (original_len as usize).max(data.len());
        let interface = interface.name.clone();
        Ok(Some(Frame { number: self.packets, at, interface, link, data, original_len }))
    }

    fn source_error(&self) -> Option<CaptureError> {
        let error = self.source_failed.lock().ok()?.take()?;
        Some(of_source(self.packets, self.offset, error))
    }

    fn cut_off(&self) -> CaptureError {
        CaptureError::CutOff { packets: self.packets, offset: self.offset }
    }

    fn damaged(&self, what: String) -> CaptureError {
        CaptureError::Damaged { packets: self.packets, offset: self.offset, what }
    }
}

/// Turns an error of the source into one of the capture.
fn of_source(packets: u64, offset: u64, error: io::Error) -> CaptureError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => CaptureError::CutOff { packets, offset },
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => damaged_gzip(packets, offset, &error),
        _ => CaptureError::Io(error),
    }
}

fn damaged_gzip(packets: u64, offset: u64, error: &io::Error) -> CaptureError {
    CaptureError::Damaged { packets, offset, what: format!("the gzip stream cannot be decompressed ({error})") }
}

/// Returns whether the next pcapng block states a length shorter than its type and its two length fields, in either
/// byte order: no block short enough for the reader looks like that in the other order. pcap-parser 0.17 subtracts
/// without a check.
fn short_block(unread: &[u8]) -> bool {
    let length = |bytes: &[u8]| <[u8; 4]>::try_from(bytes).ok();
    let length = unread.get(4..8).and_then(length);
    length.is_some_and(|bytes| u32::from_le_bytes(bytes) < 12 || u32::from_be_bytes(bytes) < 12)
}

/// The contents of a block, copied out of the reader's buffer.
enum Found {
    Nothing,
    Section {
        big_endian: bool,
    },
    Header {
        nanos: bool,
        link: Link,
        snaplen: u32,
    },
    Interface(Description),
    Legacy {
        seconds: u32,
        fraction: u32,
        caplen: u32,
        original_len: u32,
        data: Vec<u8>,
    },
    /// If the block type is `swapped`, it is one only in a big-endian section.
    Obsolete {
        swapped: bool,
        block: Vec<u8>,
    },
    Packet {
        interface: u32,
        time: Option<u64>,
        caplen: Option<u32>,
        original_len: u32,
        data: Vec<u8>,
    },
}

struct Description {
    link: i32,
    snaplen: u32,
    resolution: Option<u8>,
    offset: Option<[u8; 8]>,
    name: Option<Arc<str>>,
}

impl Description {
    fn new(block: &InterfaceDescriptionBlock<'_>) -> Self {
        let option = |code| block.options.iter().find(|o: &&PcapNGOption<'_>| o.code == OptionCode(code));
        Description {
            link: block.linktype.0,
            snaplen: block.snaplen,
            resolution: option(9).and_then(|o| o.value.first().copied()),
            offset: option(14).and_then(|o| o.value.first_chunk().copied()),
            name: option(2).map(|o| String::from_utf8_lossy(&o.value).trim_end_matches('\0').into()),
        }
    }

    /// pcapng, 4.2: `if_tsresol` is a power of ten, or of two if its highest bit is set.
    fn checked(&self, big_endian: bool) -> Interface {
        let units_per_second = match self.resolution {
            None => 1_000_000,
            Some(bits) if bits & 0x80 != 0 => 1u128 << (bits & 0x7f).min(100),
            Some(digits) => 10u128.pow(u32::from(digits.min(30))),
        };
        let offset = self
            .offset
            .map_or(0, |bytes| if big_endian { i64::from_be_bytes(bytes) } else { i64::from_le_bytes(bytes) });
        let link = Link::of(self.link).unwrap_or(Link::Other(self.link));
        Interface { name: self.name.clone(), link, snaplen: self.snaplen, units_per_second, offset }
    }
}

fn nanos(units: u64, interface: &Interface) -> u64 {
    let per_second = interface.units_per_second;
    let (seconds, rest) = (u128::from(units) / per_second, u128::from(units) % per_second);
    // A remainder of up to 2^64 times 10^9 fits in 128 bits.
    let nanos =
        (seconds as i128 + i128::from(interface.offset)) * 1_000_000_000 + (rest * 1_000_000_000 / per_second) as i128;
    u64::try_from(nanos.max(0)).unwrap_or(u64::MAX)
}

fn take_block(block: &PcapBlockOwned<'_>) -> Found {
    match block {
        PcapBlockOwned::LegacyHeader(header) => legacy_header(header),
        PcapBlockOwned::Legacy(packet) => Found::Legacy {
            seconds: packet.ts_sec,
            fraction: packet.ts_usec,
            caplen: packet.caplen,
            original_len: packet.origlen,
            data: packet.data.to_vec(),
        },
        PcapBlockOwned::NG(block) => match block {
            Block::SectionHeader(section) => Found::Section { big_endian: section.big_endian() },
            Block::InterfaceDescription(description) => Found::Interface(Description::new(description)),
            Block::EnhancedPacket(packet) => Found::Packet {
                interface: packet.if_id,
                time: Some(u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low)),
                caplen: Some(packet.caplen),
                original_len: packet.origlen,
                data: packet.raw_packet_data().to_vec(),
            },
            Block::SimplePacket(packet) => Found::Packet {
                interface: 0,
                time: None,
                caplen: None,
                original_len: packet.origlen,
                data: packet.data.to_vec(),
            },
            // pcap-parser reads unknown block types as little-endian in every section.
            Block::Unknown(block) if [OBSOLETE_PACKET, OBSOLETE_PACKET.swap_bytes()].contains(&block.block_type) => {
                Found::Obsolete { swapped: block.block_type != OBSOLETE_PACKET, block: block.data.to_vec() }
            }
            _ => Found::Nothing,
        },
    }
}

/// The Packet Block of early pcapng (draft-ietf-opsawg-pcapng, Appendix B).
const OBSOLETE_PACKET: u32 = 2;

/// Reads such a block: like an Enhanced Packet Block, with 16 bits for the interface and 16 for drops.
fn obsolete(block: &[u8], big_endian: bool) -> Option<Found> {
    let (head, rest) = block.split_first_chunk::<20>()?;
    let word = |at: usize| {
        let bytes = [head[at], head[at + 1], head[at + 2], head[at + 3]];
        if big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    };
    let interface = if big_endian { word(0) >> 16 } else { word(0) & 0xffff };
    let caplen = word(12);
    // Options follow the packet.
    let data = rest[..rest.len().min((caplen as usize).next_multiple_of(4))].to_vec();
    let time = Some(u64::from(word(4)) << 32 | u64::from(word(8)));
    Some(Found::Packet { interface, time, caplen: Some(caplen), original_len: word(16), data })
}

fn legacy_header(header: &PcapHeader) -> Found {
    // The high bits may hold the length of the frame check sequence (pcap-savefile(5)).
    let number = header.network.0 & 0xffff;
    Found::Header {
        nanos: header.is_nanosecond_precision(),
        link: Link::of(number).unwrap_or(Link::Other(number)),
        snaplen: header.snaplen,
    }
}
