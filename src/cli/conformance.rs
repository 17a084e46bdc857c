//! `equipoise conformance`: the checklist on this very engine.

use super::Failed;
use crate::conformance;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Where the cases stand in the source tree.
const CASES: &str = "pcap-tests/cases";

/// Runs the checklist and prints it; fails where a row fails.
pub(super) fn run(cases: Option<&Path>, filter: &str, json: bool, out: &mut dyn Write) -> Result<(), Failed> {
    let cases = match cases {
        Some(dir) => dir.to_owned(),
        None => usual().ok_or_else(|| {
            Failed::Said(format!(
                "there is no {CASES} here: run it in the source tree, or name the directory by --cases"
            ))
        })?,
    };
    if !cases.is_dir() {
        return Err(Failed::Said(format!(
            "{} is no directory of cases: check the path after --cases",
            cases.display()
        )));
    }
    let scratch = std::env::temp_dir().join(format!("equipoise-conformance-{}", std::process::id()));
    let failed = |error| Failed::Said(format!("cannot make the directory {}: {error}", scratch.display()));
    fs::create_dir(&scratch).map_err(failed)?;
    let report = conformance::run(&cases, &scratch, filter);
    // What is left there is of no use; that it stays would be no failure of the checklist.
    let _ = fs::remove_dir_all(&scratch);
    if report.rows.is_empty() {
        return Err(Failed::Said(format!("no requirement's name holds \"{filter}\"; --only 4787 is one that does")));
    }
    if json {
        writeln!(out, "{}", report.json())?;
    } else {
        out.write_all(report.text().as_bytes())?;
    }
    if report.counts()[1] > 0 { Err(Failed::Shown) } else { Ok(()) }
}

/// The cases of the working directory, or of the tree that this program was built from.
fn usual() -> Option<PathBuf> {
    [PathBuf::from(CASES), Path::new(env!("CARGO_MANIFEST_DIR")).join(CASES)].into_iter().find(|dir| dir.is_dir())
}
