//! The turns of the loop: each waits for events, then does one step of everything that may have work, packets first.

use super::super::log_queue;
use super::super::notify;
use super::super::pair::Pair;
use super::super::setup::Installed;
use super::{CONTROL, Carrying, EventLoop, Http, LOSSES, Marking, NEWS, QUEUES, SIGNALS, WAKER};
use crate::control::{Floor, Outside};
use crate::gateway::error::GatewayError;
use crate::time::{Duration, Instant};
use mio::{Events, Token};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What one turn leaves for the next. mio reports an edge only once: what the budget left is remembered, here and in the queues.
struct Turn {
    /// When it began; none before the first.
    begun: Option<Instant>,
    control: bool,
    news: bool,
    losses: bool,
    reload: bool,
    gives: bool,
    shares: bool,
}

impl Turn {
    /// Returns what the first turn finds: what has come before it is looked for.
    fn first() -> Turn {
        Turn { begun: None, control: false, news: true, losses: true, reload: false, gives: false, shares: false }
    }

    /// Returns whether there is work that no event will report.
    fn has_more(&self) -> bool {
        self.control || self.news || self.losses || self.reload || self.gives || self.shares
    }
}

impl EventLoop {
    /// Runs until it is stopped; keeps the rules installed for routers' ICMP errors in step with the routes to the servers,
    /// and restores what is removed.
    pub(in crate::gateway) fn run(&mut self, mut installed: Option<&mut Installed>) -> Result<(), GatewayError> {
        self.engine.report_flows(log::log_enabled!(log::Level::Debug));
        self.lapses.start(self.now());
        self.http.iter_mut().for_each(|http| http.begin(self.ledger.in_force()));
        self.manager.ready(&notify::status(self.ledger.in_force()));
        let (mut events, mut turn) = (Events::with_capacity(64), Turn::first());
        loop {
            let Some(now) = self.wait(&mut events, &mut turn)? else { continue };
            self.heed(&events, &mut turn, now);
            self.take_packets(now);
            // Before probes are judged, and before anything is reported.
            if turn.control || self.engine.poll_timeout().is_some_and(|due| due <= now) {
                self.output.counters.lost = self.lapses.look(&mut self.engine, now);
            }
            self.keep_up(now);
            self.refusals.tell(&self.engine, now);
            self.follow_system(installed.as_deref_mut(), &mut turn, now);
            self.carry(now);
            if let Some(keeping) = &mut self.keeping {
                keeping.work(&mut self.engine, &self.ledger, &self.sources, now);
            }
            if self.sources.work(self.poll.registry(), now) {
                self.reloads.found(self.sources.found());
            }
            if self.control.retries(now) {
                self.control.accept(self.poll.registry(), &self.about, now);
            }
            let outside = self.outside();
            turn.shares = self.share(installed.as_deref_mut(), now);
            turn.gives = self.give(installed.as_deref(), now);
            if self.is_over {
                self.http.iter_mut().for_each(Http::let_go);
                return Ok(());
            }
            // The engine of the gateway that takes over follows the plan of now.
            turn.reload = !self.giver.is_copying() && self.reload(installed.as_deref_mut(), now);
            turn.control = self.serve(&outside, now);
            self.manager.work(now);
            // A session may just have asked, or a signal have come while a reload was under way.
            turn.reload |= !self.giver.is_copying() && self.reloads.is_asked(&self.ledger);
            // Not while another process takes over: who carries on is known soon.
            if self.stopper.stop.load(Ordering::Acquire)
                && !self.giver.delays_stop(&mut self.engine, now)
                && self.may_stop(now)
            {
                self.stop_carrying(now);
                return Ok(());
            }
        }
    }

