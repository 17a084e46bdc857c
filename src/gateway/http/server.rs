//! The thread: listener, connections and their limits.

use super::answers::Answers;
use super::connection::{Connection, End, Wait, YIELDS};
use super::link::{Ask, Asker, Said};
use super::process::Facts;
use crate::bucket::Bucket;
use crate::config::HttpSettings;
use crate::control::{HttpState, Token as Secret};
use crate::time::Instant as Point;
use crate::web::metrics::HttpTotals;
use crate::web::response::LINES;
use crate::web::route::Unroutable;
use crate::web::tables;
use crate::web::{Body, Guard, Request, Response, Route};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

/// The most connections at a time.
pub(super) const MOST: usize = 32;
/// The first tokens are the connections.
const LISTENER: Token = Token(MOST);
const WAKER: Token = Token(MOST + 1);
/// Most requests per second, and most in one burst; others wait.
const RATE: u32 = 200;
/// Pause between attempts to listen, at first: another gateway may be about to let go of the address.
const SOON: Duration = Duration::from_millis(50);
/// How long that goes on, without a word.
const PATIENCE: Duration = Duration::from_secs(3);
/// Pause between later attempts.
const LATER: Duration = Duration::from_secs(5);
/// Pause until connections are accepted again, after the system had no room for one; and until requests are read again.
const RETRY: Duration = Duration::from_millis(20);
/// Pause between looks for memory that can be given back.
const TIDY: Duration = Duration::from_secs(1);

/// Where it listens, or tries to.
struct Place {
    address: SocketAddr,
    listener: Option<TcpListener>,
    /// When the first attempt was made, and when the next one is.
    since: Instant,
    next: Instant,
    /// Whether the failure has been reported.
    complained: bool,
}

/// The thread's side.
pub(super) struct Server {
    poll: Poll,
    waker: Arc<Waker>,
    asker: Asker,
    said: Receiver<Said>,
    guard: Guard,
    place: Option<Place>,
    /// Whether connections may be pending.
    accepts: bool,
    connections: [Option<Connection>; MOST],
    answers: Answers,
    totals: HttpTotals,
    facts: Facts,
    requests: Bucket,
    begun: Instant,
    /// Whether requests wait for their rate, and whether some only wait for their turn.
    is_held: bool,
    is_busy: bool,
    /// Whose turn comes first.
    first: usize,
}

