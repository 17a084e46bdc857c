//! Printing of rows and counters for `eqctl`, the demo and the replay.
//!
//! Values in, text out, every figure with its unit. It must not know where values come from or where text goes.

mod changes;
mod counters;
mod explain;
mod figures;
mod flows;
mod health;
mod sources;
mod status;
mod sync;
#[cfg(test)]
pub(super) mod testing;

pub use changes::{changed_text, changes_table, drain_text, left_out_text, pools_table};
pub use counters::counters_table;
pub use explain::explanation_text;
pub use figures::{bytes, count, duration};
pub use flows::{FlowPrinter, flows_table};
pub use health::{history_table, monitors_table};
pub use sources::sources_table;
pub use status::status_text;
pub use sync::sync_text;

use super::protocol::ReloadRow;
use crate::balance::{Admin, Health};
use crate::engine::{NatRow, PartRow, RuleRow, ServerRow, ServiceRow};

/// Renders what a reload has changed, a line each.
pub fn reload_text(rows: &[ReloadRow]) -> String {
    if rows.is_empty() {
        return "no changes\n".into();
    }
    rows.iter().map(|row| format!("{row}\n")).collect()
}

/// Columns of text, padded and aligned; a `>` before a header aligns its column right.
///
/// Plain string operations: for the million rows of a full table, a general table printer took minutes.
struct Columns<const N: usize> {
    headers: [&'static str; N],
    rows: Vec<[String; N]>,
}

impl<const N: usize> Columns<N> {
    fn new(headers: [&'static str; N]) -> Self {
        Columns { headers, rows: Vec::new() }
    }

    fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(printable));
    }

    /// Prints the lines without trailing blanks. `widths` holds the minimum widths of the columns and is updated to those
    /// used.
    fn print(&self, widths: &mut [usize; N], header: bool) -> String {
        let headers = self.headers.map(|header| header.trim_start_matches('>'));
        for (column, width) in widths.iter_mut().enumerate() {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            *width = cells.chain([headers[column].len(), *width]).max().unwrap_or(0);
        }
        let mut text = String::new();
        if header {
            self.line(&headers, widths, &mut text);
        }
        for row in &self.rows {
            self.line(row, widths, &mut text);
        }
        text
    }

