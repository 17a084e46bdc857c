//! The state of fragmented packets: where they go, which bytes have arrived, and the fragments that wait for the first.
//!
//! Bounded in packets, bytes and time, with a share per source and one per network, so that a flood of fragments from
//! there affects nobody else (RFC 4787 REQ-14a). Against a flood from everywhere the oldest packet gives way: the store
//! holds a packet for as long as the flood takes to send 4,096, and the fragments of one are microseconds apart. It must not know more of a fragment's contents than its position.

use crate::ids::FlowId;
use crate::packet::{Addresses, Side};
use crate::time::{Duration, Instant};
use ahash::RandomState;
use hashlink::{LinkedHashMap, LinkedHashSet};
use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The operator's settings for fragments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FragmentSettings {
    /// How long the fragments of one packet may take to arrive; RFC 6146, 4: at least 2 s.
    pub timeout: Duration,
    /// Maximum number of fragmented packets tracked at a time.
    pub max_packets: u32,
    /// Maximum number of bytes of waiting fragments.
    pub max_bytes: usize,
}

impl Default for FragmentSettings {
    fn default() -> Self {
        FragmentSettings { timeout: Duration::from_secs(5), max_packets: 4096, max_bytes: 4 << 20 }
    }
}

/// What all fragments of a packet have in common (RFC 791, 3.2; RFC 8200, 4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Datagram {
    addresses: Addresses,
    protocol: u8,
    id: u32,
}

impl Datagram {
    /// Builds it from a fragment's addresses, protocol number and identification.
    ///
    /// Fragments of one IPv6 packet may name different protocols; an IPv4 identification has 16 bits.
    pub fn new(addresses: Addresses, protocol: u8, id: u32) -> Self {
        match addresses {
            Addresses::V4 { .. } => Datagram { addresses, protocol, id: id & 0xffff },
            Addresses::V6 { .. } => Datagram { addresses, protocol: 0, id },
        }
    }

    /// Returns the identification.
    pub const fn id(&self) -> u32 {
        self.id
    }
}

/// The position of a fragment in its packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Offset in bytes.
    pub start: u16,
    /// Offset after its last byte.
    pub end: u32,
    /// Whether it is the last fragment of its packet.
    pub last: bool,
}

/// Where the fragments of a packet go, as decided for the first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// To the other side of this flow, from this side.
    Flow(FlowId, Side),
    /// Onwards, unchanged.
    Foreign,
    /// Back to the sender, as the echo reply that it asked for.
    Echo,
    /// Nowhere.
    Gone,
}

/// What becomes of a fragment other than the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Later {
    /// It goes where the first fragment went, with the same translated identity, if there is one.
    Goes(Fate, Option<Datagram>),
    /// It waits for the first fragment.
    Held,
}

/// Why a fragment is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It overlaps another fragment, or is a duplicate.
    Overlap,
    /// There is no room for it.
    Full,
}

#[derive(Debug)]
struct Packet {
    fate: Option<Fate>,
    /// The translated packet's identity, for errors about later fragments.
    translated: Option<Datagram>,
    pieces: Vec<(u16, u32)>,
    /// Length of the whole packet in bytes, once the last fragment has arrived.
    whole: Option<u32>,
    held: Vec<Vec<u8>>,
    held_bytes: usize,
    deadline: Instant,
}

#[derive(Debug, Default)]
struct Source {
    /// Oldest first.
    packets: VecDeque<Datagram>,
    /// Bytes of waiting fragments.
    bytes: usize,
}

/// Returns the source that a share is for: an IPv4 address, or the 64 bits of an IPv6 address within which a host chooses
/// its own.
fn source(datagram: &Datagram) -> IpAddr {
    match datagram.addresses.src() {
        IpAddr::V4(source) => source.into(),
        IpAddr::V6(source) => Ipv6Addr::from_bits(source.to_bits() >> 64 << 64).into(),
    }
}

/// Returns the network that a share is for: 24 bits of an IPv4 address, 48 of an IPv6 address.
fn network(datagram: &Datagram) -> IpAddr {
    match datagram.addresses.src() {
        IpAddr::V4(source) => Ipv4Addr::from_bits(source.to_bits() >> 8 << 8).into(),
        IpAddr::V6(source) => Ipv6Addr::from_bits(source.to_bits() >> 80 << 80).into(),
    }
}

#[derive(Debug)]
struct Sent {
    fate: Fate,
    was: Datagram,
    until: Instant,
}

