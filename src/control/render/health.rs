//! The results of the monitors and the history of the servers, as tables.

use super::{Columns, count, duration};
use crate::control::protocol::OperationRow;
use crate::engine::{HistoryRow, MonitorRow};

/// Prints the results of the monitors: a header, then one line per monitor, address and port.
pub fn monitors_table(rows: &[MonitorRow]) -> String {
    let mut columns = Columns::new([
        "POOL",
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
    ]);
    for row in rows {
        let address = match row.port {
            None => row.address.to_string(),
            Some(port) => std::net::SocketAddr::new(row.address, port).to_string(),
        };
        columns.row([
            row.pool.clone(),
            row.server.clone(),
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
    columns.into_text()
}

/// Prints the changes of the servers' health, and what operators and reloads changed: a header, then one line per
/// change, the oldest first.
pub fn history_table(health: &[HistoryRow], operations: &[OperationRow]) -> String {
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
    let mut columns = Columns::new([">AGO", "BY", "WHAT"]);
    for (ago, by, what) in all {
        columns.row([duration(ago), by, what]);
    }
    columns.into_text()
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
POOL  SERVER  MONITOR  PROBE  ADDRESS           STATE                FOR  VERDICT     LOST  AVERAGE  LAST RESULT
web   web-1   http     http   [2001:db8::1]:80  up, kept by floor  1m05s  down     4 of 10   1.3 ms  HTTP status 500, expected 200-299
";
        assert_eq!(monitors_table(&[row]), want);
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
        assert_eq!(history_table(&[row], &operations), want);
    }
}
