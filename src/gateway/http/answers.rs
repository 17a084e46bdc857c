//! What the event loop has said: kept for a second, shared by all who ask the same, and bounded in memory.

use super::link::{Ask, Asker};
use crate::control::{Done, Failure, Gathered, Topic};
use crate::web::metrics::{Families, HttpTotals, Process};
use crate::web::response::{LINES, TEXT};
use crate::web::route::Table;
use crate::web::tables::{self, Answered};
use crate::web::{Body, Response, View};
use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// How long an answer is used.
const FRESH: Duration = Duration::from_secs(1);
/// How long its memory is kept, while nobody asks.
const KEPT: Duration = Duration::from_secs(5);
/// Longest answer to a line of the control protocol, in bytes.
const MOST_ANSWER: usize = 16 * 1024 * 1024;
/// Most bytes of bodies that are kept or being sent.
const MOST_BYTES: usize = 128 * 1024 * 1024;

/// A line of the control protocol.
#[derive(Debug)]
struct Line {
    number: u64,
    text: Vec<u8>,
    is_change: bool,
    /// What has been answered so far; none if it is too long.
    answer: Option<Vec<u8>>,
}

/// What is known, and what is asked.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// What was gathered last, when, and what was made of it.
    gathered: Vec<(Topic, Gathered, Instant)>,
    made: Vec<(View, Response)>,
    /// Topics to be gathered; the first is being gathered.
    topics: VecDeque<Topic>,
    /// Lines to be answered; the first is being answered.
    lines: VecDeque<Line>,
    last: u64,
    /// Answers to lines that change nothing.
    answered: VecDeque<(Vec<u8>, Response, Instant)>,
    /// Bodies that may still be in use.
    bodies: Vec<Weak<Vec<u8>>>,
}

/// Returns what a view is made of.
fn topic(view: View) -> Topic {
    match view {
        View::Health | View::Ready => Topic::Status,
        View::Table(Table::Monitors) => Topic::Monitors,
        View::Table(Table::History) => Topic::History,
        View::Metrics(_) | View::Table(_) => Topic::All,
    }
}

impl Answers {
    /// Returns a view of what was gathered within the last second, or asks for it.
    pub(super) fn view(
        &mut self,
        view: View,
        now: Instant,
        facts: (&HttpTotals, impl Fn(Duration) -> Option<Process>),
        asker: &Asker,
    ) -> Option<Response> {
        let topic = topic(view);
        let fresh = self.gathered.iter().find(|(known, _, at)| *known == topic && now.duration_since(*at) < FRESH);
        let Some((_, gathered, _)) = fresh else {
            if !self.topics.contains(&topic) {
                self.topics.push_back(topic);
                if self.topics.len() == 1 {
                    asker.ask(Ask::Gather(topic));
                }
            }
            return None;
        };
        if let Some((_, made)) = self.made.iter().find(|(known, _)| *known == view) {
            return Some(made.clone());
        }
        let gathered = gathered.clone();
        if !self.has_room() {
            return Some(busy());
        }
        let response = make(view, &gathered, facts.0, facts.1);
        self.keep(&response);
        self.made.push((view, response.clone()));
        Some(response)
    }

    /// Takes what was gathered, and asks for what is wanted next.
    pub(super) fn take(&mut self, gathered: Gathered, now: Instant, asker: &Asker) {
        let of = match &gathered {
            Gathered::Status(_) => Topic::Status,
            Gathered::All(_) => Topic::All,
            Gathered::Monitors(_) => Topic::Monitors,
            Gathered::History(_) => Topic::History,
        };
        self.gathered.retain(|(known, ..)| *known != of);
        self.made.retain(|(view, _)| topic(*view) != of);
        self.gathered.push((of, gathered, now));
        self.topics.pop_front();
        self.topics.iter().take(1).for_each(|topic| asker.ask(Ask::Gather(*topic)));
    }

    /// Returns the answer to a line, or asks for it and returns the number under which it will come.
    pub(super) fn line(
        &mut self,
        text: Vec<u8>,
        is_change: bool,
        now: Instant,
        asker: &Asker,
    ) -> Result<Response, u64> {
        self.answered.retain(|(.., at)| now.duration_since(*at) < FRESH);
        if !is_change {
            if let Some((_, response, _)) = self.answered.iter().find(|(known, ..)| *known == text) {
                return Ok(response.clone());
            }
            if let Some(line) = self.lines.iter().find(|line| !line.is_change && line.text == text) {
                return Err(line.number);
            }
        }
        self.last += 1;
        self.lines.push_back(Line { number: self.last, text, is_change, answer: Some(Vec::new()) });
        if self.lines.len() == 1 {
            self.ask_line(asker);
        }
        Err(self.last)
    }

