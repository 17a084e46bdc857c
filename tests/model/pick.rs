//! The choice of a server for a new flow: each algorithm as described in `docs/algorithms.md` and its paper,
//! implemented as an exhaustive search.

use super::servers::Server;
use equipoise::balance::{Algorithm, Prefixes, Tuning};
use equipoise::packet::Protocol;
use equipoise::time::Instant;
use siphasher::sip::SipHasher13;
use std::hash::Hasher;
use std::net::{IpAddr, SocketAddr};

/// The span of virtual time in which a server of weight w is due w times.
const ROUND: u128 = 1 << 80;

/// A server's index within its pool.
pub type Place = usize;

/// The flow that needs a server.
#[derive(Debug, Clone, Copy)]
pub struct Asker {
    pub protocol: Protocol,
    pub client: SocketAddr,
    pub listen: SocketAddr,
}

/// The order among equals: the least recently picked comes first; initially they follow in order of their places.
#[derive(Debug, Clone)]
struct Turns {
    of: Vec<u64>,
    picks: u64,
}

impl Turns {
    fn new(places: usize, first: Place) -> Self {
        let of = (0..places).map(|place| ((place + places - first) % places) as u64).collect();
        Turns { of, picks: places as u64 }
    }

    fn picked(&mut self, place: Place) {
        self.picks += 1;
        self.of[place] = self.picks;
    }
}

/// What servers with evenly spread seats have in common: whether they have an address, whether they are backups, their
/// priority, and their configured weight in sixteenths.
pub type Kind = (bool, bool, u16, u32);

/// A common schedule: the turns of each server are 1/weight apart, and its first turn is fixed by its seat.
#[derive(Debug, Clone)]
struct Schedule {
    /// The seat of each server among those of its kind, and their number.
    seats: Vec<(u128, u128)>,
    weights: Vec<u32>,
    /// The earliest turn that may be next: its time, and its order among the turns of that time.
    from: Turn,
}

/// Time; whether it is not the server's first; its weight; its place.
type Turn = (u128, bool, u32, Place);

/// An algorithm and its state for one address family of a service.
#[derive(Debug, Clone)]
pub struct Picker {
    algorithm: Algorithm,
    tuning: Tuning,
    names: Vec<String>,
    seed: u64,
    turns: Turns,
    weights: Vec<u32>,
    /// The average latency of the servers with a measurement.
    average: u64,
    schedule: Schedule,
    /// When new flows were opened, and at which server.
    openings: Vec<(Instant, Place)>,
    /// The Maglev table for the current weights.
    table: Vec<Place>,
}

/// The conditions of a choice: which servers may be picked for a flow.
pub struct Choice<'a> {
    pub now: Instant,
    pub asker: Asker,
    pub servers: &'a dyn Fn(Place) -> &'a Server,
    /// Whether a server is full or has already been tried.
    pub refuses: &'a dyn Fn(Place) -> bool,
    /// The engine's choice, if it is one of these servers.
    pub chosen: Option<Place>,
    /// Whether a flow's replies from that server could be distinguished from those of other flows.
    pub has_key: &'a dyn Fn(Place) -> bool,
}

impl Picker {
    pub fn new(
        algorithm: Algorithm,
        tuning: &Tuning,
        (names, kinds): (Vec<String>, &[Kind]),
        service: &str,
        seed: u64,
    ) -> Self {
        let places = names.len();
        // Services start at different servers, by a hash of their name; without a seed, at the first.
        let hash = mix(service.bytes().fold(seed, |hash, byte| mix(hash ^ u64::from(byte))));
        let first = if seed == 0 { 0 } else { (hash % places as u64) as usize };
        Picker {
            algorithm,
            tuning: tuning.clone(),
            names,
            seed,
            turns: Turns::new(places, first),
            weights: vec![0; places],
            average: 0,
            schedule: Schedule::new(kinds, first),
            openings: Vec::new(),
            table: Vec::new(),
        }
    }

