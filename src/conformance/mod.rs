//! Runs the checklist on this build of the engine: each row is proven by replays whose outcome is known octet by octet.
//!
//! It must not judge packets: a case passes if its report and its translated capture match its files.

mod rows;

pub use rows::{Proof, ROWS, Row};

use crate::config;
use crate::replay::{self, Args, Format};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The result of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All its cases match their files.
    Pass,
    /// One case does not: which, and how.
    Fail(String),
    /// It does not apply, for this reason.
    NotApplicable(&'static str),
}

impl Outcome {
    /// Returns the word used in tables and JSON.
    pub const fn name(&self) -> &'static str {
        match self {
            Outcome::Pass => "pass",
            Outcome::Fail(_) => "FAIL",
            Outcome::NotApplicable(_) => "n/a",
        }
    }
}

/// The rows with their results.
#[derive(Debug)]
pub struct Report {
    /// In the order of the checklist.
    pub rows: Vec<(Row, Outcome)>,
}

/// The names that a case's capture can have.
const INPUTS: [&str; 4] = ["in.pcapng", "in.pcap", "in.pcapng.gz", "in.pcap.gz"];

/// Runs every row whose name contains `filter`, ignoring case, with the cases in a directory; `scratch` is a directory for
/// the captures that this makes.
pub fn run(cases: &Path, scratch: &Path, filter: &str) -> Report {
    let mut done: BTreeMap<&str, Result<(), String>> = BTreeMap::new();
    let wanted = |row: &&Row| row.id.to_lowercase().contains(&filter.to_lowercase());
    let mut judge = |row: &Row| match row.proof {
        Proof::NotApplicable(reason) => Outcome::NotApplicable(reason),
        Proof::Cases(names) => {
            let failed = names.iter().find_map(|name| {
                let result = done.entry(name).or_insert_with(|| case(&cases.join(name), scratch));
                result.as_ref().err().map(|why| format!("{name}: {why}"))
            });
            failed.map_or(Outcome::Pass, Outcome::Fail)
        }
    };
    Report { rows: ROWS.iter().copied().flatten().filter(wanted).map(|row| (*row, judge(row))).collect() }
}

/// Replays a case and compares the result with its files.
fn case(dir: &Path, scratch: &Path) -> Result<(), String> {
    let read = |path: PathBuf| fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()));
    let input = INPUTS.iter().map(|name| dir.join(name)).find(|path| path.is_file());
    let input = input.ok_or_else(|| format!("no capture in {}", dir.display()))?;
    let text = read(dir.join("config.toml"))?;
    let parsed = config::parse_bytes(&text, &dir.join("config.toml").display().to_string());
    let settings = parsed.map_err(|error| error.to_string())?.settings;
    let output = scratch.join("out.pcapng");
    let events = Some(dir.join("events.txt")).filter(|path| path.is_file());
    let args = Args {
        settings,
        input,
        output: Some(output.clone()),
        format: Format::Text,
        partial: false,
        drain: false,
        events,
    };
    let mut report = Vec::new();
    replay::run(&args, &mut report).map_err(|error| error.to_string())?;
    for (name, have, want) in [
        ("expect.txt", report, read(dir.join("expect.txt"))?),
        ("out.pcapng", read(output)?, read(dir.join("out.pcapng"))?),
    ] {
        if let Some(at) = (0..have.len().max(want.len())).find(|at| have.get(*at) != want.get(*at)) {
            let line = want[..at.min(want.len())].iter().filter(|byte| **byte == b'\n').count() + 1;
            let place = if name == "expect.txt" { format!("line {line}") } else { format!("octet {at}") };
            return Err(format!("{name} differs from {place} on"));
        }
    }
    Ok(())
}

impl Report {
    /// Returns how many rows passed, failed, and do not apply.
    pub fn counts(&self) -> [usize; 3] {
        let count = |name| self.rows.iter().filter(|(_, outcome)| outcome.name() == name).count();
        [count("pass"), count("FAIL"), count("n/a")]
    }

