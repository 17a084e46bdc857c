//! The events of a replay besides its packets, read from a file with one event per line.
//!
//! ```text
//! # seconds since the first frame, then the event
//! 12.5   server web/web-2 down
//! 20     server web/web-2 auto
//! 25     server web/web-1 weight 5
//! 30     server web/web-1 drain 60s
//! 31     rule block-scanners off
//! ```
//!
//! The pool of a server may be left out where only one pool has a server of that name.

use crate::balance::Admin;
use crate::config::NoServer;
use crate::engine::{Change, Engine};
use crate::ids::ServerId;
use crate::time::Duration;
use std::fmt;

/// The changes in order of time, each with its time since the first frame and its text.
pub(super) type Script = Vec<(Duration, Change, String)>;

/// An error in a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptError {
    /// Line number, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The error, and what is allowed.
    pub what: String,
}

impl fmt::Display for ScriptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.what)
    }
}

const FORMS: &str = "write `SECONDS server POOL/SERVER up|down|auto|enable|disable`, `… drain [TIME]`, \
                     `… weight N`, `… load PERCENT [maintenance]`, or `SECONDS rule NAME on|off`";

/// Reads a script for an engine's servers and rules.
pub(super) fn parse(text: &str, engine: &Engine) -> Result<Script, ScriptError> {
    let mut script = Script::new();
    for (number, line) in (1..).zip(text.lines()) {
        let content = line.split('#').next().unwrap_or_default();
        let mut words = Words { line, rest: content, number };
        if let Some(first) = words.next() {
            let at = seconds(first).ok_or_else(|| words.wrong(first, "not a time in seconds"))?;
            let change = change(&mut words, engine)?;
            if let Some(more) = words.next() {
                return Err(words.wrong(more, "one word too many"));
            }
            let text = content.split_whitespace().skip(1).collect::<Vec<_>>().join(" ");
            script.push((at, change, text));
        }
    }
    // The sort is stable: events at the same time keep the order of the file.
    script.sort_by_key(|(at, ..)| *at);
    Ok(script)
}

/// Reads one event without a time: `server web/web-2 down`.
///
/// # Errors
/// The first wrong word; its line is 1.
pub fn event(text: &str, engine: &Engine) -> Result<Change, ScriptError> {
    let mut words = Words { line: text, rest: text, number: 1 };
    let read = |words: &mut Words<'_>| {
        let change = change(words, engine)?;
        words.next().map_or(Ok(change), |more| Err(words.wrong(more, "one word too many")))
    };
    read(&mut words).map_err(|error| ScriptError { what: error.what.replace("SECONDS ", ""), ..error })
}

fn change(words: &mut Words<'_>, engine: &Engine) -> Result<Change, ScriptError> {
    match words.need("`server` or `rule`")? {
        "server" => {
            let name = words.need("the server, POOL/SERVER,")?;
            let server = engine.server_named(name).map_err(|error| words.wrong(name, &no_server(&error)))?;
            server_change(words, server)
        }
        "rule" => {
            let name = words.need("the name of the rule")?;
            let rule = engine.find_rule(name).ok_or_else(|| words.wrong(name, "not a rule of the configuration"))?;
            match words.need("`on` or `off`")? {
                "on" => Ok(Change::Rule { rule, on: true }),
                "off" => Ok(Change::Rule { rule, on: false }),
                other => Err(words.wrong(other, "neither `on` nor `off`")),
            }
        }
        other => Err(words.wrong(other, "neither `server` nor `rule`")),
    }
}

/// Says what is wrong with the name of a server.
fn no_server(error: &NoServer) -> String {
    match error {
        NoServer::Unknown { near: None, .. } => "not a server of the configuration (POOL/SERVER)".into(),
        NoServer::Unknown { near: Some(near), .. } => {
            format!("not a server of the configuration; did you mean {near}?")
        }
        NoServer::Ambiguous { all, .. } => format!("a server of several pools: write {}", all.join(" or ")),
    }
}

fn server_change(words: &mut Words<'_>, server: ServerId) -> Result<Change, ScriptError> {
    let admin = |admin| Ok(Change::Admin { server, admin, deadline: None });
    match words.need("the event")? {
        "up" => Ok(Change::Health { server, up: Some(true) }),
        "down" => Ok(Change::Health { server, up: Some(false) }),
        "auto" => Ok(Change::Health { server, up: None }),
        "enable" => admin(Admin::Enabled),
        "disable" => admin(Admin::Disabled),
        "drain" => {
            let deadline = match words.next() {
                None => None,
                Some(span) => {
                    Some(humantime::parse_duration(span).map_err(|_| words.wrong(span, "not a time such as 60s"))?)
                }
            };
            Ok(Change::Admin { server, admin: Admin::Draining, deadline })
        }
        "weight" => {
            let weight = words.need("the weight, 0 to 65535,")?;
            let weight = weight.parse().map_err(|_| words.wrong(weight, "not a weight from 0 to 65535"))?;
            Ok(Change::Weight { server, weight })
        }
        "load" => {
            let load = words.need("the load, 0 to 100,")?;
            let percent = load.parse().ok().filter(|percent| *percent <= 100);
            let load = percent.ok_or_else(|| words.wrong(load, "not a load from 0 to 100 percent"))?;
            match words.next() {
                None => Ok(Change::Load { server, load, maintenance: false }),
                Some("maintenance") => Ok(Change::Load { server, load, maintenance: true }),
                Some(other) => Err(words.wrong(other, "not `maintenance`")),
            }
        }
        other => Err(words.wrong(other, "not an event of a server")),
    }
}

