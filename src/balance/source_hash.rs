//! Source hash: picks by client alone the server that draws the highest number for it (weighted rendezvous hashing:
//! Thaler, Ravishankar 1998). When a server goes, only its clients move, and when it comes back, only they return.
//!
//! In a pool of more than [`MOST_TOGETHER`] servers, a client first draws one of several tables, to which the servers are
//! assigned by their hash, and only the servers of that table draw numbers: a pick looks at a dozen servers, however many
//! there are. Tables that weigh less than others turn away as many clients as they lack weight, and servers that are
//! no candidates turn away all of theirs; these draw another table. Both depend on the client alone, so that the property
//! above holds. A server that is added to such a pool moves at most twice its share of the clients; where one more table
//! is needed, their number doubles and half of the clients move; where tables begin, nearly all do.

use super::hash::Hash;
use super::server::STEPS;
use crate::rng::mix;

/// Servers up to which all draw numbers for each client. More servers trade how few clients move when the file changes
/// for the time of a pick.
const MOST_TOGETHER: usize = 64;
/// Servers per table on average, at most. With fewer, more clients are turned away; with more, more numbers are drawn.
const PER_TABLE: usize = 8;
/// Tables that a client draws before all servers draw numbers for it: so many are needed only where nearly all servers of
/// the pool are away.
const TABLES_TRIED: u64 = 128;

/// Candidates with their weights and hashes.
#[derive(Debug, Clone)]
pub(super) struct SourceHash {
    hashes: Vec<u64>,
    weights: Vec<u32>,
    /// The weights if all servers were candidates: as configured, or more where an operator raised it.
    shares: Vec<u32>,
    configured: Vec<u32>,
    /// Whether all candidates have the same weight: then the numbers alone decide.
    even: bool,
    tables: Tables,
}

/// Servers by table; empty if all draw together.
#[derive(Debug, Clone, Default)]
struct Tables {
    /// Where each table begins in `places`, and the end of the last.
    begins: Vec<u32>,
    /// Table by table, so that a table is in few cache lines.
    members: Vec<Member>,
    /// The weight of each table, and the greatest.
    weights: Vec<u64>,
    most: u64,
}

/// A server of a table.
#[derive(Debug, Clone, Copy)]
struct Member {
    hash: u64,
    share: u32,
    place: u32,
}

impl Tables {
    fn new(hashes: &[u64]) -> Self {
        if hashes.len() <= MOST_TOGETHER {
            return Tables::default();
        }
        let count = hashes.len().div_ceil(PER_TABLE).next_power_of_two();
        let table = |place: u32| mix(hashes[place as usize]) as usize % count;
        let mut places: Vec<u32> = (0..hashes.len() as u32).collect();
        places.sort_by_key(|place| table(*place));
        let begins = (0..=count).map(|at| places.partition_point(|place| table(*place) < at) as u32).collect();
        let member = |place: u32| Member { hash: hashes[place as usize], share: 0, place };
        Tables { begins, members: places.into_iter().map(member).collect(), weights: vec![0; count], most: 0 }
    }

    fn of(&self, table: usize) -> &[Member] {
        &self.members[self.begins[table] as usize..self.begins[table + 1] as usize]
    }

    fn weigh(&mut self, shares: &[u32]) {
        self.members.iter_mut().for_each(|member| member.share = shares[member.place as usize]);
        for table in 0..self.weights.len() {
            self.weights[table] = self.of(table).iter().map(|member| u64::from(member.share)).sum();
        }
        // A power of two, so that small changes leave it as it is.
        self.most = self.weights.iter().copied().max().unwrap_or(0).next_power_of_two();
    }
}

