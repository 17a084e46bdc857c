//! Flows as a table, whole or in parts: a million rows are printed as they arrive.

use super::{Columns, bytes, count, duration};
use crate::engine::FlowRow;

/// Number of columns.
const COLUMNS: usize = 15;

/// Prints flows in parts of any size, with one header and stable columns.
///
/// The first part sets the widths of the columns; a later row that needs more widens its column from its part on.
#[derive(Debug, Default)]
pub struct FlowPrinter {
    widths: [usize; COLUMNS],
}

impl FlowPrinter {
    /// Makes a printer that has not printed anything yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Prints a part; the first one, even if empty, begins with the header.
    pub fn part(&mut self, rows: &[FlowRow]) -> String {
        let header = self.widths == [0; COLUMNS];
        if rows.is_empty() && !header {
            return String::new();
        }
        let mut columns = Columns::new([
            "FLOW",
            "PROTO",
            "CLIENT",
            "SERVICE",
            "LISTEN",
            "SERVER",
            "ADDRESS",
            "STATE",
            ">AGE",
            ">IDLE",
            ">EXPIRES",
            ">PKTS IN",
            ">IN",
            ">PKTS OUT",
            ">OUT",
        ]);
        for row in rows {
            columns.row(cells(row));
        }
        columns.print(&mut self.widths, header)
    }
}

fn cells(row: &FlowRow) -> [String; COLUMNS] {
    // A new field must be named here: it gets a column, or is left to `--json`.
    let FlowRow {
        id,
        protocol,
        client,
        listen,
        service,
        server,
        server_address,
        source,
        picked_by: _,
        rule: _,
        state,
        age_ms,
        idle_ms,
        expires_in_ms,
        packets_in,
        bytes_in,
        packets_out,
        bytes_out,
    } = row;
    [
        id.to_string(),
        protocol.name().into(),
        client.to_string(),
        service.clone(),
        listen.to_string(),
        server.clone(),
        source.map_or(server_address.to_string(), |source| format!("{server_address} as {source}")),
        state.name().into(),
        duration(*age_ms),
        duration(*idle_ms),
        duration(*expires_in_ms),
        count(*packets_in),
        bytes(*bytes_in),
        count(*packets_out),
        bytes(*bytes_out),
    ]
}

/// Prints flows: a header, then one line per flow.
pub fn flows_table(rows: &[FlowRow]) -> String {
    FlowPrinter::new().part(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::render::testing::flow;
    use crate::ids::FlowId;
    use std::slice::from_ref;

    fn row(index: u32, client: &str) -> FlowRow {
        FlowRow { id: FlowId { index, generation: 0 }, client: client.parse().unwrap(), ..flow() }
    }

    #[test]
    fn each_flow_is_one_line() {
        let want = "\
FLOW  PROTO  CLIENT            SERVICE  LISTEN        SERVER  ADDRESS        STATE          AGE  IDLE  EXPIRES  PKTS IN       IN  PKTS OUT    OUT
7.0   tcp    198.51.100.9:999  web      192.0.2.1:80  a       10.0.0.1:8080  established  1h02m  0.2s    2h03m    1,000  1.4 MiB         7  512 B
";
        assert_eq!(flows_table(&[row(7, "198.51.100.9:999")]), want);
    }

    #[test]
    fn parts_share_a_header_and_their_columns() {
        let (short, long) = (row(1, "10.9.9.9:1"), row(22, "198.51.100.9:999"));
        let mut printer = FlowPrinter::new();
        let parts = [printer.part(from_ref(&long)), printer.part(&[]), printer.part(from_ref(&short))].concat();
        assert_eq!(parts, flows_table(&[long.clone(), short.clone()]));

        let mut printer = FlowPrinter::new();
        let parts = [printer.part(from_ref(&short)), printer.part(&[long]), printer.part(&[short])].concat();
        assert_eq!(parts.matches("FLOW").count(), 1);
        let last: Vec<&str> = parts.lines().skip(2).collect();
        assert_eq!(last[0].find("web"), last[1].find("web"), "a widened column stays wide:\n{parts}");
    }

    #[test]
    fn an_empty_table_has_its_header() {
        let mut printer = FlowPrinter::new();
        assert!(printer.part(&[]).starts_with("FLOW  PROTO"));
        assert_eq!(printer.part(&[]), "");
    }
}
