//! The loop's part of a pair: moving what the two gateways say, and what follows for the system from the role of this one.

use super::super::bpf::addresses_of;
use super::super::pair::{Announce, Pair};
use super::super::setup::{Changes, Installed};
use super::EventLoop;
use crate::config::Settings;
use crate::sync::Command;
use crate::time::{Duration, Instant};
use mio::Token;
use std::sync::Arc;

/// Routes changed before packets get their turn; each takes the kernel some microseconds.
const PORTION: usize = 16;
/// How long the end of an active gateway waits until the other one has taken over.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a gateway that ends forwards what reaches it after the other one has taken over.
const LINGER: Duration = Duration::from_millis(500);

/// What is under way.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    /// Routes that are being changed.
    routes: Changes,
    /// The settings that the pair follows.
    settings: Option<Arc<Settings>>,
    /// Until when the end of the gateway waits for the other one.
    end: Option<Instant>,
    /// Whether the other one has taken over: only what is on its way is waited for.
    has_ended: bool,
}

impl Sharing {
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.end
    }
}

impl EventLoop {
    /// Returns the TCP port of the other gateway, if this one has one.
    pub(in crate::gateway) fn peer_port(&self) -> Option<u16> {
        self.pair.as_ref().map(Pair::peer_port)
    }

    pub(super) fn has_of_pair(&self, token: Token) -> bool {
        self.pair.as_ref().is_some_and(|pair| pair.has(token))
    }

    pub(super) fn peer_ready(&mut self, token: Token) {
        self.pair.iter_mut().for_each(|pair| pair.ready(token));
    }

    /// Does one step of what the two gateways have to say; returns true if there is more to do at once.
    pub(super) fn share(&mut self, mut installed: Option<&mut Installed>, now: Instant) -> bool {
        let Some(pair) = &mut self.pair else { return false };
        let settings = self.ledger.in_force();
        if self.sharing.settings.as_ref().is_none_or(|before| !Arc::ptr_eq(before, settings)) {
            if self.sharing.settings.is_some() {
                pair.follow(Arc::clone(settings), &mut self.engine, now);
            }
            self.sharing.settings = Some(Arc::clone(settings));
        }
        let of = (&mut self.engine, &mut self.ledger, self.marking.as_mut());
        let more = pair.work(self.poll.registry(), of, now);
        self.send_released();
        let Some(pair) = &mut self.pair else { return false };
        if pair.take_hosts() {
            // Their replies have to be known as such, and found on their way.
            let settings = self.engine.plan().settings();
            let servers = addresses_of(settings);
            let steering = self.opener.extend(&servers);
            let marks = self.marking.as_mut().map_or(Ok(()), |marking| marking.extend(settings, &servers));
            if let Err(error) = steering.and(marks) {
                log::warn!("replies of servers that only the peer has may not be translated: {error}");
            }
            self.follower.follow(settings, now);
        }
        let Some(installed) = &mut installed else { return more };
        // One after the other: a change of mind waits for what is under way.
        if self.sharing.routes.is_done()
            && let Some(announce) = pair.take_announce()
        {
            self.sharing.routes = installed.announce(announce == Announce::Yes);
        }
        if self.sharing.routes.is_done() {
            return more;
        }
        installed.carry_out(&mut self.sharing.routes, PORTION);
        if self.sharing.routes.is_done() {
            for problem in self.sharing.routes.take_problems() {
                log::warn!("sync: {problem}");
            }
            self.keeper.follow(installed);
        }
        true
    }

    /// Sends what has waited for the other gateway.
    fn send_released(&mut self) {
        let Some(pair) = &mut self.pair else { return };
        while let Some((header, packet)) = pair.poll_released() {
            self.output.write(self.queues.first(), header, packet);
        }
    }

    /// Sends what waits for the other gateway: nobody will later.
    pub(super) fn send_waiting(&mut self) {
        self.pair.iter_mut().for_each(Pair::release_all);
        self.send_released();
    }

    /// Returns whether the gateway may end now: an active one has the other one take over first, if that knows everything,
    /// and forwards what is still on its way here.
    pub(super) fn may_stop(&mut self, now: Instant) -> bool {
        let Some(pair) = &mut self.pair else { return true };
        let status = pair.pairing().node.status();
        match self.sharing.end {
            Some(end) if self.sharing.has_ended || status.peer.is_none() => now >= end || status.peer.is_none(),
            Some(end) => {
                if !status.role.is_active() {
                    (self.sharing.has_ended, self.sharing.end) = (true, Some(now + LINGER));
                }
                now >= end
            }
            None if status.role.is_active() && status.in_step => {
                log::info!("sync: waiting for {} to take over, at most {} s", pair.peer(), PATIENCE.as_secs());
                pair.pairing().node.command(now, &mut self.engine, Command::Yield);
                self.sharing.end = Some(now + PATIENCE);
                false
            }
            None => true,
        }
    }
}