/// Maximum number of fragments per packet: 65,535 bytes in pieces of 512.
const MOST_PIECES: usize = 128;
/// Maximum number of incomplete packets per source; one more discards the oldest of that source.
const MOST_PER_SOURCE: usize = 64;
/// The share of all waiting bytes that one source may use.
const PARTS: usize = 16;
/// The share of all incomplete packets that one network may have: one more discards the oldest of that network.
const NETWORK_PARTS: usize = 8;
/// Maximum number of packets kept after their last fragment, for errors about them.
const MOST_SENT: usize = 1024;
/// Maximum number of packets that one call of `expire` removes.
const MOST_EXPIRED: usize = 256;
/// Maximum number of identifications tried to find one that no other packet has.
const MOST_TRIES: u16 = 16;

/// The store.
#[derive(Debug)]
pub struct Fragments {
    settings: FragmentSettings,
    /// Incomplete packets, in the order of their first fragment and therefore of their deadlines.
    packets: LinkedHashMap<Datagram, Packet, RandomState>,
    /// Their translated identities.
    translated: HashMap<Datagram, Datagram, RandomState>,
    /// Packets with waiting fragments, in the order of the earliest waiting one.
    waiting: LinkedHashSet<Datagram, RandomState>,
    /// Incomplete packets per source.
    sources: HashMap<IpAddr, Source, RandomState>,
    /// Incomplete packets per network, oldest first.
    networks: HashMap<IpAddr, LinkedHashSet<Datagram, RandomState>, RandomState>,
    hash: RandomState,
    /// Completed packets and their translated identities, kept for a while, in the order of their last fragment.
    sent: LinkedHashMap<Datagram, Sent, RandomState>,
    bytes: usize,
    /// Draws identifications, which are output: from the seed, unlike the hash of the maps.
    draw: RandomState,
}

impl Fragments {
    /// Creates an empty store.
    pub fn new(settings: &FragmentSettings, seed: u64) -> Self {
        let hash = crate::rng::drawn_hash();
        Fragments {
            settings: settings.clone(),
            packets: LinkedHashMap::with_hasher(hash.clone()),
            translated: HashMap::with_hasher(hash.clone()),
            waiting: LinkedHashSet::with_hasher(hash.clone()),
            sources: HashMap::with_hasher(hash.clone()),
            networks: HashMap::with_hasher(hash.clone()),
            hash: hash.clone(),
            sent: LinkedHashMap::with_hasher(hash.clone()),
            bytes: 0,
            draw: RandomState::with_seeds(seed, 11, 12, 13),
        }
    }

    /// Changes the limits; packets that are too many by now go as their time comes.
    pub fn limit(&mut self, settings: &FragmentSettings) {
        self.settings = settings.clone();
    }

    /// Returns the number of incomplete packets and of bytes of waiting fragments.
    pub fn usage(&self) -> (usize, usize) {
        (self.packets.len(), self.bytes)
    }

    /// Records a first fragment; its outcome is passed to [`Fragments::settle`].
    pub fn first(&mut self, now: Instant, datagram: &Datagram, piece: &Piece) -> Result<(), Refused> {
        self.note(now, datagram, piece).map(|_| ())
    }

    /// Accepts a fragment other than the first; copies it if it must wait.
    pub fn later(&mut self, now: Instant, datagram: &Datagram, piece: &Piece, packet: &[u8]) -> Result<Later, Refused> {
        let known = self.note(now, datagram, piece)?;
        if let (Some(fate), became) = known {
            self.finish(now, datagram);
            return Ok(Later::Goes(fate, became));
        }
        if packet.len() > self.settings.max_bytes {
            return Err(Refused::Full);
        }
        self.make_room(source(datagram), packet.len());
        // Making room may have discarded this very packet.
        let Some(entry) = self.packets.get_mut(datagram) else { return Err(Refused::Full) };
        entry.held.push(packet.to_vec());
        entry.held_bytes += packet.len();
        self.bytes += packet.len();
        self.sources.entry(source(datagram)).or_default().bytes += packet.len();
        if !self.waiting.contains(datagram) {
            self.waiting.insert(*datagram);
        }
        Ok(Later::Held)
    }

