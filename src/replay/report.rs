//! The report of a replay: one line per packet, then flows, servers and counters; as text or as JSON lines.

use super::Summary;
use crate::balance::{Algorithm, PickedBy};
use crate::capture::CaptureError;
use crate::control::render::{self, Width};
use crate::engine::{Consumed, Cursor, Engine, Event, FlowQuery, FlowRow, Forwarded, Reason, Refused};
use crate::ids::FlowId;
use crate::packet::Side;
use crate::time::Instant;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{self, Write};

/// The format of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Text for people.
    Text,
    /// One JSON object per line, for programs.
    Json,
}

/// The fate of a packet.
pub(super) enum Fate<'n> {
    Forward { why: Forwarded, went: String, names: &'n BTreeMap<FlowId, Opened> },
    Emit { why: Forwarded, names: &'n BTreeMap<FlowId, Opened> },
    Consume(Consumed),
    Drop(Reason),
}

/// The names of a flow, as shown in the lines of its packets.
#[derive(Debug, Default)]
pub(super) struct Opened {
    service: String,
    server: String,
    by: PickedBy,
    algorithm: Algorithm,
    rule: Option<String>,
}

impl Opened {
    /// Takes them from a flow that was just created.
    pub(super) fn new(flow: &FlowRow, engine: &Engine) -> Self {
        let service = engine.services().into_iter().find(|service| service.service == flow.service);
        Opened {
            service: flow.service.clone(),
            server: flow.server_name(),
            by: flow.picked_by,
            algorithm: service.map(|service| service.algorithm).unwrap_or_default(),
            rule: flow.rule.clone(),
        }
    }

    /// Explains the choice of the server: `, picked by round-robin, rule shop`.
    fn why(&self) -> String {
        let by = match self.by {
            PickedBy::Algorithm => format!("picked by {}", self.algorithm.name()),
            PickedBy::Stickiness => "picked by stickiness".into(),
            PickedBy::LastResort => "picked as last resort".into(),
            PickedBy::Server => "as its server went on".into(),
        };
        let rule = self.rule.as_ref().map_or(String::new(), |rule| format!(", rule {rule}"));
        format!(", {by}{rule}")
    }
}

/// Describes a forwarded packet, as text and as JSON.
fn forwarded(
    why: &Forwarded,
    names: &BTreeMap<FlowId, Opened>,
    verdict: &str,
    went: &str,
) -> (String, serde_json::Value) {
    let unknown = Opened::default();
    let of = |flow| names.get(flow).unwrap_or(&unknown);
    match why {
        Forwarded::Foreign => {
            ("foreign, unchanged".to_owned(), json!({"verdict": verdict, "why": "foreign", "out": went}))
        }
        Forwarded::Error { flow, from } => {
            let Opened { service, server, .. } = of(flow);
            let side = if *from == Side::Client { "to" } else { "from" };
            let text = format!("error about flow {flow}, {service} {side} {server}: {went}");
            let details = json!({
                "verdict": verdict, "why": "icmp-error", "flow": flow.to_string(),
                "from": from, "service": service, "server": server, "out": went,
            });
            (text, details)
        }
        Forwarded::Translated { flow, from, opened } => {
            let flow_is = of(flow);
            let Opened { service, server, by, algorithm, rule } = flow_is;
            let (how, why) = if *opened { (" opened", flow_is.why()) } else { ("", String::new()) };
            let side = if *from == Side::Client { "to" } else { "from" };
            let text = format!("flow {flow}{how}, {service} {side} {server}{why}: {went}");
            let mut details = json!({
                "verdict": verdict, "why": "translated", "flow": flow.to_string(), "opened": opened,
                "from": from, "service": service, "server": server, "out": went,
            });
            if *opened {
                details["picked_by"] = json!(by);
                details["algorithm"] = json!(algorithm);
                details["rule"] = json!(rule);
            }
            (text, details)
        }
    }
}

pub(super) struct Report<'o> {
    format: Format,
    out: &'o mut dyn Write,
    start: Instant,
}

impl<'o> Report<'o> {
    pub(super) fn new(format: Format, out: &'o mut dyn Write) -> Self {
        Report { format, out, start: Instant::ZERO }
    }

    /// Sets the time of the first frame, to which all others are relative.
    pub(super) fn starts(&mut self, at: Instant) {
        self.start = at;
    }

    /// Formats the seconds since the first frame, to the microsecond.
    pub(super) fn time(&self, at: Instant) -> String {
        let micros = at.since(self.start).as_micros();
        format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
    }

    fn line(&mut self, text: &str, json: impl FnOnce() -> serde_json::Value) -> io::Result<()> {
        match self.format {
            Format::Text => writeln!(self.out, "{text}"),
            Format::Json => writeln!(self.out, "{}", json()),
        }
    }

    pub(super) fn packet(&mut self, at: Instant, number: u64, input: &str, fate: &Fate<'_>) -> io::Result<()> {
        let time = self.time(at);
        let (text, details) = match fate {
            Fate::Forward { why: Forwarded::Foreign, went, .. } => {
                ("foreign, unchanged".to_owned(), json!({"verdict": "forward", "why": "foreign", "out": went}))
            }
            Fate::Forward { why, went, names } => forwarded(why, names, "forward", went),
            Fate::Emit { why, names } => forwarded(why, names, "emit", "replaced by the packets below"),
            Fate::Consume(kind) => (format!("consumed: {}", kind.text()), json!({"verdict": "consume", "kind": kind})),
            Fate::Drop(reason) => {
                let text = format!("dropped, {}: {}", reason.name(), reason.text());
                (text, json!({"verdict": "drop", "reason": reason}))
            }
        };
        self.line(&format!("{time} #{number} {input} => {text}"), || {
            let mut packet = json!({"time": time, "number": number, "in": input});
            if let (Some(packet), serde_json::Value::Object(details)) = (packet.as_object_mut(), details) {
                packet.extend(details);
            }
            json!({"packet": packet})
        })
    }

