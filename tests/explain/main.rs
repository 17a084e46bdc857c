//! Golden explanations: one case for each algorithm, each reason for a drop, each kind of consumed packet, and more.
//!
//! A case sets an engine up, explains one packet and compares the text with `tests/explain/NAME.txt`. Then it hands the
//! packet to the engine: it must meet the outcome that was explained, become the bytes that were foreseen, and cause the
//! packets that were foreseen. `BLESS=1 cargo test --test explain` writes the texts; read each before you commit it.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "helpers of a test program")]

mod algorithms;
mod captures;
mod case;
mod consumed;
mod drops;
mod drops_errors;
mod drops_limits;
mod flows;
#[path = "../common/setup.rs"]
mod setup;

use case::{Case, Shows};
use equipoise::balance::Algorithm;
use equipoise::engine::{Consumed, Reason};
use std::collections::BTreeSet;
use std::fs;

fn cases() -> Vec<Case> {
    let groups = [
        algorithms::cases(),
        drops::cases(),
        drops_errors::cases(),
        drops_limits::cases(),
        consumed::cases(),
        flows::cases(),
    ];
    groups.into_iter().flatten().collect()
}

#[test]
fn each_explanation_is_as_its_golden_text_and_comes_true() {
    let failures: Vec<String> = cases().into_iter().filter_map(|case| case.run().err()).collect();
    assert!(failures.is_empty(), "{} cases failed\n\n{}", failures.len(), failures.join("\n\n"));
}

#[test]
fn every_algorithm_reason_and_kind_has_a_case() {
    let cases = cases();
    let shown: BTreeSet<String> = cases.iter().map(|case| case.shows.name()).collect();
    let algorithms = Algorithm::ALL.into_iter().map(Shows::Algorithm);
    let reasons = Reason::ALL.iter().copied().map(Shows::Drop);
    let kinds = Consumed::ALL.into_iter().map(Shows::Consume);
    for shows in algorithms.chain(reasons).chain(kinds) {
        assert!(shown.contains(&shows.name()), "no case shows {}", shows.name());
    }
    assert_eq!(shown.len(), cases.len(), "a name stands twice");
}

#[test]
fn each_golden_text_has_its_case() {
    let named: BTreeSet<String> = cases().iter().map(|case| format!("{}.txt", case.shows.name())).collect();
    let entries = fs::read_dir(case::directory()).expect("the directory of the golden texts");
    let found: BTreeSet<String> = entries
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a plain name"))
        .filter(|name| name.ends_with(".txt"))
        .collect();
    assert_eq!(found, named, "files (left) against cases (right)");
}