impl Server {
    pub(super) fn new(asker: Asker, said: Receiver<Said>) -> io::Result<Server> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let mut random = [0; 16];
        let drawn = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
        if drawn != random.len() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(Server {
            poll,
            waker,
            asker,
            said,
            guard: Guard::new(Vec::new(), Secret::new(random)),
            place: None,
            accepts: false,
            connections: Default::default(),
            answers: Answers::default(),
            totals: HttpTotals::default(),
            facts: Facts::open(),
            requests: Bucket::default(),
            begun: Instant::now(),
            is_held: false,
            is_busy: false,
            first: 0,
        })
    }

    pub(super) fn token(&self) -> &Secret {
        self.guard.token()
    }

    pub(super) fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    /// Serves until the event loop is gone.
    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(MOST + 2);
        loop {
            let timeout = self.due().map(|due| due.saturating_duration_since(Instant::now()));
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    log::error!("http: cannot wait for events: {error}; nothing is served any more");
                    return;
                }
                Ok(()) => {}
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accepts = true,
                    WAKER => {}
                    Token(place) => {
                        if let Some(Some(connection)) = self.connections.get_mut(place) {
                            connection.ready(event.is_readable(), event.is_writable());
                        }
                    }
                }
            }
            let now = Instant::now();
            if !self.listen_to_loop(now) {
                return;
            }
            self.listen(now);
            self.accept(now);
            (self.is_held, self.is_busy) = (false, false);
            // One request each, so that nobody who sends many has all of the rate.
            self.first = (self.first + 1) % MOST;
            for place in (self.first..MOST).chain(0..self.first) {
                self.serve(place, now);
            }
            self.expire(now);
            let connections = &self.connections;
            let waits = |number| connections.iter().flatten().any(|one| one.waits_for() == Some(&Wait::Line(number)));
            self.answers.give_up(waits, &self.asker);
        }
    }

    /// Returns when there is something to do without an event.
    fn due(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let place = self.place.as_ref().filter(|place| place.listener.is_none()).map(|place| place.next);
        let again = (self.is_held || self.accepts).then(|| now + RETRY);
        let at_once = self.is_busy.then_some(now);
        let tidy = self.answers.tidy(now).then(|| now + TIDY);
        let connections = self.connections.iter().flatten().map(Connection::deadline);
        connections.chain(place).chain(again).chain(at_once).chain(tidy).min()
    }

    /// Takes what the event loop has said; returns whether it is there.
    fn listen_to_loop(&mut self, now: Instant) -> bool {
        loop {
            let said = match self.said.try_recv() {
                Ok(said) => said,
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            };
            match said {
                Said::Serve(settings) => self.follow(settings, now),
                Said::End => return false,
                Said::Gathered(gathered) => {
                    self.answers.take(gathered, now, &self.asker);
                    self.answer_views(now);
                }
                Said::Part(number, part, is_last) => {
                    let answer = self.answers.take_part((number, &part, is_last), now, &self.asker);
                    if let Some((number, response)) = answer {
                        self.answer_line(number, &response, now);
                    }
                }
            }
        }
    }

    fn follow(&mut self, settings: HttpSettings, now: Instant) {
        self.guard.rename(settings.names);
        if self.place.as_ref().map(|place| place.address) == settings.listen {
            return;
        }
        self.connections = Default::default();
        let place = |address| Place { address, listener: None, since: now, next: now, complained: false };
        self.place = settings.listen.map(place);
        if self.place.is_none() {
            self.report(None);
        }
    }

    /// Tells the event loop what became of listening.
    fn report(&self, error: Option<String>) {
        let listen = self.place.as_ref().map(|place| place.address);
        self.asker.ask(Ask::State(HttpState { listen, error, ..HttpState::default() }));
    }

    /// Listens at the configured address, if it does not yet.
    fn listen(&mut self, now: Instant) {
        let Some(place) = self.place.as_mut().filter(|place| place.listener.is_none() && place.next <= now) else {
            return;
        };
        let bound = TcpListener::bind(place.address).and_then(|mut listener| {
            self.poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
            Ok(listener)
        });
        match bound {
            Ok(listener) => {
                log::info!("http: metrics, page and API at http://{}/", place.address);
                (place.listener, self.accepts) = (Some(listener), true);
                self.report(None);
            }
            Err(error) => {
                self.totals.bind_failures += 1;
                let is_early = now.duration_since(place.since) < PATIENCE && error.kind() == ErrorKind::AddrInUse;
                place.next = now + if is_early { SOON } else { LATER };
                if !is_early && !std::mem::replace(&mut place.complained, true) {
                    let hint =
                        if error.kind() == ErrorKind::PermissionDenied { " (use a port from 1024 on)" } else { "" };
                    let text = format!("cannot listen: {error}{hint}");
                    log::warn!(
                        "http: at {}: {text}; metrics and page are not served, but packets are forwarded; trying again every {} s",
                        place.address,
                        LATER.as_secs()
                    );
                    self.report(Some(text));
                }
            }
        }
    }

    fn accept(&mut self, now: Instant) {
        while self.accepts {
            let Some(listener) = self.place.as_ref().and_then(|place| place.listener.as_ref()) else {
                self.accepts = false;
                return;
            };
            match listener.accept() {
                Ok((stream, _)) => self.admit(stream, now),
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.accepts = false,
                // Out of file descriptors or memory: the connection stays pending.
                Err(_) => return,
            }
        }
    }

    fn admit(&mut self, mut stream: TcpStream, now: Instant) {
        let Some(place) = self.room(now) else {
            self.totals.refused += 1;
            let response = Response::text(503, format!("{MOST} connections are open already"));
            let _ = stream.write(&[&response.head(false)[..], response.body.bytes()].concat());
            return;
        };
        let _ = stream.set_nodelay(true);
        let interest = Interest::READABLE | Interest::WRITABLE;
        if self.poll.registry().register(&mut stream, Token(place), interest).is_ok() {
            self.totals.slow += u64::from(self.connections[place].is_some());
            self.connections[place] = Some(Connection::new(stream, now));
        }
    }

    /// Returns a free place, or that of the connection that has been at the same thing for longest.
    fn room(&self, now: Instant) -> Option<usize> {
        if let Some(free) = self.connections.iter().position(Option::is_none) {
            return Some(free);
        }
        let since = |place: &usize| self.connections[*place].as_ref().and_then(Connection::idle_since);
        let oldest = (0..MOST).filter(|place| since(place).is_some()).min_by_key(since)?;
        since(&oldest).is_some_and(|since| now.duration_since(since) >= YIELDS).then_some(oldest)
    }

    /// Moves a connection on, by one request at most.
    fn serve(&mut self, place: usize, now: Instant) {
        let mut had_request = false;
        loop {
            let Some(connection) = &mut self.connections[place] else { return };
            if connection.sends().is_some() {
                match connection.write(now) {
                    Ok(true) => continue,
                    Ok(false) => return,
                    Err(End) => return self.connections[place] = None,
                }
            }
            if had_request {
                self.is_busy |= connection.waits_for().is_none();
                return;
            }
            let point = Point::from_nanos(u64::try_from(now.duration_since(self.begun).as_nanos()).unwrap_or(u64::MAX));
            let Some(requests) = self.requests.take(point, RATE, 0) else {
                self.is_held = true;
                return;
            };
            match connection.read(now) {
                Err(End) => return self.connections[place] = None,
                Ok(Some(request)) => {
                    (self.requests, had_request) = (requests, true);
                    self.handle(place, &request, now);
                }
                Ok(None) => {
                    // What is no request has its response already.
                    let Some(status) = connection.sends() else { return };
                    self.requests = requests;
                    *self.totals.responses.entry(status).or_default() += 1;
                }
            }
        }
    }

    /// Ends connections that do not read their responses, as long as these leave no room for others.
    fn make_room(&mut self, now: Instant) {
        while !self.answers.has_room() {
            let since = |place: &usize| self.connections[*place].as_ref().and_then(Connection::sends_since);
            let slow = |place: &usize| since(place).is_some_and(|since| now.duration_since(since) >= YIELDS);
            let Some(slowest) = (0..MOST).filter(slow).min_by_key(since) else { return };
            self.totals.slow += 1;
            self.connections[slowest] = None;
        }
    }

    /// Answers a request, or lets its connection wait for the event loop.
    fn handle(&mut self, place: usize, request: &Request, now: Instant) {
        self.make_room(now);
        let is_api = request.path.starts_with("/api/");
        let found = self.guard.admit(request).and_then(|()| {
            let route = Route::of(request).map_err(unroutable)?;
            if let Route::Ask { is_change: true, .. } = route {
                self.guard.admit_change(request)?;
            }
            Ok(route)
        });
        let response = match found {
            Err((status, why)) => {
                let allow = (status == 405)
                    .then(|| if request.path.starts_with("/api/servers/") { "POST" } else { "GET, HEAD" });
                Response { allow, ..Response::error(status, &why, is_api) }
            }
            Ok(Route::Asset(asset)) => Response::new(200, asset.content_type, Body::Fixed(asset.bytes)),
            Ok(Route::Words) => Response::new(200, LINES, Body::Shared(Arc::new(tables::words()))),
            Ok(Route::View(view)) => {
                self.totals.connections = self.connections.iter().flatten().count() as u64;
                let facts = (&self.totals, |uptime| self.facts.read(uptime));
                match self.answers.view(view, now, facts, &self.asker) {
                    Some(response) => response,
                    None => return self.wait(place, Wait::View(view), now),
                }
            }
            Ok(Route::Ask { request, is_change }) => {
                let line = serde_json::to_vec(&*request).unwrap_or_default();
                match self.answers.line([line, b"\n".to_vec()].concat(), is_change, now, &self.asker) {
                    Ok(response) => response,
                    Err(number) => return self.wait(place, Wait::Line(number), now),
                }
            }
        };
        self.respond(place, response, now);
    }

    fn wait(&mut self, place: usize, wait: Wait, now: Instant) {
        self.connections[place].iter_mut().for_each(|connection| connection.wait(wait.clone(), now));
    }

    fn respond(&mut self, place: usize, response: Response, now: Instant) {
        if let Some(connection) = &mut self.connections[place] {
            *self.totals.responses.entry(response.status).or_default() += 1;
            connection.respond(response, now);
        }
    }

    /// Answers whoever waits for what was gathered.
    fn answer_views(&mut self, now: Instant) {
        self.make_room(now);
        self.totals.connections = self.connections.iter().flatten().count() as u64;
        for place in 0..MOST {
            let Some(Wait::View(view)) = self.connections[place].as_ref().and_then(|one| one.waits_for()) else {
                continue;
            };
            let facts = (&self.totals, |uptime| self.facts.read(uptime));
            let view = self.answers.view(*view, now, facts, &self.asker);
            if let Some(response) = view {
                self.respond(place, response, now);
            }
        }
    }

    fn answer_line(&mut self, number: u64, response: &Response, now: Instant) {
        for place in 0..MOST {
            let waits = self.connections[place].as_ref().and_then(|one| one.waits_for());
            if waits == Some(&Wait::Line(number)) {
                self.respond(place, response.clone(), now);
            }
        }
    }

    /// Ends what takes too long.
    fn expire(&mut self, now: Instant) {
        for place in 0..MOST {
            let Some(connection) = self.connections[place].as_ref().filter(|one| one.deadline() <= now) else {
                continue;
            };
            if connection.waits_for().is_some() {
                let response = Response::text(503, "the loop that moves packets does not answer in time");
                self.respond(place, response, now);
            } else {
                self.totals.slow += 1;
                self.connections[place] = None;
            }
        }
    }
}

fn unroutable(why: Unroutable) -> (u16, String) {
    match why {
        Unroutable::Unknown => (404, "nothing is here: try /, /metrics, /healthz, /readyz or /api/status".into()),
        Unroutable::Method(allowed) => (405, format!("only {allowed} is answered here")),
        Unroutable::Wrong(why) => (400, why),
    }
}
