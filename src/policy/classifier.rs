//! The first of many rules that matches, found without trying one after another.
//!
//! Each part of a rule (addresses, ports, protocol, interface) is a set of intervals. Between the boundaries of all of
//! them, every value of a packet's field is matched by the same rules; those are a row of bits, and the rules that match a
//! packet are the AND of the rows of its fields (bit vectors: Lakshman and Stiliadis, SIGCOMM 1998). A row is found by
//! binary search, so that a look-up among 1,000 rules takes little longer than with one. It must not know actions,
//! switches or limits.

use super::settings::RuleSettings;
use crate::flow::Key;
use crate::packet::Addresses;
use ipnet::IpNet;

/// Rules per block, at most: a row is 128 bytes.
const MOST_RULES: usize = 1024;
/// Intervals of all rules of a block, at most, unless it has one rule only. Memory is rules times intervals: with blocks,
/// it is in proportion to the number of rules, 65,535 or not.
const MOST_PARTS: usize = 4096;

/// All rules in order, as blocks of consecutive rules.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Classifier {
    blocks: Vec<Block>,
}

/// Consecutive rules.
#[derive(Debug, Clone, PartialEq)]
struct Block {
    /// The position of its first rule.
    first: usize,
    rules: usize,
    /// Source and destination address, for IPv4 and IPv6.
    v4: [Field<u32>; 2],
    v6: [Field<u128>; 2],
    /// Destination port, source port, protocol, interface.
    small: [Field<u16>; 4],
}

/// The rules of a block by the value of one field.
#[derive(Debug, Clone, PartialEq)]
struct Field<T> {
    /// Where each interval begins, ascending, from zero on; empty if every rule matches every value.
    begins: Vec<T>,
    /// One row of bits per interval.
    rows: Vec<u64>,
    words: usize,
}

/// A value of a field.
trait Value: Copy + Ord + Default {
    /// Returns the value after this one, if there is one.
    fn next(self) -> Option<Self>;
}

macro_rules! values {
    ($($of:ty),*) => {
        $(impl Value for $of {
            fn next(self) -> Option<Self> {
                self.checked_add(1)
            }
        })*
    };
}
values!(u16, u32, u128);

/// Intervals that match a field, first and last value each; none matches every value.
type Part<T> = Option<Vec<(T, T)>>;

impl<T: Value> Field<T> {
    fn new(parts: &[Part<T>]) -> Self {
        let words = parts.len().div_ceil(64);
        if parts.iter().all(Option::is_none) {
            return Field { begins: Vec::new(), rows: Vec::new(), words };
        }
        let mut row = vec![0u64; words];
        // Where a rule begins or ceases to match. The intervals of one rule do not touch, so that a boundary toggles it.
        let mut edges: Vec<(T, usize)> = Vec::new();
        for (rule, part) in parts.iter().enumerate() {
            let Some(part) = part else {
                row[rule / 64] |= 1 << (rule % 64);
                continue;
            };
            for (first, last) in joined(part) {
                edges.push((first, rule));
                edges.extend(last.next().map(|behind| (behind, rule)));
            }
        }
        edges.sort_unstable();
        let mut field = Field { begins: Vec::new(), rows: Vec::new(), words };
        let mut edges = edges.into_iter().peekable();
        let mut at = T::default();
        loop {
            while let Some((_, rule)) = edges.next_if(|(begin, _)| *begin == at) {
                row[rule / 64] ^= 1 << (rule % 64);
            }
            field.begins.push(at);
            field.rows.extend_from_slice(&row);
            match edges.peek() {
                Some((begin, _)) => at = *begin,
                None => return field,
            }
        }
    }

    /// Returns the row of a value; none if every rule matches.
    fn row(&self, value: T) -> Option<&[u64]> {
        let at = self.begins.partition_point(|begin| *begin <= value).checked_sub(1)?;
        self.rows.get(at * self.words..(at + 1) * self.words)
    }
}

/// Returns the same intervals sorted, with overlapping and adjacent ones joined; those that are empty are left out.
fn joined<T: Value>(part: &[(T, T)]) -> Vec<(T, T)> {
    let mut part: Vec<(T, T)> = part.iter().copied().filter(|(first, last)| first <= last).collect();
    part.sort_unstable();
    let mut all: Vec<(T, T)> = Vec::with_capacity(part.len());
    for (first, last) in part {
        match all.last_mut() {
            Some(before) if before.1.next().is_none_or(|behind| first <= behind) => before.1 = before.1.max(last),
            _ => all.push((first, last)),
        }
    }
    all
}