    fn ask_line(&self, asker: &Asker) {
        if let Some(line) = self.lines.front() {
            asker.ask(Ask::Line(line.number, line.text.clone()));
        }
    }

    /// Takes a part of an answer; returns the number of the line and the response once it is complete.
    pub(super) fn take_part(
        &mut self,
        (number, part, is_last): (u64, &[u8], bool),
        now: Instant,
        asker: &Asker,
    ) -> Option<(u64, Response)> {
        // That of a line that was given up may still come.
        let line = self.lines.front_mut().filter(|line| line.number == number)?;
        line.answer = line.answer.take().filter(|answer| answer.len() + part.len() <= MOST_ANSWER);
        line.answer.iter_mut().for_each(|answer| answer.extend_from_slice(part));
        if !is_last && (line.answer.is_some() || line.is_change) {
            asker.ask(Ask::More);
            return None;
        }
        let line = self.lines.pop_front()?;
        if !is_last {
            asker.ask(Ask::Enough);
        }
        self.ask_line(asker);
        let response = match line.answer {
            Some(_) if !self.has_room() => busy(),
            Some(answer) => response(tables::answered(&answer), line.is_change),
            None => Response::error(503, "the answer is too long for this way: use eqctl", true),
        };
        self.keep(&response);
        if !line.is_change {
            self.answered.push_back((line.text, response.clone(), now));
        }
        Some((line.number, response))
    }

    /// Gives up lines that nobody waits for, unless they change something.
    pub(super) fn give_up(&mut self, is_wanted: impl Fn(u64) -> bool, asker: &Asker) {
        let begun = self.lines.front().map(|line| line.number);
        self.lines.retain(|line| line.is_change || is_wanted(line.number));
        if begun.is_some() && self.lines.front().map(|line| line.number) != begun {
            asker.ask(Ask::Enough);
            self.ask_line(asker);
        }
    }

    /// Forgets what is old; returns whether anything is left to forget.
    pub(super) fn tidy(&mut self, now: Instant) -> bool {
        self.answered.retain(|(.., at)| now.duration_since(*at) < FRESH);
        self.gathered.retain(|(.., at)| now.duration_since(*at) < KEPT);
        let known: Vec<Topic> = self.gathered.iter().map(|(topic, ..)| *topic).collect();
        self.made.retain(|(view, _)| known.contains(&topic(*view)));
        !self.answered.is_empty() || !self.gathered.is_empty()
    }

    fn has_room(&mut self) -> bool {
        let mut bytes = 0;
        self.bodies.retain(|body| body.upgrade().inspect(|body| bytes += body.len()).is_some());
        bytes < MOST_BYTES
    }

    fn keep(&mut self, response: &Response) {
        if let Body::Shared(body) = &response.body {
            self.bodies.push(Arc::downgrade(body));
        }
    }
}

fn busy() -> Response {
    Response::text(503, "too many answers are being read: try again")
}

fn make(view: View, gathered: &Gathered, http: &HttpTotals, process: impl Fn(Duration) -> Option<Process>) -> Response {
    match (view, gathered) {
        (View::Health, _) => Response::text(200, "ok"),
        (View::Ready, Gathered::Status(status)) if status.troubles.is_empty() => Response::text(200, "ready"),
        (View::Ready, Gathered::Status(status)) => {
            let troubles = status.troubles.iter().map(|trouble| format!("{} {}\n", trouble.part, trouble.what));
            Response::text(503, troubles.collect::<String>())
        }
        (View::Metrics(format), Gathered::All(snapshot)) => {
            let uptime = Duration::from_millis(snapshot.status.uptime_ms);
            let families = Families { snapshot: Arc::clone(snapshot), http: http.clone(), process: process(uptime) };
            let text = families.text(format).into_bytes();
            Response::new(200, format.content_type(), Body::Shared(Arc::new(text)))
        }
        (View::Table(table), gathered) => match tables::table(table, gathered) {
            Some(rows) => Response::new(200, LINES, Body::Shared(Arc::new(rows))),
            None => Response::error(500, "another table was gathered", true),
        },
        (View::Ready | View::Metrics(_), _) => Response::new(500, TEXT, Body::Fixed(b"another table was gathered\n")),
    }
}

fn response(answered: Answered, is_change: bool) -> Response {
    match answered {
        Answered::Rows(rows, Done { .. }) => Response::new(200, LINES, Body::Shared(Arc::new(rows))),
        Answered::Refused(Failure { message }) => Response::error(if is_change { 409 } else { 400 }, &message, true),
        Answered::Garbled => Response::error(500, "the answer of the gateway cannot be read", true),
    }
}
