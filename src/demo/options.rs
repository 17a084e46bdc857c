//! The demo's options, and how it can fail.

use std::fmt;

/// The most servers: a bar for each must fit on a screen.
const MOST_SERVERS: usize = 9;

/// What the demo is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DemoOptions {
    /// Requests to send; ignored with `forever`.
    pub requests: u64,
    /// Concurrent clients, 1 to 1,000.
    pub clients: u16,
    /// The most seconds to send for; `None` for as long as it takes.
    pub seconds: Option<u64>,
    /// Whether to keep going, gently, until Ctrl-C or `seconds`, for people who want to experiment with it.
    pub forever: bool,
    /// Whether a server is stopped in mid-traffic and restarted, if there are two with a weight.
    pub drill: bool,
    /// Whether to print nothing but one JSON object at the end.
    pub json: bool,
    /// The servers' weights; their number is the number of servers, 1 to 9.
    pub weights: Vec<u16>,
}

impl Default for DemoOptions {
    fn default() -> Self {
        DemoOptions {
            requests: 3000,
            clients: 16,
            seconds: None,
            forever: false,
            drill: true,
            json: false,
            weights: vec![1; 3],
        }
    }
}

impl DemoOptions {
    /// Returns the server that a drill stops: the last one with a weight, if another can take over.
    pub(super) fn victim(&self) -> Option<usize> {
        let mut weighty = self.weights.iter().enumerate().filter(|(_, weight)| **weight > 0).map(|(place, _)| place);
        let (_, last) = (weighty.next()?, weighty.next_back()?);
        (self.drill && !self.forever).then_some(last)
    }

    pub(super) fn check(&self) -> Result<(), DemoError> {
        let refuse = |what: String| Err(DemoError::new("these options do not work", what));
        if !(1..=MOST_SERVERS).contains(&self.weights.len()) {
            return refuse(format!("{} weights: give 1 to {MOST_SERVERS}, one per server", self.weights.len()));
        }
        if self.weights.iter().all(|w| *w == 0) {
            return refuse("every weight is 0, so no server would get a request; give one of them 1 or more".into());
        }
        if !(1..=1000).contains(&self.clients) {
            return refuse(format!("{} clients; give 1 to 1000", self.clients));
        }
        if self.requests == 0 && !self.forever {
            return refuse("0 requests; give 1 or more".into());
        }
        Ok(())
    }
}

/// Why the demo could not run, or what went wrong.
#[derive(Debug)]
pub enum DemoError {
    /// What failed, and why or how to fix it, line by line.
    Failed(String),
    /// It was interrupted; everything sent so far is in order.
    Interrupted,
}

impl DemoError {
    pub(super) fn new(what: impl fmt::Display, why: impl fmt::Display) -> DemoError {
        DemoError::Failed(format!("{what}:\n  {why}"))
    }
}

impl fmt::Display for DemoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DemoError::Failed(text) => f.write_str(text),
            DemoError::Interrupted => f.write_str("stopped before its end"),
        }
    }
}

impl std::error::Error for DemoError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_options_are_refused() {
        let good = DemoOptions::default();
        assert!(good.check().is_ok());
        let bad = [
            DemoOptions { weights: vec![], ..good.clone() },
            DemoOptions { weights: vec![1; 10], ..good.clone() },
            DemoOptions { weights: vec![0, 0], ..good.clone() },
            DemoOptions { clients: 0, ..good.clone() },
            DemoOptions { requests: 0, ..good.clone() },
        ];
        for options in bad {
            assert!(options.check().is_err(), "{options:?}");
        }
        assert!(DemoOptions { requests: 0, forever: true, ..good }.check().is_ok());
    }
}