    /// Waits for events, unless there is work already; returns the time after, and none if a signal handler was all.
    #[inline]
    fn wait(&mut self, events: &mut Events, turn: &mut Turn) -> Result<Option<Instant>, GatewayError> {
        let busy = self.queues.may_have_packets() || turn.has_more();
        let before = self.now();
        if let Some(begun) = turn.begun {
            self.leave_room((begun, before));
            self.work.turns.add(u64::try_from(before.since(begun).as_nanos()).unwrap_or(u64::MAX));
        }
        // A long list keeps the thread busy: who shares its processor need not wait for the end of its time slice.
        if turn.control && !self.queues.may_have_packets() {
            std::thread::yield_now();
        }
        let timeout = if busy { Some(Duration::ZERO) } else { self.sleep(before) };
        let polled = self.poll.poll(events, timeout);
        let now = self.now();
        turn.begun = Some(now);
        self.lapses.slept(&mut self.engine, before, timeout, now);
        match polled {
            Ok(()) => Ok(Some(now)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
            Err(error) => Err(GatewayError::io("wait for events")(error)),
        }
    }

    /// Notes who has something to read or write.
    #[inline]
    fn heed(&mut self, events: &Events, turn: &mut Turn, now: Instant) {
        for event in events {
            match event.token() {
                WAKER => {}
                SIGNALS => self.take_signals(),
                NEWS => turn.news = true,
                LOSSES => turn.losses = true,
                CONTROL => {
                    turn.control = true;
                    self.control.accept(self.poll.registry(), &self.about, now);
                }
                Token(queue) if queue < QUEUES => self.queues.has_news(queue),
                token if self.has_of_pair(token) => self.peer_ready(token),
                token if self.giver.has(token) => self.giver.ready(token, self.poll.registry(), now),
                token if self.sources.has(token) => self.sources.ready(token, now),
                token => {
                    turn.control = true;
                    self.control.ready(token, event.is_readable(), event.is_writable());
                }
            }
        }
    }

    /// Follows the routes and devices of the system, and keeps what is installed in step with them.
    #[inline]
    fn follow_system(&mut self, mut installed: Option<&mut Installed>, turn: &mut Turn, now: Instant) {
        if turn.news {
            self.devices_changed();
        }
        turn.news = turn.news && self.follower.take_news(now);
        if self.follower.work(&mut self.engine, now)
            && let Some(installed) = &mut installed
        {
            if let Err(error) = installed.follow_errors(self.follower.interfaces()) {
                log::warn!("ICMP errors from routers on the path to the servers may not arrive: {error}");
            }
            self.keeper.follow(installed);
        }
        if let Some(installed) = &mut installed {
            turn.losses = self.restore(installed, turn.losses, now);
        }
        if let Some(marking) = &mut self.marking
            && marking.work(&mut self.engine, now)
            && let Some(installed) = &mut installed
        {
            let interfaces = self.follower.interfaces();
            if let Err(error) = installed.also_select_by_addresses(marking.has_gaps(), interfaces) {
                log::warn!("replies of servers may not be translated: {error}");
            }
            self.keeper.follow(installed);
        }
    }

    /// Returns what sessions and metrics show of what is outside the engine.
    #[inline]
    fn outside(&mut self) -> Outside {
        self.output.counters.lost_log_lines = log_queue::lost_lines();
        Outside {
            device: self.output.counters,
            system: self.keeper.state().clone(),
            sources: self.sources.states(),
            desk: Arc::clone(self.reloads.desk()),
            http: self.http.as_ref().map_or_else(Default::default, |http| Arc::clone(http.state())),
        }
    }

    /// Answers operators, over the control socket and HTTP, and logs what they changed; returns true if a session has more to do at once.
    #[inline]
    fn serve(&mut self, outside: &Outside, now: Instant) -> bool {
        let pair = self.pair.as_mut().map(Pair::pairing);
        let more = self.control.work((&mut self.engine, &mut self.ledger, pair), now, outside);
        if let Some(http) = &mut self.http {
            http.follow(self.ledger.in_force());
            let (engine, ledger, pair) = (&mut self.engine, &mut self.ledger, self.pair.as_mut().map(Pair::pairing));
            http.work(&mut Floor { engine, ledger, now, outside, pair }, &self.about, &self.work);
        }
        while let Some(line) = self.ledger.poll_line() {
            log::info!("{line}");
        }
        more
    }

    /// Returns the time from `now` until something is due; `None` if only packets or control requests can make work.
    fn sleep(&self, now: Instant) -> Option<Duration> {
        let due = [
            self.engine.poll_timeout(),
            self.follower.poll_timeout(),
            self.keeper.poll_timeout(),
            self.control.poll_timeout(),
            self.reloads.poll_timeout(),
            self.marking.as_ref().map(Marking::poll_timeout),
            self.carrying.as_ref().and_then(Carrying::poll_timeout),
            self.keeping.as_ref().map(|keeping| keeping.poll_timeout(&self.ledger)),
            self.sources.poll_timeout(),
            self.manager.poll_timeout(),
            self.giver.poll_timeout(),
            self.pair.as_ref().and_then(|pair| pair.poll_timeout(now)),
            self.sharing.poll_timeout(),
            self.http.as_ref().and_then(Http::poll_timeout),
        ];
        due.into_iter().flatten().min().map(|due| due.since(now))
    }
}
