//! Limits of new flows: a bucket for rates, and a bounded memory of clients.

use crate::time::{Duration, Instant};
use ahash::RandomState;
use hashlink::LinkedHashMap;
use std::net::IpAddr;

/// Most clients that a rule counts at a time; those idle longest are forgotten first.
const MOST_CLIENTS: usize = 65_536;
const SECOND: u64 = 1_000_000_000;

/// A rate: so many a second, and as many at once after a quiet second (a leaky bucket as a meter).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bucket {
    /// When everything taken so far has leaked out: at most a second ahead.
    empty_at: Instant,
}

impl Bucket {
    /// Takes one, or tells that there is none to take. `keep` percent of the bucket are for others.
    pub fn take(&mut self, now: Instant, rate: u32, keep: u64) -> bool {
        let step = SECOND / u64::from(rate.max(1));
        let ahead = self.empty_at.since(now).as_nanos() as u64;
        if ahead + step > SECOND / 100 * (100 - keep) && ahead > 0 {
            return false;
        }
        self.empty_at = self.empty_at.max(now) + Duration::from_nanos(step);
        true
    }
}

/// A client of a rule.
#[derive(Debug, Clone, Copy, Default)]
struct Client {
    bucket: Bucket,
    flows: u32,
}

/// The clients of a rule, those with flows apart from those without.
#[derive(Debug)]
pub(super) struct Clients {
    busy: LinkedHashMap<IpAddr, Client, RandomState>,
    idle: LinkedHashMap<IpAddr, Client, RandomState>,
}

/// Which of a client's limits is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reached {
    Rate,
    Flows,
}

impl Clients {
    pub fn new(seed: u64) -> Self {
        let hash = RandomState::with_seeds(seed, 21, 22, 23);
        Clients { busy: LinkedHashMap::with_hasher(hash.clone()), idle: LinkedHashMap::with_hasher(hash) }
    }

    /// Whether a client may open another flow; takes it from its rate if so.
    pub fn take(&mut self, now: Instant, client: IpAddr, rate: Option<u32>, flows: Option<u32>) -> Result<(), Reached> {
        let mut known = self.busy.get(&client).or_else(|| self.idle.get(&client)).copied().unwrap_or_default();
        if flows.is_some_and(|most| known.flows >= most) {
            return Err(Reached::Flows);
        }
        if rate.is_some_and(|rate| !known.bucket.take(now, rate, 0)) {
            return Err(Reached::Rate);
        }
        match self.busy.get_mut(&client) {
            Some(busy) => *busy = known,
            None => self.rest(client, known),
        }
        Ok(())
    }

    /// Notes a client without flows, and makes room for it.
    fn rest(&mut self, client: IpAddr, known: Client) {
        self.idle.remove(&client);
        if self.idle.len() + self.busy.len() < MOST_CLIENTS || self.idle.pop_front().is_some() {
            self.idle.insert(client, known);
        }
    }

    /// Notes a client's new flow.
    pub fn opened(&mut self, client: IpAddr) {
        if let Some(busy) = self.busy.get_mut(&client) {
            busy.flows += 1;
        } else if let Some(known) = self.idle.remove(&client) {
            self.busy.insert(client, Client { flows: 1, ..known });
        }
    }

    /// Notes that a client's flow ended.
    pub fn ended(&mut self, client: IpAddr) {
        let Some(busy) = self.busy.get_mut(&client) else { return };
        busy.flows -= 1;
        if busy.flows == 0 {
            let known = *busy;
            self.busy.remove(&client);
            self.rest(client, known);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn a_bucket_gives_a_seconds_worth_at_once_and_its_rate_ever_after() {
        let mut bucket = Bucket::default();
        let mut taken = |ms| (0..20).filter(|_| bucket.take(at(ms), 10, 0)).count();
        assert_eq!([taken(0), taken(99), taken(100), taken(550), taken(5000)], [10, 0, 1, 4, 10]);
        let mut slow = Bucket::default();
        assert_eq!([0, 999, 1000].map(|ms| slow.take(at(ms), 1, 0)), [true, false, true]);
    }

    #[test]
    fn what_is_kept_for_others_is_not_taken() {
        let mut bucket = Bucket::default();
        assert_eq!((0..20).filter(|_| bucket.take(at(0), 10, 20)).count(), 8);
        assert_eq!((0..20).filter(|_| bucket.take(at(0), 10, 0)).count(), 2);
    }

    #[test]
    fn a_client_has_its_own_rate_and_count() {
        let mut clients = Clients::new(1);
        let (a, b): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        for _ in 0..2 {
            assert_eq!(clients.take(at(0), a, Some(3), Some(2)), Ok(()));
            clients.opened(a);
        }
        assert_eq!(clients.take(at(0), a, Some(3), Some(2)), Err(Reached::Flows));
        assert_eq!(clients.take(at(0), b, Some(3), Some(2)), Ok(()));
        clients.ended(a);
        assert_eq!(clients.take(at(0), a, Some(3), Some(2)), Ok(()));
        assert_eq!(clients.take(at(0), a, Some(3), Some(2)), Err(Reached::Rate));
        assert_eq!(clients.take(at(400), a, Some(3), Some(2)), Ok(()));
        clients.ended(a);
        clients.ended(a);
    }

    #[test]
    fn clients_are_bounded_and_the_idle_go_first() {
        let mut clients = Clients::new(1);
        let client = |n: u32| IpAddr::from(n.to_be_bytes());
        clients.take(at(0), client(0), Some(1), None).unwrap();
        clients.opened(client(0));
        for n in 1..100_000 {
            clients.take(at(0), client(n), Some(1), None).unwrap();
        }
        assert_eq!(clients.idle.len() + clients.busy.len(), MOST_CLIENTS);
        assert_eq!(clients.take(at(0), client(0), Some(1), None), Err(Reached::Rate));
        assert_eq!(clients.take(at(0), client(1), Some(1), None), Ok(()), "forgotten");
    }
}
