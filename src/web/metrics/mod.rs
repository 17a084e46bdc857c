//! Metrics in the text format of Prometheus (0.0.4) and in that of OpenMetrics (1.0), made of a snapshot.
//!
//! Names, units and labels follow the conventions of both: base units in the name (`_seconds`, `_bytes`), counters end in
//! `_total`, and labels have as many values as the configuration has names, or the program has words. docs/metrics.md has
//! every metric; `tests/metrics.rs` compares the two.
//!
//! To add metrics: a file beside `objects` with a function that takes the rows and `Out`, a line in `Families::write`,
//! and the row in docs/metrics.md that the test asks for.

mod engine;
mod format;
mod gateway;
mod objects;
mod out;
mod sync;

pub use format::Format;
pub use gateway::{HttpTotals, Process};

use crate::control::Snapshot;
use out::Out;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, prometheus_text, text};
use prometheus_client::registry::Registry;
use std::fmt;
use std::sync::Arc;

/// What metrics are made of.
#[derive(Debug, Clone)]
pub struct Families {
    /// The tables.
    pub snapshot: Arc<Snapshot>,
    /// What the server itself counts.
    pub http: HttpTotals,
    /// What the system knows about the process, if it says so.
    pub process: Option<Process>,
}

impl Families {
    /// Writes all of them.
    pub fn text(&self, format: Format) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self.clone()));
        // About 100 bytes for each of the 18 metrics of a server.
        let mut all = String::with_capacity(32 * 1024 + 2048 * self.snapshot.servers.len());
        let written = match format {
            Format::Text => prometheus_text::encode(&mut all, &registry),
            Format::OpenMetrics => text::encode(&mut all, &registry),
        };
        debug_assert!(written.is_ok(), "a String takes all");
        all
    }

    fn write(&self, out: &mut Out<'_>) -> fmt::Result {
        let snapshot = &*self.snapshot;
        gateway::program(snapshot, out)?;
        engine::packets(&snapshot.totals.engine, out)?;
        engine::flows(&snapshot.totals.engine, out)?;
        engine::shortcut(&snapshot.totals.engine, out)?;
        engine::pressure(&snapshot.status, out)?;
        objects::services(&snapshot.services, out)?;
        objects::servers(&snapshot.servers, out)?;
        objects::rules(&snapshot.rules, out)?;
        objects::nat(&snapshot.nat, out)?;
        objects::sources(&snapshot.sources, out)?;
        objects::probes(&snapshot.probes, out)?;
        gateway::device(&snapshot.totals.device, out)?;
        gateway::work(&snapshot.work, out)?;
        gateway::system(&snapshot.status, out)?;
        sync::sync(snapshot.sync.as_ref(), out)?;
        gateway::http(&self.http, out)?;
        self.process.iter().try_for_each(|process| gateway::process(process, out))
    }
}

impl Collector for Families {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.write(&mut Out::new(encoder))
    }
}
