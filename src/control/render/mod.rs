//! Printing of rows and counters for `eqctl`, the demo and the replay.
//!
//! Values in, text out, every figure with its unit. It must not know where values come from or where text goes.

mod changes;
mod columns;
mod counters;
mod csv;
mod explain;
mod figures;
mod flows;
mod health;
mod rates;
mod servers;
mod sources;
mod status;
mod sticky;
mod sync;
#[cfg(test)]
pub(super) mod testing;

pub use changes::{changed_text, changes_table, cleared_text, drain_text, killed_text, left_out_text, pools_table};
pub use columns::Width;
pub use counters::counters_table;
pub use csv::{CsvRow, csv_header, csv_line};
pub use explain::explanation_text;
pub use figures::{bytes, count, duration, progress, rate};
pub use flows::{FlowPrinter, flows_table};
pub use health::{event_text, events_table, history_table, monitors_table};
pub use rates::{measure_servers, measure_services};
pub use servers::{server_state, servers_table, services_table};
pub use sources::sources_table;
pub use status::status_text;
pub use sticky::sticky_table;
pub use sync::sync_text;

use columns::{Columns, Fit, printable, within};

use super::protocol::ReloadRow;
use crate::engine::{NatRow, RuleRow};

/// Renders what a reload has changed, a line each.
pub fn reload_text(rows: &[ReloadRow]) -> String {
    if rows.is_empty() {
        return "no changes\n".into();
    }
    rows.iter().map(|row| format!("{row}\n")).collect()
}

/// Prints rules: a header, then one line per rule.
pub fn rules_table(rows: &[RuleRow], width: Width) -> String {
    let mut columns = Columns::new([">NO", "RULE", "STATE", "ACTION", ">MATCHED", ">FLOWS", ">TOTAL", ">REFUSED"])
        .fits_by(&[Fit::Cut("RULE", 16), Fit::Without("TOTAL")]);
    for row in rows {
        columns.row([
            row.place.to_string(),
            row.rule.clone(),
            if row.enabled { "on" } else { "off" }.into(),
            row.action.clone(),
            count(row.matched),
            count(row.flows.into()),
            count(row.flows_total),
            count(row.refused),
        ]);
    }
    columns.into_text(width)
}

/// Prints the port usage of the NAT pools: a header, then one line per address and protocol. Ports in use and resting
/// ones are the sum over all servers; free ones are those left towards the server that has fewest.
pub fn nat_table(rows: &[NatRow], width: Width) -> String {
    let mut columns = Columns::new([
        "POOL",
        "ADDRESS",
        "PROTO",
        ">PORTS USED",
        ">HALF-OPEN",
        ">RESTING",
        ">SERVERS",
        "FULLEST SERVER",
        ">FREE TOWARDS IT",
        ">REFUSED BY POOL",
    ])
    .fits_by(&[
        Fit::Without("RESTING"),
        Fit::Without("HALF-OPEN"),
        Fit::Without("SERVERS"),
        Fit::Without("FULLEST SERVER"),
        Fit::Cut("POOL", 8),
        Fit::Cut("ADDRESS", 15),
    ]);
    let mut shown = None;
    for row in rows {
        // This figure is one per pool: it is shown in the first line of the pool only.
        let refused = if shown.replace(&row.pool) == Some(&row.pool) { "".into() } else { count(row.exhausted) };
        columns.row([
            row.pool.clone(),
            row.address.to_string(),
            row.protocol.name().into(),
            count(row.used.into()),
            count(row.half_open.into()),
            count(row.resting.into()),
            count(row.servers.into()),
            row.fullest_server.map_or("-".into(), |server| match server.port() {
                // An echo has no port.
                0 => server.ip().to_string(),
                _ => server.to_string(),
            }),
            count(row.free.into()),
            refused,
        ]);
    }
    columns.into_text(width)
}