    /// Formats the table, with a closing line of totals.
    pub fn text(&self) -> String {
        let proof = |row: &Row, outcome: &Outcome| match (outcome, row.proof) {
            (Outcome::Fail(why), _) => why.clone(),
            (Outcome::NotApplicable(reason), _) => (*reason).to_owned(),
            (_, Proof::Cases(names)) => names.join(", "),
            (_, Proof::NotApplicable(reason)) => reason.to_owned(),
        };
        let header = ["", "REQUIREMENT", "SECTION", "WHAT", "VALUE", "PROVEN BY, OR WHY NOT"].map(str::to_owned);
        let mut lines = vec![header];
        for (row, outcome) in &self.rows {
            let cells = [outcome.name(), row.id, row.section, row.requirement, row.value].map(str::to_owned);
            let [a, b, c, d, e] = cells;
            lines.push([a, b, c, d, e, proof(row, outcome)]);
        }
        let width = |column: usize| lines.iter().map(|cells| cells[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..5).map(width).chain([0]).collect();
        let mut text = String::new();
        for cells in &lines {
            let line: Vec<String> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            text += line.join("  ").trim_end();
            text.push('\n');
        }
        let [pass, fail, not] = self.counts();
        text + &format!("{} requirements: {pass} pass, {fail} fail, {not} do not apply\n", self.rows.len())
    }

    /// Returns the same as one JSON object.
    pub fn json(&self) -> serde_json::Value {
        let row = |(row, outcome): &(Row, Outcome)| {
            let (cases, reason) = match (row.proof, outcome) {
                (Proof::Cases(names), Outcome::Fail(why)) => (names, Some(why.as_str())),
                (Proof::Cases(names), _) => (names, None),
                (Proof::NotApplicable(reason), _) => (&[][..], Some(reason)),
            };
            json!({
                "id": row.id, "section": row.section, "requirement": row.requirement, "value": row.value,
                "result": outcome.name().to_lowercase(), "cases": cases, "reason": reason,
            })
        };
        let [pass, fail, not] = self.counts();
        json!({
            "rows": self.rows.iter().map(row).collect::<Vec<_>>(),
            "pass": pass, "fail": fail, "not_applicable": not,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn cases() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("pcap-tests/cases")
    }

    #[test]
    fn every_row_passes_or_says_why_it_does_not_apply() {
        let scratch = tempfile::tempdir().unwrap();
        let report = run(&cases(), scratch.path(), "");
        let failed: Vec<_> = report.rows.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Fail(_))).collect();
        assert!(failed.is_empty(), "{failed:#?}");
        let ids: BTreeSet<_> = report.rows.iter().map(|(row, _)| row.id).collect();
        assert_eq!(ids.len(), report.rows.len(), "an ID occurs twice");
        assert!(report.text().ends_with(" do not apply\n") && report.json()["fail"] == 0);
        for (row, _) in &report.rows {
            assert!(!matches!(row.proof, Proof::Cases([])), "{}: nothing proves it", row.id);
        }
    }

    #[test]
    fn a_spoilt_expectation_makes_its_rows_fail() {
        let (dir, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let name = "an-absent-udp-checksum-stays-absent";
        let copy = dir.path().join(name);
        fs::create_dir(&copy).unwrap();
        for file in fs::read_dir(cases().join(name)).unwrap().map(Result::unwrap) {
            fs::copy(file.path(), copy.join(file.file_name())).unwrap();
        }
        let outcome = || run(dir.path(), scratch.path(), "rfc 768 zero").rows.remove(0).1;
        assert_eq!(outcome(), Outcome::Pass);
        for (file, change) in [("expect.txt", 30), ("out.pcapng", 200)] {
            let path = copy.join(file);
            let whole = fs::read(&path).unwrap();
            let mut spoilt = whole.clone();
            spoilt[change] ^= 1;
            fs::write(&path, &spoilt).unwrap();
            let Outcome::Fail(why) = outcome() else { panic!("{file} was spoilt") };
            assert!(why.contains(file), "{why}");
            fs::write(&path, &whole).unwrap();
        }
        fs::remove_file(copy.join("config.toml")).unwrap();
        assert!(matches!(outcome(), Outcome::Fail(why) if why.contains("cannot read")));
    }
}
