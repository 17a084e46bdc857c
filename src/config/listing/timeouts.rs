//! Timeouts: those of all services, and where those of one service differ from them.

use super::{Keys, Object, keys, text};
use crate::balance::{PortTimeouts, Protocol, ServiceSettings};
use crate::config::raw::timeouts::{KEYS, family, well_known};
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
/// What is said twice, or overridden by an entry above it, is gone; so is what equals `[timeouts]`, except on ports whose
/// timeouts would be short otherwise.
pub(super) fn of_service(keys: &mut Keys, service: &ServiceSettings, settings: &Settings) {
    keys.below(&keys::SERVICE_TIMEOUTS);
    for (key, state) in KEYS.into_iter().zip(TimeoutState::ALL) {
        let base = settings.table.timeouts.of(state);
        let applies = service.timeouts.iter().filter(|entry| key.starts_with(family(entry.protocol)));
        let differing = applies.filter_map(|entry| {
            let timeout = settings.table.profiles.get(usize::from(entry.profile).checked_sub(1)?)?.of(state);
            (timeout != base).then_some((timeout, place(entry)?))
        });
        let usual = usual_on_well_known(service, settings, state).map(|place| (base, place));
        let values: Vec<String> =
            grouped(differing.chain(usual)).iter().map(|(timeout, places)| value(*timeout, places)).collect();
        keys.put_some(key, Some(values).filter(|values| !values.is_empty()).map(|values| values.join("; ")));
    }
}

/// The ports on which a timeout of UDP would be short by default, and is that of `[timeouts]` instead.
fn usual_on_well_known<'a>(
    service: &'a ServiceSettings,
    settings: &'a Settings,
    state: TimeoutState,
) -> impl Iterator<Item = Place> + 'a {
    let base = settings.table.timeouts.of(state);
    let is_usual = move |port: u16| match service.profile(Protocol::Udp, port).checked_sub(1) {
        None => true,
        Some(profile) => settings.table.profiles.get(usize::from(profile)).is_none_or(|own| own.of(state) == base),
    };
    let of_udp = matches!(state, TimeoutState::UdpOneWay | TimeoutState::UdpTwoWay);
    let short = well_known(service.listen.iter(), Protocol::Udp).into_iter();
    short
        .filter(move |(port, short)| of_udp && *short < base && is_usual(*port))
        .map(|(port, _)| (Protocol::Udp, port, port))
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
