//! `equipoise conformance`: the checklist, run on the engine in this binary.

use super::Failed;
use crate::conformance;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The directory of the cases in the source tree.
const CASES: &str = "pcap-tests/cases";

/// Runs the checklist and prints it; fails if a row fails.
pub(super) fn run(cases: Option<&Path>, filter: &str, json: bool, out: &mut dyn Write) -> Result<(), Failed> {
    let cases = match cases {
        Some(dir) => dir.to_owned(),
        None => usual().ok_or_else(|| {
            Failed::Message(format!(
                "no directory {CASES} here: run this in the source tree, or name the directory with --cases"
            ))
        })?,
    };
    if !cases.is_dir() {
        return Err(Failed::Message(format!("{} is not a directory: check the path after --cases", cases.display())));
    }
    let scratch = std::env::temp_dir().join(format!("equipoise-conformance-{}", std::process::id()));
    let failed = |error| Failed::Message(format!("cannot create the directory {}: {error}", scratch.display()));
    fs::create_dir(&scratch).map_err(failed)?;
    let report = conformance::run(&cases, &scratch, filter);
    // Scratch files left behind do not make the checklist fail.
    let _ = fs::remove_dir_all(&scratch);
    if report.rows.is_empty() {
        return Err(Failed::Message(format!(
            "no requirement has \"{filter}\" in its name; try, for example, --only 4787"
        )));
    }
    if json {
        writeln!(out, "{}", report.json())?;
    } else {
        out.write_all(report.text().as_bytes())?;
    }
    if report.counts()[1] > 0 { Err(Failed::Shown) } else { Ok(()) }
}

/// Returns the cases of the working directory, or of the tree that this program was built from.
fn usual() -> Option<PathBuf> {
    [PathBuf::from(CASES), Path::new(env!("CARGO_MANIFEST_DIR")).join(CASES)].into_iter().find(|dir| dir.is_dir())
}
