//! Properties of the example configurations, and of all pairs of them.

use super::{examples, settings};
use crate::config::Settings;
use crate::config::listing::testing::written;
use crate::config::listing::{Object, objects};
use crate::engine::plan::diff::{ObjectChange, PlanDiff, RULE};

fn sorted(all: &[Object]) -> Vec<&Object> {
    let mut all: Vec<&Object> = all.iter().collect();
    all.sort_by_key(|object| (object.table, &object.name));
    all
}

#[test]
fn all_pairs_of_examples_mirror_each_other() {
    let examples: Vec<_> =
        examples().into_iter().map(|(path, settings)| (path, objects(&settings), settings)).collect();
    assert!(examples.len() > 100, "only {}", examples.len());
    let names = |diff: &PlanDiff, change: &ObjectChange| {
        let of = diff.objects.iter().filter(|object| object.change == *change);
        let mut all: Vec<_> = of.map(|object| (object.table, object.name.clone())).collect();
        all.sort();
        all
    };
    for (at, (path, a, settings)) in examples.iter().enumerate() {
        let same = PlanDiff::of_objects(a, a);
        assert!(same.is_empty() && same.objects.len() == a.len(), "{path}\n{same}");
        for (other, b, other_settings) in &examples[..at] {
            let (there, back) = (PlanDiff::of_objects(a, b), PlanDiff::of_objects(b, a));
            let what = || format!("{path} and {other}");
            assert_eq!(names(&there, &ObjectChange::Added), names(&back, &ObjectChange::Removed), "{}", what());
            assert_eq!(names(&there, &ObjectChange::Removed), names(&back, &ObjectChange::Added), "{}", what());
            assert_eq!(names(&there, &ObjectChange::Unchanged), names(&back, &ObjectChange::Unchanged), "{}", what());
            // Settings in the same order are equal if and only if there is no difference.
            assert_eq!(there.is_empty() && a == b, settings == other_settings, "{}\n{there}", what());
            assert!(!there.is_empty() || sorted(a) == sorted(b), "{}", what());
            assert_eq!(there.is_empty(), back.is_empty(), "{}", what());
        }
    }
}

/// Returns an equivalent file with everything except rules in a different order.
fn shuffled(settings: &Settings, random: &mut u64) -> String {
    let mut all = objects(settings);
    // Keys outside any table come first in a file.
    let (first, rest) = all.split_at_mut(1);
    assert_eq!(first[0].table, "");
    shuffle(rest, random);
    let rules: Vec<Object> = objects(settings).into_iter().filter(|object| object.table == RULE).collect();
    all.retain(|object| object.table != RULE);
    all.extend(rules);
    written(&all)
}

fn shuffle<T>(all: &mut [T], random: &mut u64) {
    for at in (1..all.len()).rev() {
        // Knuth's MMIX constants.
        *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        all.swap(at, (*random >> 33) as usize % (at + 1));
    }
}

#[test]
fn the_order_of_services_pools_and_servers_does_not_matter() {
    let mut random = 7;
    let mut reordered = 0;
    for (path, old) in examples() {
        for _ in 0..4 {
            let new = settings(&shuffled(&old, &mut random));
            let diff = PlanDiff::between(&old, &new);
            assert!(diff.is_empty(), "{path}\n{diff}");
            reordered += usize::from(old != new);
        }
    }
    assert!(reordered > 100, "only {reordered} files in another order");
}