    /// Sets the effective weights, in sixteenths; a server of weight 0 is no candidate.
    pub fn weigh<'a>(&mut self, weights: &[u32], stale: bool, servers: &dyn Fn(Place) -> &'a Server) {
        if stale {
            self.average = self.average_of(servers);
        }
        if weights == self.weights {
            return;
        }
        self.weights = weights.to_vec();
        self.schedule.weights = weights.to_vec();
        if self.algorithm == Algorithm::Maglev {
            self.table = self.populate();
        }
    }

    pub fn opened(&mut self, now: Instant, place: Place) {
        self.openings.push((now, place));
    }

    /// Picks a server; none if there is no candidate.
    pub fn pick(&mut self, choice: &Choice) -> Option<Place> {
        let open = |place: &Place| self.weights[*place] > 0 && !(choice.refuses)(*place);
        let candidates: Vec<Place> = (0..self.weights.len()).filter(open).collect();
        let server = |place: Place| (choice.servers)(place);
        let picked = match self.algorithm {
            Algorithm::RoundRobin | Algorithm::Priority => return self.in_turn(&candidates),
            Algorithm::ResourceUsage => {
                let all = (0..self.weights.len()).filter(|place| self.weights[*place] > 0);
                if all.into_iter().any(|place| server(place).report.is_none()) {
                    return self.in_turn(&candidates);
                }
                self.least(&candidates, |place| server(place).report.map_or(0, |report| estimate(&report)) + 1)
            }
            Algorithm::LeastConnections => self.least(&candidates, |place| u64::from(server(place).flows) + 1),
            Algorithm::ConnectionRate => {
                let part = (self.tuning.rate_window.as_nanos() / 8) as u64;
                let age = |when: Instant| choice.now.as_nanos() / part - when.as_nanos() / part;
                self.openings.retain(|(when, _)| age(*when) < 8);
                let of = |place| self.openings.iter().filter(|(_, other)| *other == place).count() as u64;
                self.least(&candidates, |place| of(place) + 1)
            }
            Algorithm::LeastLatency => {
                // A server without a measurement counts as the average of the others.
                let average = self.average_of(choice.servers);
                self.least(&candidates, |place| nanos(server(place)).unwrap_or(average) + 1)
            }
            Algorithm::Random => return allowed(&candidates, choice, |_| true),
            Algorithm::TwoChoices => {
                let flows = |place: Place| u64::from(server(place).flows) + 1;
                let bears_less = |one: Place, other: Place| !self.is_less((flows(other), other), (flows(one), one));
                let alone = candidates.len() == 1 || candidates.iter().any(|place| !(choice.has_key)(*place));
                let beats = |one: Place| candidates.iter().any(|other| *other != one && bears_less(one, *other));
                return allowed(&candidates, choice, |place| alone || beats(place));
            }
            Algorithm::SourceHash => {
                let client = self.hash_client(choice.asker.client.ip(), &self.tuning.hash.unwrap_or(Prefixes::ADDRESS));
                return self.highest_draw(&candidates, client);
            }
            Algorithm::Maglev => {
                let hash = match self.tuning.hash {
                    Some(prefixes) => self.hash_client(choice.asker.client.ip(), &prefixes),
                    None => self.hash_flow(&choice.asker),
                };
                let entry = self.table.get((hash % u64::from(self.tuning.maglev_table)) as usize).copied()?;
                if candidates.contains(&entry) {
                    return Some(entry);
                }
                // If the server in the table refuses, the flow goes to that of another entry.
                return allowed(&candidates, choice, |_| true);
            }
        };
        picked.inspect(|place| self.turns.picked(*place))
    }

    fn average_of<'a>(&self, servers: &dyn Fn(Place) -> &'a Server) -> u64 {
        let measured: Vec<u64> = (0..self.weights.len()).filter_map(|place| nanos(servers(place))).collect();
        measured.iter().sum::<u64>() / (measured.len() as u64).max(1)
    }

    /// Returns whether the first load relative to its server's weight is less than the second.
    fn is_less(&self, (one, a): (u64, Place), (other, b): (u64, Place)) -> bool {
        u128::from(one) * u128::from(self.weights[b]) < u128::from(other) * u128::from(self.weights[a])
    }

    fn least(&self, candidates: &[Place], load: impl Fn(Place) -> u64) -> Option<Place> {
        let before = |one: Place, other: Place| {
            let (a, b) = ((load(one), one), (load(other), other));
            self.is_less(a, b) || (!self.is_less(b, a) && self.turns.of[one] < self.turns.of[other])
        };
        candidates.iter().copied().reduce(|best, place| if before(place, best) { place } else { best })
    }

    fn in_turn(&mut self, candidates: &[Place]) -> Option<Place> {
        let turn = candidates.iter().map(|place| self.schedule.turn(*place)).min()?;
        // A server that refused flows for a while does not catch up on its missed turns.
        self.schedule.from = (turn.0, turn.1, turn.2, turn.3 + 1);
        Some(turn.3)
    }

    /// Weighted rendezvous hashing: the highest -w / ln(x) wins, where x is a hash of client and server in (0, 1).
    fn highest_draw(&self, candidates: &[Place], client: u64) -> Option<Place> {
        let mut weights = self.weights.iter().filter(|weight| **weight > 0);
        let first = weights.next();
        let even = weights.all(|weight| Some(weight) == first);
        let number = |place: Place| mix(client ^ self.hash_name(place, 0));
        if even {
            return candidates.iter().copied().max_by_key(|place| number(*place));
        }
        let draw = |place: Place| {
            let x = ((number(place) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
            -f64::from(self.weights[place]) / x.ln()
        };
        candidates.iter().copied().max_by(|a, b| draw(*a).total_cmp(&draw(*b)))
    }

    /// Builds the Maglev table as in the pseudocode of the paper, with the permutations written out. In each round a
    /// server takes its weight divided by the average weight in entries, with fractions carried over.
    fn populate(&self) -> Vec<Place> {
        let size = self.tuning.maglev_table as usize;
        let candidates: Vec<Place> = (0..self.weights.len()).filter(|place| self.weights[*place] > 0).collect();
        if candidates.is_empty() {
            return Vec::new();
        }
        let total: u64 = candidates.iter().map(|place| u64::from(self.weights[*place])).sum();
        let average = total.div_ceil(candidates.len() as u64);
        let permutation = |place: Place| {
            let offset = self.hash_name(place, 1) % size as u64;
            let skip = self.hash_name(place, 2) % (size as u64 - 1) + 1;
            (0..size as u64).map(move |j| ((offset + j * skip) % size as u64) as usize)
        };
        let mut wants: Vec<_> = candidates.iter().map(|place| (*place, permutation(*place), 0)).collect();
        let (mut table, mut filled) = (vec![None; size], 0);
        loop {
            for (place, wanted, saved) in &mut wants {
                *saved += u64::from(self.weights[*place]);
                while *saved >= average {
                    *saved -= average;
                    let entry = wanted.by_ref().find(|entry| table[*entry].is_none()).expect("a free entry");
                    table[entry] = Some(*place);
                    filled += 1;
                    if filled == size {
                        return table.into_iter().flatten().collect();
                    }
                }
            }
        }
    }

    fn hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.seed, u64::from_be_bytes(*b"equipois"))
    }

    fn hash_name(&self, place: Place, salt: u8) -> u64 {
        let mut hasher = self.hasher();
        hasher.write(self.names[place].as_bytes());
        hasher.write(&[0xff, salt]);
        hasher.finish()
    }

    fn hash_client(&self, client: IpAddr, prefixes: &Prefixes) -> u64 {
        let mut hasher = self.hasher();
        hasher.write(&octets(prefixes.of(client)));
        hasher.finish()
    }

    fn hash_flow(&self, asker: &Asker) -> u64 {
        let mut hasher = self.hasher();
        hasher.write(&octets(asker.client.ip()));
        hasher.write(&octets(asker.listen.ip()));
        hasher.write(&asker.client.port().to_be_bytes());
        hasher.write(&asker.listen.port().to_be_bytes());
        match asker.protocol {
            Protocol::Tcp => hasher.write(&[0]),
            Protocol::Udp => hasher.write(&[1]),
            Protocol::Icmp => hasher.write(&[2]),
            Protocol::Sctp => hasher.write(&[3]),
            Protocol::Ip(number) => hasher.write(&[1, number]),
        }
        hasher.finish()
    }
}

