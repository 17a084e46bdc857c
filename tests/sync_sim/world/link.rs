//! The connection between the two gateways: it delays, is slow, and breaks; each end notices in its own time.

use super::super::skew::Later;
use super::World;
use super::gate::Running;
use std::collections::VecDeque;

/// The window of a connection that is slow.
const SLOW_WINDOW: usize = 2000;

/// A connection between the two.
pub(super) struct Channel {
    /// By receiver: when what arrives.
    pub(super) queues: [VecDeque<(u64, Vec<u8>)>; 2],
    pub(super) delay: u64,
    pub(super) jitter: u64,
    pub(super) most_in_flight: usize,
    /// Until when a piece arrives only every half second.
    pub(super) slow_until: u64,
    /// Nothing arrives any more.
    pub(super) broken: bool,
}

impl Channel {
    /// Takes the next piece that has arrived, if it can be read now.
    pub(super) fn arrived(&mut self, t: u64, to: usize) -> Option<Vec<u8>> {
        let (_, piece) = self.queues[to].pop_front_if(|(when, _)| *when <= t)?;
        if t < self.slow_until {
            // The next one waits.
            let next = t + 500;
            self.queues[to].iter_mut().for_each(|(when, _)| *when = (*when).max(next));
        }
        Some(piece)
    }

    pub(super) fn in_flight(&self, to: usize) -> usize {
        self.queues[to].iter().map(|(_, bytes)| bytes.len()).sum()
    }
}

impl World {
    pub(super) fn connect(&mut self) {
        let both = [0, 1].map(|at| self.is_up(at) && self.gates[at].conn.is_none());
        let is_free = |at: usize| {
            let conn = self.gates[at].conn;
            both[at] || conn.is_some_and(|conn| self.channels.get(&conn).is_none_or(|channel| channel.broken))
        };
        let can = self.t >= self.connect_at && self.t >= self.cut[1];
        if !(can && (both[0] || both[1]) && self.is_up(0) && self.is_up(1) && is_free(0) && is_free(1)) {
            return;
        }
        self.made += 1;
        let id = self.made;
        let delay = [0, 10, 60][self.rng.below(3) as usize];
        let jitter = [1, 20, 300][self.rng.below(3) as usize];
        let most_in_flight = [2000, 20_000, 1 << 20][self.rng.below(3) as usize];
        let queues = [VecDeque::new(), VecDeque::new()];
        self.channels.insert(id, Channel { queues, delay, jitter, most_in_flight, slow_until: 0, broken: false });
        self.say(|| format!("connection {id}: {delay} ms, {jitter} ms jitter, window {most_in_flight}"));
        for at in 0..2 {
            let (now, nonce) = (self.now(at), self.rng.next());
            let gate = &mut self.gates[at];
            if gate.later.is_some() {
                gate.later = Some(Later::default());
            }
            gate.conn = Some(id);
            if let Some(Running { engine, node, .. }) = &mut gate.running {
                let mut bytes = [0; 32];
                bytes[..8].copy_from_slice(&nonce.to_be_bytes());
                node.connected(now, engine, bytes);
            }
        }
        let used = [self.gates[0].conn, self.gates[1].conn];
        self.channels.retain(|id, _| used.contains(&Some(*id)));
    }

    /// A connection breaks; `noticed_by` knows, the other one after a while.
    pub(super) fn break_channel(&mut self, conn: u64, noticed_by: usize) {
        if let Some(channel) = self.channels.get_mut(&conn) {
            channel.broken = true;
        }
        let other = 1 - noticed_by;
        if self.gates[other].conn == Some(conn) {
            let after = self.rng.below(2500);
            self.notices.push((self.t + after, other, conn));
        }
        self.connect_at = self.t + 50 + self.rng.below(1500);
    }

    /// Tells gateways that their connection is broken.
    pub(super) fn notice(&mut self) {
        let due: Vec<_> =
            self.notices.iter().copied().filter(|(when, at, _)| *when <= self.t && self.is_up(*at)).collect();
        self.notices.retain(|notice| !due.contains(notice));
        for (_, at, conn) in due {
            if self.gates[at].conn == Some(conn) {
                self.gates[at].conn = None;
                let now = self.now(at);
                if let Some(Running { engine, node, .. }) = &mut self.gates[at].running {
                    node.disconnected(now, engine);
                }
            }
        }
    }

    /// Puts what a gateway sends on its way, in pieces.
    pub(super) fn write(&mut self, at: usize) {
        let (t, now, to) = (self.t, self.now(at), 1 - at);
        let Some(conn) = self.gates[at].conn else { return };
        let gate = &mut self.gates[at];
        let (Some(channel), Some(Running { engine, node, .. })) = (self.channels.get_mut(&conn), &mut gate.running)
        else {
            return;
        };
        let most_in_flight = if t < channel.slow_until { SLOW_WINDOW } else { channel.most_in_flight };
        while channel.in_flight(to) < most_in_flight {
            let mut out = Vec::new();
            node.poll_output(now, engine, &mut out);
            if let Some(later) = &mut gate.later {
                out = later.pass(&out);
            }
            if out.is_empty() {
                return;
            }
            let mut rest = &out[..];
            while !rest.is_empty() {
                let len = 1 + self.rng.below(rest.len().min(4000) as u64) as usize;
                let (piece, more) = rest.split_at(len);
                rest = more;
                let last = channel.queues[to].back().map_or(0, |(when, _)| *when);
                let when = (t + channel.delay + self.rng.below(channel.jitter)).max(last);
                channel.queues[to].push_back((when, piece.to_vec()));
            }
        }
    }
}
