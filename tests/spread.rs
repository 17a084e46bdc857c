//! The figures in `docs/algorithms.md` are measured, and are measured again here.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "helpers of a test program")]

#[path = "common/random.rs"]
mod random;
#[path = "common/spread.rs"]
mod spread;

use equipoise::balance::{Algorithm, Prefixes};

#[test]
fn the_document_shows_what_is_measured() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/algorithms.md");
    let document = std::fs::read_to_string(path).expect("docs/algorithms.md exists");
    let want = spread::put(&document, &spread::tables()).expect("docs/algorithms.md has both marks");
    let differs = document.lines().zip(want.lines()).find(|(have, want)| have != want);
    assert!(document == want, "run `cargo bench --bench spread -- --write`; the first difference: {differs:?}");
}

#[test]
fn maglev_changes_as_much_as_the_papers_own_procedure_and_less_in_a_larger_table() {
    // NSDI 2016, 5.3 and figure 12.
    let mut all = Vec::new();
    for (size, lost) in [(65_537, 10), (65_537, 50), (655_373, 10)] {
        let ours = spread::moved(Algorithm::Maglev, None, None, size, 1000, lost).all;
        let paper = spread::paper_changes(size, 1000, lost);
        // Ours is a sample of 100,000 flows, theirs another choice of permutations.
        assert!((ours - paper).abs() < 0.1 + paper * 0.1, "{lost} of 1000, table {size}: {ours} %, paper {paper} %");
        all.push(ours);
    }
    assert!(all[1] > all[0] && all[2] < 0.6 * all[0], "{all:?}");
}

#[test]
fn source_hash_moves_no_flow_of_a_remaining_server() {
    let moved = spread::moved(Algorithm::SourceHash, Some(Prefixes::ADDRESS), None, 65_537, 100, 1);
    assert!(moved.others == 0.0 && (0.8..1.2).contains(&moved.all), "{} {}", moved.others, moved.all);
}