impl Schedule {
    /// Servers of one kind have evenly spread seats; the first turn that may be taken is the one of `first`, whose kind
    /// ends with its configured weight.
    fn new(kinds: &[Kind], first: Place) -> Self {
        let seat = |place: Place| {
            let before = kinds[..place].iter().filter(|kind| **kind == kinds[place]).count();
            (before as u128, kinds.iter().filter(|kind| **kind == kinds[place]).count() as u128)
        };
        let seats = (0..kinds.len()).map(seat).collect();
        let mut schedule = Schedule { seats, weights: vec![0; kinds.len()], from: (0, false, 0, 0) };
        if first > 0 && kinds[first].3 > 0 {
            schedule.from = (schedule.first_turn(first, kinds[first].3), false, 0, first);
        }
        schedule
    }

    fn first_turn(&self, place: Place, weight: u32) -> u128 {
        let (seat, of) = self.seats[place];
        ROUND / u128::from(weight) / (2 * of) * (2 * seat + 1)
    }

    /// Returns a server's first turn that is still to come.
    fn turn(&self, place: Place) -> Turn {
        let weight = self.weights[place];
        let (first, step) = (self.first_turn(place, weight), ROUND / u128::from(weight));
        let at = |n: u128| (first + n * step, n > 0, if n > 0 { weight } else { 0 }, place);
        let near = (self.from.0.saturating_sub(first) / step).saturating_sub(1);
        (near..).map(at).find(|turn| *turn >= self.from).expect("a turn")
    }
}

/// Returns the engine's choice if it is allowed; otherwise a candidate that the engine had to give up because the
/// replies would be ambiguous, or else the first candidate.
fn allowed(candidates: &[Place], choice: &Choice, may: impl Fn(Place) -> bool) -> Option<Place> {
    let chosen = choice.chosen.filter(|place| candidates.contains(place) && may(*place) && (choice.has_key)(*place));
    let other = candidates.iter().copied().find(|place| !(choice.has_key)(*place));
    chosen.or(other).or(candidates.first().copied())
}

/// Returns a server's estimated load in thousandths of a percent: each flow assigned since its report adds the average
/// cost per flow at that time, but at least a hundredth of a percent and at most five percent.
fn estimate(report: &super::servers::Report) -> u64 {
    let load = u64::from(report.load) * 1000;
    let each = (load / u64::from(report.flows_then.max(1))).clamp(10, 5000);
    load + each * u64::from(report.given)
}

fn nanos(server: &Server) -> Option<u64> {
    server.latency.map(|latency| latency.as_nanos() as u64)
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// SplitMix64's finalizer.
fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