    /// Discards the packets that have waited longest: those of a source that exceeds its share first, otherwise
    /// anyone's.
    fn make_room(&mut self, source: IpAddr, len: usize) {
        let part = (self.settings.max_bytes / PARTS).max(1 << 16);
        while let Some(own) = self.sources.get(&source).filter(|own| own.bytes + len > part) {
            let Some(oldest) = own.packets.iter().find(|of| self.waiting.contains(*of)).copied() else { break };
            self.forget(&oldest);
        }
        while self.bytes + len > self.settings.max_bytes {
            let Some(oldest) = self.waiting.front().copied() else { break };
            self.forget(&oldest);
        }
    }

    /// Sets where a packet's fragments go and what they become; returns the waiting fragments in order of arrival.
    pub fn settle(
        &mut self,
        now: Instant,
        datagram: &Datagram,
        fate: Fate,
        translated: Option<Datagram>,
    ) -> Vec<Vec<u8>> {
        let Some(entry) = self.packets.get_mut(datagram) else { return Vec::new() };
        entry.fate = Some(fate);
        let (held, bytes) = (std::mem::take(&mut entry.held), std::mem::take(&mut entry.held_bytes));
        let before = std::mem::replace(&mut entry.translated, translated);
        self.waits_no_more(datagram, bytes);
        before.inspect(|before| self.forget_translated(before, datagram));
        if let Some(translated) = translated {
            self.translated.insert(translated, *datagram);
        }
        self.finish(now, datagram);
        held
    }

    fn waits_no_more(&mut self, datagram: &Datagram, bytes: usize) {
        self.waiting.remove(datagram);
        self.bytes -= bytes;
        if let Some(source) = self.sources.get_mut(&source(datagram)) {
            source.bytes -= bytes;
        }
    }

    /// Removes a packet whose fragments have all passed. Its translated identity is kept for a while.
    fn finish(&mut self, now: Instant, datagram: &Datagram) {
        if !self.packets.get(datagram).is_some_and(Packet::is_whole) {
            return;
        }
        let Some(packet) = self.forget(datagram) else { return };
        if let (Some(fate), Some(translated)) = (packet.fate, packet.translated) {
            // An existing entry moves to the end.
            self.sent.remove(&translated);
            self.sent.insert(translated, Sent { fate, was: *datagram, until: now + self.settings.timeout });
            if self.sent.len() > MOST_SENT {
                self.sent.pop_front();
            }
        }
    }

    /// Returns the identity of a packet whose addresses are translated: it keeps its identification unless another
    /// packet in flight between the same two addresses uses it, since the two would be reassembled as one (RFC 6864,
    /// 5.3.1).
    ///
    /// `protocol` is the protocol number in the family of `addresses`. Over IPv6, identifications are long enough.
    pub fn name(&self, was: &Datagram, addresses: Addresses, protocol: u8) -> Datagram {
        let kept = Datagram::new(addresses, protocol, was.id);
        if addresses.is_v6() || self.is_free(&kept, was) {
            return kept;
        }
        let drawn = |tries| Datagram::new(addresses, protocol, self.draw.hash_one((was, tries)) as u32);
        (0..MOST_TRIES).map(drawn).find(|drawn| self.is_free(drawn, was)).unwrap_or(kept)
    }

    /// Returns whether no packet other than `was` is sent on under this identity.
    fn is_free(&self, name: &Datagram, was: &Datagram) -> bool {
        let other = self.translated.get(name).or_else(|| Some(&self.sent.get(name)?.was));
        other.is_none_or(|other| other == was)
    }

    /// Returns the flow of a packet that was sent on as `datagram`, the side that sent it, and its original identity.
    pub fn find_translated(&self, datagram: &Datagram) -> Option<(FlowId, Side, Datagram)> {
        let coming = self.translated.get(datagram).and_then(|was| Some((self.packets.get(was)?.fate?, *was)));
        match coming.or_else(|| self.sent.get(datagram).map(|sent| (sent.fate, sent.was)))? {
            (Fate::Flow(flow, side), was) => Some((flow, side, was)),
            _ => None,
        }
    }

    /// Removes expired packets, a bounded number per call.
    pub fn expire(&mut self, now: Instant) {
        for _ in 0..MOST_EXPIRED {
            match self.packets.front() {
                Some((datagram, packet)) if packet.deadline <= now => {
                    let datagram = *datagram;
                    self.forget(&datagram);
                }
                _ => break,
            }
        }
        for _ in 0..MOST_EXPIRED {
            match self.sent.front() {
                Some((_, sent)) if sent.until <= now => self.sent.pop_front(),
                _ => return,
            };
        }
    }

