//! Requests about flows that walk over the table, piece by piece: lists, sorted lists, and flows that are to end.

use super::super::filter_words::{FilterWords, Name, NameOf};
use super::super::protocol::{Answer, Done, KilledRow};
use super::Floor;
use crate::config::{NoServer, closest};
use crate::engine::{Change, Cursor, Engine, FlowQuery, FlowRow, Ranked, SortBy};
use crate::ids::FlowId;
use crate::time::Instant;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// Rows of the table fetched per call: enough to fill half a chunk, about 0.1 ms of work.
pub(super) const ROWS: usize = 128;
/// Slots examined per call where few or no rows come of it.
const SLOTS: usize = 4096;
/// Most flows of a sorted list: 16 bytes for each are kept in the meantime.
pub(super) const MOST_SORTED: u64 = 10_000;
/// Most flows that one call ends, and most packets that ending one of them may queue.
const KILLS: usize = 32;
const RESETS: usize = 4;
/// Most ended flows that an answer lists.
const LISTED: usize = 100;

/// Completes the names in a query and in its words by what they stand for. A server that was removed may be named as long
/// as it has flows.
///
/// # Errors
/// The name that stands for nothing.
pub(super) fn checked(mut query: FlowQuery, words: Option<&FilterWords>, engine: &Engine) -> Result<FlowQuery, String> {
    if let Some(name) = &query.service {
        is_service(engine, name)?;
    }
    if let Some(name) = &query.server {
        query.server = Some(server_of(engine, name)?);
    }
    if let Some(words) = words {
        for name in words.names() {
            is_known(engine, name).map_err(|what| words.wrong(name, what).to_string())?;
        }
        query.filter = Some(words.filter().clone());
    }
    Ok(query)
}

fn is_known(engine: &Engine, of: &Name) -> Result<(), String> {
    let settings = engine.plan().settings();
    let no = |what: &str, names: Vec<&str>| match closest(&of.name, names.into_iter()) {
        Some(near) => Err(format!("there is no {what} {:?}; did you mean {near}?", of.name)),
        None => Err(format!("there is no {what} {:?}", of.name)),
    };
    match of.of {
        NameOf::Service => is_service(engine, &of.name),
        NameOf::Server => server_of(engine, &of.name).map(drop),
        NameOf::Pool if settings.pools.iter().any(|pool| pool.name == of.name) => Ok(()),
        NameOf::Pool => no("pool", settings.pools.iter().map(|pool| pool.name.as_str()).collect()),
        NameOf::Rule if engine.find_rule(&of.name).is_some() => Ok(()),
        NameOf::Rule => no("rule", settings.policy.rules.iter().map(|rule| rule.name.as_str()).collect()),
    }
}

pub(super) fn is_service(engine: &Engine, name: &str) -> Result<(), String> {
    if engine.has_service(name) {
        return Ok(());
    }
    let names = engine.services().into_iter().map(|row| row.service).collect::<Vec<_>>();
    let near = closest(name, names.iter().map(String::as_str));
    let hint = near.map_or("`eqctl services` lists them".into(), |near| format!("did you mean {near}?"));
    Err(format!("there is no service {name}; {hint}"))
}

/// Returns the name of a server with its pool.
pub(super) fn server_of(engine: &Engine, name: &str) -> Result<String, String> {
    match engine.server_named(name) {
        Ok(server) => Ok(engine.server_name(server)),
        Err(NoServer::Unknown { .. }) if engine.flows_of_removed(name) > 0 => Ok(name.into()),
        Err(error) => Err(error.to_string()),
    }
}

/// A walk over the table that answers a request for flows.
#[derive(Debug)]
pub(super) struct Walk {
    query: FlowQuery,
    from: Cursor,
    left: u64,
    rows: u64,
}

impl Walk {
    pub(super) fn new(query: FlowQuery, limit: Option<u64>) -> Self {
        Walk { query, from: Cursor::default(), left: limit.unwrap_or(u64::MAX), rows: 0 }
    }

    /// Goes on by a bounded number of rows; returns what is left to do.
    pub(super) fn go_on(mut self, engine: &Engine, now: Instant, pending: &mut VecDeque<Answer>) -> Option<Self> {
        let most = self.left.min(ROWS as u64) as usize;
        let mut rows = Vec::with_capacity(ROWS);
        // At the limit, the walk continues only to find out whether there is one more.
        let next = engine.flows(now, &self.query, self.from, if most > 0 { most } else { ROWS }, &mut rows);
        if most == 0 && !rows.is_empty() {
            pending.push_back(Answer::Done(Done { rows: self.rows, more: true }));
            return None;
        }
        self.rows += rows.len() as u64;
        self.left -= rows.len() as u64;
        pending.extend(rows.into_iter().map(|row| Answer::Flow(Box::new(row))));
        match next {
            Some(from) => Some(Walk { from, ..self }),
            None => {
                pending.push_back(Answer::Done(Done { rows: self.rows, more: false }));
                None
            }
        }
    }
}

