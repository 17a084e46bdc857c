//! Which of the things that two lists share stand elsewhere in the second one.

use crate::config::listing::Object;
use std::collections::{HashMap, HashSet};

/// Finds the fewest objects without which those in both lists have the same order in both.
///
/// Returns by name where each stood and where it stands, in words: `after "a"`, or `before "a"` where nothing is before
/// it. The words refer to the nearest object that was not moved, so they always differ.
pub(super) fn moved(old: &[&Object], new: &[&Object]) -> HashMap<String, (String, String)> {
    let places: HashMap<&str, usize> = old.iter().enumerate().map(|(at, object)| (object.name.as_str(), at)).collect();
    let kept: Vec<(usize, &str)> =
        new.iter().filter_map(|object| Some((*places.get(object.name.as_str())?, object.name.as_str()))).collect();
    let staying: HashSet<&str> = ascending(&kept).into_iter().collect();
    let (from, to) = (described(old, &staying), described(new, &staying));
    let elsewhere = kept.iter().filter(|(_, name)| !staying.contains(name));
    elsewhere.filter_map(|(_, name)| Some(((*name).into(), (from.get(name)?.clone(), to.get(name)?.clone())))).collect()
}

/// Returns the names of a longest ascending subsequence.
fn ascending<'n>(all: &[(usize, &'n str)]) -> Vec<&'n str> {
    // For each length, the end of the subsequence with the least last place; each element knows the one before it.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(all.len());
    for (at, (place, _)) in all.iter().enumerate() {
        let length = ends.partition_point(|end| all[*end].0 < *place);
        before.push(length.checked_sub(1).map(|shorter| ends[shorter]));
        match ends.get_mut(length) {
            Some(end) => *end = at,
            None => ends.push(at),
        }
    }
    let mut names = Vec::with_capacity(ends.len());
    let mut next = ends.last().copied();
    while let Some(at) = next {
        names.push(all[at].1);
        next = before[at];
    }
    names
}

/// Describes the place of each object that does not stay.
fn described<'o>(all: &[&'o Object], staying: &HashSet<&str>) -> HashMap<&'o str, String> {
    let first = all.iter().find(|object| staying.contains(object.name.as_str()));
    let mut last = None;
    let mut places = HashMap::new();
    for object in all {
        if staying.contains(object.name.as_str()) {
            last = Some(object);
            continue;
        }
        let place = match (last, first) {
            (Some(last), _) => format!("after \"{}\"", last.name),
            (None, Some(first)) => format!("before \"{}\"", first.name),
            (None, None) => String::new(),
        };
        places.insert(object.name.as_str(), place);
    }
    places
}
