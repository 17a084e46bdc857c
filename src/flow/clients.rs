//! Per-client values: clients with flows and clients without, each in order of use.
//!
//! It must not know what the values mean, nor when they expire: the owner asks for the oldest.

use ahash::RandomState;
use hashlink::LinkedHashMap;
use std::net::IpAddr;

/// One value per client. A client is busy or idle, never both.
#[derive(Debug, Clone)]
pub(crate) struct Clients<T> {
    idle: LinkedHashMap<IpAddr, T, RandomState>,
    busy: LinkedHashMap<IpAddr, T, RandomState>,
}

impl<T: Copy> Clients<T> {
    pub(crate) fn new(hash: RandomState) -> Self {
        Clients { idle: LinkedHashMap::with_hasher(hash.clone()), busy: LinkedHashMap::with_hasher(hash) }
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
        self.idle.remove(&client);
        self.busy.remove(&client);
        self.busy.insert(client, value);
    }

    /// Stores a client as idle, as the most recent of the idle clients.
    pub(crate) fn set_idle(&mut self, client: IpAddr, value: T) {
        self.busy.remove(&client);
        self.idle.remove(&client);
        self.idle.insert(client, value);
    }

    /// Removes a client and returns its value.
    pub(crate) fn remove(&mut self, client: IpAddr) -> Option<T> {
        self.idle.remove(&client).or_else(|| self.busy.remove(&client))
    }

    /// Returns the value of the client that has been idle longest.
    pub(crate) fn oldest_idle(&self) -> Option<&T> {
        self.idle.front().map(|(_, value)| value)
    }

    /// Removes the client that has been idle longest; returns false if there is none.
    pub(crate) fn forget_idle(&mut self) -> bool {
        self.idle.pop_front().is_some()
    }

    /// Removes the client that became busy longest ago; returns false if there is none.
    pub(crate) fn forget_busy(&mut self) -> bool {
        self.busy.pop_front().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