impl SourceHash {
    /// Creates the algorithm over the servers of these names and configured weights, without candidates.
    pub(super) fn new<'a>(
        hash: Hash,
        names: impl Iterator<Item = &'a str>,
        configured: impl Iterator<Item = u16>,
    ) -> Self {
        let hashes: Vec<u64> = names.map(|name| hash.name(name, 0)).collect();
        let configured: Vec<u32> = configured.map(|weight| u32::from(weight) * STEPS).collect();
        let mut tables = Tables::new(&hashes);
        tables.weigh(&configured);
        SourceHash {
            weights: vec![0; hashes.len()],
            shares: configured.clone(),
            configured,
            hashes,
            even: true,
            tables,
        }
    }

    /// Sets the weights; 0 is not a candidate.
    pub(super) fn set_weights(&mut self, weights: &[u32]) {
        self.weights.copy_from_slice(weights);
        let mut candidates = weights.iter().filter(|weight| **weight > 0);
        let first = candidates.next();
        self.even = candidates.all(|weight| Some(weight) == first);
        let shares = self.configured.iter().zip(weights).map(|(configured, weight)| *configured.max(weight));
        if self.has_tables() && !shares.clone().eq(self.shares.iter().copied()) {
            self.shares = shares.collect();
            self.tables.weigh(&self.shares);
        }
    }

    /// Returns whether clients draw one of several tables first.
    pub(super) fn has_tables(&self) -> bool {
        !self.tables.weights.is_empty()
    }

    /// Returns a server's draw for a client, as text; none if it is not a candidate, or if clients draw tables first.
    pub(super) fn draw(&self, client: u64, place: usize) -> Option<String> {
        let weight = self.weights[place];
        let number = mix(client ^ self.hashes[place]);
        match (weight, self.even) {
            (0, _) => None,
            _ if self.has_tables() => None,
            (_, true) => Some(format!("{number:016x}")),
            (weight, false) => Some(format!("{:.4}", weighted(number, weight))),
        }
    }

    /// Picks the server of a client by the client's hash.
    pub(super) fn pick(&self, client: u64, refuses: &dyn Fn(usize) -> bool) -> Option<usize> {
        if self.has_tables() {
            for draw in 0..TABLES_TRIED {
                if let Some(place) = self.drawn(client, draw).filter(|place| !refuses(*place)) {
                    return Some(place);
                }
            }
        }
        // Nearly always nobody refuses, and asking each server would take longer than drawing.
        if self.even
            && let Some(place) = self.highest_of_all(client).filter(|place| !refuses(*place))
        {
            return Some(place);
        }
        let candidates = self.weights.iter().enumerate().filter(|(place, weight)| **weight > 0 && !refuses(*place));
        let number = |place: usize| mix(client ^ self.hashes[place]);
        if self.even {
            return candidates.map(|(place, _)| place).max_by_key(|place| number(*place));
        }
        let drawn = candidates.map(|(place, weight)| (place, weighted(number(place), *weight)));
        drawn.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(place, _)| place)
    }

    /// Returns the candidate that draws the highest number for a client, if all weigh the same.
    fn highest_of_all(&self, client: u64) -> Option<usize> {
        let mut best: Option<(u64, usize)> = None;
        for (place, (hash, weight)) in self.hashes.iter().zip(&self.weights).enumerate() {
            let number = mix(client ^ hash);
            if *weight > 0 && best.is_none_or(|(highest, _)| number >= highest) {
                best = Some((number, place));
            }
        }
        best.map(|(_, place)| place)
    }

    /// Returns the server that a client finds in the table of one of its draws, if it is not turned away.
    fn drawn(&self, client: u64, draw: u64) -> Option<usize> {
        let tables = &self.tables;
        let number = mix(client ^ draw.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x7461_626c_6573);
        let table = number as usize % tables.weights.len();
        let below = |number: u64, limit: u64| ((u128::from(number) * u128::from(limit)) >> 64) as u64;
        if below(mix(number), tables.most) >= tables.weights[table] {
            return None;
        }
        // Each draw has numbers of its own: otherwise a client that comes to the same table again would find the same
        // server.
        let member = highest(number, tables.of(table).iter().copied())?;
        let kept = below(mix(number ^ 1), u64::from(member.share)) < u64::from(self.weights[member.place as usize]);
        kept.then_some(member.place as usize)
    }
}

/// Returns the server that draws the highest number; those without a share do not draw.
fn highest(client: u64, members: impl Iterator<Item = Member> + Clone) -> Option<Member> {
    let number = |member: &Member| mix(client ^ member.hash);
    let mut members = members.filter(|member| member.share > 0);
    let first = members.clone().next()?;
    // With equal shares, the numbers alone decide.
    if members.clone().all(|member| member.share == first.share) {
        return members.max_by_key(number);
    }
    let mut best = (first, weighted(number(&first), first.share));
    members.next();
    for member in members {
        let drawn = weighted(number(&member), member.share);
        if drawn >= best.1 {
            best = (member, drawn);
        }
    }
    Some(best.0)
}

