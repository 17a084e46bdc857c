//! What operators change: an object before and after, what differs from the file, pools, draining.

use super::{Columns, Fit, Width, count, duration, flows_table, printable, sticky_table, within};
use crate::config::changes::Kind;
use crate::control::protocol::{ChangeRow, ChangedRow, ClearedRow, DrainRow, DrainState, KilledRow, PoolRow};

/// Prints what a change did: a line for each key.
pub fn changed_text(row: &ChangedRow) -> String {
    let flows = row.flows.filter(|_| row.changed).map_or(String::new(), |flows| match flows {
        0 => "; it has no flows".into(),
        1 => "; it has 1 flow left".into(),
        more => format!("; it has {} flows left", count(more)),
    });
    let lines: Vec<String> = row.text.lines().map(|line| printable(line.into())).collect();
    format!("{}{flows}\n", lines.join("\n"))
}

/// Prints which flows were removed, or would be: a line, and below it the flows if there are few.
pub fn killed_text(row: &KilledRow, width: Width) -> String {
    let listed = if row.before.len() > 1 { flows_table(&row.before, width) } else { String::new() };
    let more = row.flows.saturating_sub(row.before.len() as u64);
    let more = if more == 0 { String::new() } else { format!("... and {} more\n", count(more)) };
    format!("{}\n{listed}{more}", printable(row.text.clone()))
}

/// Prints which sticky clients were forgotten: a line, and below it the clients if there are few.
pub fn cleared_text(row: &ClearedRow, width: Width) -> String {
    let listed = if row.before.is_empty() { String::new() } else { sticky_table(&row.before, width) };
    let more = row.clients.saturating_sub(row.before.len() as u64);
    let more = if more == 0 { String::new() } else { format!("... and {} more\n", count(more)) };
    format!("{}\n{listed}{more}", printable(row.text.clone()))
}

/// Prints what differs from the file: a header, then one line per object and key; and whether it ends with the gateway.
pub fn changes_table(rows: &[ChangeRow], is_kept: bool, width: Width) -> String {
    if rows.is_empty() {
        return "everything is as in the file\n".into();
    }
    let mut columns = Columns::new(["OBJECT", "KEY", "FILE", "IN FORCE", ">AGO", "BY"]).fits_by(&[
        Fit::Cut("FILE", 12),
        Fit::Cut("IN FORCE", 20),
        Fit::Without("BY"),
        Fit::Cut("OBJECT", 16),
    ]);
    for row in rows {
        let (file, in_force) = match (&row.key, &row.file, &row.value) {
            (None, None, Some(table)) => ("absent".into(), format!("added {table}")),
            (None, _, _) if row.waits => ("absent".into(), "removed, waits for the server to come back".into()),
            (None, _, _) => ("present".into(), "removed".into()),
            (Some(_), _, value) if row.waits => {
                let value = value.clone().unwrap_or_else(|| "default".into());
                ("absent".into(), format!("{value}, waits for the server to come back"))
            }
            (Some(_), file, value) => {
                let default = if row.is_default { " (the default)" } else { "" };
                (file.clone().unwrap_or("absent".into()), value.clone().unwrap_or_default() + default)
            }
        };
        let deadline = row.deadline_ms.map_or(String::new(), |left| format!(", for at most {}", duration(left)));
        columns.row([
            row.object.to_string(),
            row.key.clone().unwrap_or_else(|| "-".into()),
            file,
            in_force + &deadline,
            duration(row.ago_ms),
            row.who.to_string(),
        ]);
    }
    let lost = "without `state-file` in [gateway], these changes end with the gateway; `eqctl changes save` prints the file with them\n";
    columns.into_text(width) + &if is_kept { String::new() } else { within(lost, width) }
}

/// Says what is not in a saved file, and where it belongs: one line.
pub fn left_out_text(row: &ChangeRow) -> String {
    let of = row.key.as_ref().map_or(String::new(), |key| format!("{key} of "));
    let value = match (&row.key, &row.value) {
        (Some(_), Some(value)) => format!(" ({value})"),
        (Some(_), None) => String::new(),
        (None, _) => " (removed)".into(),
    };
    let object = &row.object;
    printable(format!("not in the file: {of}{object}{value}: the server comes from outside; change it there"))
}

/// Prints pools: a header, then one line per pool.
pub fn pools_table(rows: &[PoolRow], width: Width) -> String {
    let mut columns =
        Columns::new(["POOL", "SERVICES", ">SERVERS", ">USABLE", ">DOWN", ">DRAINING", ">DISABLED", ">FLOWS"])
            .fits_by(&[Fit::Cut("SERVICES", 12), Fit::Cut("POOL", 12)]);
    for row in rows {
        let services = match row.services.as_slice() {
            [] => "-".into(),
            all => all.join(" "),
        };
        columns.row([
            row.pool.clone(),
            services,
            count(row.servers),
            count(row.usable),
            count(row.down),
            count(row.draining),
            count(row.disabled),
            count(row.flows),
        ]);
    }
    columns.into_text(width)
}

