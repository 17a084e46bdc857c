//! Limits of new flows per client of a rule: a rate and a number of simultaneous flows.
//!
//! Only flows whose clients have proved themselves count, so there are at most as many clients with flows as flows in
//! the table, and each of them is counted exactly. Of clients without flows only the rate is kept, in bounded memory,
//! as their addresses may be spoofed: if that is full of rates in use, further clients share one by prefix.

use crate::bucket::Bucket;
use crate::flow::clients::Clients;
use crate::time::Instant;
use std::net::IpAddr;

/// Maximum number of clients without flows that a rule remembers; the one idle longest is evicted first.
const MOST_IDLE: usize = 65_536;
/// Rates shared by clients for which there is no room: by the first 16 bits of an IPv4 address, and by 16 bits folded
/// from the first 32 of an IPv6 address.
const SHARED: usize = 1 << 16;

/// A client of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Client {
    bucket: Bucket,
    flows: u32,
}

/// What a new flow takes from its client's rate, or from the rate that the client shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    Own(IpAddr, Bucket),
    Shared(u16, Bucket),
}

/// The clients of a rule.
#[derive(Debug, Clone)]
pub(super) struct ClientLimits {
    clients: Clients<Client>,
    /// Empty until needed.
    shared: Vec<Bucket>,
    /// Flows created by then do not count.
    since: Option<Instant>,
}

/// Returns which of the shared rates applies to a client.
fn shared_by(client: IpAddr) -> u16 {
    match client {
        IpAddr::V4(client) => (client.to_bits() >> 16) as u16,
        IpAddr::V6(client) => (client.to_bits() >> 112 ^ client.to_bits() >> 96) as u16,
    }
}

impl ClientLimits {
    pub(super) fn new() -> Self {
        ClientLimits { clients: Clients::new(crate::rng::drawn_hash()), shared: Vec::new(), since: None }
    }

    /// Creates limits that count flows created after that time: those before, the rule has not counted by client, or by
    /// another part of the address.
    pub(super) fn since(since: Instant) -> Self {
        ClientLimits { since: Some(since), ..ClientLimits::new() }
    }

    /// Returns whether a flow counts that was created then.
    pub(super) fn counts(&self, created: Instant) -> bool {
        self.since.is_none_or(|since| since < created)
    }

    /// Returns the number of a client's flows.
    pub(super) fn flows(&self, client: IpAddr) -> u32 {
        self.clients.get(client).map_or(0, |known| known.flows)
    }

    /// Returns the rate that applies to a client.
    pub(super) fn bucket(&self, now: Instant, client: IpAddr) -> Bucket {
        match self.clients.get(client) {
            Some(known) => known.bucket,
            None if self.is_overrun(now) => {
                self.shared.get(usize::from(shared_by(client))).copied().unwrap_or_default()
            }
            None => Bucket::default(),
        }
    }

    /// Returns whether there is no room for another client without flows: a rate that is in use would be forgotten.
    fn is_overrun(&self, now: Instant) -> bool {
        self.clients.idle_len() >= MOST_IDLE
            && self.clients.oldest_idle().is_some_and(|oldest| !oldest.bucket.is_full(now))
    }

    /// Returns what a new flow takes, if the rate admits it.
    pub(super) fn admit(&self, now: Instant, client: IpAddr, rate: u32) -> Option<Taken> {
        let bucket = self.bucket(now, client).take(now, rate, 0)?;
        let shares = self.clients.get(client).is_none() && self.is_overrun(now);
        Some(if shares { Taken::Shared(shared_by(client), bucket) } else { Taken::Own(client, bucket) })
    }

    /// Takes what [`ClientLimits::admit`] returned.
    pub(super) fn take(&mut self, taken: Taken) {
        match taken {
            Taken::Own(client, bucket) => match self.clients.busy_mut(client) {
                Some(busy) => busy.bucket = bucket,
                None => self.rest(client, bucket),
            },
            Taken::Shared(at, bucket) => {
                self.shared.resize(SHARED, Bucket::default());
                self.shared[usize::from(at)] = bucket;
            }
        }
    }

