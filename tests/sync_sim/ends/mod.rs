//! Clients and servers: what they send, and what they would notice.
//!
//! `config` is what the gateways serve, `talk` a connection as its client sees it; `clients` and `servers` act and look, `sticky`
//! has the servers of sticky clients, and `excuses` what may go wrong.

mod clients;
mod config;
mod counts;
mod excuses;
mod servers;
mod sticky;
mod talk;

pub use config::{CONFIG, MONITOR, ONE_SERVER, SERVICES};
pub use counts::Counts;
pub use talk::{State, Talk};

use super::random::Random;
use servers::End;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use talk::Closed;

pub struct Ends {
    pub talks: Vec<Talk>,
    /// Clients may use their ports again at once.
    closed: Vec<Closed>,
    ends: BTreeMap<(SocketAddrV4, SocketAddrV4, bool), End>,
    rng: Random,
    clients: usize,
    /// What clients ask for.
    services: &'static [usize],
    made: u32,
    /// Sticky clients: their server, and since when it is theirs.
    stuck: BTreeMap<usize, (Ipv4Addr, u64)>,
    /// When an operator has had the gateways forget a client.
    cleared_at: BTreeMap<usize, u64>,
    /// When a server was last down, or may have been.
    doubted_at: BTreeMap<Ipv4Addr, u64>,
    /// Clients that an operator has had the gateways forget, and that have not come again.
    pub forgotten: BTreeSet<usize>,
    /// Whether both gateways have all servers; one that lacks a server gives its sticky clients another one.
    pub sticks: bool,
    /// Both know the same now, and one is active.
    pub calm: bool,
    /// When the gateway started that passes packets on now, if it has not learned the flows of its peer since, which was there
    /// before.
    pub unlearned_since: Option<u64>,
    /// The first thing that must not be.
    pub wrong: Option<String>,
    pub counts: Counts,
}

impl Ends {
    pub fn new(seed: u64, clients: usize) -> Self {
        let mut rng = Random::new(seed);
        Ends {
            // In every third history there is nothing but full NAT.
            services: if rng.below(3) == 0 { &[1, 4] } else { &[0, 1, 2, 3, 4, 5] },
            talks: Vec::new(),
            closed: Vec::new(),
            ends: BTreeMap::new(),
            stuck: BTreeMap::new(),
            cleared_at: BTreeMap::new(),
            doubted_at: BTreeMap::new(),
            forgotten: BTreeSet::new(),
            sticks: true,
            rng,
            clients,
            made: 0,
            calm: false,
            unlearned_since: None,
            wrong: None,
            counts: Counts::default(),
        }
    }

    fn fail(&mut self, what: String) {
        self.wrong.get_or_insert(what);
    }

    fn talk(&mut self, id: u32) -> Option<&mut Talk> {
        self.talks.iter_mut().find(|talk| talk.id == id && talk.state != State::Over)
    }
}
