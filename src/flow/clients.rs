//! Per-client values: clients with flows and clients without, each in order of use.
//!
//! It must not know what the values mean, nor when they expire: the owner asks for the oldest.

use ahash::RandomState;
use hashlink::LinkedHashMap;
use hashlink::linked_hash_map::RawEntryMut;
use std::net::IpAddr;

type Order<T> = LinkedHashMap<IpAddr, T, RandomState>;

/// One value per client. A client is busy or idle, never both.
#[derive(Debug, Clone)]
pub(crate) struct Clients<T> {
    idle: Order<T>,
    busy: Order<T>,
    /// By [`Walker`]: the clients at which its walk goes on, idle and busy; they move on before these clients move.
    walks: [[Option<IpAddr>; 2]; Walker::COUNT],
}

/// Places in a walk.
const IDLE: usize = 0;
const BUSY: usize = 1;

/// Who walks over clients; each has one walk at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Walker {
    /// Whoever copies the state.
    Copy,
    /// The other gateway of a pair.
    Peer,
    /// Whoever lists clients for an operator.
    List,
    /// Whoever has clients forgotten for an operator.
    Clear,
    /// The same for an operator at the other gateway.
    Order,
}

impl Walker {
    const COUNT: usize = 5;
}

impl<T: Copy> Clients<T> {
    pub(crate) fn new(hash: RandomState) -> Self {
        let idle = LinkedHashMap::with_hasher(hash.clone());
        Clients { idle, busy: LinkedHashMap::with_hasher(hash), walks: Default::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.idle.len() + self.busy.len()
    }

    pub(crate) fn idle_len(&self) -> usize {
        self.idle.len()
    }

    /// Returns the value of a client.
    pub(crate) fn get(&self, client: IpAddr) -> Option<T> {
        self.busy.get(&client).or_else(|| self.idle.get(&client)).copied()
    }

    /// Returns all values: those of idle clients, then those of busy ones, each in order of use.
    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.idle.iter().chain(&self.busy).map(|(_, value)| value)
    }

    /// Returns a mutable reference to a busy client's value.
    pub(crate) fn busy_mut(&mut self, client: IpAddr) -> Option<&mut T> {
        self.busy.get_mut(&client)
    }

    /// Stores a client as busy, as the most recent of the busy clients.
    pub(crate) fn set_busy(&mut self, client: IpAddr, value: T) {
        let under_way = self.pass(client);
        self.idle.remove(&client);
        self.busy.remove(&client);
        self.busy.insert(client, value);
        self.follow(under_way, BUSY, client);
    }

    /// Stores a client as idle, as the most recent of the idle clients.
    pub(crate) fn set_idle(&mut self, client: IpAddr, value: T) {
        let under_way = self.pass(client);
        self.busy.remove(&client);
        self.idle.remove(&client);
        self.idle.insert(client, value);
        self.follow(under_way, IDLE, client);
    }

    /// Removes a client and returns its value.
    pub(crate) fn remove(&mut self, client: IpAddr) -> Option<T> {
        self.pass(client);
        self.idle.remove(&client).or_else(|| self.busy.remove(&client))
    }

    /// Returns the value of the client that has been idle longest.
    pub(crate) fn oldest_idle(&self) -> Option<&T> {
        self.idle.front().map(|(_, value)| value)
    }

    /// Removes the client that has been idle longest; returns false if there is none.
    pub(crate) fn forget_idle(&mut self) -> bool {
        let oldest = self.idle.front().map(|(client, _)| *client);
        oldest.is_some_and(|client| self.remove(client).is_some())
    }

    /// Removes the client that became busy longest ago; returns false if there is none.
    pub(crate) fn forget_busy(&mut self) -> bool {
        let oldest = self.busy.front().map(|(client, _)| *client);
        oldest.is_some_and(|client| self.remove(client).is_some())
    }

    /// Begins a walk, which [`Clients::walk`] goes on with; one that is under way ends.
    pub(crate) fn begin_walk(&mut self, walker: Walker) {
        let first = [&self.idle, &self.busy].map(|clients| clients.front().map(|(client, _)| *client));
        self.walks[walker as usize] = first;
    }

    /// Passes up to `most` clients to `take`, the idle ones before the busy ones; returns how many. A client that is there
    /// during the whole walk comes; one that is used meanwhile may come twice.
    pub(crate) fn walk(&mut self, walker: Walker, most: usize, mut take: impl FnMut(IpAddr, &T)) -> usize {
        let walk = &mut self.walks[walker as usize];
        for walked in 0..most {
            let Some(place) = walk.iter().position(Option::is_some) else { return walked };
            let Some(client) = walk[place].take() else { return walked };
            let clients = if place == IDLE { &mut self.idle } else { &mut self.busy };
            if let Some(value) = clients.get(&client) {
                take(client, value);
            }
            walk[place] = next(clients, client);
        }
        most
    }

