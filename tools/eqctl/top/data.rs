//! What the gateway answered, the rates in between, and a little of the past.

use equipoise::control::client::{Client, ClientError};
use equipoise::control::{
    Answer, FilterWords, FlowId, FlowQuery, FlowRow, Request, ServerRow, ServiceRow, SortBy, Status, Totals, render,
};
use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

/// Looks that a sparkline shows.
pub const PAST: usize = 12;
/// Flows that are looked at: of these with most bytes, the busiest come first.
const FLOWS: u64 = 200;

/// A flow with its bytes per second; none before the second look.
#[derive(Debug, Clone)]
pub struct Busy {
    pub row: FlowRow,
    pub rate: Option<f64>,
}

/// A reason for drops, with packets since the start and per second.
#[derive(Debug, Clone)]
pub struct Dropped {
    pub name: &'static str,
    pub text: &'static str,
    pub count: u64,
    pub rate: Option<f64>,
}

/// What passes per second in all.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sum {
    pub packets: f64,
    pub bytes: f64,
    pub flows: f64,
    pub dropped: f64,
}

#[derive(Debug, Default)]
pub struct Data {
    pub status: Option<Status>,
    pub services: Vec<ServiceRow>,
    pub servers: Vec<ServerRow>,
    pub flows: Vec<Busy>,
    pub drops: Vec<Dropped>,
    pub sum: Option<Sum>,
    /// By server: bytes per second, the latest last.
    past: BTreeMap<String, VecDeque<f64>>,
    totals: Option<Totals>,
    at: Option<Instant>,
}

/// One look.
pub struct Look {
    pub status: Status,
    pub services: Vec<ServiceRow>,
    pub servers: Vec<ServerRow>,
    pub flows: Vec<FlowRow>,
    pub totals: Totals,
}

fn rows<T>(client: &mut Client, request: &Request, pick: fn(Answer) -> Option<T>) -> Result<Vec<T>, ClientError> {
    Ok(client.rows(request)?.0.into_iter().filter_map(pick).collect())
}

fn one<T>(client: &mut Client, request: &Request, pick: fn(Answer) -> Option<T>) -> Result<T, ClientError> {
    rows(client, request, pick)?.pop().ok_or_else(|| ClientError::Garbled("an answer without its row".into()))
}

impl Data {
    /// Asks for everything.
    pub fn ask(&mut self, client: &mut Client, filter: Option<&FilterWords>, now: Instant) -> Result<(), ClientError> {
        let flows = Request::Flows {
            query: FlowQuery::default(),
            filter: filter.cloned(),
            sort: Some(SortBy::Bytes),
            limit: Some(FLOWS),
        };
        let look = Look {
            status: one(client, &Request::Status, |answer| match answer {
                Answer::Status(status) => Some(*status),
                _ => None,
            })?,
            services: rows(client, &Request::Services, |answer| match answer {
                Answer::Service(row) => Some(row),
                _ => None,
            })?,
            servers: rows(client, &Request::Servers, |answer| match answer {
                Answer::Server(row) => Some(*row),
                _ => None,
            })?,
            flows: rows(client, &flows, |answer| match answer {
                Answer::Flow(row) => Some(*row),
                _ => None,
            })?,
            totals: one(client, &Request::Counters, |answer| match answer {
                Answer::Counters(totals) => Some(*totals),
                _ => None,
            })?,
        };
        let seconds = self.at.map(|at| (now - at).as_secs_f64());
        self.at = Some(now);
        self.take(look, seconds);
        Ok(())
    }

    /// Takes a look that came `seconds` after the last one.
    pub fn take(&mut self, mut look: Look, seconds: Option<f64>) {
        let seconds = seconds.filter(|seconds| *seconds > 0.0);
        if let Some(seconds) = seconds {
            render::measure_services(&mut look.services, &self.services, seconds);
            render::measure_servers(&mut look.servers, &self.servers, seconds);
        }
        let before = self.totals.as_ref().map(|totals| &totals.engine);
        let rate = |now: u64, then: Option<u64>| Some(now.checked_sub(then?)? as f64 / seconds?);
        let engine = &look.totals.engine;
        self.sum = before.and_then(|before| {
            Some(Sum {
                packets: rate(engine.packets_in, Some(before.packets_in))?,
                bytes: rate(engine.bytes_in, Some(before.bytes_in))?,
                flows: rate(engine.flows_opened, Some(before.flows_opened))?,
                dropped: rate(engine.dropped(), Some(before.dropped()))?,
            })
        });
        let then = |place: usize| before.and_then(|before| before.dropped.get(place)).map(|dropped| dropped.count);
        let drops = engine.dropped.iter().enumerate().filter(|(_, dropped)| dropped.count > 0);
        self.drops = drops
            .map(|(place, dropped)| Dropped {
                name: dropped.kind.name(),
                text: dropped.kind.text(),
                count: dropped.count,
                rate: rate(dropped.count, then(place)),
            })
            .collect();
        let bytes = |row: &FlowRow| row.bytes_in.saturating_add(row.bytes_out);
        let known: BTreeMap<FlowKey, u64> =
            self.flows.iter().map(|flow| (key(flow.row.id), bytes(&flow.row))).collect();
        let busy = |row: FlowRow| Busy { rate: rate(bytes(&row), known.get(&key(row.id)).copied()), row };
        self.flows = look.flows.into_iter().map(busy).collect();
        let of = |row: &ServerRow| row.rates.map_or(0.0, |rates| rates.bytes_in + rates.bytes_out);
        let mut past = std::mem::take(&mut self.past);
        for row in &look.servers {
            let mut own = past.remove(&row.name()).unwrap_or_default();
            if row.rates.is_some() {
                own.push_back(of(row));
            }
            while own.len() > PAST {
                own.pop_front();
            }
            self.past.insert(row.name(), own);
        }
        (self.status, self.services, self.servers) = (Some(look.status), look.services, look.servers);
        self.totals = Some(look.totals);
    }

    /// Draws the latest rates of a server, relative to the greatest of all servers.
    pub fn sparkline(&self, server: &str) -> String {
        const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        let most = self.past.values().flatten().copied().fold(0.0, f64::max);
        let own = self.past.get(server);
        let bar = |rate: &f64| {
            let place = if most > 0.0 { (rate / most * 7.0).round() as usize } else { 0 };
            BARS[place.min(7)]
        };
        own.into_iter().flatten().map(bar).collect()
    }
}

type FlowKey = (u32, u32);

fn key(id: FlowId) -> FlowKey {
    (id.index, id.generation)
}

/// Sends a change or a question; returns what is said about it.
pub fn send(client: &mut Client, request: &Request) -> Result<String, String> {
    let (answers, _) = client.rows(request).map_err(|error| error.to_string())?;
    let text = answers.iter().filter_map(|answer| match answer {
        Answer::Changed(row) => Some(render::changed_text(row)),
        Answer::Killed(row) => Some(row.text.clone() + "\n"),
        Answer::Explanation(row) => Some(render::explanation_text(&row.explanation)),
        _ => None,
    });
    Ok(text.collect())
}
