//! Flows as a table, whole or in parts: a million rows are printed as they arrive.

use super::columns::{Columns, Fit, Layout, Width, within};
use super::{bytes, count, duration};
use crate::engine::{FlowRow, SortBy};

/// Number of columns.
const COLUMNS: usize = 18;

/// What is left out first where there is little room.
const STEPS: &[Fit] = &[
    Fit::Without("PKTS IN"),
    Fit::Without("PKTS OUT"),
    Fit::Without("ADDRESS"),
    Fit::Without("LISTEN"),
    Fit::Without("RULE"),
    Fit::Without("EXPIRES"),
    Fit::Without("PICKED BY"),
    Fit::Without("PROTO"),
    Fit::Without("AGE"),
    Fit::Cut("SERVICE", 8),
    Fit::Cut("SERVER", 12),
    Fit::Without("STATE"),
    Fit::Without("VIA"),
    Fit::Without("IDLE"),
    Fit::Without("SERVICE"),
    Fit::Cut("CLIENT", 15),
];
/// The same where flows are sorted by their age or their packets, which therefore stay.
const STEPS_BY_OTHERS: &[Fit] = &[
    Fit::Without("ADDRESS"),
    Fit::Without("LISTEN"),
    Fit::Without("RULE"),
    Fit::Without("EXPIRES"),
    Fit::Without("PICKED BY"),
    Fit::Without("PROTO"),
    Fit::Without("IDLE"),
    Fit::Without("STATE"),
    Fit::Without("VIA"),
    Fit::Without("OUT"),
    Fit::Without("IN"),
    Fit::Cut("SERVICE", 8),
    Fit::Cut("SERVER", 12),
    Fit::Without("SERVICE"),
    Fit::Cut("CLIENT", 15),
];

/// Prints flows in parts of any size, with one header and stable columns.
///
/// The first part sets the columns and their widths; a later row that needs more widens its column from its part on, or is
/// shortened where there is no room.
#[derive(Debug, Default)]
pub struct FlowPrinter {
    layout: Layout<COLUMNS>,
    width: Width,
    sort: Option<SortBy>,
}

impl FlowPrinter {
    /// Makes a printer that has not printed anything yet; `sort` is what the flows are sorted by.
    pub fn new(width: Width, sort: Option<SortBy>) -> Self {
        FlowPrinter { width, sort, ..Self::default() }
    }

    /// Prints a part; the first one, even if empty, begins with the header.
    pub fn part(&mut self, rows: &[FlowRow]) -> String {
        let header = !self.layout.has_begun();
        if rows.is_empty() && !header {
            return String::new();
        }
        self.columns(rows).print(&mut self.layout, header, self.width)
    }

    /// Names the columns that were left out for lack of room, as one line; empty if none was.
    pub fn left_out(&self) -> String {
        let mut columns = self.columns(&[]);
        columns.row(Default::default());
        within(&columns.left_out(&self.layout), self.width)
    }

    fn columns(&self, rows: &[FlowRow]) -> Columns<COLUMNS> {
        let mut columns = Columns::new([
            "FLOW",
            "PROTO",
            "CLIENT",
            "SERVICE",
            "LISTEN",
            "SERVER",
            "ADDRESS",
            "STATE",
            "VIA",
            ">AGE",
            ">IDLE",
            ">EXPIRES",
            "PICKED BY",
            "RULE",
            ">PKTS IN",
            ">IN",
            ">PKTS OUT",
            ">OUT",
        ])
        .fits_by(match self.sort {
            Some(SortBy::Age | SortBy::Packets) => STEPS_BY_OTHERS,
            Some(SortBy::Bytes | SortBy::Idle) | None => STEPS,
        })
        .if_any(&["VIA"]);
        rows.iter().for_each(|row| columns.row(cells(row)));
        columns
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
        pool: _,
        server: _,
        server_address,
        source,
        picked_by,
        rule,
        state,
        age_ms,
        idle_ms,
        expires_in_ms,
        packets_in,
        bytes_in,
        packets_out,
        bytes_out,
        shortcut,
    } = row;
    [
        id.to_string(),
        protocol.name().into(),
        client.to_string(),
        service.clone(),
        listen.to_string(),
        row.server_name(),
        source.map_or(server_address.to_string(), |source| format!("{server_address} as {source}")),
        state.name().into(),
        if *shortcut { "kernel".into() } else { String::new() },
        duration(*age_ms),
        duration(*idle_ms),
        duration(*expires_in_ms),
        picked_by.name().into(),
        rule.clone().unwrap_or_default(),
        count(*packets_in),
        bytes(*bytes_in),
        count(*packets_out),
        bytes(*bytes_out),
    ]
}

