//! Servers and services with their traffic, as tables.

use super::columns::{Columns, Fit, Width};
use super::figures::per_second;
use super::{bytes, count, duration, rate};
use crate::balance::{Admin, Health};
use crate::engine::{PartRow, Rates, ServerRow, ServiceRow};

/// Prints servers: a header, then one line per server.
pub fn servers_table(rows: &[ServerRow], width: Width) -> String {
    let mut columns = Columns::new([
        "SERVER",
        "ADDRESS",
        "STATE",
        ">WEIGHT",
        ">FLOWS",
        ">TOTAL",
        ">FLOWS/S",
        ">IN/S",
        ">OUT/S",
        ">PKTS IN",
        ">IN",
        ">PKTS OUT",
        ">OUT",
    ])
    .if_any(RATES)
    .fits_by(&[
        Fit::Without("PKTS IN"),
        Fit::Without("PKTS OUT"),
        Fit::Without("TOTAL"),
        Fit::Without("ADDRESS"),
        Fit::Cut("STATE", 24),
        Fit::Without("IN"),
        Fit::Without("OUT"),
        Fit::Cut("SERVER", 16),
        Fit::Without("FLOWS/S"),
        Fit::Cut("STATE", 8),
    ]);
    for row in rows {
        let mut addresses: Vec<String> = row.addresses.iter().map(ToString::to_string).collect();
        addresses.extend(row.port.map(|port| format!("port {port}")));
        let [flows, inward, outward] = rate_cells(row.rates.as_ref());
        columns.row([
            row.name(),
            addresses.join(" "),
            server_state(row),
            weight_text(row),
            count(row.flows),
            count(row.flows_total),
            flows,
            inward,
            outward,
            count(row.packets_in),
            bytes(row.bytes_in),
            count(row.packets_out),
            bytes(row.bytes_out),
        ]);
    }
    columns.into_text(width)
}

/// The columns that are there where rates were measured.
const RATES: &[&str] = &["FLOWS/S", "IN/S", "OUT/S"];

fn rate_cells(rates: Option<&Rates>) -> [String; 3] {
    let Some(rates) = rates else { return Default::default() };
    [per_second(rates.flows), rate(rates.bytes_in), rate(rates.bytes_out)]
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
pub fn server_state(row: &ServerRow) -> String {
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

/// Prints services: a header, then one line per service.
pub fn services_table(rows: &[ServiceRow], width: Width) -> String {
    let mut columns = Columns::new([
        "SERVICE",
        "LISTEN",
        "POOL",
        "ALGORITHM",
        ">FLOWS",
        ">TOTAL",
        ">FLOWS/S",
        ">IN/S",
        ">OUT/S",
        ">PKTS IN",
        ">IN",
        ">PKTS OUT",
        ">OUT",
    ])
    .if_any(RATES)
    .fits_by(&[
        Fit::Without("PKTS IN"),
        Fit::Without("PKTS OUT"),
        Fit::Without("ALGORITHM"),
        Fit::Cut("LISTEN", 18),
        Fit::Without("TOTAL"),
        Fit::Without("POOL"),
        Fit::Without("LISTEN"),
        Fit::Cut("SERVICE", 12),
        Fit::Without("FLOWS/S"),
    ]);
    for row in rows {
        let [flows, inward, outward] = rate_cells(row.rates.as_ref());
        columns.row([
            if row.enabled { row.service.clone() } else { format!("{} (off)", row.service) },
            listens(&row.listen),
            row.pool.clone(),
            row.algorithm.name().into(),
            count(row.flows),
            count(row.flows_total),
            flows,
            inward,
            outward,
            count(row.packets_in),
            bytes(row.bytes_in),
            count(row.packets_out),
            bytes(row.bytes_out),
        ]);
    }
    columns.into_text(width)
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
            rates: None,
        }
    }

    #[test]
    fn servers_are_aligned_and_have_units() {
        let rows = [server("a", None, 1, 3), server("bigger", Some(8080), 100, 12_345)];
        let want = "\
SERVER       ADDRESS                         STATE  WEIGHT   FLOWS      TOTAL  PKTS IN       IN  PKTS OUT      OUT
pool/a       10.0.0.1 2001:db8::1            up          1       3  1,234,567       10  2.0 KiB     1,000  5.0 GiB
pool/bigger  10.0.0.1 2001:db8::1 port 8080  up        100  12,345  1,234,567       10  2.0 KiB     1,000  5.0 GiB
";
        assert_eq!(servers_table(&rows, Width::Any), want);
        let rates = Some(Rates { flows: 12.0, bytes_in: 1e6, bytes_out: 2e9, ..Rates::default() });
        let busy = rows.map(|row| ServerRow { rates, ..row });
        let got = servers_table(&busy, Width::Most(88));
        assert_eq!(
            got.lines().next(),
            Some("SERVER       STATE  WEIGHT   FLOWS  FLOWS/S        IN/S        OUT/S       IN      OUT"),
            "{got}"
        );
        assert!(servers_table(&busy, Width::Most(80)).lines().take(3).all(|line| line.len() <= 80));
    }

    #[test]
    fn a_servers_state_says_why_it_gets_no_flows() {
        let base = server("a", None, 3, 5);
        let text = |change: &dyn Fn(&mut ServerRow)| {
            let mut row = base.clone();
            change(&mut row);
            (server_state(&row), weight_text(&row))
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
        assert_eq!(
            services_table(&[], Width::Any),
            "SERVICE  LISTEN  POOL  ALGORITHM  FLOWS  TOTAL  PKTS IN  IN  PKTS OUT  OUT\n"
        );
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
            packets_in: 10,
            bytes_in: 2048,
            packets_out: 1_000,
            bytes_out: 5 << 30,
            rates: None,
        };
        let want = "\
SERVICE    LISTEN                                 POOL  ALGORITHM    FLOWS  TOTAL  PKTS IN       IN  PKTS OUT      OUT
web        192.0.2.1:80/tcp [2001:db8::1]:80/tcp  pool  round-robin      3  1,000       10  2.0 KiB     1,000  5.0 GiB
web (off)  192.0.2.1:80/tcp [2001:db8::1]:80/tcp  pool  round-robin      3  1,000       10  2.0 KiB     1,000  5.0 GiB
";
        let rows = [row.clone(), ServiceRow { enabled: false, ..row }];
        assert_eq!(services_table(&rows, Width::Any), want);
        assert!(services_table(&rows, Width::Most(80)).lines().take(3).all(|line| line.chars().count() <= 80));
    }

    #[test]
    fn a_name_cannot_control_the_terminal() {
        let mut row = server("a\u{1b}[2J\nb", None, 1, 0);
        row.pool = "p\u{9b}".into();
        let got = servers_table(&[row], Width::Any);
        assert!(got.contains("p?/a?[2J?b"), "{got}");
        assert_eq!(got.lines().count(), 2);
    }
}
