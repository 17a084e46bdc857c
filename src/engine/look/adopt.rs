//! A server's segment on a connection that is not known here: it makes the flow again, where it can be only one service's
//! and that one says so.
//!
//! Anybody can forge such a segment, and connections past the gateway look the same. So the flow gives way to any other until
//! both ends have confirmed it, takes the place of none, and is given up by a reset of its client: then the connection is
//! none of the gateway's.

use super::super::Reason;
use super::super::arrival::Arrival;
use super::super::pair::Duty;
use super::super::plan::Owner;
use super::super::step::{Follow, Scratch, Settled, Step};
use super::answer::{can_be_answered, sum_is_right};
use super::hit::segment;
use super::miss::the_one;
use super::{Going, Look};
use crate::balance::{PickedBy, UnknownTcp};
use crate::flow::{Found, Key, NO_POOL, NewFlow, TimeoutState, Track};
use crate::packet::{Addresses, Protocol, Side, Transport};
use crate::policy::{Action, NO_RULE};

impl Look<'_> {
    /// Decides a server's segment that makes a flow again; none if it makes none.
    #[cold]
    pub(super) fn adopt_from_server(&self, arrival: &Arrival<'_>, key: &Key, scratch: &mut Scratch) -> Option<Step> {
        let Transport::Tcp { flags, .. } = arrival.parsed.transport else { return None };
        // The peer may know the connection.
        let is_of_service = self.standing.duty() == Duty::Full
            && flags.ack()
            && !flags.syn()
            && !flags.rst()
            && self.plan.directory().is_server(key.addresses.src(), key.protocol, key.src_port)
            && !self.is_own(key.addresses.dst())
            && !self.table().is_direct(key);
        let may = is_of_service && can_be_answered(&key.addresses) && sum_is_right(arrival) && arrival.hops() > 1;
        if !may {
            return None;
        }
        let owners = self.plan.owners(key);
        let owner = owners.first().filter(|owner| owners.iter().all(|other| other == *owner))?;
        let client = self.client_key(owner, &owners, key)?;
        let service = self.plan.service(owner.service);
        let v6 = key.addresses.is_v6();
        let adopts = service.unknown_tcp == UnknownTcp::Adopt
            && service.enabled
            && self.plan.roster().server(owner.server).pool == service.pool
            && !self.standing.is_gone(self.plan, owner.service, owner.server, v6)
            && !self.table().is_taken(&client, self.without())
            && !self.table().has_just_ended(arrival.now, &client);
        // By which interface the client's packets come is not known here.
        let rule = self.plan.rules().decide(self.standing.switches(), &client, 0);
        let rule = match rule {
            None => NO_RULE,
            Some((rule, Action::Balance(named))) if named.is_none_or(|named| named == owner.service) => rule,
            Some(_) => return None,
        };
        if !adopts {
            return None;
        }
        scratch.begin();
        scratch.opening.rule = rule;
        scratch.opening.service = Some(owner.service);
        let admission = self.admit(arrival, &client, owner.service, scratch);
        scratch.opening.admission = Some(admission);
        if let Err(reason) = admission {
            return Some(Settled::drop(reason).into());
        }
        if self.table().is_full(false, self.without()) {
            return Some(Settled::drop(Reason::TableFull).into());
        }
        let new = NewFlow {
            client,
            server: *key,
            service: owner.service,
            server_id: owner.server,
            profile: service.profile(client.protocol, client.dst_port),
            nat_pool: NO_POOL,
            rule,
            picked_by: PickedBy::Server as u8,
            half_open: false,
        };
        let follow = Follow::Tcp(Track::first(Side::Server, &segment(arrival)));
        scratch.opening.from = Side::Server;
        scratch.opening.new = Some((new, PickedBy::Server, follow));
        Some(Step::Open(self.onward(arrival, &Going::of_new_from(&new, Side::Server), scratch)))
    }

    /// Returns the key of the client's packets.
    fn client_key(&self, owner: &Owner, owners: &[Owner], key: &Key) -> Option<Key> {
        let listen = the_one(owners).filter(|listen| Some(*listen) == owner.listen)?;
        let addresses = Addresses::new(key.addresses.dst(), listen.ip())?;
        Some(Key { addresses, src_port: key.dst_port, dst_port: listen.port(), protocol: Protocol::Tcp })
    }

    /// Returns whether a packet is a reset by which the client of a flow that a server's segment has made says that it has no
    /// such connection: only who has seen that segment knows the number (RFC 9293, 3.10.7.1).
    #[cold]
    pub(super) fn is_disowned(&self, arrival: &Arrival<'_>, found: Found) -> bool {
        let Transport::Tcp { flags, .. } = arrival.parsed.transport else { return false };
        flags.rst()
            && found.side == Side::Client
            && self.table().facts(found.index).state == TimeoutState::Opening
            && self.table().is_disowned_by(found.index, &segment(arrival))
            && sum_is_right(arrival)
    }
}