    fn line<T: AsRef<str>>(&self, cells: &[T; N], widths: &[usize; N], text: &mut String) {
        for ((cell, header), width) in cells.iter().zip(self.headers).zip(widths) {
            let cell = cell.as_ref();
            let blanks = width - cell.chars().count();
            let (before, after) = if header.starts_with('>') { (blanks, 0) } else { (0, blanks) };
            text.extend(std::iter::repeat_n(' ', before));
            text.push_str(cell);
            text.extend(std::iter::repeat_n(' ', after + GAP));
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }

    fn into_text(self) -> String {
        self.print(&mut [0; N], true)
    }
}

/// Blanks between two columns.
const GAP: usize = 2;

/// Replaces control characters: names come from configurations and sockets and must not control the terminal.
fn printable(cell: String) -> String {
    if cell.chars().any(char::is_control) { cell.replace(char::is_control, "?") } else { cell }
}

/// Prints servers: a header, then one line per server.
pub fn servers_table(rows: &[ServerRow]) -> String {
    let mut columns = Columns::new([
        "POOL",
        "SERVER",
        "ADDRESS",
        "STATE",
        ">WEIGHT",
        ">FLOWS",
        ">TOTAL",
        ">PKTS IN",
        ">IN",
        ">PKTS OUT",
        ">OUT",
    ]);
    for row in rows {
        let mut addresses: Vec<String> = row.addresses.iter().map(ToString::to_string).collect();
        addresses.extend(row.port.map(|port| format!("port {port}")));
        columns.row([
            row.pool.clone(),
            row.server.clone(),
            addresses.join(" "),
            state_text(row),
            weight_text(row),
            count(row.flows),
            count(row.flows_total),
            count(row.packets_in),
            bytes(row.bytes_in),
            count(row.packets_out),
            bytes(row.bytes_out),
        ]);
    }
    columns.into_text()
}

/// Maximum number of parts that a state names.
const MOST_PARTS: usize = 3;

/// Names the parts of a server that are down: `IPv4 port 443, IPv6`.
fn parts_text(parts: &[PartRow]) -> String {
    let part = |part: &PartRow| part.port.map_or(part.family.clone(), |port| format!("{} port {port}", part.family));
    let mut text = parts.iter().take(MOST_PARTS).map(part).collect::<Vec<_>>().join(", ");
    if let Some(more) = parts.len().checked_sub(MOST_PARTS).filter(|more| *more > 0) {
        text += &format!(" and {more} more");
    }
    text
}

/// Summarizes the standing of a server: `up 1.2 ms`, `down`, `partly down (IPv4 port 443)`, `draining`, `up, passive hold 8.0s`, `up, load 35 %`.
fn state_text(row: &ServerRow) -> String {
    let mut text = match (row.admin, row.health) {
        _ if row.removed => return "removed, draining".into(),
        (Admin::Disabled, _) => return "disabled".into(),
        (Admin::Draining, _) => "draining".to_owned(),
        (_, Health::Down) if !row.parts_down.is_empty() => {
            format!("partly down ({})", parts_text(&row.parts_down))
        }
        (_, Health::Down) => return "down".into(),
        (_, Health::Unknown) => return "unknown".into(),
        (_, Health::Up) => "up".into(),
    };
    if let Some(latency) = row.latency_ms {
        text += &format!(" {latency:.1} ms");
    }
    if let Some(load) = row.load {
        text += &format!(", load {load} %");
    }
    if row.maintenance {
        text += ", maintenance";
    }
    if let Some(hold) = row.passive_hold_ms {
        text += &format!(", passive hold {}", duration(hold));
    }
    if let Some(left) = row.drain_deadline_ms {
        text += &format!(", flows end in {}", duration(left));
    }
    if row.max_flows.is_some_and(|most| row.proven >= u64::from(most)) {
        text += ", full";
    }
    text
}

/// Formats a weight, during slow start with the effective one: `0.2 of 3`.
fn weight_text(row: &ServerRow) -> String {
    if row.weight_now < f32::from(row.weight) {
        return format!("{:.1} of {}", row.weight_now, row.weight);
    }
    row.weight.to_string()
}

/// Prints rules: a header, then one line per rule.
pub fn rules_table(rows: &[RuleRow]) -> String {
    let mut columns = Columns::new([">NO", "RULE", "STATE", "ACTION", ">MATCHED", ">FLOWS", ">TOTAL", ">REFUSED"]);
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
    columns.into_text()
}

/// Prints the port usage of the NAT pools: a header, then one line per address and protocol. Ports in use and resting
/// ones are the sum over all servers; free ones are those left towards the server that has fewest.
pub fn nat_table(rows: &[NatRow]) -> String {
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
    columns.into_text()
}

/// Prints services: a header, then one line per service.
pub fn services_table(rows: &[ServiceRow]) -> String {
    let mut columns = Columns::new(["SERVICE", "LISTEN", "POOL", "ALGORITHM", ">FLOWS", ">TOTAL"]);
    for row in rows {
        columns.row([
            if row.enabled { row.service.clone() } else { format!("{} (off)", row.service) },
            listens(&row.listen),
            row.pool.clone(),
            row.algorithm.name().into(),
            count(row.flows),
            count(row.flows_total),
        ]);
    }
    columns.into_text()
}

/// Joins the first few and counts the rest; `--json` has all.
fn listens(all: &[String]) -> String {
    const MOST: usize = 4;
    let shown = &all[..all.len().min(MOST)];
    match all.len() - shown.len() {
        0 => shown.join(" "),
        more => format!("{} and {more} more", shown.join(" ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(name: &str, port: Option<u16>, weight: u16, flows: u64) -> ServerRow {
        ServerRow {
            pool: "pool".into(),
            server: name.into(),
            addresses: vec!["10.0.0.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
            port,
            weight,
            weight_now: f32::from(weight),
            admin: Admin::Enabled,
            drain_deadline_ms: None,
            health: Health::Up,
            parts_down: Vec::new(),
            times_down: 0,
            times_up: 0,
            passive_hold_ms: None,
            load: None,
            maintenance: false,
            removed: false,
            latency_ms: None,
            max_flows: None,
            flows,
            proven: flows,
            flows_total: 1_234_567,
            packets_in: 10,
            bytes_in: 2048,
            packets_out: 1_000,
            bytes_out: 5 << 30,
        }
    }

    #[test]
    fn servers_are_aligned_and_have_units() {
        let got = servers_table(&[server("a", None, 1, 3), server("bigger", Some(8080), 100, 12_345)]);
        let want = "\
POOL  SERVER  ADDRESS                         STATE  WEIGHT   FLOWS      TOTAL  PKTS IN       IN  PKTS OUT      OUT
pool  a       10.0.0.1 2001:db8::1            up          1       3  1,234,567       10  2.0 KiB     1,000  5.0 GiB
pool  bigger  10.0.0.1 2001:db8::1 port 8080  up        100  12,345  1,234,567       10  2.0 KiB     1,000  5.0 GiB
";
        assert_eq!(got, want);
    }

    #[test]
    fn a_servers_state_says_why_it_gets_no_flows() {
        let base = server("a", None, 3, 5);
        let text = |change: &dyn Fn(&mut ServerRow)| {
            let mut row = base.clone();
            change(&mut row);
            (state_text(&row), weight_text(&row))
        };
        assert_eq!(text(&|row| row.latency_ms = Some(1.23)), ("up 1.2 ms".into(), "3".into()));
        assert_eq!(text(&|row| row.health = Health::Down).0, "down");
        assert_eq!(text(&|row| row.admin = Admin::Draining).0, "draining");
        let partly = |parts: &[(bool, Option<u16>)]| {
            text(&|row| {
                row.health = Health::Down;
                row.parts_down = parts.iter().map(|(v6, port)| PartRow::new(*v6, *port)).collect();
            })
        };
        assert_eq!(partly(&[(false, Some(443)), (true, None)]).0, "partly down (IPv4 port 443, IPv6)");
        let many = [80, 81, 82, 83, 84].map(|port| (true, Some(port)));
        assert_eq!(partly(&many).0, "partly down (IPv6 port 80, IPv6 port 81, IPv6 port 82 and 2 more)");
        assert_eq!(text(&|row| row.weight_now = 0.1875), ("up".into(), "0.2 of 3".into()));
        assert_eq!(text(&|row| (row.load, row.maintenance) = (Some(35), true)).0, "up, load 35 %, maintenance");
        assert_eq!(
            text(&|row| (row.passive_hold_ms, row.max_flows) = (Some(8_000), Some(5))).0,
            "up, passive hold 8.0s, full"
        );
    }

    #[test]
    fn without_rows_only_the_header_is_printed() {
        assert_eq!(services_table(&[]), "SERVICE  LISTEN  POOL  ALGORITHM  FLOWS  TOTAL\n");
        let many = ["a", "b", "c", "d", "e", "f"].map(String::from);
        assert_eq!((listens(&many[..4]), listens(&many)), ("a b c d".into(), "a b c d and 2 more".into()));
    }

    #[test]
    fn a_service_shows_its_listen_addresses() {
        let row = ServiceRow {
            service: "web".into(),
            enabled: true,
            listen: vec!["192.0.2.1:80/tcp".into(), "[2001:db8::1]:80/tcp".into()],
            pool: "pool".into(),
            algorithm: crate::balance::Algorithm::RoundRobin,
            flows: 3,
            flows_total: 1_000,
        };
        let want = "\
SERVICE    LISTEN                                 POOL  ALGORITHM    FLOWS  TOTAL
web        192.0.2.1:80/tcp [2001:db8::1]:80/tcp  pool  round-robin      3  1,000
web (off)  192.0.2.1:80/tcp [2001:db8::1]:80/tcp  pool  round-robin      3  1,000
";
        assert_eq!(services_table(&[row.clone(), ServiceRow { enabled: false, ..row }]), want);
    }

    #[test]
    fn a_name_cannot_control_the_terminal() {
        let mut row = server("a\u{1b}[2J\nb", None, 1, 0);
        row.pool = "p\u{9b}".into();
        let got = servers_table(&[row]);
        assert!(got.contains("a?[2J?b") && got.contains("p? "), "{got}");
        assert_eq!(got.lines().count(), 2);
    }
}
