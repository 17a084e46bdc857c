//! A history: what goes wrong, how it heals, and what both must agree on then.

use super::super::ends::{Counts, Ends, ONE_SERVER, State};
use super::World;
use super::gate::{Gate, Running};
use equipoise::engine::{Change, Cursor, FlowQuery, StickyQuery, StickyRow};
use equipoise::ids::FlowId;
use equipoise::sync::Command;
use ipnet::Ipv4Net;
use std::collections::{BTreeMap, VecDeque};
use std::net::{SocketAddr, SocketAddrV4};

/// A flow as both gateways show it.
type Row = (String, SocketAddrV4, SocketAddrV4, String, String, String);

impl World {
    /// Runs one history: faults, healing, comparison, and what comes after.
    pub fn run_all(&mut self) -> Result<Counts, String> {
        self.finish(12_000, 0, true)?;
        if self.rng.below(12) == 0 {
            self.split(60_000);
            return self.finish(60_000, 0, true).and_then(|()| self.end());
        }
        let (span, often) = (10_000 + self.rng.below(60_000), 100 + self.rng.below(2000));
        self.finish(span, often, true)?;
        self.end()
    }

    /// Lets everything heal, compares, and goes on for a while.
    fn end(&mut self) -> Result<Counts, String> {
        self.heal();
        self.finish(15_000, 0, true)?;
        // Whatever has become of earlier orders.
        let active = usize::from(self.is_active(1));
        (0..self.sides.len().min(3)).for_each(|client| self.clear(active, client));
        // What is under way arrives.
        for talk in &mut self.ends.talks {
            talk.next = talk.next.max(self.t + 6_000);
        }
        self.finish(1_000, 0, false)?;
        // Flows still expire, and the peer hears of it a moment later.
        let mut left = 40;
        while let Some(difference) =
            self.difference().or_else(|| self.stuck_otherwise()).or_else(|| self.judged_otherwise())
        {
            if left == 0 {
                return Err(format!("20 s after healing, the two differ: {difference}"));
            }
            left -= 1;
            self.finish(100, 0, false)?;
        }
        self.finish(25_000, 0, true)?;
        (self.ends.counts.follows, self.ends.counts.downs) = (self.probes.followed, self.probes.downs);
        Ok(self.ends.counts)
    }

    pub(super) fn finish(&mut self, span: u64, faults: u64, may_begin: bool) -> Result<(), String> {
        let end = self.t + span;
        while self.t < end {
            if faults > 0 && self.rng.below(faults) == 0 {
                self.fault();
            }
            self.step(may_begin);
            if let Some(wrong) = &self.ends.wrong {
                return Err(wrong.clone());
            }
        }
        Ok(())
    }

    /// Lets something go wrong.
    pub(super) fn fault(&mut self) {
        let at = self.rng.below(2) as usize;
        let reach = 8 + self.rng.below(7);
        let span = 200 + self.rng.below(1 << reach);
        let what = self.rng.below(10);
        match what {
            0 => {
                self.kill(at);
                self.gates[at].back_at = self.t + 50 + span;
            }
            1 => {
                self.say(|| format!("gateway {at} is stopped for {span} ms"));
                self.gates[at].paused_until = self.t + span;
            }
            2 => {
                self.say(|| format!("the connection is cut for {span} ms"));
                self.cut[1] = self.t + span;
            }
            3 | 4 => self.split(span),
            5 => {
                if let Some(conn) = self.gates[at].conn {
                    self.say(|| "the connection breaks".into());
                    self.gates[at].conn = None;
                    let now = self.now(at);
                    if let Some(Running { engine, node, .. }) = &mut self.gates[at].running {
                        node.disconnected(now, engine);
                    }
                    self.break_channel(conn, at);
                }
            }
            6 => {
                if let Some(channel) = self.gates[at].conn.and_then(|conn| self.channels.get_mut(&conn)) {
                    let until = self.t + 5 * span;
                    channel.slow_until = until;
                    self.say(|| format!("the connection is slow until {}", until / 1000));
                }
            }
            7 => self.kill_one(at),
            8 => self.clear_one(at),
            _ => {
                for at in 0..2 {
                    if self.is_active(at) && self.is_up(at) {
                        self.say(|| format!("gateway {at} shall yield"));
                        self.command(at, Command::Yield);
                    }
                }
            }
        }
    }