/// Returns the IPv4 and the IPv6 part of networks; where there are networks, but none of a family, that family matches
/// nothing.
fn networks(all: &[IpNet]) -> (Part<u32>, Part<u128>) {
    if all.is_empty() {
        return (None, None);
    }
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for network in all {
        match network {
            IpNet::V4(network) => v4.push((network.network().to_bits(), network.broadcast().to_bits())),
            IpNet::V6(network) => v6.push((network.network().to_bits(), network.broadcast().to_bits())),
        }
    }
    (Some(v4), Some(v6))
}

fn ports(ranges: &[(u16, u16)]) -> Part<u16> {
    (!ranges.is_empty()).then(|| ranges.to_vec())
}

fn exactly(value: Option<u16>) -> Part<u16> {
    value.map(|value| vec![(value, value)])
}

fn parts(rule: &RuleSettings) -> usize {
    2 + rule.from.len() + rule.to.len() + rule.ports.len() + rule.source_ports.len()
}

impl Block {
    fn new(first: usize, rules: &[&RuleSettings]) -> Self {
        let (from4, from6): (Vec<_>, Vec<_>) = rules.iter().map(|rule| networks(&rule.from)).unzip();
        let (to4, to6): (Vec<_>, Vec<_>) = rules.iter().map(|rule| networks(&rule.to)).unzip();
        let small =
            |part: fn(&RuleSettings) -> Part<u16>| Field::new(&rules.iter().map(|rule| part(rule)).collect::<Vec<_>>());
        Block {
            first,
            rules: rules.len(),
            v4: [Field::new(&from4), Field::new(&to4)],
            v6: [Field::new(&from6), Field::new(&to6)],
            small: [
                small(|rule| ports(&rule.ports)),
                small(|rule| ports(&rule.source_ports)),
                small(|rule| exactly(rule.protocol.map(|protocol| protocol.code() as u16))),
                small(|rule| exactly(rule.ingress)),
            ],
        }
    }

    /// Returns the position of the first rule that matches and is on.
    fn find(&self, key: &Key, ingress: u16, is_on: &impl Fn(usize) -> bool) -> Option<usize> {
        let [from, to] = match key.addresses {
            Addresses::V4 { src, dst } => [self.v4[0].row(src), self.v4[1].row(dst)],
            Addresses::V6 { src, dst } => [self.v6[0].row(src), self.v6[1].row(dst)],
        };
        let values = [key.dst_port, key.src_port, key.protocol.code() as u16, ingress];
        let [ports, source_ports, protocol, interface] = [0, 1, 2, 3].map(|at| self.small[at].row(values[at]));
        let rows = [from, to, ports, source_ports, protocol, interface];
        for word in 0..self.rules.div_ceil(64) {
            let left = self.rules - word * 64;
            let all = if left < 64 { (1 << left) - 1 } else { u64::MAX };
            let mut bits = rows.iter().flatten().fold(all, |bits, row| bits & row[word]);
            while bits != 0 {
                let rule = self.first + word * 64 + bits.trailing_zeros() as usize;
                if is_on(rule) {
                    return Some(rule);
                }
                bits &= bits - 1;
            }
        }
        None
    }
}

impl Classifier {
    /// Compiles rules in order.
    pub(super) fn new(rules: &[&RuleSettings]) -> Self {
        let mut blocks = Vec::new();
        let mut first = 0;
        while first < rules.len() {
            let mut total = parts(rules[first]);
            let mut end = first + 1;
            while end < rules.len() && end - first < MOST_RULES && total + parts(rules[end]) <= MOST_PARTS {
                total += parts(rules[end]);
                end += 1;
            }
            blocks.push(Block::new(first, &rules[first..end]));
            first = end;
        }
        Classifier { blocks }
    }

