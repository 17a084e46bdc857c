//! What each request asks for: rows at once, a task that is done piece by piece, or a change.

use super::client::ClientWalk;
use super::flows::{Kill, MOST_SORTED, Sorted, Walk, checked, is_service, killed, server_of};
use super::sticky::Sticky;
use super::{Floor, Session, Task, Waiting, desk};
use crate::config::listing;
use crate::control::access::HttpState;
use crate::control::desk::ReloadOrder;
use crate::control::explain::explain;
use crate::control::filter_words::FilterWords;
use crate::control::ledger::{Ask, Deadline, Ledger};
use crate::control::packet_words::PacketWords;
use crate::control::pair::Pairing;
use crate::control::protocol::{Answer, Explained, ObjectRow, Request, Status, TokenRow, Totals};
use crate::control::system::source_row;
use crate::engine::{Change, Engine, FlowQuery, Refused, SortBy, StickyQuery};
use crate::ids::FlowId;
use crate::time::{Duration, Instant};

/// The answer of a gateway that has no other one.
const NO_PAIR: &str = "this gateway has no peer: its configuration has no [sync]";

/// Completes the names in a query for sticky clients.
fn named(query: StickyQuery, engine: &Engine) -> Result<StickyQuery, String> {
    if let Some(name) = &query.service {
        is_service(engine, name)?;
    }
    let server = query.server.as_ref().map(|name| server_of(engine, name)).transpose()?;
    Ok(StickyQuery { server, ..query })
}

/// Returns the task of listing flows.
fn flows(
    query: FlowQuery,
    filter: Option<&FilterWords>,
    (sort, limit): (Option<SortBy>, Option<u64>),
    engine: &Engine,
) -> Result<Task, String> {
    let query = checked(query, filter, engine)?;
    Ok(match sort {
        Some(by) => Task::Sorted(Sorted::new(query, by, limit.unwrap_or(MOST_SORTED))),
        None => Task::Flows(Walk::new(query, limit)),
    })
}

/// Returns the task of clearing sticky slots, the peer's included.
fn clear_sticky(
    (query, all): (StickyQuery, bool),
    engine: &mut Engine,
    pair: Option<&Pairing<'_>>,
    now: Instant,
) -> Result<Task, String> {
    if query == StickyQuery::default() && !all {
        return Err("name a service, a server or a client, or ask for all".into());
    }
    let query = named(query, engine)?;
    let order = pair.and_then(|pair| pair.node.begin_clearing(now, engine));
    Ok(Task::Sticky(Sticky::clear(engine.begin_clearing(), query, order)))
}

/// Returns the token of the page, and where the page is.
fn token(http: &HttpState) -> Result<Answer, String> {
    let listen = http.listen.ok_or("nothing is served over HTTP: set `listen` of [http]")?;
    Ok(Answer::Token(TokenRow { token: http.token.text().to_owned(), page: format!("http://{listen}/") }))
}

