//! Limits of new flows per client of a rule: a rate and a number of simultaneous flows, in bounded memory.

use crate::bucket::Bucket;
use crate::flow::clients::Clients;
use crate::time::Instant;
use std::net::IpAddr;

/// Maximum number of clients that a rule counts at a time; the one idle longest is evicted first.
const MOST_CLIENTS: usize = 65_536;

/// A client of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Client {
    pub(super) bucket: Bucket,
    pub(super) flows: u32,
}

/// Which of a client's limits has been reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reached {
    Rate,
    Flows,
}

/// The clients of a rule.
#[derive(Debug, Clone)]
pub(super) struct ClientLimits(Clients<Client>);

impl ClientLimits {
    pub(super) fn new() -> Self {
        ClientLimits(Clients::new(crate::rng::drawn_hash()))
    }

    /// Returns the counters of a client.
    pub(super) fn get(&self, client: IpAddr) -> Client {
        self.0.get(client).unwrap_or_default()
    }

    /// Returns the client's counters after another new flow, if it is admitted.
    pub(super) fn admit(
        &self,
        now: Instant,
        client: IpAddr,
        rate: Option<u32>,
        flows: Option<u32>,
    ) -> Result<Client, Reached> {
        let known = self.get(client);
        if flows.is_some_and(|most| known.flows >= most) {
            return Err(Reached::Flows);
        }
        let bucket = match rate {
            None => known.bucket,
            Some(rate) => known.bucket.take(now, rate, 0).ok_or(Reached::Rate)?,
        };
        Ok(Client { bucket, ..known })
    }

    /// Takes what [`ClientLimits::admit`] returned.
    pub(super) fn take(&mut self, client: IpAddr, known: Client) {
        match self.0.busy_mut(client) {
            Some(busy) => *busy = known,
            None => self.rest(client, known),
        }
    }

    /// Stores a client without flows, evicting an idle one if necessary; clients with flows are never evicted.
    fn rest(&mut self, client: IpAddr, known: Client) {
        self.0.remove(client);
        if self.0.len() < MOST_CLIENTS || self.0.forget_idle() {
            self.0.set_idle(client, known);
        }
    }

    /// Records a client's new flow.
    pub(super) fn opened(&mut self, client: IpAddr) {
        if let Some(busy) = self.0.busy_mut(client) {
            busy.flows += 1;
        } else if let Some(known) = self.0.remove(client) {
            self.0.set_busy(client, Client { flows: 1, ..known });
        }
    }

    /// Records that a client's flow ended.
    pub(super) fn ended(&mut self, client: IpAddr) {
        let Some(busy) = self.0.busy_mut(client) else { return };
        busy.flows -= 1;
        if busy.flows == 0 {
            let known = *busy;
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

    impl ClientLimits {
        fn admits(
            &mut self,
            now: Instant,
            client: IpAddr,
            rate: Option<u32>,
            flows: Option<u32>,
        ) -> Result<(), Reached> {
            self.admit(now, client, rate, flows).map(|known| self.take(client, known))
        }
    }

    #[test]
    fn a_client_has_its_own_rate_and_count() {
        let mut clients = ClientLimits::new();
        let (a, b): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        for _ in 0..2 {
            assert_eq!(clients.admits(at(0), a, Some(3), Some(2)), Ok(()));
            clients.opened(a);
        }
        assert_eq!(clients.admits(at(0), a, Some(3), Some(2)), Err(Reached::Flows));
        assert_eq!(clients.admits(at(0), b, Some(3), Some(2)), Ok(()));
        clients.ended(a);
        assert_eq!(clients.admits(at(0), a, Some(3), Some(2)), Ok(()));
        assert_eq!(clients.admits(at(0), a, Some(3), Some(2)), Err(Reached::Rate));
        assert_eq!(clients.admits(at(400), a, Some(3), Some(2)), Ok(()));
        clients.ended(a);
        clients.ended(a);
    }

    #[test]
    fn clients_are_bounded_and_idle_ones_are_evicted_first() {
        let mut clients = ClientLimits::new();
        let client = |n: u32| IpAddr::from(n.to_be_bytes());
        clients.admits(at(0), client(0), Some(1), None).unwrap();
        clients.opened(client(0));
        for n in 1..100_000 {
            clients.admits(at(0), client(n), Some(1), None).unwrap();
        }
        assert_eq!(clients.0.len(), MOST_CLIENTS);
        assert_eq!(clients.admits(at(0), client(0), Some(1), None), Err(Reached::Rate));
        assert_eq!(clients.admits(at(0), client(1), Some(1), None), Ok(()), "forgotten");
    }
}