/// Returns the draw of a server of this weight for a random number.
fn weighted(number: u64, weight: u32) -> f64 {
    // Between 0 and 1, exclusive; -weight / ln(x) is the draw of that weight.
    let x = (number >> 11) as f64 + 0.5;
    -f64::from(weight) / (x / (1u64 << 53) as f64).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(weights: &[u32]) -> SourceHash {
        let names: Vec<String> = (0..weights.len()).map(|i| format!("s{i}")).collect();
        let mut all =
            SourceHash::new(Hash::new(1), names.iter().map(String::as_str), weights.iter().map(|w| *w as u16));
        all.set_weights(weights);
        all
    }

    fn clients() -> impl Iterator<Item = u64> {
        (0..10_000u64).map(mix)
    }

    #[test]
    fn clients_spread_by_weight() {
        for weights in [[1, 1, 1, 0], [3, 2, 5, 0]] {
            let all = servers(&weights);
            let mut got = [0; 4];
            clients().for_each(|client| got[all.pick(client, &|_| false).unwrap()] += 1);
            let sum: u32 = weights.iter().sum();
            for (n, weight) in got.iter().zip(weights) {
                // Six standard deviations of 10,000 draws are less than 300.
                assert!(i32::abs(n - (10_000 * weight / sum) as i32) < 300, "{got:?}");
            }
        }
        assert_eq!(servers(&[0, 0]).pick(1, &|_| false), None);
    }

    #[test]
    fn only_the_clients_of_a_lost_server_move() {
        for weights in [[1, 1, 1], [3, 2, 5]] {
            let all = servers(&weights);
            let mut without = servers(&weights);
            without.set_weights(&[weights[0], 0, weights[2]]);
            for client in clients() {
                let before = all.pick(client, &|_| false).unwrap();
                let after = without.pick(client, &|_| false).unwrap();
                assert!(before == 1 || before == after);
                assert_eq!(all.pick(client, &|place| place == 1), Some(after));
            }
        }
    }

    #[test]
    fn in_a_large_pool_too_only_the_clients_of_a_lost_server_move_and_they_return() {
        for spread in [1, 5] {
            let mut weights: Vec<u32> = (0..2000).map(|i| (1 + i % spread) * STEPS).collect();
            let mut all = SourceHash::new(
                Hash::new(1),
                (0..2000).map(|i| format!("s{i}")).collect::<Vec<_>>().iter().map(String::as_str),
                weights.iter().map(|weight| (weight / STEPS) as u16),
            );
            all.set_weights(&weights);
            let picks = |all: &SourceHash| -> Vec<usize> {
                (0..100_000u64).map(|n| all.pick(mix(n), &|_| false).unwrap()).collect()
            };
            let before = picks(&all);
            let mut got = vec![0; 2000];
            before.iter().for_each(|place| got[*place] += 1);
            let sum: u32 = weights.iter().sum();
            for (n, weight) in got.iter().zip(&weights) {
                // Six standard deviations.
                let want = 100_000.0 * f64::from(*weight) / f64::from(sum);
                assert!((f64::from(*n) - want).abs() < 6.0 * want.sqrt(), "{n} {want}");
            }
            let lost = weights.clone();
            (100..200).for_each(|place| weights[place] = 0);
            all.set_weights(&weights);
            for (before, after) in before.iter().zip(picks(&all)) {
                assert!((100..200).contains(before) || *before == after);
                assert!(!(100..200).contains(&after));
            }
            all.set_weights(&lost);
            assert_eq!(picks(&all), before);
            let only = |place: usize| place != 7;
            assert_eq!(all.pick(5, &only), Some(7));
        }
    }

    #[test]
    fn a_server_that_is_added_to_a_large_pool_moves_at_most_twice_its_share() {
        let names: Vec<String> = (0..1501).map(|i| format!("s{i}")).collect();
        let with = |count: usize| {
            let names = names[..count].iter().map(String::as_str);
            let mut all = SourceHash::new(Hash::new(1), names, (0..count).map(|_| 1));
            all.set_weights(&vec![STEPS; count]);
            all
        };
        let (before, after) = (with(1500), with(1501));
        let mut moved = 0;
        for client in (0..100_000u64).map(mix) {
            let (one, other) = (before.pick(client, &|_| false).unwrap(), after.pick(client, &|_| false).unwrap());
            moved += u32::from(one != other);
        }
        assert!((20..190).contains(&moved), "{moved}");
    }
}
