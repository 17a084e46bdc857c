//! Timeouts: those of all services, and where those of one service differ from them.

use super::{Keys, Object, keys, text};
use crate::balance::{PortTimeouts, Protocol, ServiceSettings};
use crate::config::raw::timeouts::{KEYS, family};
use crate::config::settings::Settings;
use crate::flow::{TimeoutState, Timeouts};
use crate::time::Duration;

/// The timeouts of all services, in the order of [`KEYS`].
pub(super) fn base(timeouts: &Timeouts) -> Object {
    let mut keys = Keys::of(&keys::TIMEOUTS);
    for (key, state) in KEYS.into_iter().zip(TimeoutState::ALL) {
        keys.put(key, text::span(timeouts.of(state)));
    }
    keys.single()
}

/// Where a timeout differs from that of all services: a protocol, and the first and the last port.
type Place = (Protocol, u16, u16);

/// Adds `[[service.timeouts]]`, resolved per key: `"30s" for 53/udp, 53/sctp; "2m" for gre`.
///
/// What is said twice, or overridden by an entry above it, is gone; so is what equals `[timeouts]`.
pub(super) fn of_service(keys: &mut Keys, service: &ServiceSettings, settings: &Settings) {
    keys.below(&keys::SERVICE_TIMEOUTS);
    for (key, state) in KEYS.into_iter().zip(TimeoutState::ALL) {
        let base = settings.table.timeouts.of(state);
        let applies = service.timeouts.iter().filter(|entry| key.starts_with(family(entry.protocol)));
        let differing = applies.filter_map(|entry| {
            let timeout = settings.table.profiles.get(usize::from(entry.profile).checked_sub(1)?)?.of(state);
            (timeout != base).then_some((timeout, place(entry)?))
        });
        let values: Vec<String> = grouped(differing).iter().map(|(timeout, places)| value(*timeout, places)).collect();
        keys.put_some(key, Some(values).filter(|values| !values.is_empty()).map(|values| values.join("; ")));
    }
}

/// The ports of an entry from 1 on; `None` if it has only port 0, which the file cannot name.
fn place(entry: &PortTimeouts) -> Option<Place> {
    (entry.last_port > 0).then_some((entry.protocol, entry.first_port.max(1), entry.last_port))
}

/// Gathers the places of each timeout; adjacent ones become one.
fn grouped(all: impl Iterator<Item = (Duration, Place)>) -> Vec<(Duration, Vec<Place>)> {
    let mut groups: Vec<(Duration, Vec<Place>)> = Vec::new();
    for (timeout, (protocol, first, last)) in all {
        let at = groups.iter().position(|(known, _)| *known == timeout).unwrap_or(groups.len());
        if at == groups.len() {
            groups.push((timeout, Vec::new()));
        }
        let places = &mut groups[at].1;
        match places.last_mut() {
            Some(before) if before.0 == protocol && before.2.checked_add(1) == Some(first) => before.2 = last,
            _ => places.push((protocol, first, last)),
        }
    }
    groups
}

fn value(timeout: Duration, places: &[Place]) -> String {
    let write = |(protocol, first, last): &Place| match (*first, *last) {
        (1, u16::MAX) => protocol.name().to_string(),
        (first, last) if first == last => format!("{first}/{}", protocol.name()),
        (first, last) => format!("{first}-{last}/{}", protocol.name()),
    };
    let places: Vec<String> = places.iter().map(write).collect();
    format!("{} for {}", text::span(timeout), places.join(", "))
}
