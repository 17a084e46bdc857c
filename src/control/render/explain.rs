//! An explanation as text: a section for each part that applies, readable at 80 columns.
//!
//! It must not know how a decision is made: it shows the facts in the order in which a packet meets them.

use super::{bytes, count, duration, printable};
use crate::balance::Admin;
use crate::engine::FlowRow;
use crate::engine::explain::{CandidateLine, Explanation, LimitLine, OutcomeRow, RuleLine, ServiceLine, StickyLine};
use crate::packet::Side;

/// Columns of a line, unless a single word is longer.
const WIDTH: usize = 80;
/// Columns before the text of a section.
const INDENT: usize = 13;
/// Least columns for the last column of a table; it stands below the others where less is left.
const LEAST: usize = 26;
/// Columns before what stands below a line of a table.
const BELOW: usize = 6;

/// Prints an explanation.
pub fn explanation_text(explanation: &Explanation) -> String {
    let mut page = Page::default();
    page.section("packet", [explanation.packet.clone()]);
    page.section("outcome", outcome(&explanation.outcome));
    page.section("before that", explanation.before.iter().cloned());
    page.section("flow", flow(explanation));
    page.table("rules", explanation.rules.iter().map(rule));
    page.section("service", explanation.service.iter().flat_map(service));
    page.table("limits", explanation.limits.iter().map(limit));
    page.section("stickiness", explanation.sticky.iter().map(sticky));
    page.candidates(&explanation.candidates);
    page.section("arithmetic", explanation.arithmetic.iter().cloned());
    let fields = explanation.rewrite.iter();
    page.table("rewrite", fields.map(|field| [field.field.clone(), format!("{} -> {}", field.from, field.to)]));
    page.section("sends", explanation.sends.iter().cloned());
    let timers = explanation.timers.iter();
    page.table(
        "timers",
        timers.map(|line| [line.timer.clone(), format!("ends in {}, {}", duration(line.ends_in_ms), line.from)]),
    );
    page.section("notes", explanation.notes.iter().cloned());
    page.text
}

fn outcome(row: &OutcomeRow) -> Vec<String> {
    let reason = row.reason.as_ref().map_or(String::new(), |reason| format!(" ({reason})"));
    let mut lines = vec![format!("{}{reason}: {}", row.verdict, row.text)];
    let mut facts = Vec::new();
    facts.extend(row.server.as_ref().map(|server| format!("server {server}")));
    facts.extend(row.picked_by.map(|by| format!("picked by {}", by.name())));
    facts.extend(row.to.as_ref().map(|to| format!("goes on to {to}")));
    if !facts.is_empty() {
        lines.push(facts.join(", "));
    }
    lines
}

fn rule(line: &RuleLine) -> [String; 2] {
    let result = match (&line.why_not, line.matches) {
        (_, true) => format!("matches: {}", line.action),
        (Some(why), false) => format!("does not match: {why}"),
        (None, false) => "does not match".into(),
    };
    [format!("{} {}", line.place, line.rule), result]
}

fn service(line: &ServiceLine) -> [String; 2] {
    [
        format!("{}, found by {}", line.service, line.found_by),
        format!("pool {}, algorithm {}", line.pool, line.algorithm.name()),
    ]
}

fn flow(explanation: &Explanation) -> Vec<String> {
    let Some(row) = &explanation.flow else {
        // Rules and services are for packets of no flow.
        let missed = explanation.service.is_some() || !explanation.rules.is_empty();
        return missed.then(|| "none: the packet belongs to no flow".into()).into_iter().collect();
    };
    let from = match explanation.from {
        Some(Side::Client) => ", from the client",
        Some(Side::Server) => ", from the server",
        None => "",
    };
    // A new field must be named here: it is shown, or left to `--json`.
    let FlowRow {
        id,
        protocol,
        client,
        listen,
        service,
        pool: _,
        server: _,
        server_address,
        source,
        picked_by,
        rule,
        state,
        age_ms,
        idle_ms,
        expires_in_ms,
        packets_in,
        bytes_in,
        packets_out,
        bytes_out,
        shortcut,
    } = row;
    let source = source.map_or(String::new(), |source| format!(" as {source}"));
    let rule = rule.as_ref().map_or(String::new(), |rule| format!(", rule {rule}"));
    vec![
        format!(
            "{} {}, {}{from}{}",
            id,
            protocol.name(),
            state.name(),
            if *shortcut { ", carried by the kernel" } else { "" }
        ),
        format!("client {} -> {} (service {}{rule})", client, listen, service),
        format!("server {} at {}{source}, picked by {}", row.server_name(), server_address, picked_by.name()),
        format!("age {}, idle {}, expires in {}", duration(*age_ms), duration(*idle_ms), duration(*expires_in_ms)),
        format!(
            "packets: {} in ({}), {} out ({})",
            count(*packets_in),
            bytes(*bytes_in),
            count(*packets_out),
            bytes(*bytes_out)
        ),
    ]
}