    /// Stores a client without flows, and evicts the one that has been idle longest if there are too many.
    fn rest(&mut self, client: IpAddr, bucket: Bucket) {
        self.clients.set_idle(client, Client { bucket, flows: 0 });
        if self.clients.idle_len() > MOST_IDLE {
            self.clients.forget_idle();
        }
    }

    /// Records a flow of a client that has proved itself.
    pub(super) fn opened(&mut self, client: IpAddr) {
        match self.clients.busy_mut(client) {
            Some(busy) => busy.flows += 1,
            None => {
                let known = self.clients.remove(client).unwrap_or_default();
                self.clients.set_busy(client, Client { flows: 1, ..known });
            }
        }
    }

    /// Records that a flow that [`ClientLimits::opened`] recorded ended.
    pub(super) fn ended(&mut self, client: IpAddr) {
        let Some(busy) = self.clients.busy_mut(client) else { return };
        busy.flows -= 1;
        if busy.flows == 0 {
            let bucket = busy.bucket;
            self.rest(client, bucket);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    fn client(n: u32) -> IpAddr {
        IpAddr::from(n.to_be_bytes())
    }

    impl ClientLimits {
        fn admits(&mut self, now: Instant, client: IpAddr, rate: u32) -> bool {
            self.admit(now, client, rate).inspect(|taken| self.take(*taken)).is_some()
        }
    }

    #[test]
    fn a_client_has_its_own_rate_and_count() {
        let mut clients = ClientLimits::new();
        let (a, b) = (client(1), client(2));
        for _ in 0..2 {
            assert!(clients.admits(at(0), a, 3));
            clients.opened(a);
        }
        assert_eq!((clients.flows(a), clients.flows(b)), (2, 0));
        assert!(clients.admits(at(0), b, 3));
        clients.ended(a);
        assert!(clients.admits(at(0), a, 3) && !clients.admits(at(0), a, 3));
        clients.ended(a);
        assert_eq!(clients.flows(a), 0);
        assert!(!clients.admits(at(0), a, 3), "its rate outlives its flows");
        assert!(clients.admits(at(400), a, 3));
    }

    #[test]
    fn every_client_with_flows_is_counted_whatever_others_do() {
        let mut clients = ClientLimits::new();
        (0..70_000).for_each(|n| clients.opened(client(n)));
        for n in 70_000..200_000 {
            clients.admits(at(0), client(n), 1);
        }
        assert!((0..70_000).all(|n| clients.flows(client(n)) == 1));
        assert_eq!(clients.clients.idle_len(), MOST_IDLE);
        (0..70_000).for_each(|n| clients.ended(client(n)));
        assert_eq!(clients.clients.len(), MOST_IDLE);
    }

    #[test]
    fn clients_beyond_the_memory_for_rates_share_one_by_prefix() {
        let mut clients = ClientLimits::new();
        for n in 0..MOST_IDLE as u32 {
            assert!(clients.admits(at(0), client(n), 2));
        }
        let [one, other, far] = [0x0a00_0001, 0x0a00_0002, 0x0b00_0001].map(client);
        assert!(clients.admits(at(1), one, 2) && clients.admits(at(1), other, 2));
        assert!(
            !clients.admits(at(1), one, 2) && !clients.admits(at(1), client(0x0a00_0003), 2),
            "10.0.0.0/16 is at its rate"
        );
        assert!(clients.admits(at(1), far, 2), "another prefix");
        assert!(clients.admits(at(1), client(0), 2) && !clients.admits(at(1), client(0), 2), "known by itself");
        // 0.5 s after its token, a rate of 2 per second is unused: it can be forgotten.
        assert!(clients.admits(at(501), one, 2) && clients.admits(at(501), one, 2) && !clients.admits(at(501), one, 2));
    }
}
