//! Clients and servers: what they send, and what they would notice.

use super::random::Random;
use super::wire::{ACK, FIN, PSH, Packet, RST, SYN};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

/// Listen addresses: TCP, TCP with full NAT, sticky TCP, UDP, UDP with full NAT, UDP with any server.
pub const SERVICES: [(Ipv4Addr, u16, bool); 6] = [
    (Ipv4Addr::new(192, 0, 2, 80), 80, false),
    (Ipv4Addr::new(192, 0, 2, 81), 80, false),
    (Ipv4Addr::new(192, 0, 2, 82), 80, false),
    (Ipv4Addr::new(192, 0, 2, 83), 4000, true),
    (Ipv4Addr::new(192, 0, 2, 84), 4000, true),
    (Ipv4Addr::new(192, 0, 2, 85), 4000, true),
];

/// A server that one of the two gateways may lack.
pub const ONE_SERVER: &str = "    { name = \"c\", address = \"10.0.0.3\" },\n";

/// The sticky one.
pub const STICKY: usize = 2;
/// The one of which a gateway that does not know a conversation chooses another server for it.
const ANY: usize = 5;
/// For how long a half-open flow stays at a gateway that has been told of it and of nothing else, less a moment.
const HALF_OPEN: u64 = 7_000;

/// What pools are probed by, in some histories.
pub const MONITOR: &str =
    "[[pool.monitor]]\nname = \"ping\"\ntype = \"icmp\"\ninterval = \"1s\"\ntimeout = \"500ms\"\nfall = 3\nrise = 1\n";

pub const CONFIG: &str = r#"
seed = 7
[flows]
max = 2048
half-open = 256
[[service]]
name = "web"
listen = "192.0.2.80:80/tcp"
pool = "web"
algorithm = "round-robin"
[[service]]
name = "full"
listen = "192.0.2.81:80/tcp"
pool = "web"
algorithm = "random"
nat = "full"
nat-pool = "out"
[[service]]
name = "sticky"
listen = "192.0.2.82:80/tcp"
pool = "web"
algorithm = "random"
sticky = { idle = "5m" }
[[service]]
name = "dns"
listen = "192.0.2.83:4000/udp"
pool = "web"
algorithm = "source-hash"
[[service]]
name = "dns-full"
listen = "192.0.2.84:4000/udp"
pool = "web"
algorithm = "source-hash"
nat = "full"
nat-pool = "out"
[[service]]
name = "any"
listen = "192.0.2.85:4000/udp"
pool = "web"
algorithm = "random"
[[pool]]
name = "web"
server = [
    { name = "a", address = "10.0.0.1" },
    { name = "b", address = "10.0.0.2" },
    { name = "c", address = "10.0.0.3" },
]
[[nat-pool]]
name = "out"
addresses = ["10.9.0.1"]
ports = "2000-2399"
hold = "60s"
"#;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Opening,
    Open,
    Closing,
    Over,
}

/// A connection, or a conversation of datagrams, as its client sees it. Times are milliseconds of the world.
#[derive(Debug, Clone)]
pub struct Talk {
    pub id: u32,
    pub client: usize,
    pub service: usize,
    pub local: SocketAddrV4,
    pub state: State,
    /// The server that has answered.
    pub server: Option<Ipv4Addr>,
    pub seq: u32,
    pub ack: u32,
    /// When its client acts next.
    pub next: u64,
    pub open_since: Option<u64>,
    pub heard: u64,
    /// Packets without an answer since then that an active gateway has got, and when the first was sent.
    pub unanswered: u32,
    pub since: u64,
    /// It may have been lost: no gateway that is left can know it.
    pub excused: bool,
    /// The server has answered data, so both have heard of the whole handshake; or it has got a second datagram.
    pub confirmed: bool,
    /// When the other gateway had been told of it before its client got the server's answer.
    told: Option<u64>,
    /// It has the port of an earlier one and was begun while the two were out of step, and they have not been in step since it
    /// carried something: who gets its packets may know the earlier one alone, and forwards them as those of that (both forward).
    /// No other talk is excused by that: packets of a flow that a gateway does not know are dropped, and it goes on later.
    apart: bool,
    left: u32,
    /// What must not happen has happened to it, and is excused.
    was_spared: bool,
    /// Whether both were in step when it was established; and it has told nothing of its client's server, as they were not.
    was_calm: bool,
    was_early: bool,
    /// It has the port of an earlier one.
    is_again: bool,
}

impl Talk {
    pub fn is_udp(&self) -> bool {
        SERVICES[self.service].2
    }