    /// An operator ends a flow, if the gateway is active.
    fn kill_one(&mut self, at: usize) {
        let (now, is_meant) = (self.now(at), self.is_up(at) && self.is_active(at));
        let roll = self.rng.next();
        let Some(Running { engine, .. }) = self.gates[at].running.as_mut().filter(|_| is_meant) else { return };
        let mut rows = Vec::new();
        engine.flows(now, &FlowQuery::default(), Cursor::default(), 1 << 16, &mut rows);
        let Some(row) = rows.get((roll % rows.len().max(1) as u64) as usize) else { return };
        let flow = row.id;
        engine.apply(now, Change::Kill { flow }).unwrap();
        if let SocketAddr::V4(client) = row.client {
            self.say(|| format!("an operator ends the flow of {client} at gateway {at}"));
            self.ends.killed(client);
        }
    }

    /// An operator has a gateway forget some sticky client, if it is active.
    fn clear_one(&mut self, at: usize) {
        let client = self.rng.below(self.sides.len() as u64) as usize;
        self.clear(at, client);
    }

    fn clear(&mut self, at: usize, client: usize) {
        let (now, is_meant) = (self.now(at), self.is_up(at) && self.is_active(at));
        let Some(Running { engine, node, .. }) = self.gates[at].running.as_mut().filter(|_| is_meant) else { return };
        let net = Ipv4Net::new(Ends::address(client), 32).unwrap();
        let query = StickyQuery { client: Some(net.into()), ..StickyQuery::default() };
        let (order, mut walk) = (node.begin_clearing(now, engine), engine.begin_clearing());
        while engine.sticky(now, (&mut walk, &query), 64, &mut Vec::new()) == Some(true) {}
        node.clear_sticky(order, query);
        self.say(|| format!("an operator has gateway {at} forget the server of client {client}"));
        self.ends.cleared(self.t, client);
    }

    /// Returns the sticky clients of a gateway.
    pub(super) fn sticky(&mut self, at: usize) -> Vec<StickyRow> {
        let now = self.now(at);
        let Some(Running { engine, .. }) = &mut self.gates[at].running else { return Vec::new() };
        let (mut walk, mut rows) = (engine.begin_sticky(), Vec::new());
        while engine.sticky(now, (&mut walk, &StickyQuery::default()), 64, &mut rows) == Some(true) {}
        rows
    }

    /// Returns those that have proved themselves, and their servers.
    fn stuck(&mut self, at: usize) -> BTreeMap<String, String> {
        self.sticky(at).into_iter().filter(|row| row.proven).map(|row| (row.client, row.server)).collect()
    }

    /// What the standby knows of sticky clients that is not so; none if nothing is.
    fn stuck_otherwise(&mut self) -> Option<String> {
        let active = usize::from(self.is_active(1));
        let [mut own, other] = [active, 1 - active].map(|at| self.stuck(at));
        if self.was_split {
            own.clear();
        }
        // Nobody new goes to a server at the gateway that lacks it, so a client without a flow there means nothing to it.
        let lacks = |server: &str| self.lacks_one.is_some() && ONE_SERVER.contains(&format!("\"{server}\""));
        let differs = own.iter().find(|(client, server)| other.get(*client) != Some(server) && !lacks(server));
        self.ends.counts.stuck += own.len() as u64;
        self.ends.counts.forgotten += self.ends.forgotten.len() as u64;
        let forgotten = self.ends.forgotten.iter().map(|client| Ends::address(*client).to_string());
        let left = forgotten.filter(|client| other.contains_key(client)).collect::<Vec<_>>();
        match (differs, left.is_empty()) {
            (None, true) => None,
            (differs, _) => {
                Some(format!("{differs:?} of {own:?}, not in {other:?}; forgotten, and still there: {left:?}"))
            }
        }
    }

    /// Cuts everything between the two: both become active.
    fn split(&mut self, span: u64) {
        self.say(|| format!("nothing passes between the two for {span} ms"));
        self.cut = [self.t + span; 2];
    }

