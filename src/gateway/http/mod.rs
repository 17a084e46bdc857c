//! Metrics, the page and the API over HTTP: a thread of its own with a listener, few connections and bounded memory.
//!
//! ```text
//!  client ==TCP== server (thread "http") --asks--> link (event loop): gathers rows, or lets a session answer
//!                   ^---- web: request, guard, route, tables, metrics       in small steps, at most a tenth of its time
//! ```
//!
//! No packet waits for it: the loop does a step for it now and then, as short as those for the control socket, and rests
//! nine times as long. If the thread ends, the gateway goes on without it.

mod answers;
mod connection;
mod link;
mod process;
mod server;
#[cfg(test)]
mod tests;

use super::confine;
use crate::config::{HttpSettings, Settings};
use crate::control::{About, Floor, HttpState, Work};
use crate::time::Instant;
use link::{Asker, Link};
use mio::Waker;
use server::Server;
use std::io;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

/// The thread, as the event loop sees it.
pub(super) struct Http {
    link: Link,
    /// The settings that it follows; none before the gateway begins, and after it has handed over.
    settings: Option<Arc<Settings>>,
    is_begun: bool,
    thread: Option<JoinHandle<()>>,
}

impl Http {
    /// Starts the thread, which listens nowhere yet, and returns when it has given up its privileges; to be called before
    /// the process gives up its own. `waker` wakes the event loop.
    pub(super) fn start(waker: Arc<Waker>) -> io::Result<Http> {
        let (asks, inbox) = mpsc::channel();
        let (outbox, said) = mpsc::channel();
        let server = Server::new(Asker::new(asks, waker), said)?;
        let (token, server_waker) = (server.token().clone(), server.waker());
        let (confined, is_confined) = mpsc::sync_channel::<()>(1);
        let run = move || {
            // Packets first.
            let _ = rustix::process::setpriority_process(None, 10);
            confine::serving_thread();
            drop(confined);
            server.run();
        };
        let thread = Some(std::thread::Builder::new().name("http".into()).spawn(run)?);
        // Once the system calls of all threads are restricted, it can give up nothing any more.
        let _ = is_confined.recv();
        Ok(Http { link: Link::new(inbox, outbox, server_waker, token), settings: None, is_begun: false, thread })
    }

    /// Begins to serve what the settings say.
    pub(super) fn begin(&mut self, settings: &Arc<Settings>) {
        self.is_begun = true;
        self.follow(settings);
    }

    /// Serves what other settings say.
    pub(super) fn follow(&mut self, settings: &Arc<Settings>) {
        if !self.is_begun || self.settings.as_ref().is_some_and(|known| Arc::ptr_eq(known, settings)) {
            return;
        }
        let before = self.settings.replace(Arc::clone(settings));
        if before.is_none_or(|before| before.http != settings.http) {
            self.link.serve(settings.http.clone());
        }
    }

    /// Lets go of the address, so that another gateway can have it.
    pub(super) fn let_go(&mut self) {
        self.is_begun = false;
        self.settings = None;
        self.link.serve(HttpSettings::default());
    }

    /// Returns where it listens, and what changes need.
    pub(super) fn state(&self) -> &Arc<HttpState> {
        self.link.state()
    }

    /// Returns when [`Http::work`] has something to do without an event.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.link.poll_timeout()
    }

    /// Does one step of what the thread asks for, if it is time for one.
    pub(super) fn work(&mut self, floor: &mut Floor<'_>, about: &Arc<About>, work: &Work) {
        self.link.work(floor, about, work);
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        self.link.end();
        // It waits for nobody else.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