    /// Returns when [`Fragments::expire`] next has work to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let coming = self.packets.front().map(|(_, packet)| packet.deadline);
        let sent = self.sent.front().map(|(_, sent)| sent.until);
        coming.into_iter().chain(sent).min()
    }

    /// Records a piece of a packet; returns where the packet goes and what it becomes, as far as that is known.
    fn note(
        &mut self,
        now: Instant,
        datagram: &Datagram,
        piece: &Piece,
    ) -> Result<(Option<Fate>, Option<Datagram>), Refused> {
        if self.packets.get(datagram).is_some_and(|packet| packet.deadline <= now) {
            self.forget(datagram);
        }
        if !self.packets.contains_key(datagram) {
            self.begin(now, datagram);
        }
        let Some(packet) = self.packets.get_mut(datagram) else { return Err(Refused::Full) };
        match packet.add(piece) {
            Ok(()) => Ok((packet.fate, packet.translated)),
            Err(spoilt) => {
                if spoilt {
                    self.settle(now, datagram, Fate::Gone, None);
                }
                Err(Refused::Overlap)
            }
        }
    }

    fn begin(&mut self, now: Instant, datagram: &Datagram) {
        let of_source = &mut self.sources.entry(source(datagram)).or_default().packets;
        let oldest = of_source.front().copied().filter(|_| of_source.len() >= MOST_PER_SOURCE);
        of_source.push_back(*datagram);
        oldest.inspect(|oldest| drop(self.forget(oldest)));
        let most = (self.settings.max_packets as usize / NETWORK_PARTS).max(MOST_PER_SOURCE);
        let new = || LinkedHashSet::with_hasher(self.hash.clone());
        let of_network = self.networks.entry(network(datagram)).or_insert_with(new);
        let oldest = of_network.front().copied().filter(|_| of_network.len() >= most);
        of_network.insert(*datagram);
        oldest.inspect(|oldest| drop(self.forget(oldest)));
        let deadline = now + self.settings.timeout;
        let packet = Packet {
            fate: None,
            translated: None,
            pieces: Vec::new(),
            whole: None,
            held: Vec::new(),
            held_bytes: 0,
            deadline,
        };
        self.packets.insert(*datagram, packet);
        if self.packets.len() > self.settings.max_packets as usize {
            let oldest = self.packets.front().map(|(oldest, _)| *oldest);
            oldest.inspect(|oldest| drop(self.forget(oldest)));
        }
    }

    /// Two packets may end up with the same identity; the later one keeps it.
    fn forget_translated(&mut self, translated: &Datagram, of: &Datagram) {
        if self.translated.get(translated) == Some(of) {
            self.translated.remove(translated);
        }
    }

    fn forget(&mut self, datagram: &Datagram) -> Option<Packet> {
        let packet = self.packets.remove(datagram)?;
        self.waits_no_more(datagram, packet.held_bytes);
        packet.translated.inspect(|translated| self.forget_translated(translated, datagram));
        let network = network(datagram);
        if let Some(own) = self.networks.get_mut(&network) {
            own.remove(datagram);
            if own.is_empty() {
                self.networks.remove(&network);
            }
        }
        let source = source(datagram);
        if let Some(own) = self.sources.get_mut(&source) {
            own.packets.iter().position(|other| other == datagram).and_then(|at| own.packets.remove(at));
            if own.packets.is_empty() {
                self.sources.remove(&source);
            }
        }
        Some(packet)
    }
}

impl Packet {
    /// Adds a piece. The error says whether the piece spoils the packet (RFC 5722, 4), which a duplicate does not.
    fn add(&mut self, piece: &Piece) -> Result<(), bool> {
        let overlaps = |(start, end): &(u16, u32)| u32::from(piece.start) < *end && u32::from(*start) < piece.end;
        if self.pieces.contains(&(piece.start, piece.end)) {
            return Err(false);
        }
        let beyond = self.whole.is_some_and(|whole| piece.end > whole || piece.last);
        let short = piece.last && self.pieces.iter().any(|(_, end)| *end > piece.end);
        if beyond || short || self.pieces.len() >= MOST_PIECES || self.pieces.iter().any(overlaps) {
            return Err(true);
        }
        self.pieces.push((piece.start, piece.end));
        if piece.last {
            self.whole = Some(piece.end);
        }
        Ok(())
    }

