//! The live picture: a bar per server on a terminal, a line per second elsewhere. It must not know where the numbers
//! come from.

use super::balancer::Seen;
use super::options::DemoOptions;
use crate::balance::Health;
use crate::control::render::count;
use crate::engine::ServerRow;
use std::collections::VecDeque;
use std::io::IsTerminal;
use std::time::Duration;

/// Cells of the longest bar.
const CELLS: u64 = 32;
/// The window that rates are measured over.
const WINDOW: Duration = Duration::from_secs(1);

/// What is shown.
pub(super) struct View<'a> {
    /// Since the first request.
    pub elapsed: Duration,
    /// What the gateway reports.
    pub seen: &'a Seen,
    /// Requests answered.
    pub answered: u64,
    /// Requests failed.
    pub failed: u64,
}

/// Draws to stdout.
pub(super) struct Picture {
    silent: bool,
    terminal: bool,
    wanted: Option<u64>,
    lines: usize,
    next: Duration,
    /// Flows assigned to each server, at points in time within the window.
    past: VecDeque<(Duration, Vec<u64>)>,
}

impl Picture {
    /// Makes the picture; it stays silent if the output is to be JSON.
    pub(super) fn new(options: &DemoOptions) -> Picture {
        Picture {
            silent: options.json,
            terminal: std::io::stdout().is_terminal(),
            wanted: (!options.forever).then_some(options.requests),
            lines: 0,
            next: WINDOW,
            past: VecDeque::new(),
        }
    }

    /// Redraws it in place; or adds a line if a second has passed or it is the last one.
    pub(super) fn draw(&mut self, view: &View<'_>, last: bool) {
        if self.silent {
            return;
        }
        let rates = self.rates(view);
        let mut text = String::new();
        if self.terminal {
            let lines = bars(view, &rates, self.wanted);
            if self.lines > 0 {
                text.push_str(&format!("\x1b[{}A", self.lines));
            }
            self.lines = lines.len();
            lines.iter().for_each(|line| text.push_str(&format!("\r{line}\x1b[K\n")));
        } else if last || view.elapsed >= self.next {
            self.next += WINDOW;
            text = line(view, &rates, self.wanted);
        }
        if last {
            text.push('\n');
        }
        super::say(&text);
    }

    /// Returns each server's new flows per second.
    fn rates(&mut self, view: &View<'_>) -> Vec<f64> {
        let given: Vec<u64> = view.seen.servers.iter().map(|s| s.flows_total).collect();
        self.past.push_back((view.elapsed, given.clone()));
        while self.past.len() > 2 && self.past.get(1).is_some_and(|(at, _)| *at + WINDOW <= view.elapsed) {
            self.past.pop_front();
        }
        let (at, then) = &self.past[0];
        // The very first sample counts from the beginning.
        let (at, then) =
            if self.past.len() == 1 { (Duration::ZERO, vec![0; given.len()]) } else { (*at, then.clone()) };
        let seconds = (view.elapsed - at).as_secs_f64().max(0.001);
        given.iter().zip(then).map(|(now, then)| now.saturating_sub(then) as f64 / seconds).collect()
    }
}

/// Formats the picture for a terminal, line by line.
fn bars(view: &View<'_>, rates: &[f64], wanted: Option<u64>) -> Vec<String> {
    let all: u64 = view.seen.servers.iter().map(|s| s.flows_total).sum();
    let most = view.seen.servers.iter().map(|s| s.flows_total).max().unwrap_or(0).max(1);
    let mut lines = Vec::new();
    for (server, rate) in view.seen.servers.iter().zip(rates) {
        lines.push(format!(
            "  {:<8} {:<12} {} {:>9} {:>6} {:>8.0}/s",
            server.server,
            standing(server),
            bar(server.flows_total, most),
            count(server.flows_total),
            share(server.flows_total, all),
            rate
        ));
    }
    let wanted = wanted.map_or_else(String::new, |n| format!(" of {}", count(n)));
    let engine = &view.seen.totals.engine;
    lines.push(format!(
        "  {:.1} s   answered {}{wanted}   failed {}   flows in the table {} of {}   packets {}",
        view.elapsed.as_secs_f64(),
        count(view.answered),
        count(view.failed),
        count(engine.flows),
        count(engine.max_flows),
        count(engine.packets_in)
    ));
    lines
}

/// Formats the picture as one line, for logs.
fn line(view: &View<'_>, rates: &[f64], wanted: Option<u64>) -> String {
    let all: u64 = view.seen.servers.iter().map(|s| s.flows_total).sum();
    let engine = &view.seen.totals.engine;
    let mut text = format!("{:>6.1} s", view.elapsed.as_secs_f64());
    for (server, rate) in view.seen.servers.iter().zip(rates) {
        let part = share(server.flows_total, all);
        let (name, standing) = (&server.server, standing(server));
        text.push_str(&format!("  {name} {standing} {} ({part}, {rate:.0}/s)", count(server.flows_total)));
    }
    let wanted = wanted.map_or_else(String::new, |n| format!(" of {}", count(n)));
    let (answered, failed) = (count(view.answered), count(view.failed));
    text.push_str(&format!(
        "  answered {answered}{wanted}, failed {failed}, flows {} of {}\n",
        count(engine.flows),
        count(engine.max_flows)
    ));
    text
}

/// Returns whether a server is in rotation, and its weight during slow start: `up`, `DOWN`, `up to 0.3`.
fn standing(server: &ServerRow) -> String {
    match server.health {
        Health::Down => "DOWN".into(),
        Health::Unknown => "unknown".into(),
        Health::Up if server.weight_now < f32::from(server.weight) => format!("up to {:.2}", server.weight_now),
        Health::Up => "up".into(),
    }
}

fn share(part: u64, all: u64) -> String {
    format!("{:.1} %", part as f64 * 100.0 / all.max(1) as f64)
}

/// Draws a bar of at most [`CELLS`] cells, exact to an eighth of a cell.
fn bar(part: u64, most: u64) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = u128::from(part) * u128::from(CELLS * 8) / u128::from(most);
    let (full, rest) = ((eighths / 8) as usize, (eighths % 8) as usize);
    let text = format!("{}{}", "█".repeat(full), EIGHTHS[rest]);
    let pad = CELLS as usize - text.chars().count();
    text + &" ".repeat(pad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_their_share_of_the_longest() {
        let cases =
            [(0, 10, 0, ""), (10, 10, 32, "█"), (5, 10, 16, "█"), (1, 256, 1, "▏"), (u64::MAX, u64::MAX, 32, "█")];
        for (part, most, cells, end) in cases {
            let bar = bar(part, most);
            assert_eq!(bar.chars().count(), 32);
            let drawn = bar.trim_end();
            assert_eq!(drawn.chars().count(), cells, "{part} of {most}");
            assert!(drawn.ends_with(end));
        }
    }
}
