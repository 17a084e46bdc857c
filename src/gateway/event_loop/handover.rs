//! The loop's part of a takeover: taking the place of another gateway before it begins, handing over between two packets, and
//! leaving everything to a service manager at the end.

use super::super::setup::Installed;
use super::super::takeover::{Changes, Ended, Handing, Leftovers, OfferOf, Taker, kept};
use super::{BEGIN, EventLoop, Pair};
use crate::control::Ledger;
use crate::gateway::carrying::Carrying;
use crate::gateway::error::GatewayError;
use crate::gateway::marking::Marking;
use crate::sources;
use crate::time::Instant;
use std::io;
use std::os::fd::AsFd;

impl EventLoop {
    /// Makes the loop take the place of another gateway before it begins; `by_file` is what is in force without changes by
    /// operators.
    pub(in crate::gateway) fn take_over_from(&mut self, taker: Taker, by_file: Ledger) {
        self.taker = Some((taker, by_file));
    }

    /// Returns whether another gateway has taken over: it has the device, the sockets and all that is installed.
    pub(in crate::gateway) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Returns the programs at the devices; they stay attached until this is dropped.
    pub(in crate::gateway) fn take_programs(&mut self) -> (Option<Marking>, Option<Carrying>) {
        (self.marking.take(), self.carrying.take())
    }

    /// Leaves everything to the service manager for the next start, after the last packet; returns whether it has all of it.
    pub(in crate::gateway) fn leave_to_manager(&mut self, installed: &Installed) -> bool {
        let Some(mut file) = self.last.take() else { return false };
        let now = self.now();
        let offer = self.offer(Some(installed), now);
        let of = (&mut self.engine, &self.ledger);
        let recorded = kept::record(&mut file, self.giver.settings(), of, offer, now);
        let (links, queues) = (kept::links(), self.queues.descriptors());
        let all = [
            (kept::name::QUEUE, queues),
            (kept::name::LINK, links.iter().map(AsFd::as_fd).collect()),
            (kept::name::STATE, vec![file.as_fd()]),
            (kept::name::KEYS, self.marking.as_ref().and_then(Marking::keys).into_iter().collect()),
        ];
        let count: usize = all.iter().map(|(_, some)| some.len()).sum();
        let kept = recorded.and_then(|bytes| {
            if count > self.manager.keeps() {
                return Err(io::Error::other(format!("{count} descriptors: raise FileDescriptorStoreMax=")));
            }
            all.iter().try_for_each(|(name, some)| self.manager.keep(name, some))?;
            Ok(bytes)
        });
        match kept {
            Ok(bytes) if self.manager.barrier() => {
                log::info!(
                    "left to the service manager for the next start: {count} descriptors, {bytes} bytes of state"
                );
                true
            }
            other => {
                let why = other.map_or_else(|error| error.to_string(), |_| "it does not answer".into());
                log::warn!("the service manager keeps nothing for the next start: {why}");
                kept::name::ALL.iter().for_each(|name| self.manager.forget(name));
                false
            }
        }
    }

    /// Reads the last of the state of the gateway before this one, and makes all that it has this one's own.
    pub(in crate::gateway) fn take_over(&mut self, installed: Option<&mut Installed>) -> Result<(), GatewayError> {
        let Some((mut taker, mut ledger)) = self.taker.take() else { return Ok(()) };
        let clock = self.clock;
        let ended = taker.read_rest(&mut self.engine, || BEGIN + clock.elapsed()).inspect_err(|why| {
            taker.give_up(why);
            // The next start would find the same.
            self.forget_kept(&taker);
        });
        match ended.map_err(GatewayError::Takeover)? {
            Ended::Whole(loaded) => log::info!("taken over: {loaded}"),
            Ended::Early(error) => {
                log::warn!("the state of the gateway that ended is incomplete: {error}");
                let now = self.now();
                if let Some(Err(error)) = self.marking.as_mut().map(|marking| marking.expect_unknown(now)) {
                    log::warn!("unknown connections may break: {error}");
                }
            }
        }
        // Nothing that needs another plan.
        if taker.has_other_changes() {
            taker.load_changes(&mut ledger, self.now());
            self.ledger = ledger;
        }
        self.ledger.started(&mut self.engine, BEGIN + clock.elapsed());
        if taker.is_reload_asked() {
            self.reloads.signalled();
        }
        // Routes of what the configuration has no longer go with its flows.
        self.reloads.look_for_retired(&self.engine, BEGIN + clock.elapsed());
        self.forget_kept(&taker);
        taker.serving();
        self.control.socket().own();
        self.giver.own();
        self.opener.steer(&self.queues);
        if let Some(installed) = installed {
            installed.own();
        }
        Ok(())
    }

    /// Has the service manager close what it has kept, if that is what this gateway has begun with.
    fn forget_kept(&self, taker: &Taker) {
        if taker.is_of_kept() {
            kept::name::ALL.iter().for_each(|name| self.manager.forget(name));
        }
    }

    /// Returns what another gateway has to know before it reads the state.
    fn offer(&self, installed: Option<&Installed>, now: Instant) -> OfferOf {
        let settings = self.ledger.in_force();
        let found = sources::save(&settings.sources, &self.sources.found());
        OfferOf {
            seed: settings.seed,
            leftovers: Leftovers::of(&self.engine, now),
            found: String::from_utf8(found).unwrap_or_default(),
            proxying: installed.map_or_else(Vec::new, Installed::proxying),
            changes: Changes::of(&self.ledger, now),
            role: self.pair.as_ref().map(|pair| pair.role().name().to_owned()),
            youth: self.marking.as_ref().and_then(|marking| marking.youth(now)),
        }
    }

    /// Does one step of handing over to another gateway; returns true if there is more to do at once.
    pub(super) fn give(&mut self, installed: Option<&Installed>, now: Instant) -> bool {
        match self.giver.work(&mut self.engine, now) {
            Handing::Nothing => false,
            Handing::More => true,
            Handing::Asked => {
                if self.reloads.is_idle() {
                    let offer = self.offer(installed, now);
                    let keys = self.marking.as_ref().and_then(Marking::keys);
                    let passed = (&self.queues.descriptors()[..], keys);
                    self.giver.offer(&mut self.engine, offer, self.control.socket(), passed);
                }
                true
            }
            Handing::Over => {
                self.keep_up(now);
                self.send_waiting();
                self.stop_carrying(now);
                self.take_signals();
                let asked = self.reloads.is_signalled();
                self.is_over = self.giver.hand_over(self.poll.registry(), (&mut self.engine, &self.ledger, asked), now);
                if self.is_over {
                    // It may know servers that this one does not.
                    self.marking.iter_mut().for_each(Marking::step_aside);
                    self.pair.iter_mut().for_each(Pair::leave);
                    self.control.socket().leave();
                    self.giver.leave();
                    // The other one saves it from now on.
                    self.keeping = None;
                }
                true
            }
        }
    }
}
