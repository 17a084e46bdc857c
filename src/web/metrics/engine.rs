//! Packets by their fate, flows, and what is short of room.

use super::out::Out;
use crate::control::{Counters, Short, Status};
use std::fmt;

pub(super) fn packets(counters: &Counters, out: &mut Out<'_>) -> fmt::Result {
    out.counter(
        "equipoise_received_packets",
        "Packets that the engine has decided about: forwarded, consumed or dropped. A super-packet counts as its segments.",
        counters.packets_in,
    )?;
    out.counter("equipoise_received_bytes", "Their bytes.", counters.bytes_in)?;
    out.counters(
        "equipoise_forwarded_packets",
        "Packets forwarded: translated for their flow, or foreign, which belong to no service and go on unchanged.",
        ["kind"],
        [(["translated"], counters.translated), (["foreign"], counters.foreign)],
    )?;
    let kinds = counters.consumed.iter().map(|count| ([count.kind.name()], count.count));
    out.counters(
        "equipoise_consumed_packets",
        "Packets that the gateway consumed, most of them with an answer.",
        ["kind"],
        kinds,
    )?;
    let reasons = counters.dropped.iter().map(|count| ([count.kind.name()], count.count));
    out.counters("equipoise_dropped_packets", "Packets dropped, each for one reason.", ["reason"], reasons)?;
    out.counter(
        "equipoise_sent_packets",
        "Packets that the gateway itself has made: probes, answers, resets.",
        counters.transmitted,
    )
}

pub(super) fn flows(counters: &Counters, out: &mut Out<'_>) -> fmt::Result {
    out.gauge(
        "equipoise_flows",
        "Flows in the table, half-open ones not counted.",
        (counters.flows - counters.half_open) as f64,
    )?;
    out.gauge("equipoise_flows_limit", "Most flows that the table has room for.", counters.max_flows as f64)?;
    out.gauge("equipoise_half_open_flows", "Half-open flows: TCP, handshake incomplete.", counters.half_open as f64)?;
    out.gauge(
        "equipoise_half_open_flows_limit",
        "Most half-open flows that there is room for.",
        counters.max_half_open as f64,
    )?;
    let states = counters.states.iter().map(|count| ([count.kind.name()], count.count as f64));
    out.gauges(
        "equipoise_flows_by_state",
        "Flows in the table by the state that decides about their timeout.",
        ["state"],
        states,
    )?;
    out.counter("equipoise_flows_opened", "Flows created.", counters.flows_opened)?;
    let causes = counters.flows_ended.iter().map(|count| ([count.kind.name()], count.count));
    out.counters("equipoise_flows_ended", "Flows ended, by cause.", ["cause"], causes)?;
    let classes = counters.gave_way.iter().map(|count| ([count.kind.name()], count.count));
    out.counters(
        "equipoise_flows_gave_way",
        "Flows that gave way to new ones because there was no room, by class.",
        ["class"],
        classes,
    )
}

pub(super) fn shortcut(counters: &Counters, out: &mut Out<'_>) -> fmt::Result {
    let of = counters.shortcut.unwrap_or_default();
    out.gauge("equipoise_shortcut_flows", "Flows that the kernel carries past the device.", of.flows as f64)?;
    out.gauge(
        "equipoise_shortcut_flows_limit",
        "Most flows that the kernel carries at a time; 0 without the shortcut.",
        of.max_flows as f64,
    )?;
    out.counter(
        "equipoise_shortcut_packets",
        "Packets that the kernel has carried past the device; those of services and servers include them.",
        of.packets,
    )?;
    out.counter("equipoise_shortcut_bytes", "Bytes that the kernel has carried past the device.", of.bytes)
}

pub(super) fn pressure(status: &Status, out: &mut Out<'_>) -> fmt::Result {
    let row = |of: Short| status.pressures.iter().find(|row| row.of == of);
    let is_on = Short::ALL.map(|of| ([of.name()], f64::from(u8::from(row(of).is_some()))));
    out.gauges(
        "equipoise_pressure",
        "Whether room is short (1) or not (0): it ends after a minute in which nothing gave way.",
        ["of"],
        is_on,
    )?;
    let since = Short::ALL.map(|of| ([of.name()], row(of).map_or(0.0, |row| row.for_ms as f64 / 1e3)));
    out.gauges("equipoise_pressure_duration_seconds", "How long room has been short; 0 while it is not.", ["of"], since)
}
