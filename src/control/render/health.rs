//! The results of the monitors and the history of the servers, as tables.

use super::{Columns, count, duration};
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

/// Prints the changes of the servers' health: a header, then one line per change.
pub fn history_table(rows: &[HistoryRow]) -> String {
    let mut columns = Columns::new(["POOL", "SERVER", ">AGO", "PART", "WHAT", "WHY"]);
    for row in rows {
        let part = row.port.map_or(row.family.clone(), |port| format!("{} port {port}", row.family));
        columns.row([
            row.pool.clone(),
            row.server.clone(),
            duration(row.ago_ms),
            part,
            row.what.clone(),
            row.why.clone(),
        ]);
    }
    columns.into_text()
}

#[cfg(test)]
mod tests {
    use super::*;
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
    fn a_change_says_when_which_part_and_why() {
        let row = HistoryRow {
            pool: "web".into(),
            server: "web-1".into(),
            ago_ms: 65_000,
            family: "IPv4".into(),
            port: Some(80),
            what: "down".into(),
            why: "3 of 3 timed out after 3 s".into(),
        };
        let want = "\
POOL  SERVER    AGO  PART          WHAT  WHY
web   web-1   1m05s  IPv4 port 80  down  3 of 3 timed out after 3 s
";
        assert_eq!(history_table(&[row]), want);
    }
}