    /// Returns whether every byte has arrived and passed.
    fn is_whole(&self) -> bool {
        let there: u32 = self.pieces.iter().map(|(start, end)| end - u32::from(*start)).sum();
        self.whole == Some(there) && self.fate.is_some() && self.held.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn datagram(src: u32, id: u32) -> Datagram {
        Datagram { addresses: Addresses::V4 { src, dst: 9 }, protocol: 17, id }
    }

    fn piece(start: u16, end: u32, last: bool) -> Piece {
        Piece { start, end, last }
    }

    fn store(max_packets: u32, max_bytes: usize) -> Fragments {
        Fragments::new(&FragmentSettings { max_packets, max_bytes, ..FragmentSettings::default() }, 1)
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    const FLOW: Fate = Fate::Flow(FlowId { index: 3, generation: 1 }, Side::Client);

    #[test]
    fn early_fragments_wait_for_the_first_and_later_ones_follow_it() {
        let mut store = store(10, 1000);
        let d = datagram(1, 7);
        assert_eq!(store.later(at(0), &d, &piece(16, 24, true), b"third"), Ok(Later::Held));
        assert_eq!(store.later(at(0), &d, &piece(8, 16, false), b"second"), Ok(Later::Held));
        assert_eq!(store.usage(), (1, 11));
        store.first(at(1), &d, &piece(0, 8, false)).unwrap();
        let became = Datagram { addresses: Addresses::V4 { src: 1, dst: 77 }, ..d };
        assert_eq!(store.settle(at(0), &d, FLOW, Some(became)), [b"third".to_vec(), b"second".to_vec()]);
        assert_eq!(store.usage(), (0, 0), "every fragment has arrived");
        assert_eq!(store.find_translated(&became), Some((FlowId { index: 3, generation: 1 }, Side::Client, d)));
        assert_eq!(store.find_translated(&d), None);
        // The identification may be reused.
        assert_eq!(store.later(at(1), &d, &piece(8, 16, false), b"of another"), Ok(Later::Held));
        assert!(store.find_translated(&became).is_some());
        store.expire(at(6));
        assert_eq!((store.find_translated(&became), store.poll_timeout()), (None, None));
    }

    #[test]
    fn overlaps_spoil_the_packet_and_duplicates_do_not() {
        for (second, spoils) in [
            (piece(8, 16, false), false),
            (piece(8, 24, false), true),
            (piece(0, 16, false), true),
            (piece(16, 32, false), true),
            (piece(16, 24, true), false),
            (piece(40, 48, true), false),
        ] {
            let mut store = store(10, 1000);
            let d = datagram(1, 7);
            store.first(at(0), &d, &piece(0, 8, false)).unwrap();
            store.settle(at(0), &d, FLOW, None);
            assert_eq!(store.later(at(0), &d, &piece(8, 16, false), b"x"), Ok(Later::Goes(FLOW, None)));
            assert_eq!(store.later(at(0), &d, &piece(24, 32, false), b"x"), Ok(Later::Goes(FLOW, None)));
            let got = store.later(at(0), &d, &second, b"x");
            let last_before_another = second == piece(16, 24, true);
            assert_eq!(got.is_err(), spoils || second == piece(8, 16, false) || last_before_another, "{second:?}");
            let next = store.later(at(0), &d, &piece(32, 40, false), b"x");
            let want = if spoils || last_before_another { Fate::Gone } else { FLOW };
            assert_eq!(next, Ok(Later::Goes(want, None)), "{second:?}");
        }
    }

    #[test]
    fn an_incomplete_packet_expires_at_its_deadline() {
        let mut store = store(10, 1000);
        let d = datagram(1, 7);
        store.later(at(0), &d, &piece(8, 16, false), b"x").unwrap();
        store.later(at(4), &d, &piece(16, 24, false), b"x").unwrap();
        assert_eq!(store.poll_timeout(), Some(at(5)));
        store.expire(at(4));
        assert_eq!(store.usage(), (1, 2));
        store.expire(at(5));
        assert_eq!((store.usage(), store.poll_timeout()), ((0, 0), None));
        store.first(at(6), &d, &piece(0, 8, false)).unwrap();
        assert!(store.settle(at(0), &d, FLOW, None).is_empty());
    }

    #[test]
    fn a_flood_from_one_source_leaves_room_for_others_and_old_packets_yield_to_new_ones() {
        let mut store = store(100, 1000);
        for id in 0..1000 {
            assert_eq!(store.later(at(0), &datagram(1, id), &piece(8, 16, false), b"x"), Ok(Later::Held));
        }
        assert_eq!(store.usage(), (MOST_PER_SOURCE, MOST_PER_SOURCE));
        for source in 2..500 {
            let d = datagram(source, 7);
            assert_eq!(store.later(at(0), &d, &piece(8, 16, false), b"x"), Ok(Later::Held));
            store.first(at(0), &d, &piece(0, 8, false)).unwrap();
            assert_eq!(store.settle(at(0), &d, FLOW, None).len(), 1);
        }
        assert_eq!(store.usage(), (100, 0));
        assert_eq!(store.later(at(0), &datagram(900, 1), &piece(8, 16, false), &[0; 1001]), Err(Refused::Full));
        for source in 1000..1020 {
            store.later(at(0), &datagram(source, 1), &piece(8, 16, false), &[0; 300]).unwrap();
        }
        assert!(store.usage().1 <= 1000);
    }

    #[test]
    fn a_flood_from_one_network_leaves_room_for_others() {
        let early = |store: &mut Fragments, d: &Datagram| store.later(at(0), d, &piece(8, 16, false), b"x");
        let v6 = |src: u128, id| Datagram { addresses: Addresses::V6 { src, dst: 9 }, protocol: 0, id };
        let quiet = [datagram(0x0a01_0001, 7), v6(0x2001_0db8_0001 << 80, 7)];
        let mut store = Fragments::new(&FragmentSettings::default(), 1);
        quiet.iter().for_each(|of| assert_eq!(early(&mut store, of), Ok(Later::Held)));
        // A /24, and a /48 whose hosts choose their addresses.
        for n in 0..20_000 {
            assert_eq!(early(&mut store, &datagram(0x0a02_0300 + n % 256, n)), Ok(Later::Held));
            let address = (0x2001_0db8_0002 << 80) + (u128::from(n % 256) << 64) + u128::from(n);
            assert_eq!(early(&mut store, &v6(address, n)), Ok(Later::Held));
        }
        assert_eq!(store.usage().0, 2 + 2 * 4096 / 8);
        for of in &quiet {
            store.first(at(1), of, &piece(0, 8, false)).unwrap();
            assert_eq!(store.settle(at(1), of, FLOW, None), [b"x".to_vec()]);
        }
        // One host has the share of one, whatever addresses it uses.
        let mut store = Fragments::new(&FragmentSettings::default(), 1);
        (0..1000).for_each(|n| assert_eq!(early(&mut store, &v6(u128::from(n), n)), Ok(Later::Held)));
        assert_eq!(store.usage().0, MOST_PER_SOURCE);
    }

    #[test]
    fn waiting_fragments_of_one_source_displace_neither_other_sources_nor_packets_without_waiting_fragments() {
        let mut store = Fragments::new(&FragmentSettings::default(), 1);
        let (quiet, early) = (datagram(1, 1), datagram(1, 2));
        store.first(at(0), &quiet, &piece(0, 8, false)).unwrap();
        store.settle(at(0), &quiet, FLOW, None);
        store.later(at(0), &early, &piece(8, 16, true), &[0; 36]).unwrap();
        for id in 0..10_000 {
            store.later(at(1), &datagram(2, id), &piece(8, 16, false), &[0; 60_000]).unwrap();
        }
        assert_eq!(store.usage(), (2 + 4, 36 + 4 * 60_000), "its share, 256 KiB");
        for source in 3..200 {
            store.later(at(2), &datagram(source, 1), &piece(8, 16, false), &[0; 60_000]).unwrap();
        }
        assert!(store.usage().1 <= 4 << 20 && store.usage().1 > (4 << 20) - 60_000);
        assert!(!store.packets.contains_key(&early), "it has waited longest");
        assert!(store.packets.contains_key(&quiet), "it has no waiting fragments");
    }

    #[test]
    fn a_source_of_many_long_packets_is_not_a_flood() {
        let mut store = store(10, 1000);
        for id in 0..10_000 {
            let d = datagram(1, id);
            store.first(at(0), &d, &piece(0, 8, false)).unwrap();
            store.settle(at(0), &d, FLOW, Some(datagram(2, id)));
            let became = Some(datagram(2, id));
            assert_eq!(store.later(at(0), &d, &piece(8, 16, true), b"x"), Ok(Later::Goes(FLOW, became)));
            assert_eq!((store.usage(), store.sent.len()), ((0, 0), MOST_SENT.min(id as usize + 1)));
        }
        assert!(
            store.find_translated(&datagram(2, 9_999)).is_some() && store.find_translated(&datagram(2, 0)).is_none()
        );
    }

    #[test]
    fn translated_packets_keep_distinct_identifications_while_either_is_tracked() {
        let mut store = store(10, 1000);
        let (one, two) = (datagram(1, 7), datagram(2, 7));
        let to = Addresses::V4 { src: 100, dst: 9 };
        let six = Addresses::V6 { src: 100, dst: 9 };
        let named = |store: &Fragments, was| store.name(was, to, 17);
        assert_eq!(named(&store, &one), Datagram::new(to, 17, 7));
        store.first(at(0), &one, &piece(0, 8, false)).unwrap();
        store.settle(at(0), &one, FLOW, Some(named(&store, &one)));
        let are_distinct = |store: &Fragments| {
            let (kept, other) = (named(store, &one), named(store, &two));
            assert_eq!(kept.id(), 7, "a duplicate belongs to the same packet");
            assert_eq!(named(store, &two), other, "the same each time");
            other.id() != 7 && other.id() <= 0xffff
        };
        assert!(are_distinct(&store));
        assert_eq!(store.name(&two, six, 17).id(), 7);
        store.later(at(1), &one, &piece(8, 16, true), b"x").unwrap();
        assert!(are_distinct(&store), "after its last fragment it is still in flight");
        store.expire(at(6));
        assert!(!are_distinct(&store));
        // Of an IPv6 identification the low half counts.
        let long = |id| Datagram::new(six, 17, id);
        store.first(at(9), &long(0x1_0007), &piece(0, 8, false)).unwrap();
        store.settle(at(9), &long(0x1_0007), FLOW, Some(store.name(&long(0x1_0007), to, 17)));
        assert_eq!(store.name(&long(0x1_0007), to, 17).id(), 7);
        assert_ne!(store.name(&long(0x2_0007), to, 17).id(), 7);
    }

    proptest! {
        #[test]
        fn the_fragment_store_stays_consistent_for_any_input(steps in prop::collection::vec(
            (0u32..4, 0u32..3, 0u16..6, 1u32..4, any::<bool>(), 0u8..10, 0u64..3), 1..300,
        )) {
            let mut store = store(8, 200);
            let mut now = at(0);
            for (source, id, start, len, last, what, wait) in steps {
                now = now + Duration::from_secs(wait);
                let d = datagram(source, id);
                let p = piece(start * 8, u32::from(start) * 8 + len * 8, last);
                match what {
                    0..6 => drop(store.later(now, &d, &p, &[0; 50])),
                    6..8 => {
                        if store.first(now, &d, &p).is_ok() {
                            store.settle(now, &d, FLOW, Some(datagram(source + 100, id)));
                        }
                    }
                    _ => store.expire(now),
                }
                let held: usize = store.packets.iter().flat_map(|(_, packet)| &packet.held).map(Vec::len).sum();
                prop_assert_eq!(held, store.bytes);
                prop_assert!(store.bytes <= 200 && store.packets.len() <= 8);
                let translated = store.packets.iter().filter(|(_, packet)| packet.translated.is_some()).count();
                prop_assert_eq!(translated, store.translated.len());
                let all: Vec<_> = store.packets.iter().map(|(of, _)| *of).collect();
                let of_network = store.networks.get(&network(&datagram(0, 0)));
                prop_assert_eq!(all, of_network.into_iter().flatten().copied().collect::<Vec<_>>());
                let mut sources = 0;
                for source in 0..4u32 {
                    let source = datagram(source, 0).addresses.src();
                    let there: Vec<_> = store.packets.iter().map(|(d, _)| *d).filter(|d| d.addresses.src() == source).collect();
                    let own = store.sources.get(&source);
                    let listed = own.map(|own| Vec::from(own.packets.clone())).unwrap_or_default();
                    prop_assert_eq!(&there, &listed);
                    let waiting: usize = there.iter().map(|of| store.packets[of].held_bytes).sum();
                    prop_assert_eq!(waiting, own.map_or(0, |own| own.bytes));
                    for of in &there {
                        prop_assert_eq!(store.waiting.contains(of), store.packets[of].held_bytes > 0);
                    }
                    sources += usize::from(!there.is_empty());
                }
                prop_assert_eq!(sources, store.sources.len());
            }
        }
    }
}