impl Session {
    /// Carries out a request, or begins to.
    pub(super) fn request(&mut self, request: Request, floor: &mut Floor<'_>) {
        let Floor { engine, ledger, now, outside, pair } = floor;
        let (engine, now) = (&mut **engine, *now);
        match request {
            Request::Status => self.status(floor),
            Request::Flows { query, filter, sort, limit } => {
                self.begin(flows(query, filter.as_ref(), (sort, limit), engine));
            }
            Request::KillFlows { filter, dry_run } => {
                let query = checked(FlowQuery::default(), Some(&filter), engine);
                self.begin(query.map(|query| Task::Kill(Kill::new(query, &filter, dry_run))));
            }
            Request::Sticky { query, limit } => {
                let query = named(query, engine);
                self.begin(query.map(|query| Task::Sticky(Sticky::list(engine.begin_sticky(), query, limit))));
            }
            Request::ClearSticky { query, all } => {
                self.begin(clear_sticky((query, all), engine, pair.as_ref(), now));
            }
            Request::Events { after } => self.rows(ledger.event_rows(now, after).into_iter().map(Answer::Event)),
            Request::Servers => self.rows(engine.servers(now).into_iter().map(|row| Answer::Server(Box::new(row)))),
            Request::Services => self.rows(engine.services().into_iter().map(Answer::Service)),
            Request::Rules => self.rows(engine.rules().into_iter().map(Answer::Rule)),
            Request::Nat => self.rows(engine.nat_pools().into_iter().map(Answer::Nat)),
            Request::Pools => self.rows(ledger.pool_rows(engine, now).into_iter().map(Answer::Pool)),
            Request::Monitors => self.rows(engine.monitors(now).into_iter().map(|row| Answer::Monitor(Box::new(row)))),
            Request::History => {
                let operations = ledger.operation_rows(now).into_iter().map(Answer::Operation);
                self.rows(engine.health_history(now).into_iter().map(Answer::History).chain(operations));
            }
            Request::Sources => {
                self.rows(outside.sources.iter().map(|state| Answer::Source(Box::new(source_row(state, now)))));
            }
            Request::Counters => {
                let totals = Totals { engine: engine.counters(), device: outside.device };
                self.rows([Answer::Counters(Box::new(totals))]);
            }
            Request::Explain { packet } => self.explain(engine, now, packet),
            Request::ExplainFlow { flow } => self.explain_flow(engine, now, flow),
            Request::ExplainClient { client } => self.task = Some(Task::Client(ClientWalk::new(client))),
            Request::Kill { flow } => self.kill(engine, ledger, now, flow),
            Request::Load { server, load, maintenance } => {
                match ledger.load(engine, now, self.who, (&server, load, maintenance)) {
                    Ok(row) => self.changed(vec![row]),
                    Err(error) => self.fail(error),
                }
            }
            Request::Changes => self.rows(ledger.change_rows(now).into_iter().map(Answer::Differs)),
            Request::File => {
                let file = ledger.file_row().map(|file| Answer::File(Box::new(file)));
                self.row(file.ok_or_else(|| "this gateway runs without a configuration file".into()));
            }
            Request::Drain { server } => self.row(ledger.drain_row(engine, now, &server).map(Answer::Drain)),
            Request::Set { object: target, values, deadline_ms } => {
                let deadline = deadline_ms.map_or(Deadline::Keep, |within| {
                    within.map_or(Deadline::Never, |ms| Deadline::After(Duration::from_millis(ms)))
                });
                self.go_on(Waiting::Asks(Ask::Set { target, values, deadline }), floor);
            }
            Request::Add { object: target, values } => self.go_on(Waiting::Asks(Ask::Add { target, values }), floor),
            Request::Remove { object: target, now } => self.go_on(Waiting::Asks(Ask::Remove { target, now }), floor),
            Request::Drop { object: target, key } => self.go_on(Waiting::Asks(Ask::Drop { target, key }), floor),
            Request::Reload { partial, now } => {
                let order = ReloadOrder { partial, now, who: Some(self.who) };
                self.ticket = Some(desk(outside).ask(order));
            }
            Request::Sync => {
                let row = pair.as_ref().map(|pair| Answer::Sync(Box::new(pair.row(engine, now))));
                self.row(row.ok_or_else(|| NO_PAIR.into()));
            }
            Request::Role { to, begun } => {
                let pair = pair.as_mut().ok_or_else(|| NO_PAIR.into());
                let row = pair.and_then(|pair| pair.command(engine, ledger, (now, self.who), (to, begun)));
                self.row(row.map(|row| Answer::Sync(Box::new(row))));
            }
            Request::Token => self.row(token(&outside.http)),
            Request::Configuration => {
                let objects = listing::objects(ledger.in_force());
                self.rows(objects.iter().map(|object| Answer::Object(Box::new(ObjectRow::new(object)))));
            }
        }
    }

    /// Begins a task, if it makes sense.
    fn begin(&mut self, task: Result<Task, String>) {
        match task {
            Ok(task) => self.task = Some(task),
            Err(why) => self.fail(why),
        }
    }

    /// Answers with one row, or says why there is none.
    fn row(&mut self, row: Result<Answer, String>) {
        match row {
            Ok(row) => self.rows([row]),
            Err(why) => self.fail(why),
        }
    }

    fn status(&mut self, floor: &mut Floor<'_>) {
        let status = Status::of(&self.about, floor);
        self.rows([Answer::Status(Box::new(status))]);
    }

    fn explain(&mut self, engine: &Engine, now: Instant, packet: PacketWords) {
        let explanation = explain(engine, now, &packet);
        self.rows([Answer::Explanation(Box::new(Explained { service: None, packet, explanation }))]);
    }

    /// Explains the next packet of a flow's client.
    fn explain_flow(&mut self, engine: &Engine, now: Instant, flow: FlowId) {
        match engine.flow_row(now, flow).as_ref().and_then(PacketWords::next_of) {
            Some(packet) => self.explain(engine, now, packet),
            None => self.fail(format!("{}; `eqctl flows` lists them", Refused::NoSuchFlow(flow))),
        }
    }

    /// Ends a flow.
    fn kill(&mut self, engine: &mut Engine, ledger: &mut Ledger, now: Instant, flow: FlowId) {
        let before = engine.flow_row(now, flow);
        match (engine.apply(now, Change::Kill { flow }), before) {
            (Ok(()), Some(before)) => {
                let row = killed(before);
                ledger.note(now, self.who, &row.text);
                self.rows([Answer::Killed(Box::new(row))]);
            }
            (Err(refused), _) => self.fail(format!("{refused}; `eqctl flows` lists them")),
            (Ok(()), None) => self.rows([]),
        }
    }
}
