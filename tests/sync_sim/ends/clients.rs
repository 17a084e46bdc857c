//! The clients: what they begin and send, and what they would notice.

use super::super::wire::{ACK, FIN, PSH, Packet, RST, SYN};
use super::Ends;
use super::config::STICKY;
use super::talk::{Closed, State, Talk};
use std::net::{Ipv4Addr, SocketAddrV4};

/// How long a client tries, in milliseconds.
pub(super) const PATIENCE: u64 = 20_000;
/// For how long after the end of a connection that has taken the place of one that a gateway believed in, the next one of its port
/// goes on with its flow, and a moment: the gateway cannot tell whether the former of the two lives.
const REPLACED: u64 = 1_100;

impl Ends {
    /// The address of a client.
    pub fn address(client: usize) -> Ipv4Addr {
        Ipv4Addr::new(198, 51, 100, client as u8 + 1)
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
        let before = again.and_then(|again| again.server.filter(|_| t < again.at + REPLACED));
        let (client, service, local) =
            again.map_or((client, service, local), |again| (again.client, again.service, again.local));
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
            confirmed_at: None,
            told: None,
            apart: is_again && !self.calm,
            left: 1 + self.rng.below(30) as u32,
            was_spared: false,
            was_calm: false,
            was_early: false,
            before,
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

    /// A client gets a packet, which a server has sent unless a gateway has; returns its answer and its number.
    pub fn at_client(&mut self, t: u64, packet: &Packet, server: Option<Ipv4Addr>) -> Option<(usize, Packet)> {
        let local = packet.to;
        let (made, delays) = (self.rng.below(4), self.rng.below(600));
        let at = self.talks.iter().position(|talk| talk.local == local && talk.state != State::Over)?;
        let talk = &mut self.talks[at];
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
            self.judge_server(at);
        }
        let talk = &mut self.talks[at];
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
                talk.confirmed_at = talk.confirmed_at.or(talk.confirmed.then_some(t));
                if talk.confirmed && self.calm {
                    talk.apart = false;
                }
                talk.seq = talk.seq.max(packet.ack);
                talk.ack = packet.seq.wrapping_add(packet.payload.len() as u32);
                self.stick(t, at);
            }
            (false, State::Closing) if packet.flags & FIN != 0 => {
                let (from, to, seq, ack) = (talk.local, talk.listen(), packet.ack, packet.seq.wrapping_add(1));
                talk.state = State::Over;
                self.closed.push(Closed {
                    client: talk.client,
                    service: talk.service,
                    local: talk.local,
                    server: talk.server,
                    at: t,
                });
                self.counts.closed += 1;
                return Some((talk.client, Packet { udp: false, from, to, flags: ACK, seq, ack, payload: Vec::new() }));
            }
            _ => {}
        }
        None
    }
}