    /// Returns the position of the first rule that matches a packet without a flow and is on.
    pub(super) fn find(&self, key: &Key, ingress: u16, is_on: impl Fn(usize) -> bool) -> Option<usize> {
        self.blocks.iter().find_map(|block| block.find(key, ingress, &is_on))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Protocol;
    use crate::policy::Action;
    use crate::rng::Rng;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    /// Few enough addresses, ports and lengths that most rules overlap.
    fn address(rng: &mut Rng, v6: bool) -> IpAddr {
        let low = rng.below(16) as u32 * 0x1111;
        let edge = [0, u32::MAX, 0x0a00_0000 + low, 0xc000_0200 + low % 256][rng.below(4) as usize];
        if v6 {
            Ipv6Addr::from_bits(u128::from(edge) << 96 | u128::from(low)).into()
        } else {
            Ipv4Addr::from(edge).into()
        }
    }

    fn nets(rng: &mut Rng) -> Vec<IpNet> {
        let net = |rng: &mut Rng| {
            let v6 = rng.below(3) == 0;
            let length = rng.below(if v6 { 129 } else { 33 }) as u8;
            // Not truncated: the bits behind the prefix do not count.
            IpNet::new(address(rng, v6), length).unwrap()
        };
        (0..[0, 0, 1, 3][rng.below(4) as usize]).map(|_| net(rng)).collect()
    }

    fn port(rng: &mut Rng) -> u16 {
        [0, 1, 53, 80, 81, 443, 65_534, 65_535][rng.below(8) as usize]
    }

    fn ranges(rng: &mut Rng) -> Vec<(u16, u16)> {
        let count = [0, 0, 0, 1, 2, 3][rng.below(6) as usize];
        (0..count).map(|_| (port(rng), port(rng))).map(|(one, other)| (one.min(other), one.max(other))).collect()
    }

    fn rule(rng: &mut Rng) -> RuleSettings {
        let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Icmp, Protocol::Ip(47)];
        RuleSettings {
            from: nets(rng),
            to: nets(rng),
            ports: ranges(rng),
            source_ports: ranges(rng),
            protocol: (rng.below(3) == 0).then(|| protocols[rng.below(4) as usize]),
            ingress: (rng.below(6) == 0).then(|| rng.below(3) as u16),
            ..RuleSettings::new("", Action::Drop)
        }
    }

    fn key(rng: &mut Rng) -> Key {
        let v6 = rng.below(2) == 0;
        let addresses = Addresses::new(address(rng, v6), address(rng, v6)).unwrap();
        let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Icmp, Protocol::Ip(47)][rng.below(4) as usize];
        Key { addresses, src_port: port(rng), dst_port: port(rng), protocol }
    }

    #[test]
    fn it_finds_the_rule_that_a_search_in_order_finds() {
        let (mut found, mut rng) = (0, Rng::new(7));
        for round in 0..120 {
            let count = [1, 2, 5, 63, 64, 65, 200, 1500][round % 8];
            let rules: Vec<RuleSettings> = (0..count).map(|_| rule(&mut rng)).collect();
            let classifier = Classifier::new(&rules.iter().collect::<Vec<_>>());
            let on: Vec<bool> = (0..count).map(|_| rng.below(4) > 0).collect();
            for _ in 0..200 {
                let (key, ingress) = (key(&mut rng), rng.below(3) as u16);
                let naive = (0..count).find(|at| on[*at] && rules[*at].mismatch(&key, ingress).is_none());
                assert_eq!(classifier.find(&key, ingress, |at| on[at]), naive, "{key:?} {ingress}");
                found += usize::from(naive.is_some());
            }
        }
        assert!((4_000..23_000).contains(&found), "{found} of 24,000");
    }

    #[test]
    fn memory_is_in_proportion_to_the_rules() {
        let bytes = |count: u32| -> usize {
            let net = |n: u32| IpNet::new(Ipv4Addr::from(n << 8).into(), 24).unwrap();
            let rule =
                |n: u32| RuleSettings { from: vec![net(n)], to: vec![net(n)], ..RuleSettings::new("", Action::Drop) };
            let rules: Vec<RuleSettings> = (0..count).map(rule).collect();
            let classifier = Classifier::new(&rules.iter().collect::<Vec<_>>());
            let block = |block: &Block| block.v4.iter().map(|field| field.rows.len() * 8).sum::<usize>();
            classifier.blocks.iter().map(block).sum()
        };
        let small = bytes(1024);
        assert!(small < 1 << 20 && bytes(16 * 1024) <= 16 * small + 4096, "{small}");
    }
}
