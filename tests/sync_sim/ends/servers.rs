//! The servers' ends: what they answer, and what they would notice.

use super::super::wire::{ACK, FIN, PSH, Packet, RST, SYN};
use super::Ends;
use super::clients::PATIENCE;
use super::talk::State;
use std::net::SocketAddrV4;

/// A server's end.
#[derive(Debug, Clone)]
pub(super) struct End {
    pub(super) talk: u32,
    seq: u32,
    ack: u32,
    last: u64,
}

impl Ends {
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
            self.excuse_unknown_port(end.talk, said);
            // A port of a half-open flow may be taken from it.
            let before = self.talk(end.talk).filter(|before| {
                before.state == State::Open
                    && before.confirmed
                    && !before.may_be_lost()
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
                talk.confirmed_at.get_or_insert(t);
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
}
