//! Ports that have been woken: they do not rest any more, though their entries are still in the queue of those that do.
//!
//! Nobody searches the queue for such an entry: a standby has hundreds of thousands of entries, and receives several flows per
//! millisecond whose ports rest there. A woken entry is skipped when its turn comes. When half of the queue consists of woken
//! entries, they are removed. It must not know what a port is used for.

use super::{Endpoint, Mapping, NatPool, Resting};
use std::collections::BTreeMap;

/// Woken entries from which on the queue is swept, if they are more than half of it.
const WORTH_SWEEPING: usize = 64;

/// Identifies a port: address, protocol, endpoint, class and index.
type Port = (u32, u8, Endpoint, u8, u16);

fn port(rests: &Resting) -> Port {
    (rests.address, rests.kind, rests.server, rests.class, rests.index)
}

/// Which entries of the queue do not count.
#[derive(Debug, Clone, Default)]
pub(super) struct Woken {
    /// How many entries of a port do not count, and before which entry they are: a later one is of a new rest.
    ports: BTreeMap<Port, (u32, u64)>,
    len: usize,
    /// The number of the first entry of the queue.
    first: u64,
}

impl Woken {
    /// Returns whether the entry at a place in the queue does not count.
    pub(super) fn has(&self, at: usize, rests: &Resting) -> bool {
        let number = self.first + at as u64;
        self.len > 0 && self.ports.get(&port(rests)).is_some_and(|(_, before)| number < *before)
    }

    /// Takes note that the first entry has left the queue; returns whether it did not count.
    pub(super) fn pops(&mut self, rests: &Resting) -> bool {
        let has = self.has(0, rests);
        self.first += 1;
        if has && let Some((count, _)) = self.ports.get_mut(&port(rests)) {
            *count -= 1;
            self.len -= 1;
            if *count == 0 {
                self.ports.remove(&port(rests));
            }
        }
        has
    }

    fn add(&mut self, port: Port, queued: usize) {
        let of = self.ports.entry(port).or_default();
        *of = (of.0 + 1, self.first + queued as u64);
        self.len += 1;
    }
}

impl NatPool {
    /// Makes a resting port free: a flow has it elsewhere. A port that does not rest is left alone.
    pub fn wake(&mut self, mapping: &Mapping) {
        let Some((at, place, class, index)) = self.place(mapping) else { return };
        let of = (mapping.server, class.number);
        if !self.ports(at, place, of).is_some_and(|ports| ports.resting.has(index)) {
            return;
        }
        self.woken.add((at as u32, place as u8, mapping.server, class.number, index), self.resting.len());
        self.give_back(at, place, of, index);
        if self.woken.len > WORTH_SWEEPING && self.woken.len * 2 > self.resting.len() {
            self.drop_woken();
        }
    }

    /// Returns how many ports rest.
    pub(super) fn resting_len(&self) -> usize {
        self.resting.len() - self.woken.len
    }