    /// Whether its flow may be gone: no gateway that is left can know it, the former connection's flow may be all that a gateway
    /// knew of its port, or it is half-open and its NAT port was taken.
    fn may_be_lost(&self) -> bool {
        self.excused || self.apart || !self.confirmed && [1, 4].contains(&self.service)
    }

    pub fn listen(&self) -> SocketAddrV4 {
        SocketAddrV4::new(SERVICES[self.service].0, SERVICES[self.service].1)
    }
}

/// A server's end.
#[derive(Debug, Clone)]
struct End {
    talk: u32,
    seq: u32,
    ack: u32,
    last: u64,
}

pub struct Ends {
    pub talks: Vec<Talk>,
    /// The ends of talks that are closed, which clients may use again at once.
    closed: Vec<(usize, usize, SocketAddrV4)>,
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
    /// The first thing that must not be.
    pub wrong: Option<String>,
    pub counts: Counts,
}

#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    pub opened: u64,
    pub closed: u64,
    pub lost: u64,
    pub answers: u64,
    /// Sticky clients of which both must have the same at the end, and those that operators have cleared and neither may have.
    pub stuck: u64,
    pub forgotten: u64,
    /// Connections that a gateway must know although it has only been told of their half-open flows.
    pub told: u64,
    /// Talks to which something has happened that must not, and that are excused.
    pub spared: u64,
    /// Connections of sticky clients whose server was known, and those that told it.
    pub held: u64,
    pub pinned: u64,
    /// Those that would have told it had they been begun when both were in step.
    pub early: u64,
    /// Looks at a standby that follows the other one's view of the servers, and at servers that are down.
    pub follows: u64,
    pub downs: u64,
}

impl Counts {
    pub fn add(&mut self, other: &Counts) {
        let own = [
            &mut self.opened,
            &mut self.closed,
            &mut self.lost,
            &mut self.answers,
            &mut self.spared,
            &mut self.held,
            &mut self.pinned,
            &mut self.early,
            &mut self.follows,
            &mut self.downs,
            &mut self.stuck,
            &mut self.forgotten,
            &mut self.told,
        ];
        let Counts {
            opened,
            closed,
            lost,
            answers,
            spared,
            held,
            pinned,
            early,
            follows,
            downs,
            stuck,
            forgotten,
            told,
        } = *other;
        let other =
            [opened, closed, lost, answers, spared, held, pinned, early, follows, downs, stuck, forgotten, told];
        own.into_iter().zip(other).for_each(|(own, other)| *own += other);
    }
}