fn limit(line: &LimitLine) -> [String; 2] {
    let unit = if line.limit.ends_with("rate") { "new flows per second" } else { "flows" };
    let refuses = if line.refuses { ": refuses the flow" } else { "" };
    let reserved = if line.total > line.most {
        format!(" ({} in all, the rest is reserved for higher priorities)", count(line.total))
    } else {
        String::new()
    };
    [line.limit.clone(), format!("{} of {} {unit}{reserved}{refuses}", count(line.used), count(line.most))]
}

fn sticky(line: &StickyLine) -> String {
    let StickyLine { client, server, flows, age_ms, holds, why_not } = line;
    let unit = if *flows == 1 { "flow" } else { "flows" };
    let used = format!("({} {unit}, last used {} ago)", count((*flows).into()), duration(*age_ms));
    match why_not {
        _ if *holds => format!("client {client} returns to {server} {used}"),
        Some(why) => format!("client {client} was sent to {server} {used} and does not return: {why}"),
        None => format!("client {client} was sent to {server} {used} and does not return"),
    }
}

/// The cells of a candidate, without its result.
fn standing(line: &CandidateLine) -> [String; 4] {
    let weight = if line.weight_now < f32::from(line.weight) {
        format!("{:.1} of {}", line.weight_now, line.weight)
    } else {
        line.weight.to_string()
    };
    let state = match line.admin {
        Admin::Enabled => line.health.name().to_owned(),
        Admin::Draining => format!("{}, draining", line.health.name()),
        Admin::Disabled => format!("{}, disabled", line.health.name()),
    };
    let flows = count(line.flows.into());
    let flows = line.max_flows.map_or(flows.clone(), |most| format!("{flows} of {}", count(most.into())));
    [line.server.clone(), weight, state, flows]
}

fn result(line: &CandidateLine) -> String {
    let mut parts = Vec::new();
    if line.last_resort {
        parts.push("last resort".to_owned());
    }
    if line.chosen {
        parts.push("CHOSEN".into());
    }
    parts.extend(line.out.as_ref().map(|why| format!("out: {why}")));
    parts.extend(line.score.clone());
    parts.join("; ")
}

/// The text, section by section.
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    /// Adds a section of lines; none without lines.
    fn section(&mut self, label: &str, lines: impl IntoIterator<Item = String>) {
        let mut label = label;
        for line in lines {
            self.wrapped(label, &line, INDENT);
            label = "";
        }
    }

    /// Adds a section of names with what is said of each, in two columns.
    fn table(&mut self, label: &str, rows: impl Iterator<Item = [String; 2]>) {
        let rows: Vec<_> = rows.map(|row| row.map(printable)).collect();
        let width = rows.iter().map(|[name, _]| name.chars().count()).max().unwrap_or(0);
        let mut label = label;
        for [name, text] in rows {
            let blanks = width - name.chars().count() + super::columns::GAP;
            self.wrapped(&format!("{label:INDENT$}{name}{:blanks$}", ""), &text, INDENT + width + super::columns::GAP);
            label = "";
        }
    }

    /// Adds the table of candidates; its last column is wrapped.
    fn candidates(&mut self, lines: &[CandidateLine]) {
        if lines.is_empty() {
            return;
        }
        let headers = ["SERVER", "WEIGHT", "STATE", "FLOWS"].map(String::from);
        let rows: Vec<_> =
            std::iter::once(headers).chain(lines.iter().map(|line| standing(line).map(printable))).collect();
        let widths = [0, 1, 2, 3].map(|cell| rows.iter().map(|row| row[cell].chars().count()).max().unwrap_or(0));
        let results = std::iter::once("RESULT".to_owned()).chain(lines.iter().map(result));
        self.text.push_str("candidates\n");
        for ([server, weight, state, flows], result) in rows.iter().zip(results) {
            let [a, b, c, d] = widths;
            let cells = format!("  {server:a$}  {weight:>b$}  {state:c$}  {flows:>d$}  ");
            let indent = cells.chars().count();
            self.wrapped(&cells, &result, indent);
        }
    }

    /// Adds a line that begins with `start` and goes on at column `indent`, in as many lines as it needs.
    fn wrapped(&mut self, start: &str, text: &str, indent: usize) {
        let text = printable(text.to_owned());
        let mut line = format!("{start:indent$}");
        let mut indent = indent;
        // Too little room beside what comes first.
        if indent + LEAST > WIDTH && line.chars().count() + text.chars().count() > WIDTH {
            self.line(&line);
            indent = BELOW;
            line = " ".repeat(indent);
        }
        let mut used = line.chars().count();
        let mut first = true;
        for word in text.split(' ').filter(|word| !word.is_empty()) {
            let len = word.chars().count();
            if !first && used + 1 + len > WIDTH {
                self.line(&line);
                line = " ".repeat(indent);
                (used, first) = (indent, true);
            }
            if !first {
                line.push(' ');
                used += 1;
            }
            line.push_str(word);
            (used, first) = (used + len, false);
        }
        self.line(&line);
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }
}

#[cfg(test)]
mod tests;
