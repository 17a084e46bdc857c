//! A new flow: its server, the source address that the server sees, and room in the table.

use super::super::arrival::Arrival;
use super::super::step::{Opening, Prepare, Scratch, Step};
use super::super::{Reason, Short};
use super::hit::first_follow;
use super::{Going, Look};
use crate::balance::Pick;
use crate::flow::{Class, Endpoint, GivenBack, Key, NO_POOL, NewFlow, Newcomer, Proposal, Room, Table};
use crate::ids::{NatPoolId, ServerId, ServiceId};
use crate::packet::{Addresses, Protocol, Side, Transport, family};
use crate::time::Instant;
use std::net::IpAddr;

/// Maximum number of servers tried for a flow for which there is no source port, or whose return key is in use.
const MOST_TRIES: usize = 8;

/// Why no flow is created in this look.
enum Failed {
    /// Something has to be brought up to date first.
    Unready(Prepare),
    For(Reason),
}

impl From<Reason> for Failed {
    fn from(reason: Reason) -> Failed {
        Failed::For(reason)
    }
}

/// Records that a server cannot take the flow, and returns why.
fn unfit(scratch: &mut Scratch, server: ServerId, why: Reason) -> Reason {
    scratch.opening.unfit.push((server, why));
    why
}

/// Returns whether a new flow has a handshake to complete.
fn begins_half_open(arrival: &Arrival<'_>) -> bool {
    matches!(arrival.parsed.transport, Transport::Tcp { flags, .. } if flags.syn())
}

