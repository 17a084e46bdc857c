//! Servers from outside, on the sockets of the event loop: resolvers over UDP and TCP, files with inotify.
//!
//! It moves bytes; [`crate::sources`] decides what is asked and what is used.

mod files;
mod resolvers;
mod sockets;

pub use files::{directories, from_files};
pub(super) use resolvers::{of_system, ports};

use super::error::GatewayError;
use crate::config::Settings;
use crate::sources::{DnsSettings, Found, Request, SourceState, Sources};
use crate::time::Instant;
use files::Files;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token, Waker};
use sockets::Sockets;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

/// Tokens that it uses: one for the files, the others for sockets.
pub(super) const TOKENS: usize = 1 + crate::sources::MOST_ASKED;

/// The sources of a running gateway.
pub(super) struct Outsiders {
    sources: Sources,
    /// The resolvers of the system, as read at the start.
    system: Vec<std::net::SocketAddr>,
    files: Files,
    sockets: Sockets,
    first_token: usize,
    /// The settings that they follow.
    settings: Option<Arc<Settings>>,
    states: Arc<Vec<SourceState>>,
}

impl Outsiders {
    /// Makes them; nothing is asked before [`Outsiders::work`], which is to be called when `waker` wakes.
    pub(super) fn new(settings: &Settings, waker: Arc<Waker>, now: Instant) -> Self {
        let system = of_system();
        let dns = resolved(&settings.dns, &system);
        // The standard library draws the keys of its hash from the system.
        let drawn = RandomState::new();
        let secret = [drawn.hash_one(1u8), drawn.hash_one(2u8)];
        let sources = Sources::new(&settings.sources, &dns, secret, now);
        let files = Files::new(waker);
        let states = Arc::new(sources.states());
        Outsiders { sources, system, files, sockets: Sockets::new(), first_token: 0, settings: None, states }
    }

    /// Registers what they wait for under `first` and the [`TOKENS`] - 1 tokens after it.
    pub(super) fn register(&mut self, registry: &Registry, first: Token) -> Result<(), GatewayError> {
        self.first_token = first.0;
        self.sockets.use_tokens_from(first.0 + 1);
        match self.files.news() {
            Some(news) => registry
                .register(&mut SourceFd(&news), first, Interest::READABLE)
                .map_err(GatewayError::io("watch the files of servers")),
            None => Ok(()),
        }
    }

    /// Returns whether a token is one of theirs.
    pub(super) fn has(&self, token: Token) -> bool {
        (self.first_token..self.first_token + TOKENS).contains(&token.0)
    }

    /// Takes an event of one of their tokens.
    pub(super) fn ready(&mut self, token: Token, now: Instant) {
        if token.0 == self.first_token {
            self.files.take_news(&mut self.sources, now);
        } else {
            self.sockets.ready(token, &mut self.sources, now);
        }
    }

    /// Returns when it has work to do; `None` without sources.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.sources.poll_timeout()
    }

    /// Does what is due; returns whether another list of servers was found.
    pub(super) fn work(&mut self, registry: &Registry, now: Instant) -> bool {
        if self.sources.poll_timeout().is_some_and(|due| due <= now) {
            self.sources.handle_timeout(now);
        }
        self.files.take(&mut self.sources, now);
        let mut moved = false;
        while let Some(request) = self.sources.poll_request() {
            moved = true;
            match request {
                Request::Ask { attempt, to, over, message } => {
                    if let Err(error) = self.sockets.ask(registry, attempt, to, over, &message) {
                        self.sources.failed(now, attempt, &sockets::text(&error));
                    }
                }
                Request::Forget { attempt } => self.sockets.forget(registry, attempt),
                Request::Read { path } => {
                    if let Err(why) = self.files.look(path.clone()) {
                        self.sources.take_list(now, &path, Err(why));
                    }
                }
            }
        }
        while let Some(event) = self.sources.poll_event() {
            moved = true;
            if event.is_grave { log::warn!("{}", event.text) } else { log::info!("{}", event.text) }
        }
        let changed = self.sources.take_change();
        if moved || changed {
            self.states = Arc::new(self.sources.states());
        }
        changed
    }

    /// Takes lists that the gateway before this one has found as those in use.
    pub(super) fn remember(&mut self, found: &Found) {
        self.sources.remember(found);
        self.states = Arc::new(self.sources.states());
    }

    /// Returns what was found.
    pub(super) fn found(&self) -> Found {
        self.sources.found()
    }

    /// Notes what became of it: the servers that cannot be used, each with its reason, by pool; or why none can.
    pub(super) fn used(&mut self, now: Instant, outcome: Result<&BTreeMap<String, Vec<String>>, &str>) {
        match outcome {
            Ok(left_out) => self.sources.accepted(left_out),
            Err(why) => self.sources.refused(now, why),
        }
        self.states = Arc::new(self.sources.states());
    }

    /// Follows the settings in force.
    pub(super) fn follow(&mut self, settings: &Arc<Settings>, now: Instant) {
        if self.settings.as_ref().is_some_and(|known| Arc::ptr_eq(known, settings)) {
            return;
        }
        self.settings = Some(Arc::clone(settings));
        self.sources.follow(&settings.sources, &resolved(&settings.dns, &self.system), now);
        self.files.follow(&settings.sources);
        self.states = Arc::new(self.sources.states());
    }

    /// Returns the sources as they stand, for control sessions.
    pub(super) fn states(&self) -> Arc<Vec<SourceState>> {
        Arc::clone(&self.states)
    }
}

/// The settings with the resolvers of the system where they have none.
fn resolved(dns: &DnsSettings, system: &[std::net::SocketAddr]) -> DnsSettings {
    let servers = if dns.servers.is_empty() { system.to_vec() } else { dns.servers.clone() };
    DnsSettings { servers, ..dns.clone() }
}