/// A walk that finds the flows with most of something, then lists them.
#[derive(Debug)]
pub(super) struct Sorted {
    query: FlowQuery,
    by: SortBy,
    top: usize,
    /// The flows found so far that come first; of these the one with least on top.
    best: BinaryHeap<Reverse<(u64, u32, u32)>>,
    more: bool,
    at: SortedAt,
}

#[derive(Debug)]
enum SortedAt {
    Table(Cursor),
    /// The flows that are still to be listed, the last one first.
    Best(Vec<(u64, u32, u32)>, u64),
}

impl Sorted {
    pub(super) fn new(query: FlowQuery, by: SortBy, top: u64) -> Self {
        let at = SortedAt::Table(Cursor::default());
        Sorted { query, by, top: top.min(MOST_SORTED) as usize, best: BinaryHeap::new(), more: false, at }
    }

    pub(super) fn go_on(mut self, engine: &Engine, now: Instant, pending: &mut VecDeque<Answer>) -> Option<Self> {
        match self.at {
            SortedAt::Table(from) => {
                let (best, top, more) = (&mut self.best, self.top, &mut self.more);
                let next = engine.ranked_flows(now, &self.query, self.by, (from, SLOTS), |(rank, id): Ranked| {
                    let entry = Reverse((rank, id.index, id.generation));
                    if best.len() < top {
                        best.push(entry);
                    } else {
                        *more = true;
                        if let Some(mut least) = best.peek_mut().filter(|least| least.0.0 < rank) {
                            *least = entry;
                        }
                    }
                    true
                });
                self.at = match next {
                    Some(from) => SortedAt::Table(from),
                    // The least is the first of this order.
                    None => {
                        let mut best: Vec<_> =
                            std::mem::take(&mut self.best).into_iter().map(|entry| entry.0).collect();
                        best.sort_unstable();
                        SortedAt::Best(best, 0)
                    }
                };
                Some(self)
            }
            SortedAt::Best(mut best, mut listed) => {
                let some = best.split_off(best.len().saturating_sub(ROWS));
                let ids = some.into_iter().rev().map(|(_, index, generation)| FlowId { index, generation });
                for row in ids.filter_map(|id| engine.flow_row(now, id)) {
                    pending.push_back(Answer::Flow(Box::new(row)));
                    listed += 1;
                }
                if best.is_empty() {
                    pending.push_back(Answer::Done(Done { rows: listed, more: self.more }));
                    return None;
                }
                self.at = SortedAt::Best(best, listed);
                Some(self)
            }
        }
    }
}

/// A walk that ends the flows that match, or counts them.
#[derive(Debug)]
pub(super) struct Kill {
    query: FlowQuery,
    words: String,
    from: Cursor,
    dry_run: bool,
    row: KilledRow,
}

impl Kill {
    pub(super) fn new(query: FlowQuery, words: &FilterWords, dry_run: bool) -> Self {
        let row = KilledRow { dry_run, ..KilledRow::default() };
        Kill { query, words: words.to_string(), from: Cursor::default(), dry_run, row }
    }

    /// Ends a bounded number of flows; returns what is left to do. What was ended comes last.
    pub(super) fn go_on(mut self, floor: &mut Floor<'_>) -> Result<Self, KilledRow> {
        let Floor { engine, now, .. } = floor;
        let room = engine.room_for_packets() / RESETS;
        // Resets that wait leave room before the next call.
        let most = if self.dry_run { ROWS } else { KILLS.min(room) };
        if most == 0 {
            return Ok(self);
        }
        let mut found = Vec::new();
        let next = engine.ranked_flows(*now, &self.query, SortBy::Age, (self.from, SLOTS), |(_, id)| {
            found.push(id);
            found.len() < most
        });
        for id in found {
            let listed = (self.row.before.len() < LISTED).then(|| engine.flow_row(*now, id)).flatten();
            if self.dry_run || engine.apply(*now, Change::Kill { flow: id }).is_ok() {
                self.row.flows += 1;
                self.row.before.extend(listed);
            }
        }
        match next {
            Some(from) => Ok(Kill { from, ..self }),
            None => Err(self.finished()),
        }
    }

    fn finished(self) -> KilledRow {
        let words: String = self.words.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let flows = if self.row.flows == 1 { "1 flow".into() } else { format!("{} flows", self.row.flows) };
        let text = match (self.dry_run, self.row.flows) {
            (_, 0) => format!("no flow matches: {words}"),
            (true, _) => format!("{flows} would be killed: {words}"),
            (false, _) => format!("{flows} killed: {words}"),
        };
        let changed = !self.dry_run && self.row.flows > 0;
        KilledRow { text, changed, ..self.row }
    }
}

/// Returns the row of a single flow that has been ended.
pub(super) fn killed(row: FlowRow) -> KilledRow {
    let (protocol, server) = (row.protocol.name(), row.server_name());
    let text =
        format!("flow {} killed: {protocol} {} -> {} ({}) to {server}", row.id, row.client, row.listen, row.service);
    KilledRow { text, changed: true, dry_run: false, flows: 1, before: vec![row], after: Vec::new() }
}
