//! The results of the monitors and the history of the servers, as tables.

use super::{Columns, Fit, Width, count, duration, printable};
use crate::control::protocol::{EventRow, OperationRow};
use crate::engine::{HistoryRow, MonitorRow};

/// Prints the results of the monitors: a header, then one line per monitor, address and port.
pub fn monitors_table(rows: &[MonitorRow], width: Width) -> String {
    let mut columns = Columns::new([
        "SERVER",
        "MONITOR",
        "PROBE",
        "ADDRESS",
        "STATE",
        ">FOR",
        "VERDICT",
        ">LOST",
        ">AVERAGE",
        "LAST RESULT",
    ])
    .fits_by(&[
        Fit::Without("PROBE"),
        Fit::Without("AVERAGE"),
        Fit::Without("VERDICT"),
        Fit::Wrap(20),
        Fit::Without("ADDRESS"),
        Fit::Cut("SERVER", 16),
        Fit::Cut("MONITOR", 8),
    ]);
    for row in rows {
        let address = match row.port {
            None => row.address.to_string(),
            Some(port) => std::net::SocketAddr::new(row.address, port).to_string(),
        };
        columns.row([
            row.server_name(),
            row.monitor.clone(),
            row.probe.clone(),
            address,
            if row.kept_by_floor { format!("{}, kept by floor", row.state.name()) } else { row.state.name().into() },
            duration(row.in_state_ms),
            row.verdict.name().into(),
            format!("{} of {}", count(row.lost.into()), count(row.sent.into())),
            row.average_ms.map_or(String::new(), |ms| format!("{ms:.1} ms")),
            row.last.clone().unwrap_or_default(),
        ]);
    }
    columns.into_text(width)
}

/// Prints the changes of the servers' health, and what operators and reloads changed: a header, then one line per
/// change, the oldest first.
pub fn history_table(health: &[HistoryRow], operations: &[OperationRow], width: Width) -> String {
    let of_health = health.iter().map(|row| {
        let part = row.port.map_or(row.family.clone(), |port| format!("{} port {port}", row.family));
        (
            row.ago_ms,
            "monitors".into(),
            format!("server {}/{}, {part}: {}: {}", row.pool, row.server, row.what, row.why),
        )
    });
    let of_operators = operations.iter().map(|row| {
        let by = row.who.map_or_else(|| "gateway".into(), |who| who.to_string());
        (row.ago_ms, by, row.what.clone())
    });
    let mut all: Vec<(u64, String, String)> = of_health.chain(of_operators).collect();
    all.sort_by_key(|(ago, ..)| std::cmp::Reverse(*ago));
    let mut columns = Columns::new([">AGO", "BY", "WHAT"]).fits_by(&[Fit::Wrap(40), Fit::Without("BY")]);
    for (ago, by, what) in all {
        columns.row([duration(ago), by, what]);
    }
    columns.into_text(width)
}

/// Prints events: a header, then one line per event, the oldest first.
pub fn events_table(rows: &[EventRow], width: Width) -> String {
    let mut columns = Columns::new([">AGO", "", "BY", "WHAT"]).fits_by(&[Fit::Wrap(40), Fit::Without("BY")]);
    for row in rows {
        let mark = if row.grave { "!" } else { "" };
        columns.row([duration(row.ago_ms), mark.into(), by(row), row.what.clone()]);
    }
    columns.into_text(width)
}

/// Prints an event in one line, behind the time that it happened at.
pub fn event_text(row: &EventRow, time: &str) -> String {
    let mark = if row.grave { "! " } else { "" };
    printable(format!("{time}  {}: {mark}{}", by(row), row.what)) + "\n"
}

fn by(row: &EventRow) -> String {
    row.who.map_or_else(|| "gateway".into(), |who| who.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::changes::Who;
    use crate::state::Health;

    #[test]
    fn a_monitor_shows_window_average_and_last_result() {
        let row = MonitorRow {
            pool: "web".into(),
            server: "web-1".into(),
            monitor: "http".into(),
            probe: "http".into(),
            address: "2001:db8::1".parse().unwrap(),
            port: Some(80),
            verdict: Health::Down,
            state: Health::Up,
            kept_by_floor: true,
            sent: 10,
            lost: 4,
            average_ms: Some(1.26),
            last: Some("HTTP status 500, expected 200-299".into()),
            in_state_ms: 65_000,
        };
        let want = "\
SERVER     MONITOR  PROBE  ADDRESS           STATE                FOR  VERDICT     LOST  AVERAGE  LAST RESULT
web/web-1  http     http   [2001:db8::1]:80  up, kept by floor  1m05s  down     4 of 10   1.3 ms  HTTP status 500, expected 200-299
";
        assert_eq!(monitors_table(&[row], Width::Any), want);
    }

    #[test]
    fn an_event_says_when_by_whom_and_what() {
        let grave = EventRow { number: 1, ago_ms: 65_000, grave: true, what: "server web/a is DOWN".into(), who: None };
        let who = Some(Who { uid: 1000, pid: 4711 });
        let change = EventRow { number: 2, ago_ms: 2_000, grave: false, what: "weight 1 -> 5".into(), who };
        let want = "  AGO     BY                  WHAT
1m05s  !  gateway             server web/a is DOWN
 2.0s     uid 1000, pid 4711  weight 1 -> 5
";
        assert_eq!(events_table(&[grave.clone(), change.clone()], Width::Any), want);
        assert_eq!(event_text(&grave, "12:00"), "12:00  gateway: ! server web/a is DOWN\n");
        assert_eq!(event_text(&change, "12:01"), "12:01  uid 1000, pid 4711: weight 1 -> 5\n");
    }

    #[test]
    fn a_change_says_when_by_whom_what_and_why() {
        let row = HistoryRow {
            pool: "web".into(),
            server: "web-1".into(),
            ago_ms: 65_000,
            family: "IPv4".into(),
            port: Some(80),
            what: "down".into(),
            why: "3 of 3 timed out after 3 s".into(),
        };
        let operation = |ago_ms, who| OperationRow { ago_ms, what: "server web/web-1: weight 1 -> 5".into(), who };
        let want = "  AGO  BY                  WHAT
1m30s  uid 1000, pid 4711  server web/web-1: weight 1 -> 5
1m05s  monitors            server web/web-1, IPv4 port 80: down: 3 of 3 timed out after 3 s
 2.0s  gateway             server web/web-1: weight 1 -> 5
";
        let operations = [operation(90_000, Some(Who { uid: 1000, pid: 4711 })), operation(2_000, None)];
        assert_eq!(history_table(&[row], &operations, Width::Any), want);
    }
}