    /// Returns the clients, idle and busy, that were stored after all of those for which this does not hold.
    pub(crate) fn recent(&self, is_recent: impl Fn(&T) -> bool + Copy) -> impl Iterator<Item = (IpAddr, &T)> {
        let of = [&self.idle, &self.busy].into_iter();
        let recent = of.flat_map(move |clients| clients.iter().rev().take_while(move |(_, value)| is_recent(value)));
        recent.map(|(client, value)| (*client, value))
    }

    /// Moves walks on that would go on at this client; returns which are under way.
    fn pass(&mut self, client: IpAddr) -> [bool; Walker::COUNT] {
        let under_way = self.walks.map(|walk| walk != [None; 2]);
        for walk in &mut self.walks {
            if walk[IDLE] == Some(client) {
                walk[IDLE] = next(&mut self.idle, client);
            }
            if walk[BUSY] == Some(client) {
                walk[BUSY] = next(&mut self.busy, client);
            }
        }
        under_way
    }

    /// Has walks that have passed a place go on there at the client that has become the last one of it: it may come from where
    /// they have yet to go.
    fn follow(&mut self, under_way: [bool; Walker::COUNT], place: usize, client: IpAddr) {
        for (walk, _) in self.walks.iter_mut().zip(under_way).filter(|(_, is_under_way)| *is_under_way) {
            walk[place].get_or_insert(client);
        }
    }
}

/// Returns the client behind another.
fn next<T>(clients: &mut Order<T>, client: IpAddr) -> Option<IpAddr> {
    let RawEntryMut::Occupied(place) = clients.raw_entry_mut().from_key(&client) else { return None };
    let mut cursor = place.cursor_mut();
    cursor.peek_next().map(|(next, _)| *next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_walk_meets_every_client_that_stays_wherever_it_moves_and_ends() {
        let client = |n: u64| IpAddr::from([10, 0, 0, n as u8]);
        let mut rng = crate::rng::Rng::new(1);
        for _ in 0..300 {
            let mut clients = Clients::new(RandomState::with_seeds(1, 2, 3, 4));
            for n in 0..30 {
                if n % 2 == 0 { clients.set_idle(client(n), n) } else { clients.set_busy(client(n), n) }
            }
            let (mut seen, mut touched, mut gone) = (Vec::new(), Vec::new(), Vec::new());
            let (mut listed, mut other) = (Vec::new(), Vec::new());
            clients.begin_walk(Walker::Copy);
            clients.begin_walk(Walker::List);
            while clients.walk(Walker::Copy, 1 + rng.below(5) as usize, |_, n| seen.push(*n)) > 0 {
                clients.walk(Walker::List, rng.below(3) as usize, |_, n| listed.push(*n));
                // Somebody else walks at the same time, and begins anew now and then.
                if rng.below(8) == 0 {
                    clients.begin_walk(Walker::Peer);
                }
                clients.walk(Walker::Peer, rng.below(4) as usize, |_, n| other.push(*n));
                for _ in 0..rng.below(3) {
                    let n = rng.below(30);
                    touched.push(n);
                    match rng.below(3) {
                        0 => clients.set_busy(client(n), n),
                        1 => clients.set_idle(client(n), n),
                        _ => gone.extend(clients.remove(client(n))),
                    }
                }
            }
            while clients.walk(Walker::List, 1, |_, n| listed.push(*n)) > 0 {}
            assert!((0..30).all(|n| seen.contains(&n) || gone.contains(&n)), "{seen:?} {gone:?}");
            assert!((0..30).all(|n| listed.contains(&n) || gone.contains(&n)), "{listed:?} {gone:?}");
            assert!(seen.len() <= 30 + touched.len());
            assert!(other.iter().all(|n| *n < 30));
        }
    }

    #[test]
    fn a_client_is_busy_or_idle_and_the_oldest_is_evicted_first() {
        let client = |n: u8| IpAddr::from([10, 0, 0, n]);
        let mut clients = Clients::new(RandomState::with_seeds(1, 2, 3, 4));
        (1..=3).for_each(|n| clients.set_idle(client(n), n));
        clients.set_busy(client(2), 20);
        clients.set_idle(client(1), 10);
        assert_eq!((clients.len(), clients.oldest_idle()), (3, Some(&3)));
        assert!(clients.forget_idle());
        assert_eq!([1, 2, 3].map(|n| clients.get(client(n))), [Some(10), Some(20), None]);
        *clients.busy_mut(client(2)).expect("busy") = 21;
        assert_eq!(clients.busy_mut(client(1)), None);
        assert_eq!(clients.remove(client(2)), Some(21));
        assert!(clients.forget_idle() && !clients.forget_idle() && !clients.forget_busy());
    }
}
