//! The event loop's side: answers the thread's questions in steps, and rests between them.

use crate::config::HttpSettings;
use crate::control::{About, Floor, Gathered, Gathering, HttpState, Progress, Session, Token, Topic, Who, Work};
use crate::time::{Duration, Instant};
use mio::Waker;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

/// After a step, nothing is done for so many times as long as the step took: a tenth of the loop's time at most.
const REST: u32 = 9;
/// The longest rest: a step that the system interrupted is no measure.
const LONGEST: Duration = Duration::from_millis(5);

/// What the thread asks.
#[derive(Debug)]
pub(super) enum Ask {
    /// To gather a topic; there is one at a time.
    Gather(Topic),
    /// A line of the control protocol under a number, to be answered part by part; there is one at a time.
    Line(u64, Vec<u8>),
    /// The next part of the answer.
    More,
    /// That there will be no more questions about the line.
    Enough,
    /// Takes note of what became of listening.
    State(HttpState),
}

/// Sends questions to the event loop.
#[derive(Debug)]
pub(super) struct Asker {
    asks: Sender<Ask>,
    /// Wakes the event loop.
    waker: Arc<Waker>,
}

impl Asker {
    pub(super) fn new(asks: Sender<Ask>, waker: Arc<Waker>) -> Asker {
        Asker { asks, waker }
    }

    pub(super) fn ask(&self, ask: Ask) {
        // Without a loop, nobody would answer; the thread ends with its next turn.
        let _ = self.asks.send(ask);
        let _ = self.waker.wake();
    }
}

/// Messages to the thread.
#[derive(Debug)]
pub(super) enum Said {
    /// To serve so from now on.
    Serve(HttpSettings),
    /// That nothing follows.
    End,
    /// What was gathered.
    Gathered(Gathered),
    /// A part of the answer to the line of this number, and whether it is the last.
    Part(u64, Vec<u8>, bool),
}

/// A line that is being answered.
#[derive(Debug)]
struct Talk {
    number: u64,
    session: Session,
    /// Whether the thread has room for a part.
    is_wanted: bool,
}

/// The loop's side.
pub(super) struct Link {
    inbox: Receiver<Ask>,
    outbox: Sender<Said>,
    /// Wakes the thread.
    waker: Arc<Waker>,
    state: Arc<HttpState>,
    gathering: Option<Gathering>,
    talk: Option<Talk>,
    /// Whose turn it is, if both have work.
    is_talks_turn: bool,
    /// When the next step may be done.
    rests_until: Instant,
}

impl Link {
    pub(super) fn new(inbox: Receiver<Ask>, outbox: Sender<Said>, waker: Arc<Waker>, token: Token) -> Link {
        Link {
            inbox,
            outbox,
            waker,
            state: Arc::new(HttpState { token, ..HttpState::default() }),
            gathering: None,
            talk: None,
            is_talks_turn: false,
            rests_until: Instant::ZERO,
        }
    }

    pub(super) fn state(&self) -> &Arc<HttpState> {
        &self.state
    }

    /// Makes the thread serve what the settings say.
    pub(super) fn serve(&mut self, settings: HttpSettings) {
        self.say(Said::Serve(settings));
    }

    /// Stops the thread.
    pub(super) fn end(&mut self) {
        self.say(Said::End);
    }

    fn say(&mut self, said: Said) {
        // The thread may have ended: then nobody asks either.
        if self.outbox.send(said).is_ok() {
            let _ = self.waker.wake();
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.has_work().then_some(self.rests_until)
    }

    fn has_work(&self) -> bool {
        self.gathering.is_some() || self.talk.as_ref().is_some_and(|talk| talk.is_wanted)
    }

    pub(super) fn work(&mut self, floor: &mut Floor<'_>, about: &Arc<About>, work: &Work) {
        while let Ok(ask) = self.inbox.try_recv() {
            self.take(ask, about);
        }
        if !self.has_work() || floor.now < self.rests_until {
            return;
        }
        let begun = std::time::Instant::now();
        let is_talk = self.talk.as_ref().is_some_and(|talk| talk.is_wanted);
        if is_talk && (self.is_talks_turn || self.gathering.is_none()) {
            self.talk(floor);
        } else {
            self.gather(floor, about, work);
        }
        self.is_talks_turn = !self.is_talks_turn;
        self.rests_until = floor.now + (begun.elapsed() * REST).min(LONGEST);
    }

    fn take(&mut self, ask: Ask, about: &Arc<About>) {
        match ask {
            Ask::Gather(topic) => self.gathering = Some(Gathering::new(topic)),
            Ask::Line(number, line) => {
                // Whoever has the token may use the control socket, and is the user of this process therefore.
                let who = Who { uid: rustix::process::geteuid().as_raw(), pid: about.pid };
                let mut session = Session::new(Arc::clone(about), who);
                session.feed(&line);
                session.finish();
                self.talk = Some(Talk { number, session, is_wanted: true });
            }
            Ask::More => self.talk.iter_mut().for_each(|talk| talk.is_wanted = true),
            Ask::Enough => self.talk = None,
            Ask::State(state) => self.state = Arc::new(HttpState { token: self.state.token.clone(), ..state }),
        }
    }

    fn gather(&mut self, floor: &mut Floor<'_>, about: &About, work: &Work) {
        let Some(gathering) = &mut self.gathering else { return };
        if let Some(gathered) = gathering.step(floor, about, work) {
            self.gathering = None;
            self.say(Said::Gathered(gathered));
        }
    }

    fn talk(&mut self, floor: &mut Floor<'_>) {
        let Some(talk) = &mut self.talk else { return };
        let mut part = Vec::new();
        let progress = talk.session.poll_output(floor, &mut part);
        let is_last = matches!(progress, Progress::Close | Progress::Idle);
        if part.is_empty() && !is_last {
            return;
        }
        let number = talk.number;
        talk.is_wanted = false;
        if is_last {
            self.talk = None;
        }
        self.say(Said::Part(number, part, is_last));
    }
}