/// Prints how far the draining of a server is: one line.
pub fn drain_text(row: &DrainRow) -> String {
    let flows = |flows: u64| if flows == 1 { "1 flow".to_owned() } else { format!("{} flows", count(flows)) };
    let after = row.for_ms.map_or(String::new(), |span| format!(" after {}", duration(span)));
    let ended = if row.ended == 0 { String::new() } else { format!(" ({} of them ended)", count(row.ended)) };
    let remembered = match row.ended {
        0 => String::new(),
        1 => "; the flow of 1 ended connection is remembered until its timeout".into(),
        more => format!("; the flows of {} ended connections are remembered until their timeouts", count(more)),
    };
    let what = match row.state {
        DrainState::Draining => {
            let by = row.deadline_ms.map_or("no deadline".into(), |left| format!("deadline in {}", duration(left)));
            format!("{} left{ended}, {by}", flows(row.flows))
        }
        DrainState::Drained => format!("drained{after}{remembered}"),
        DrainState::Deadline => format!("the deadline passed: {} were ended", flows(row.cut)),
        DrainState::Removing => format!("removed, {} left{ended}", flows(row.flows)),
        DrainState::Removed if row.ended > 0 => format!("removed{remembered}"),
        DrainState::Removed => "removed, no flows left".into(),
        DrainState::NotDraining => format!("not draining any more, {}", flows(row.flows)),
    };
    printable(format!("{} {}: {what}", Kind::Server.name(), row.server)) + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::changes::{Target, Who};

    fn change(key: Option<&str>, file: Option<&str>, value: Option<&str>) -> ChangeRow {
        ChangeRow {
            object: Target::new(Kind::Server, "web/a"),
            key: key.map(Into::into),
            file: file.map(Into::into),
            value: value.map(Into::into),
            is_default: false,
            waits: false,
            who: Who { uid: 1000, pid: 4711 },
            ago_ms: 65_000,
            deadline_ms: None,
        }
    }

    #[test]
    fn what_differs_is_shown_beside_what_the_file_says() {
        let draining =
            ChangeRow { deadline_ms: Some(90_000), ..change(Some("state"), Some("\"enabled\""), Some("\"draining\"")) };
        let rows = [
            change(Some("weight"), Some("1"), Some("5")),
            draining,
            ChangeRow { is_default: true, ..change(Some("max-flows"), Some("100"), Some("no limit")) },
            change(None, None, Some("{ address = \"10.0.0.9\" }")),
            change(None, Some("{ address = \"10.0.0.9\" }"), None),
            ChangeRow { waits: true, ..change(Some("weight"), None, Some("5")) },
        ];
        let want = "\
OBJECT        KEY        FILE       IN FORCE                                AGO  BY
server web/a  weight     1          5                                     1m05s  uid 1000, pid 4711
server web/a  state      \"enabled\"  \"draining\", for at most 1m30s         1m05s  uid 1000, pid 4711
server web/a  max-flows  100        no limit (the default)                1m05s  uid 1000, pid 4711
server web/a  -          absent     added { address = \"10.0.0.9\" }        1m05s  uid 1000, pid 4711
server web/a  -          present    removed                               1m05s  uid 1000, pid 4711
server web/a  weight     absent     5, waits for the server to come back  1m05s  uid 1000, pid 4711
";
        assert_eq!(changes_table(&rows, true, Width::Any), want);
        let told = changes_table(&rows[..1], false, Width::Any);
        assert!(told.lines().count() == 3 && told.contains("these changes end with the gateway"), "{told}");
        assert_eq!(changes_table(&[], false, Width::Any), "everything is as in the file\n");
    }

    #[test]
    fn draining_shows_what_is_left_and_until_when() {
        let row = |state, flows, deadline_ms, cut| {
            drain_text(&DrainRow {
                server: "web/a".into(),
                state,
                flows,
                for_ms: Some(65_000),
                deadline_ms,
                cut,
                ended: 0,
            })
        };
        for (got, want) in [
            (row(DrainState::Draining, 2, Some(90_000), 0), "2 flows left, deadline in 1m30s"),
            (row(DrainState::Draining, 1, None, 0), "1 flow left, no deadline"),
            (row(DrainState::Drained, 0, None, 0), "drained after 1m05s"),
            (row(DrainState::Deadline, 0, None, 3), "the deadline passed: 3 flows were ended"),
            (row(DrainState::Removing, 7, None, 0), "removed, 7 flows left"),
            (row(DrainState::Removed, 0, None, 0), "removed, no flows left"),
            (row(DrainState::NotDraining, 7, None, 0), "not draining any more, 7 flows"),
        ] {
            assert_eq!(got, format!("server web/a: {want}\n"));
        }
    }
}