fn seconds(word: &str) -> Option<Duration> {
    let number = word.strip_suffix('s').unwrap_or(word);
    let plain = number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    Duration::try_from_secs_f64(number.parse().ok().filter(|_| plain)?).ok()
}

/// The words of a line, with their positions.
struct Words<'l> {
    line: &'l str,
    rest: &'l str,
    number: usize,
}

impl<'l> Words<'l> {
    fn next(&mut self) -> Option<&'l str> {
        let rest = self.rest.trim_start();
        if rest.is_empty() {
            self.rest = rest;
            return None;
        }
        let (word, rest) = rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len()));
        self.rest = rest;
        Some(word)
    }

    fn need(&mut self, what: &str) -> Result<&'l str, ScriptError> {
        self.next().ok_or_else(|| {
            let column = self.line.chars().count() + 1;
            ScriptError { line: self.number, column, what: format!("{what} is missing; {FORMS}") }
        })
    }

    /// Returns the error for a word of this line.
    fn wrong(&self, word: &str, why: &str) -> ScriptError {
        let at = (word.as_ptr() as usize).checked_sub(self.line.as_ptr() as usize);
        let column = at.and_then(|at| self.line.get(..at)).map_or(1, |before| before.chars().count() + 1);
        ScriptError { line: self.number, column, what: format!("{word:?} is {why}; {FORMS}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;
    use crate::policy::{Action, RuleSettings};

    fn engine() -> Engine {
        use crate::balance::{Listen, PoolSettings, Protocol, ServerSettings, ServiceSettings};
        use crate::ids::PoolId;
        let listen = Listen::one([192, 0, 2, 1].into(), Protocol::Tcp, 80, 80);
        let mut settings = Settings {
            services: vec![ServiceSettings::new("web", vec![listen], PoolId(0))],
            pools: vec![PoolSettings::new("web", vec![ServerId(0), ServerId(1)])],
            servers: ["web-1", "web-2"].map(|name| ServerSettings::new(name, PoolId(0))).into(),
            ..Settings::default()
        };
        settings.table.max_flows = 10;
        settings.policy.rules.push(RuleSettings::new("block", Action::Drop));
        Engine::new(&settings)
    }

    #[test]
    fn every_form_is_read_and_sorted_by_time() {
        let text = "# a comment\n\n 30 server web/web-1 drain 60s # by hand\n12.5 server web/web-2 down\n\
                    20s server web/web-2 up\n21 server web/web-2 auto\n25 server web/web-1 weight 5\n\
                    31 server web/web-1 load 80 maintenance\n31 server web/web-1 enable\n32 rule block off\n";
        let script = parse(text, &engine()).unwrap();
        let at: Vec<f64> = script.iter().map(|(at, ..)| at.as_secs_f64()).collect();
        assert_eq!(at, [12.5, 20.0, 21.0, 25.0, 30.0, 31.0, 31.0, 32.0]);
        let (one, two) = (ServerId(0), ServerId(1));
        let want = [
            Change::Health { server: two, up: Some(false) },
            Change::Health { server: two, up: Some(true) },
            Change::Health { server: two, up: None },
            Change::Weight { server: one, weight: 5 },
            Change::Admin { server: one, admin: Admin::Draining, deadline: Some(Duration::from_secs(60)) },
            Change::Load { server: one, load: 80, maintenance: true },
            Change::Admin { server: one, admin: Admin::Enabled, deadline: None },
            Change::Rule { rule: 0, on: false },
        ];
        assert_eq!(script.iter().map(|(_, change, _)| change.clone()).collect::<Vec<_>>(), want);
        assert_eq!(script[4].2, "server web/web-1 drain 60s");
    }

    #[test]
    fn a_wrong_word_is_reported_with_its_position() {
        let cases = [
            ("x server web/web-1 up", 1, "\"x\" is not a time in seconds"),
            ("-1 server web/web-1 up", 1, "\"-1\" is not a time"),
            ("1 sever web/web-1 up", 3, "\"sever\" is neither `server` nor `rule`"),
            ("1 server web/web-9 up", 10, "\"web/web-9\" is not a server of the configuration"),
            ("1 server web/web-1 fly", 20, "\"fly\" is not an event"),
            ("1 server web/web-1 weight 65536", 27, "not a weight from 0 to 65535"),
            ("1 server web/web-1 load 101", 25, "0 to 100 percent"),
            ("1 server web/web-1", 19, "the event is missing"),
            ("1 rule block maybe", 14, "neither `on` nor `off`"),
            ("1 rule bloc on", 8, "not a rule of the configuration"),
            ("1 rule block on off", 17, "one word too many"),
        ];
        for (line, column, what) in cases {
            let error = parse(&format!("\n{line}"), &engine()).unwrap_err();
            assert_eq!((error.line, error.column), (2, column), "{line}: {error}");
            assert!(error.what.contains(what), "{error}");
        }
    }
}
