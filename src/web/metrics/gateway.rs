//! The program, its device, its loop, what it installed in the system, this server, and the process.

use super::out::Out;
use crate::control::{DeviceCounters, Snapshot, Status, Work};
use std::collections::BTreeMap;
use std::fmt;

/// What the HTTP server counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HttpTotals {
    /// Responses by status code.
    pub responses: BTreeMap<u16, u64>,
    /// Open connections.
    pub connections: u64,
    /// Connections that were refused because all places were taken.
    pub refused: u64,
    /// Connections that were closed because they were too slow, or made room.
    pub slow: u64,
    /// Attempts to listen that failed.
    pub bind_failures: u64,
}

/// What the system knows about the process.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Process {
    /// Seconds since 1970 when it started.
    pub started: f64,
    /// Seconds of processor time.
    pub cpu: f64,
    /// Memory in bytes.
    pub resident: u64,
}

pub(super) fn program(snapshot: &Snapshot, out: &mut Out<'_>) -> fmt::Result {
    let status = &snapshot.status;
    out.info("equipoise_build", "The version that runs.", ["version"], [[&*status.version]])?;
    out.gauge("equipoise_uptime_seconds", "Time since the gateway started.", status.uptime_ms as f64 / 1e3)
}

pub(super) fn device(device: &DeviceCounters, out: &mut Out<'_>) -> fmt::Result {
    let directions = [["read"], ["written"]];
    let both = |read, written| directions.into_iter().zip([read, written]);
    out.counters(
        "equipoise_device_packets",
        "Packets read from the device and written to it; a super-packet is one.",
        ["direction"],
        both(device.read, device.written),
    )?;
    let bytes = both(device.read_bytes, device.written_bytes);
    out.counters("equipoise_device_bytes", "Their bytes.", ["direction"], bytes)?;
    out.counters(
        "equipoise_device_failures",
        "Reads and writes that failed; a packet that cannot be written is lost.",
        ["direction"],
        both(device.read_failures, device.write_failures),
    )?;
    out.counter(
        "equipoise_device_super_packets",
        "Super-packets read or written (segmentation offload).",
        device.super_packets,
    )?;
    out.counter(
        "equipoise_device_bad_headers",
        "Packets read with an invalid device header; they are lost.",
        device.bad_headers,
    )?;
    out.counter(
        "equipoise_device_lost_packets",
        "Packets lost in the queues of the device because they came faster than they were read; a super-packet is one.",
        device.lost,
    )
}

pub(super) fn work(work: &Work, out: &mut Out<'_>) -> fmt::Result {
    out.histograms(
        "equipoise_loop_turn_seconds",
        "Time from an event to the next wait of the loop that moves packets: how long a packet may have to wait.",
        1e-9,
        [],
        [([], &work.turns)],
    )?;
    out.histograms("equipoise_batch_packets", "Packets read at a time.", 1.0, [], [([], &work.batches)])
}

pub(super) fn system(status: &Status, out: &mut Out<'_>) -> fmt::Result {
    out.gauge(
        "equipoise_system_troubles",
        "Parts of what the gateway installed in the system (device, routes, rules) that do not work.",
        status.troubles.len() as f64,
    )?;
    out.counter(
        "equipoise_system_repairs",
        "Such parts that another program had removed and the gateway has restored.",
        status.repairs,
    )?;
    out.counter(
        "equipoise_lost_log_lines",
        "Lines of the log that were lost because stderr was not read.",
        status.lost_log_lines,
    )
}

pub(super) fn http(http: &HttpTotals, out: &mut Out<'_>) -> fmt::Result {
    let codes: Vec<(String, u64)> = http.responses.iter().map(|(code, count)| (code.to_string(), *count)).collect();
    let responses = codes.iter().map(|(code, count)| ([&**code], *count));
    out.counters("equipoise_http_responses", "Responses of this server, by status code.", ["code"], responses)?;
    out.gauge("equipoise_http_connections", "Open connections to this server.", http.connections as f64)?;
    out.counter(
        "equipoise_http_refused_connections",
        "Connections refused because all places were taken.",
        http.refused,
    )?;
    out.counter("equipoise_http_slow_connections", "Connections closed because the client was too slow.", http.slow)?;
    out.counter(
        "equipoise_http_bind_failures",
        "Attempts to listen at the configured address that failed.",
        http.bind_failures,
    )
}

pub(super) fn process(process: &Process, out: &mut Out<'_>) -> fmt::Result {
    out.gauge("process_start_time_seconds", "Start of the process, in seconds since 1970.", process.started)?;
    out.seconds("process_cpu_seconds", "Processor time of the process.", process.cpu)?;
    out.gauge("process_resident_memory_bytes", "Memory of the process.", process.resident as f64)
}