/// Prints flows: a header, then one line per flow.
pub fn flows_table(rows: &[FlowRow], width: Width) -> String {
    let mut printer = FlowPrinter::new(width, None);
    printer.part(rows) + &if rows.is_empty() { String::new() } else { printer.left_out() }
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
FLOW  PROTO  CLIENT            SERVICE  LISTEN        SERVER  ADDRESS        STATE          AGE  IDLE  EXPIRES  PICKED BY  RULE  PKTS IN       IN  PKTS OUT    OUT
7.0   tcp    198.51.100.9:999  web      192.0.2.1:80  farm/a  10.0.0.1:8080  established  1h02m  0.2s    2h03m  algorithm          1,000  1.4 MiB         7  512 B
";
        assert_eq!(flows_table(&[row(7, "198.51.100.9:999")], Width::Any), want);
    }

    #[test]
    fn what_the_kernel_carries_is_marked_and_where_it_carries_nothing_there_is_no_column() {
        let carried = FlowRow { shortcut: true, ..row(8, "198.51.100.9:998") };
        let text = flows_table(&[row(7, "198.51.100.9:999"), carried], Width::Any);
        let via = text.lines().map(|line| line.contains("established  kernel  1h02m")).collect::<Vec<_>>();
        assert!(text.contains("STATE        VIA     ") && via == [false, false, true], "{text}");
        assert!(!flows_table(&[row(7, "198.51.100.9:999")], Width::Any).contains("VIA"));
    }

    #[test]
    fn eighty_columns_show_who_talks_to_whom_and_how_much() {
        let want = "\
FLOW  CLIENT            SERVICE  SERVER  STATE          AGE  IDLE       IN    OUT
7.0   198.51.100.9:999  web      farm/a  established  1h02m  0.2s  1.4 MiB  512 B
(not shown: proto, listen, address, expires, picked by, rule, pkts in, pkts out;
--wide shows all)
";
        let got = flows_table(&[row(7, "198.51.100.9:999")], Width::Most(81));
        assert_eq!(got, want);
        let long = FlowRow {
            client: "[2001:db8:1234:5678:9abc:def0:1234:5678]:54321".parse().unwrap(),
            service: "a-service-with-a-long-name".into(),
            server: "a-server-with-a-long-name".into(),
            ..flow()
        };
        for sort in [None, Some(SortBy::Age), Some(SortBy::Packets)] {
            let mut printer = FlowPrinter::new(Width::Most(80), sort);
            let text = printer.part(from_ref(&long)) + &printer.part(&[flow()]);
            assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        }
        let mut printer = FlowPrinter::new(Width::Most(80), None);
        let text = printer.part(&[flow()]) + &printer.part(from_ref(&long));
        assert!(text.lines().all(|line| line.chars().count() <= 80), "later rows are shortened:\n{text}");
    }

    #[test]
    fn parts_share_a_header_and_their_columns() {
        let (short, long) = (row(1, "10.9.9.9:1"), row(22, "198.51.100.9:999"));
        let printer = || FlowPrinter::new(Width::Any, None);
        let mut one = printer();
        let parts = [one.part(from_ref(&long)), one.part(&[]), one.part(from_ref(&short))].concat();
        assert_eq!(parts, flows_table(&[long.clone(), short.clone()], Width::Any));

        let mut one = printer();
        let parts = [one.part(from_ref(&short)), one.part(&[long]), one.part(&[short])].concat();
        assert_eq!(parts.matches("FLOW").count(), 1);
        let last: Vec<&str> = parts.lines().skip(2).collect();
        assert_eq!(last[0].find("web"), last[1].find("web"), "a widened column stays wide:\n{parts}");
    }

    #[test]
    fn an_empty_table_has_its_header() {
        let mut printer = FlowPrinter::default();
        assert!(printer.part(&[]).starts_with("FLOW  PROTO"));
        assert_eq!(printer.part(&[]), "");
    }
}