    /// Sweeps woken entries out of the queue.
    pub(super) fn drop_woken(&mut self) {
        if self.woken.len > 0 {
            let woken = std::mem::take(&mut self.woken);
            let mut places = 0..;
            self.resting.retain(|rests| places.next().is_some_and(|at| !woken.has(at, rests)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Rest;
    use super::*;
    use crate::flow::NatPoolSettings;
    use crate::packet::Protocol;
    use crate::rng::Rng;
    use crate::time::{Duration, Instant};
    use std::net::{IpAddr, Ipv4Addr};

    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1));

    fn pool(last_port: u16, hold: u64) -> NatPool {
        let (v4, hold) = (vec![Ipv4Addr::new(10, 9, 0, 1)], Duration::from_secs(hold));
        NatPool::new(&NatPoolSettings { v4, first_port: 2000, last_port, hold, ..NatPoolSettings::new("out") }, 3)
    }

    fn mapping(port: u16) -> Mapping {
        let server = Endpoint { address: Ipv4Addr::new(10, 0, 2, 1).into(), port: 80 };
        Mapping { address: ADDRESS, port, protocol: Protocol::Udp, server }
    }

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn a_port_that_rests_wakes_for_a_flow_that_has_it_elsewhere() {
        let mut pool = pool(2009, 60);
        let until = Instant::from_nanos(9);
        for (port, tentative) in [(2001, false), (2005, true), (2007, false)] {
            assert!(pool.let_rest(&Rest { mapping: mapping(port), until, tentative }));
        }
        pool.wake(&mapping(2005));
        let resting: Vec<u16> = pool.resting((Instant::ZERO, 0)).map(|rest| rest.mapping.port).collect();
        assert_eq!(resting, [2001, 2007]);
        assert!(pool.is_free(&mapping(2005)) && !pool.is_free(&mapping(2001)) && !pool.is_free(&mapping(2007)));
        pool.take(&mapping(2005), false);
        pool.wake(&mapping(2005));
        assert!(!pool.is_free(&mapping(2005)), "a flow has it");
        pool.handle_timeout(until);
        assert!(pool.is_free(&mapping(2001)) && pool.is_free(&mapping(2007)) && !pool.is_free(&mapping(2005)));
    }

    #[test]
    fn a_port_that_rests_again_rests_for_its_whole_time() {
        let mut pool = pool(2009, 60);
        for (begin, wakes) in [(0, true), (10, true), (20, false)] {
            pool.take(&mapping(2003), false);
            pool.release(at(begin), &mapping(2003));
            if wakes {
                pool.wake(&mapping(2003));
            }
        }
        let until: Vec<Instant> = pool.resting((Instant::ZERO, 0)).map(|rest| rest.until).collect();
        assert_eq!((until, pool.resting_len()), (vec![at(80)], 1));
        pool.handle_timeout(at(79));
        assert!(!pool.is_free(&mapping(2003)));
        pool.handle_timeout(at(80));
        assert!(pool.is_free(&mapping(2003)) && pool.woken.ports.is_empty());
    }

    /// Whatever happens to ports, in whichever order: those rest that do in a list without a queue.
    #[test]
    fn ports_rest_as_in_a_plain_list_and_the_queue_does_not_grow() {
        let mut rng = Rng::new(5);
        let mut pool = pool(2299, 600);
        // Until when a port rests; none while a flow has it, or it is free.
        let (mut rests, mut used) = (vec![None; 300], vec![false; 300]);
        for step in 0..20_000_u64 {
            let now = at(step / 4);
            pool.handle_timeout(now);
            while pool.is_due(now, 0) {
                pool.handle_timeout(now);
            }
            rests.iter_mut().for_each(|until| *until = until.filter(|until| *until > now));
            let n = rng.below(300) as usize;
            let port = mapping(2000 + n as u16);
            match (used[n], rests[n]) {
                (true, _) => {
                    pool.release(now, &port);
                    (used[n], rests[n]) = (false, Some(now + Duration::from_secs(600)));
                }
                (false, Some(_)) => {
                    pool.wake(&port);
                    rests[n] = None;
                }
                (false, None) => {
                    pool.take(&port, false);
                    used[n] = true;
                }
            }
            assert!(pool.resting.len() <= 2 * pool.resting_len() + WORTH_SWEEPING + 1, "step {step}");
            if step % 50 == 0 {
                let mut want: Vec<(Instant, u16)> =
                    rests.iter().zip(2000..).filter_map(|(until, port)| Some(((*until)?, port))).collect();
                want.sort_unstable();
                let mut found: Vec<(Instant, u16)> =
                    pool.resting((Instant::ZERO, 0)).map(|rest| (rest.until, rest.mapping.port)).collect();
                found.sort_unstable();
                assert_eq!(found, want, "step {step}");
                let is_free = |n: usize| pool.is_free(&mapping(2000 + n as u16));
                assert!((0..300).all(|n| is_free(n) == (!used[n] && rests[n].is_none())), "step {step}");
            }
        }
    }
}