/// How long a client tries, in milliseconds.
const PATIENCE: u64 = 20_000;

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
            wrong: None,
            counts: Counts::default(),
        }
    }

    fn fail(&mut self, what: String) {
        self.wrong.get_or_insert(what);
    }

    /// Something has happened to a talk that must not, unless it may be lost, which is counted.
    fn broken(&mut self, of: &Talk, what: impl Fn(&Talk) -> String) {
        if !of.may_be_lost() {
            return self.fail(what(of));
        }
        if let Some(talk) = self.talks.iter_mut().find(|talk| talk.id == of.id && !talk.was_spared) {
            talk.was_spared = true;
            self.counts.spared += 1;
        }
    }

    /// Only what was there by a time is known to the gateway that is left, or that gets the packets; and what it has been told
    /// of since `told` before a client got its answer.
    pub fn excuse(&mut self, (t, told): (u64, u64), known: u64, slots_known: u64) {
        for talk in &mut self.talks {
            let is_told = talk.told.is_some_and(|at| at >= told && t <= at + HALF_OPEN);
            // Other half-open flows are not told.
            if !talk.confirmed || talk.open_since.is_none_or(|since| since + 1000 > known) {
                talk.excused |= !is_told;
                self.counts.told += u64::from(is_told && !talk.excused);
            }
        }
        self.unstick(slots_known);
    }

    /// Both gateways open conversations that only one of them knows: each may choose another server.
    pub fn excuse_any(&mut self, known: u64) {
        for talk in self.talks.iter_mut().filter(|talk| talk.service == ANY) {
            talk.excused |= talk.open_since.is_none_or(|since| since + 1000 > known);
        }
    }

    /// The other gateway knows of a connection whose client is about to get its answer.
    pub fn told(&mut self, t: u64, client: SocketAddrV4) {
        let talk = self.talks.iter_mut().find(|talk| talk.local == client && talk.state == State::Opening);
        talk.into_iter().for_each(|talk| talk.told = Some(t));
    }

    /// An operator has ended the flow of a client's port.
    pub fn killed(&mut self, client: SocketAddrV4) {
        self.talks.iter_mut().filter(|talk| talk.local == client).for_each(|talk| talk.excused = true);
    }

    /// The address of a client.
    pub fn address(client: usize) -> Ipv4Addr {
        Ipv4Addr::new(198, 51, 100, client as u8 + 1)
    }

    /// An operator has had a gateway forget the server of a client.
    pub fn cleared(&mut self, t: u64, client: usize) {
        self.stuck.remove(&client);
        self.cleared_at.insert(client, t);
        // A handshake that goes on gives it a server anew.
        let asks = |talk: &Talk| talk.client == client && talk.service == STICKY && !talk.confirmed;
        if !self.talks.iter().any(asks) {
            self.forgotten.insert(client);
        }
    }

    /// The same for the servers of sticky clients.
    pub fn unstick(&mut self, known: u64) {
        self.stuck.retain(|_, (_, since)| *since + 1000 <= known);
    }

    /// A server may be down: its sticky clients get another one, and stay there.
    pub fn doubt(&mut self, t: u64, server: Ipv4Addr) {
        self.stuck.retain(|_, (own, _)| *own != server);
        self.doubted_at.insert(server, t);
    }

    fn talk(&mut self, id: u32) -> Option<&mut Talk> {
        self.talks.iter_mut().find(|talk| talk.id == id && talk.state != State::Over)
    }

    /// Makes clients begin talks, and returns what clients send now, with the client's number.
    pub fn act(&mut self, t: u64, may_begin: bool) -> Vec<(usize, Packet)> {
        self.talks.retain(|talk| talk.state != State::Over);
        if may_begin && self.talks.len() < self.clients * 2 && self.rng.below(12) == 0 {
            self.begin(t);
        }
        let mut sent = Vec::new();
        for at in 0..self.talks.len() {
            if self.talks[at].next > t {
                continue;
            }
            let pause = match self.rng.below(20) {
                0 => 20_000 + self.rng.below(20_000),
                1..=4 => 2000 + self.rng.below(3000),
                _ => 100 + self.rng.below(900),
            };
            let roll = self.rng.below(10);
            let talk = &mut self.talks[at];
            // Who waits for an answer does not go away.
            talk.next = t + if talk.unanswered > 0 || !talk.confirmed { pause.min(2000) } else { pause };
            if talk.unanswered >= 8 && t - talk.since >= PATIENCE {
                let (was_open, of) = (talk.state == State::Open, talk.clone());
                talk.state = State::Over;
                self.counts.lost += 1;
                if was_open {
                    self.broken(&of, |of| format!("an established flow is lost: {of:?}"));
                }
                continue;
            }
            if talk.state == State::Open && talk.unanswered == 0 && talk.left == 0 {
                if talk.is_udp() {
                    talk.state = State::Over;
                    self.counts.closed += 1;
                    continue;
                }
                talk.state = State::Closing;
            }
            let (flags, payload): (u8, Vec<u8>) = match (talk.is_udp(), talk.state) {
                (true, _) => (0, talk.id.to_be_bytes().to_vec()),
                (_, State::Opening) => (SYN, Vec::new()),
                (_, State::Closing) => (FIN | ACK, Vec::new()),
                // It does not always have something to say.
                (_, _) if roll == 0 && talk.unanswered == 0 && talk.confirmed => (ACK, Vec::new()),
                _ => (PSH | ACK, b"1234".to_vec()),
            };
            let is_answered = flags != ACK;
            talk.left = talk.left.saturating_sub(u32::from(talk.unanswered == 0 && talk.state == State::Open));
            if is_answered && talk.unanswered == 0 {
                talk.since = t;
            }
            let (from, to, seq, ack) = (talk.local, talk.listen(), talk.seq, talk.ack);
            sent.push((talk.client, Packet { udp: talk.is_udp(), from, to, flags, seq, ack, payload }));
        }
        sent
    }

    fn begin(&mut self, t: u64) {
        self.made += 1;
        let id = self.made;
        let client = self.rng.below(self.clients as u64) as usize;
        let local = SocketAddrV4::new(Ends::address(client), 10_000 + (id % 50_000) as u16);
        let service = self.services[self.rng.below(self.services.len() as u64) as usize];
        // Some take the port of their last connection, as NFS does.
        let again = self.closed.pop().filter(|_| self.rng.below(2) == 0);
        let is_again = again.is_some();
        let (client, service, local) = again.unwrap_or((client, service, local));
        self.counts.opened += 1;
        if service == STICKY {
            self.forgotten.remove(&client);
        }
        self.talks.push(Talk {
            id,
            client,
            service,
            local,
            state: State::Opening,
            server: None,
            seq: id << 12,
            ack: 0,
            next: t,
            open_since: None,
            heard: t,
            unanswered: 0,
            since: t,
            excused: false,
            confirmed: false,
            told: None,
            apart: is_again && !self.calm,
            left: 1 + self.rng.below(30) as u32,
            was_spared: false,
            was_calm: false,
            was_early: false,
            is_again,
        });
    }

    /// An active gateway has got a packet of a client.
    pub fn reached(&mut self, packet: &Packet) {
        if packet.udp || packet.flags != ACK {
            let local = packet.from;
            if let Some(talk) = self.talks.iter_mut().find(|talk| talk.local == local && talk.state != State::Over) {
                talk.unanswered += 1;
            }
        }
    }

    /// Returns the client that a server's packet belongs to.
    pub fn client_of(&self, server: SocketAddrV4, peer: SocketAddrV4, udp: bool) -> Option<usize> {
        let end = self.ends.get(&(server, peer, udp))?;
        self.talks.iter().find(|talk| talk.id == end.talk).map(|talk| talk.client)
    }

    /// Returns the number of the talk that a packet for a server is of, as its bytes say.
    fn said(packet: &Packet) -> u32 {
        match packet.udp {
            true => packet.payload.get(..4).map_or(0, |id| u32::from_be_bytes(id.try_into().unwrap())),
            false => packet.seq >> 12,
        }
    }

    /// A server gets a packet; returns its answer.
    pub fn at_server(&mut self, t: u64, packet: &Packet) -> Option<Packet> {
        let key = (packet.to, packet.from, packet.udp);
        let said = Ends::said(packet);
        let talk = self.talk(said).cloned();
        if packet.flags & RST != 0 {
            // Only gateways send resets here.
            let id = self.ends.get(&key).map(|end| end.talk);
            if let Some(talk) = id.and_then(|id| self.talk(id)).filter(|talk| talk.state == State::Open).cloned() {
                self.broken(&talk, |of| format!("a reset to the server of an established flow: {of:?}"));
            }
            return None;
        }
        if let Some(talk) = &talk
            && talk.state != State::Opening
            && talk.server.is_some_and(|server| server != *packet.to.ip())
        {
            self.broken(talk, |of| format!("a flow on two servers: {of:?} gets to {}", packet.to));
        }
        if let Some(end) = self.ends.get(&key).cloned()
            && end.talk != said
        {
            let patience = if packet.udp { 15_000 } else { PATIENCE };
            // A port of a half-open flow may be taken from it.
            let before = self.talk(end.talk).filter(|before| {
                before.state == State::Open
                    && before.confirmed
                    && !before.excused
                    && t.saturating_sub(before.heard) < patience
            });
            if let Some(before) = before {
                let text = format!("{before:?} and {said} to {} as {}", packet.to, packet.from);
                self.fail(format!("a NAT port is given twice: {text}"));
            }
            self.ends.remove(&key);
        }
        let answer = |flags, seq, ack, payload| {
            Some(Packet { udp: packet.udp, from: packet.to, to: packet.from, flags, seq, ack, payload })
        };
        if packet.udp {
            // The client has sent again after an answer, by the same port: from now on nobody takes it.
            if self.ends.get(&key).is_some_and(|end| end.talk == said)
                && let Some(talk) = self.talk(said).filter(|talk| talk.state == State::Open)
            {
                talk.confirmed = true;
            }
            self.ends.insert(key, End { talk: said, seq: 0, ack: 0, last: t });
            return answer(0, 0, 0, packet.payload.clone());
        }
        let next = packet.seq.wrapping_add(packet.payload.len() as u32 + u32::from(packet.flags & (SYN | FIN) != 0));
        if packet.flags & SYN != 0 {
            let seq = 0x7000_0000 ^ said << 8;
            self.ends.entry(key).or_insert(End { talk: said, seq: seq + 1, ack: next, last: t });
            return answer(SYN | ACK, seq, next, Vec::new());
        }
        let Some(end) = self.ends.get_mut(&key) else {
            if let Some(talk) = talk.filter(|talk| talk.state == State::Open) {
                let known = (t, self.calm);
                self.broken(&talk, |of| {
                    format!("a server does not know the connection of a segment: {packet:?} {of:?} {known:?}")
                });
            }
            return None;
        };
        end.last = t;
        // Segments come in order here, or again.
        end.ack = next.max(end.ack);
        let (seq, ack) = (end.seq, end.ack);
        match (packet.flags & FIN != 0, packet.payload.is_empty()) {
            (true, _) => answer(FIN | ACK, seq, ack, Vec::new()),
            (_, false) => answer(PSH | ACK, seq, ack, b"12".to_vec()).inspect(|_| {
                if let Some(end) = self.ends.get_mut(&key) {
                    end.seq += 2;
                }
            }),
            _ => None,
        }
    }

    /// A client gets a packet, which a server has sent unless a gateway has; returns its answer and its number.
    pub fn at_client(&mut self, t: u64, packet: &Packet, server: Option<Ipv4Addr>) -> Option<(usize, Packet)> {
        let local = packet.to;
        let (made, delays) = (self.rng.below(4), self.rng.below(600));
        let talk = self.talks.iter_mut().find(|talk| talk.local == local && talk.state != State::Over)?;
        if packet.flags & RST != 0 {
            let of = talk.clone();
            talk.state = State::Over;
            self.counts.lost += 1;
            if of.state == State::Open {
                self.broken(&of, |of| format!("a reset to the client of an established flow: {of:?}"));
            }
            return None;
        }
        if packet.from != talk.listen() {
            let text = format!("{talk:?} hears from {}", packet.from);
            self.fail(text);
            return None;
        }
        (talk.unanswered, talk.heard, talk.next) = (0, t, talk.next.min(t + 50 + delays));
        self.counts.answers += 1;
        if talk.state == State::Opening {
            talk.server = server;
            // Where a connection has taken the place of one that a gateway believed in, the next one of its port within a second goes
            // on with the same flow: its server is not the client's any more if an operator has had it forgotten.
            let may_go_on = talk.is_again && self.cleared_at.contains_key(&talk.client);
            let stuck = self.stuck.get(&talk.client).filter(|_| talk.service == STICKY && self.sticks && !may_go_on);
            self.counts.held += u64::from(stuck.is_some());
            if let Some((own, _)) = stuck.filter(|(own, _)| Some(*own) != server) {
                let text = format!("a sticky client of {own} gets to another server: {talk:?}");
                self.wrong.get_or_insert(text);
            }
        }
        match (talk.is_udp(), talk.state) {
            (true, State::Opening) => (talk.state, talk.open_since) = (State::Open, Some(t)),
            (true, _) => {}
            (false, State::Opening) if packet.flags & SYN != 0 => {
                (talk.state, talk.open_since, talk.was_calm) = (State::Open, Some(t), self.calm);
                (talk.seq, talk.ack) = (talk.seq.wrapping_add(1), packet.seq.wrapping_add(1));
                // Some acknowledge with their first data, a moment later.
                if made == 0 {
                    return None;
                }
                let (from, to, seq, ack) = (talk.local, talk.listen(), talk.seq, talk.ack);
                return Some((talk.client, Packet { udp: false, from, to, flags: ACK, seq, ack, payload: Vec::new() }));
            }
            (false, State::Open) => {
                talk.confirmed |= packet.flags & SYN == 0;
                if talk.confirmed && self.calm {
                    talk.apart = false;
                }
                // One that is older stays with its server, which is not the client's any more.
                let cleared_at = self.cleared_at.get(&talk.client).map_or(0, |at| at + 1000);
                let doubted_at = talk.server.and_then(|server| self.doubted_at.get(&server)).map_or(0, |at| at + 1000);
                let is_its = talk.service == STICKY
                    && talk.confirmed
                    && !talk.excused
                    && self.calm
                    && !self.stuck.contains_key(&talk.client);
                let since = talk.open_since.filter(|since| is_its && *since >= cleared_at.max(doubted_at));
                // Before both were in step, one gateway may have given it a server without knowing that it has one.
                match since {
                    // Nor does one that may go on with the flow of the former one of its port.
                    Some(_) if !talk.was_calm || talk.is_again && cleared_at > 0 => {
                        self.counts.early += u64::from(!std::mem::replace(&mut talk.was_early, true));
                    }
                    Some(_) => {
                        self.counts.pinned += 1;
                        talk.server.into_iter().for_each(|server| _ = self.stuck.insert(talk.client, (server, t)));
                    }
                    None => {}
                }
                talk.seq = talk.seq.max(packet.ack);
                talk.ack = packet.seq.wrapping_add(packet.payload.len() as u32);
            }
            (false, State::Closing) if packet.flags & FIN != 0 => {
                let (from, to, seq, ack) = (talk.local, talk.listen(), packet.ack, packet.seq.wrapping_add(1));
                talk.state = State::Over;
                self.closed.push((talk.client, talk.service, talk.local));
                self.counts.closed += 1;
                return Some((talk.client, Packet { udp: false, from, to, flags: ACK, seq, ack, payload: Vec::new() }));
            }
            _ => {}
        }
        None
    }
}
