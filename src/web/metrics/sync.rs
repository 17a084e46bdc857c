//! The other gateway of a pair. Without one, none of these metrics has a value.

use super::out::Out;
use crate::control::SyncRow;
use crate::sync::Role;
use std::fmt;

pub(super) fn sync(row: Option<&SyncRow>, out: &mut Out<'_>) -> fmt::Result {
    let roles = row.into_iter().flat_map(|row| {
        Role::ALL.map(|role| ([row.peer.as_str(), role.name()], f64::from(u8::from(role.name() == row.role))))
    });
    out.gauges("equipoise_sync_role", "Whether this gateway has the role (1) or not (0).", ["peer", "role"], roles)?;
    let mut gauge = |name: &str, help: &str, value: &dyn Fn(&SyncRow) -> f64| {
        out.gauges(name, help, ["peer"], row.map(|row| ([row.peer.as_str()], value(row))))
    };
    let flag = |is: bool| f64::from(u8::from(is));
    gauge("equipoise_sync_ready", "Whether this gateway may be elected (1).", &|row| flag(row.ready))?;
    gauge("equipoise_sync_connected", "Whether there is a connection to the other gateway (1).", &|row| {
        flag(row.link.is_some())
    })?;
    gauge("equipoise_sync_in_step", "Whether both know all flows of the other (1).", &|row| {
        flag(row.link.is_some_and(|link| link.in_step))
    })?;
    gauge(
        "equipoise_sync_configurations_differ",
        "Whether the configurations differ in what concerns flows (1).",
        &|row| flag(row.link.is_some_and(|link| link.differs)),
    )?;
    gauge("equipoise_sync_unacknowledged_frames", "Frames that the other gateway has not acknowledged.", &|row| {
        row.link.map_or(0.0, |link| link.lag_frames as f64)
    })?;
    gauge("equipoise_sync_active_seconds", "Time since this gateway last became active; 0 if it never did.", &|row| {
        row.takeover.map_or(0.0, |takeover| takeover.ago_ms as f64 / 1e3)
    })?;
    gauge("equipoise_sync_takeover_flows", "Flows that it knew when it last became active.", &|row| {
        row.takeover.map_or(0.0, |takeover| takeover.flows as f64)
    })?;
    let mut counter = |name: &str, help: &str, value: fn(&SyncRow) -> u64| {
        out.counters(name, help, ["peer"], row.map(|row| ([row.peer.as_str()], value(row))))
    };
    counter("equipoise_sync_connections", "Connections to the other gateway.", |row| row.connections)?;
    counter("equipoise_sync_sent_bytes", "Bytes sent to the other gateway.", |row| row.sent_bytes)?;
    counter("equipoise_sync_received_bytes", "Bytes received from the other gateway.", |row| row.received_bytes)?;
    let waited = row.into_iter().flat_map(|row| {
        let end = |end, count| ([end, row.peer.as_str()], count);
        let held = row.held.into_iter();
        held.flat_map(move |held| {
            [end("acknowledged", held.acknowledged), end("late", held.late), end("not-held", held.not_held)]
        })
    });
    out.counters(
        "equipoise_sync_answers",
        "Servers' answers to SYNs that were to wait for the other gateway (`before-answer`): until it knew of the connection, \
         without its acknowledgement, or not at all.",
        ["end", "peer"],
        waited,
    )
}