    pub(super) fn heal(&mut self) {
        self.say(|| "everything heals".into());
        self.cut = [self.t; 2];
        self.heal_probes();
        self.loss = 0;
        self.channels.values_mut().for_each(|channel| channel.slow_until = 0);
        for at in 0..2 {
            self.gates[at].paused_until = self.gates[at].paused_until.min(self.t);
            self.gates[at].back_at = self.gates[at].back_at.min(self.t);
        }
    }

    /// Whether both know the same, and nothing is under way.
    pub(super) fn compare(&mut self) {
        let quiet = self.gates[0].conn.is_some()
            && self.gates[0].conn == self.gates[1].conn
            && self
                .channels
                .get(&self.gates[0].conn.unwrap())
                .is_some_and(|channel| !channel.broken && channel.queues.iter().all(VecDeque::is_empty));
        let in_step = |gate: &Gate| gate.running.as_ref().is_some_and(|running| running.node.status().in_step);
        if quiet && self.gates.iter().all(in_step) {
            self.in_step_at = self.t;
            if self.is_active(0) != self.is_active(1) {
                self.calm_at = self.t;
            }
        }
        // At the start, nobody has a server yet.
        self.was_split |= self.t > 3000 && self.is_active(0) && self.is_active(1);
        if self.is_active(0) && self.is_active(1) && self.t >= self.cut[0] {
            // Each has clients of its own until the election is over.
            match self.lacks_one.is_some() || self.monitored {
                false => self.ends.unstick(self.calm_at),
                // They may choose other servers for the datagrams of a client.
                true => self.ends.excuse((self.t, u64::MAX), self.in_step_at, self.calm_at),
            }
            self.ends.excuse_any(self.in_step_at);
        }
        let calm = self.t - self.in_step_at <= 300 && self.is_active(0) != self.is_active(1);
        self.ends.calm = calm;
    }

    /// What differs between the two; none if nothing does.
    pub(super) fn difference(&self) -> Option<String> {
        let roles = [0, 1].map(|at| self.role(at));
        let actives = roles.iter().flatten().filter(|role| role.is_active()).count();
        if actives != 1 || roles.contains(&None) {
            return Some(format!("roles: {roles:?}"));
        }
        let [a, b] = [0, 1].map(|at| self.flows(at));
        let status = [0, 1].map(|at| self.gates[at].running.as_ref().unwrap().node.status());
        if a != b {
            let only =
                |of: &[Row], not: &[Row]| of.iter().filter(|row| !not.contains(row)).cloned().collect::<Vec<_>>();
            let (first, second) = (only(&a, &b), only(&b, &a));
            return Some(format!("{} and {} flows; {first:?} and {second:?}; {status:?}", a.len(), b.len()));
        }
        let agreed = status.iter().any(|status| !status.role.is_active() && status.agreed);
        if status[0].digest != status[1].digest || !agreed {
            return Some(format!("{status:?}"));
        }
        None
    }

    /// Returns the flows of a gateway, without half-open ones.
    pub(super) fn flows(&self, at: usize) -> Vec<Row> {
        self.rows(at, false)
    }

    /// Returns the flows of a gateway, half-open or not.
    pub(super) fn rows(&self, at: usize, half_open: bool) -> Vec<Row> {
        let Some(Running { engine, .. }) = &self.gates[at].running else { return Vec::new() };
        let mut rows = Vec::new();
        engine.flows(self.now(at), &FlowQuery::default(), Cursor::default(), 1 << 16, &mut rows);
        let v4 = |address: std::net::SocketAddr| match address {
            std::net::SocketAddr::V4(address) => address,
            other => panic!("{other}"),
        };
        let mut rows: Vec<Row> = rows
            .into_iter()
            .filter(|row| half_open || row.id.index & FlowId::HALF_OPEN == 0)
            .map(|row| {
                let source = row.source.map_or_else(String::new, |source| source.to_string());
                let ends = (v4(row.client), v4(row.listen));
                let to = format!("{} {}", row.server_address, source);
                (row.protocol.name().into(), ends.0, ends.1, row.server, to, row.state.name().into())
            })
            .collect();
        rows.sort();
        rows
    }

    /// How many talks are open.
    pub fn open(&self) -> usize {
        self.ends.talks.iter().filter(|talk| talk.state == State::Open).count()
    }
}