impl Look<'_> {
    /// Decides a packet that may open a flow of a service.
    pub(super) fn open(&self, arrival: &Arrival<'_>, key: &Key, service: ServiceId, scratch: &mut Scratch) -> Step {
        let admission = self.admit(arrival, key, service, scratch);
        scratch.opening.admission = Some(admission);
        let new = match admission {
            Err(reason) => Err(Failed::For(reason)),
            Ok(()) => self.find_server(arrival, key, service, scratch),
        };
        match new {
            Ok(new) => Step::Open(self.onward(arrival, &Going::of_new(&new), scratch)),
            Err(Failed::Unready(prepare)) => Step::Prepare(prepare),
            Err(Failed::For(reason)) => {
                if let Some((_, _, exhausted)) = &mut scratch.opening.nat {
                    *exhausted = reason == Reason::NatExhausted;
                }
                let settled = match reason {
                    Reason::NoServer => self.no_server(arrival, service, scratch),
                    Reason::TableFull | Reason::NatExhausted | Reason::ReturnKeyTaken => {
                        self.no_room(arrival, reason, scratch)
                    }
                    Reason::Untranslatable => self.untranslatable(arrival, scratch),
                    reason => super::super::step::Settled::drop(reason),
                };
                settled.into()
            }
        }
    }

    /// Picks servers until one has a source port left and its return key is free; also puts the new flow into the
    /// scratch.
    fn find_server(
        &self,
        arrival: &Arrival<'_>,
        key: &Key,
        service: ServiceId,
        scratch: &mut Scratch,
    ) -> Result<NewFlow, Failed> {
        let ask = self.ask(arrival, key, service);
        let mut tried = [ServerId(u32::MAX); MOST_TRIES];
        let mut why = Reason::NoServer;
        for tries in 0..MOST_TRIES {
            let draws = &mut scratch.opening.draws;
            let picked = self.shard.chooser().choose(&ask, &tried[..tries], draws);
            let Some(pick) = picked.map_err(|stale| Failed::Unready(Prepare::Servers(stale)))? else {
                return Err(why.into());
            };
            scratch.opening.picks.extend(pick.proposed);
            tried[tries] = pick.server;
            match self.answer_key(arrival, key, service, pick.server, scratch) {
                // Another server may be of the packet's own family, or have source ports left: each has its own.
                Err(Failed::For(reason @ (Reason::Untranslatable | Reason::NatExhausted))) => {
                    why = unfit(scratch, pick.server, reason);
                }
                Err(failed) => return Err(failed),
                Ok((answer, nat_pool, replaces)) => {
                    // The packet's own key is free, as it was not found; the other is, but for the flow that is replaced.
                    let found = self.table().find(&answer).filter(|found| Some(found.index) != self.without());
                    debug_assert!(!replaces || found.is_some(), "a port in use without a flow: {answer:?}");
                    match found {
                        None => {}
                        Some(other) if self.yields(arrival, other.index) => {
                            scratch.opening.yields = Some(other.index);
                        }
                        Some(_) if !replaces => {
                            why = unfit(scratch, pick.server, Reason::ReturnKeyTaken);
                            continue;
                        }
                        Some(other) => {
                            let class = if Table::is_half_open(other.index) { Class::HalfOpen } else { Class::Brief };
                            scratch.opening.short = Some(Short::Ports);
                            scratch.opening.room = Some(Room::of(other.index, class));
                        }
                    }
                    return self.make(arrival, key, (answer, nat_pool), (service, pick), scratch);
                }
            }
        }
        Err(why.into())
    }

    /// Returns whether a flow yields its return key, and with it its NAT port, to a connection that a packet opens: a TCP
    /// flow of which neither end has anything left to send. What is under way to its client would go to that of the new
    /// connection, so another client waits for it; the same client has given up its port itself.
    fn yields(&self, arrival: &Arrival<'_>, other: u32) -> bool {
        let of_same_client = || {
            let client = self.table().key(other, Side::Client);
            arrival
                .key()
                .is_some_and(|key| (key.addresses.src(), key.src_port) == (client.addresses.src(), client.src_port))
        };
        begins_half_open(arrival)
            && self.table().settled_since(other).is_some()
            && self.table().is_over(arrival.now, other)
            && (self.table().has_had_its_grace(arrival.now, other) || of_same_client())
    }

    /// Puts a new flow into the scratch, along with the flow to evict if the table is full and no other is replaced.
    fn make(
        &self,
        arrival: &Arrival<'_>,
        key: &Key,
        (answer, nat_pool): (Key, u16),
        (service, pick): (ServiceId, Pick),
        scratch: &mut Scratch,
    ) -> Result<NewFlow, Failed> {
        let opening = &mut scratch.opening;
        let half_open = begins_half_open(arrival);
        // A flow that is replaced for its port leaves room, as does one of the same store that yields its key.
        let leaves = opening.yields.is_some_and(|other| Table::is_half_open(other) == half_open);
        if opening.room.is_none() && !leaves {
            self.make_room(arrival, half_open, false, opening)?;
        }
        let new = NewFlow {
            client: *key,
            server: answer,
            service,
            server_id: pick.server,
            profile: self.plan.service(service).profile(key.protocol, key.dst_port),
            nat_pool,
            rule: opening.rule,
            picked_by: pick.by as u8,
            half_open,
        };
        opening.new = Some((new, pick.by, first_follow(arrival, key.protocol)));
        Ok(new)
    }

    /// Decides what gives way for a flow where there is no room; `is_proven` says whether its handshake is complete.
    pub(super) fn make_room(
        &self,
        arrival: &Arrival<'_>,
        half_open: bool,
        is_proven: bool,
        opening: &mut Opening,
    ) -> Result<(), Reason> {
        if !self.table().is_full(half_open, self.without()) {
            return Ok(());
        }
        let room = match half_open {
            true => self.table().room_for_half_open().unwrap_or_default(),
            false => {
                let may_take_settled = self.shard.pressure().may_take_settled(arrival.now);
                self.table().room(arrival.now, Newcomer { is_proven, may_take_settled })
            }
        };
        opening.room = Some(room);
        opening.short = Some(if half_open { Short::HalfOpen } else { Short::Table });
        room.victim.map(|_| ()).ok_or(Reason::TableFull)
    }

    /// Returns the key of a server's replies to a client's packets, the NAT pool of the source, and whether the key is
    /// that of a flow to be replaced.
    fn answer_key(
        &self,
        arrival: &Arrival<'_>,
        client: &Key,
        service: ServiceId,
        server: ServerId,
        scratch: &mut Scratch,
    ) -> Result<(Key, u16, bool), Failed> {
        let v6 = client.addresses.is_v6();
        let endpoint = self.plan.roster().endpoint(service, server, v6, client.dst_port);
        let (address, port) = endpoint.ok_or(Reason::NoServer)?;
        let crosses = address.is_ipv6() != v6;
        // A flow whose first packet cannot be translated would be state without cause.
        if crosses && family::can_cross(&mut scratch.trial, arrival.bytes, arrival.parsed, arrival.meta).is_err() {
            return Err(Reason::Untranslatable.into());
        }
        let own = (client.addresses.src(), client.src_port);
        let (source, nat_pool) = match self.plan.service(service).nat.pool_for(own.0) {
            None => (Proposal { address: own.0, port: own.1, replaces: false }, NO_POOL),
            Some(pool) => {
                let port = if client.protocol == Protocol::Icmp { 0 } else { port };
                (self.source(arrival, client, pool, Endpoint { address, port }, scratch)?, pool.0 as u16)
            }
        };
        let addresses = Addresses::new(address, source.address).ok_or(Reason::NoServer)?;
        let src_port = match client.protocol {
            Protocol::Icmp => source.port,
            Protocol::Ip(_) => 0,
            _ => port,
        };
        let answer = Key { addresses, src_port, dst_port: source.port, protocol: client.protocol };
        Ok((answer, nat_pool, source.replaces))
    }

    /// Proposes a source address and port of a NAT pool for a flow to a server endpoint.
    fn source(
        &self,
        arrival: &Arrival<'_>,
        client: &Key,
        id: NatPoolId,
        server: Endpoint,
        scratch: &mut Scratch,
    ) -> Result<Proposal, Failed> {
        let pool = self.shard.nat_pool(id);
        let given_back = self.foresight.map_or_else(GivenBack::default, |foresight| foresight.given_back);
        let is_due = pool.is_due(arrival.now, given_back.rested);
        if is_due && !scratch.has_freed_ports {
            return Err(Failed::Unready(Prepare::Ports(id)));
        }
        let drawn = scratch.opening.nat.take().map(|(_, draw, _)| draw);
        let drawn = drawn.or_else(|| self.foresight.and_then(|foresight| foresight.draw.clone()));
        let mut draw = drawn.unwrap_or_else(|| pool.draw());
        let (from, to) = ((client.addresses.src(), client.src_port), (client.protocol, server));
        // A TCP connection that is picked up in the middle has clients that may have been proven long ago.
        let half_open = begins_half_open(arrival);
        let is_tentative = half_open || client.protocol != Protocol::Tcp;
        let mut found = pool.propose(&mut draw, from, to, is_tentative, given_back).ok();
        // Ports that have rested may be queued behind others that have.
        let waits = found.is_none() && is_due;
        if half_open && !waits && found.is_none_or(|found| found.replaces) {
            let over_since = |address, port| self.over_since(arrival, client.protocol, server, (address, port));
            found = pool.propose_yielding(&mut draw, from, to, given_back, over_since).or(found);
        }
        scratch.opening.nat = Some((id, draw, false));
        if waits {
            return Err(Failed::Unready(Prepare::Ports(id)));
        }
        found.ok_or(Reason::NatExhausted.into())
    }

    /// Returns since when the flow that has a source of a NAT pool towards a server endpoint has been over, if it yields
    /// to a packet's connection.
    fn over_since(
        &self,
        arrival: &Arrival<'_>,
        protocol: Protocol,
        server: Endpoint,
        (address, port): (IpAddr, u16),
    ) -> Option<Instant> {
        let addresses = Addresses::new(server.address, address)?;
        let found = self.find(&Key { addresses, src_port: server.port, dst_port: port, protocol })?;
        self.table().settled_since(found.index).filter(|_| self.yields(arrival, found.index))
    }
}
