//! The ports of a pool that two gateways share: each gives ports of its own half, so that none is given twice while they do
//! not hear of each other.

use super::NatPool;
use super::endpoint::Class;
use std::ops::Range;

/// Which ports new flows get. Flows that exist keep theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Share {
    /// All.
    #[default]
    All,
    /// Those of the first or second half of each address and class.
    Half {
        /// Whether it is the second half.
        second: bool,
        /// Whether flows that find no port there get one of the other half: its owner has not given any for long enough.
        borrows: bool,
    },
}

impl Share {
    /// Returns the ports of a class that new flows may get, by index.
    pub(super) fn of(self, class: &Class) -> Range<usize> {
        match self {
            Share::All | Share::Half { borrows: true, .. } => 0..usize::from(class.count),
            Share::Half { .. } => self.first_of(class),
        }
    }

    /// Returns the ports that are tried first.
    pub(super) fn first_of(self, class: &Class) -> Range<usize> {
        let (all, half) = (usize::from(class.count), usize::from(class.count.div_ceil(2)));
        match self {
            Share::All => 0..all,
            Share::Half { second: false, .. } => 0..half,
            Share::Half { second: true, .. } => half..all,
        }
    }
}

impl NatPool {
    /// Sets which ports new flows get.
    pub fn share(&mut self, share: Share) {
        self.share = share;
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Endpoint, GivenBack, Mapping};
    use super::*;
    use crate::flow::NatPoolSettings;
    use crate::packet::Protocol;
    use crate::time::Duration;
    use std::collections::BTreeSet;
    use std::net::IpAddr;

    const SERVER: Endpoint = Endpoint { address: IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 2, 1)), port: 80 };

    fn pool(first_port: u16, last_port: u16, parity: bool) -> NatPool {
        let v4 = vec!["10.9.0.1".parse().unwrap()];
        let hold = Duration::from_secs(60);
        NatPool::new(&NatPoolSettings { v4, first_port, last_port, parity, hold, ..NatPoolSettings::new("out") }, 3)
    }

    /// Takes ports until there is none.
    fn take_all(pool: &mut NatPool, client_port: u16, tentative: bool) -> BTreeSet<u16> {
        let mut taken = BTreeSet::new();
        loop {
            let mut draw = pool.draw();
            let client = ("198.51.100.1".parse().unwrap(), client_port);
            let proposed = pool.propose(&mut draw, client, (Protocol::Tcp, SERVER), tentative, GivenBack::default());
            pool.drawn(draw);
            let Ok(proposed) = proposed else { return taken };
            let mapping =
                Mapping { address: proposed.address, port: proposed.port, protocol: Protocol::Tcp, server: SERVER };
            if proposed.replaces {
                return taken;
            }
            pool.take(&mapping, tentative);
            assert!(taken.insert(proposed.port), "{} given twice", proposed.port);
        }
    }

    #[test]
    fn two_gateways_that_share_a_pool_give_each_port_once_and_all_of_them() {
        for (first, last) in [(2000, 2100), (2000, 2101), (65_535, 65_535), (1, 65_535)] {
            for parity in [false, true] {
                let mut all = BTreeSet::new();
                for second in [false, true] {
                    let mut pool = pool(first, last, parity);
                    pool.share(Share::Half { second, borrows: false });
                    for client_port in [5000, 5001] {
                        let taken = take_all(&mut pool, client_port, false);
                        assert!(taken.iter().all(|port| all.insert(*port)), "a port is of both halves");
                    }
                }
                assert_eq!(all, (first..=last).collect());
            }
        }
    }

    #[test]
    fn the_other_half_is_borrowed_once_the_own_one_is_used_up() {
        let mut pool = pool(2000, 2099, false);
        pool.share(Share::Half { second: true, borrows: false });
        let own = take_all(&mut pool, 5000, false);
        assert_eq!(own, (2050..2100).collect());
        pool.share(Share::Half { second: true, borrows: true });
        assert_eq!(take_all(&mut pool, 5000, false), (2000..2050).collect());
    }

    #[test]
    fn half_of_the_own_half_is_for_half_open_flows() {
        let mut pool = pool(2000, 2099, false);
        pool.share(Share::Half { second: false, borrows: false });
        assert_eq!(take_all(&mut pool, 5000, true).len(), 25);
        // Those of the peer do not take what is left from the own ones.
        let mut pool = self::pool(2000, 2099, false);
        pool.share(Share::Half { second: false, borrows: false });
        for port in 2050..2100 {
            let mapping =
                Mapping { address: "10.9.0.1".parse().unwrap(), port, protocol: Protocol::Tcp, server: SERVER };
            pool.take(&mapping, true);
        }
        assert!(!take_all(&mut pool, 5000, true).is_empty());
    }
}