    pub(super) fn skipped(&mut self, at: Instant, number: u64, why: &str) -> io::Result<()> {
        let time = self.time(at);
        self.line(
            &format!("{time} #{number} skipped: {why}"),
            || json!({"skipped": {"time": time, "number": number, "why": why}}),
        )
    }

    /// Writes the line of a packet that the engine sends by itself.
    pub(super) fn own(&mut self, at: Instant, went: &str) -> io::Result<()> {
        let time = self.time(at);
        self.line(&format!("{time} sent {went}"), || json!({"sent": {"time": time, "out": went}}))
    }

    /// Writes the line of a scripted event.
    pub(super) fn script(&mut self, at: Instant, words: &str, refused: Option<&Refused>) -> io::Result<()> {
        let time = self.time(at);
        let (why, refused) = match refused {
            None => (String::new(), None),
            Some(refused) => (format!(": refused, {refused}"), Some(refused.to_string())),
        };
        self.line(
            &format!("{time} script: {words}{why}"),
            || json!({"script": {"time": time, "what": words, "refused": refused}}),
        )
    }

    pub(super) fn event(&mut self, at: Instant, event: &Event) -> io::Result<()> {
        let time = self.time(at);
        match event {
            // The line of the packet that opened it contains this.
            Event::FlowOpened(_) => Ok(()),
            Event::FlowEnded { flow, cause } => {
                self.line(&format!("{time} {event}"), || json!({"ended": {"time": time, "cause": cause, "flow": flow}}))
            }
            _ => self.line(&format!("{time} {event}"), || json!({"event": {"time": time, "what": event}})),
        }
    }

    /// Writes flows, services, servers, monitors, rules and counters.
    pub(super) fn end(
        &mut self,
        engine: &Engine,
        now: Instant,
        summary: &Summary,
        missing: Option<&CaptureError>,
    ) -> io::Result<()> {
        let mut flows = Vec::new();
        let mut cursor = Some(Cursor::default());
        while let Some(from) = cursor {
            cursor = engine.flows(now, &FlowQuery::default(), from, 1024, &mut flows);
        }
        match self.format {
            Format::Text => self.end_text(engine, now, &flows, summary, missing)?,
            Format::Json => {
                for flow in &flows {
                    writeln!(self.out, "{}", json!({"flow": flow}))?;
                }
                let services = engine.services().into_iter().map(|service| json!({"service": service}));
                let servers = engine.servers(now).into_iter().map(|server| json!({"server": server}));
                let monitors = engine.monitors(now).into_iter().map(|monitor| json!({"monitor": monitor}));
                let rules = engine.rules().into_iter().map(|rule| json!({"rule": rule}));
                for row in services.chain(servers).chain(monitors).chain(rules) {
                    writeln!(self.out, "{row}")?;
                }
                writeln!(self.out, "{}", json!({"counters": engine.counters()}))?;
                if let Some(error) = missing {
                    writeln!(self.out, "{}", json!({"missing": error.to_string()}))?;
                }
                writeln!(self.out, "{}", json!({"summary": summary}))?;
            }
        }
        self.out.flush()
    }

    fn end_text(
        &mut self,
        engine: &Engine,
        now: Instant,
        flows: &[FlowRow],
        summary: &Summary,
        missing: Option<&CaptureError>,
    ) -> io::Result<()> {
        let Summary { frames, packets, skipped, partial_checksums, back_in_time, .. } = summary;
        let (servers, counters) = (engine.servers(now), engine.counters());
        writeln!(self.out, "\nFlows\n{}", render::flows_table(flows, Width::Any))?;
        writeln!(self.out, "Services\n{}", render::services_table(&engine.services(), Width::Any))?;
        writeln!(self.out, "Servers\n{}", render::servers_table(&servers, Width::Any))?;
        let (monitors, rules) = (engine.monitors(now), engine.rules());
        if !monitors.is_empty() {
            writeln!(self.out, "Monitors\n{}", render::monitors_table(&monitors, Width::Any))?;
        }
        if !rules.is_empty() {
            writeln!(self.out, "Rules\n{}", render::rules_table(&rules, Width::Any))?;
        }
        let nat = engine.nat_pools();
        if !nat.is_empty() {
            writeln!(self.out, "NAT pools\n{}", render::nat_table(&nat, Width::Any))?;
        }
        writeln!(self.out, "Counters\n{}", render::counters_table(&counters, None, false, Width::Any))?;
        writeln!(self.out, "frames {frames} = packets {packets} + skipped {skipped}")?;
        if *partial_checksums > 0 {
            writeln!(self.out, "{partial_checksums} packets had a partial checksum, which was kept partial")?;
        }
        if *back_in_time > 0 {
            writeln!(
                self.out,
                "{back_in_time} frames had an earlier timestamp than the previous one and were replayed at its time"
            )?;
        }
        if let Some(error) = missing {
            writeln!(self.out, "PARTIAL: {error}")?;
        }
        Ok(())
    }
}
