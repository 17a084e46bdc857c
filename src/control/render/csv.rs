//! Rows as comma-separated values (RFC 4180): the fields of their JSON, without units.

use crate::control::protocol::{
    ChangeRow, ChangedRow, ClearedRow, EventRow, KilledRow, OperationRow, PoolRow, SourceRow, Totals,
};
use crate::engine::{FlowRow, HistoryRow, MonitorRow, NatRow, RuleRow, ServerRow, ServiceRow, StickyRow};
use serde::Serialize;
use serde_json::Value;

/// A row that can be written as comma-separated values.
pub trait CsvRow: Serialize {
    /// The fields of its JSON, in the order of the columns; `rates.flows` is the field of a field.
    const FIELDS: &'static [&'static str];
}

macro_rules! fields {
    ($($row:ty: $($field:literal)+;)+) => {
        $(impl CsvRow for $row { const FIELDS: &'static [&'static str] = &[$($field),+]; })+
    };
}

fields! {
    FlowRow: "id" "protocol" "client" "listen" "service" "pool" "server" "server_address" "source" "picked_by" "rule"
        "state" "age_ms" "idle_ms" "expires_in_ms" "packets_in" "bytes_in" "packets_out" "bytes_out";
    ServerRow: "pool" "server" "addresses" "port" "weight" "weight_now" "admin" "drain_deadline_ms" "health" "parts_down"
        "times_down" "times_up" "passive_hold_ms" "load" "maintenance" "removed" "latency_ms" "max_flows" "flows"
        "proven" "flows_total" "packets_in" "bytes_in" "packets_out" "bytes_out" "rates.flows" "rates.packets_in"
        "rates.bytes_in" "rates.packets_out" "rates.bytes_out";
    ServiceRow: "service" "enabled" "listen" "pool" "algorithm" "flows" "flows_total" "packets_in" "bytes_in"
        "packets_out" "bytes_out" "rates.flows" "rates.packets_in" "rates.bytes_in" "rates.packets_out"
        "rates.bytes_out";
    RuleRow: "place" "rule" "enabled" "action" "matched" "flows_total" "refused" "flows" "proven";
    NatRow: "pool" "address" "protocol" "used" "half_open" "resting" "servers" "fullest_server" "free" "exhausted";
    MonitorRow: "pool" "server" "monitor" "probe" "address" "port" "verdict" "state" "kept_by_floor" "sent" "lost"
        "average_ms" "last" "in_state_ms";
    HistoryRow: "pool" "server" "ago_ms" "family" "port" "what" "why";
    OperationRow: "ago_ms" "what" "uid" "pid";
    EventRow: "number" "ago_ms" "grave" "what" "uid" "pid";
    StickyRow: "services" "client" "pool" "server" "proven" "flows" "given_ms" "expires_in_ms";
    SourceRow: "pool" "kind" "from" "servers" "names" "good_ms" "next_ms" "error" "error_for_ms" "left_out";
    PoolRow: "pool" "services" "servers" "usable" "draining" "disabled" "down" "flows" "keys";
    ChangeRow: "object.kind" "object.name" "key" "file" "value" "is_default" "waits" "uid" "pid" "ago_ms" "deadline_ms";
    ChangedRow: "object.kind" "object.name" "text" "changed" "before" "after" "flows";
    KilledRow: "text" "changed" "dry_run" "flows" "before" "after";
    ClearedRow: "text" "changed" "clients" "before" "after";
    Totals: "engine" "device";
}

/// Returns the first line: the names of the columns.
pub fn csv_header<T: CsvRow>() -> String {
    T::FIELDS.join(",") + "\r\n"
}

/// Returns the line of a row.
pub fn csv_line<T: CsvRow>(row: &T) -> String {
    // Rows have string keys and plain values.
    let row = serde_json::to_value(row).unwrap_or_default();
    let fields = T::FIELDS.iter().map(|field| cell(field.split('.').fold(&row, |value, name| &value[name])));
    fields.collect::<Vec<_>>().join(",") + "\r\n"
}

fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(all) if all.iter().all(|one| !one.is_object() && !one.is_array()) => all
            .iter()
            .map(|one| one.as_str().map_or_else(|| one.to_string(), str::to_owned))
            .collect::<Vec<_>>()
            .join(" "),
        other => other.to_string(),
    };
    if text.contains(['"', ',', '\r', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::render::testing::flow;

    #[test]
    fn a_row_is_one_line_with_a_value_for_each_column() {
        let row = FlowRow { rule: Some("a \"b\", c".into()), ..flow() };
        assert!(csv_header::<FlowRow>().starts_with("id,protocol,client,"));
        let want = "7.0,tcp,198.51.100.9:999,192.0.2.1:80,web,farm,a,10.0.0.1:8080,,algorithm,\"a \"\"b\"\", c\",established,\
                    3720000,200,7439800,1000,1500000,7,512\r\n";
        assert_eq!(csv_line(&row), want);
    }

    /// Every field of a row's JSON has a column, and every column a field.
    fn complete<T: CsvRow>(row: &T) {
        let row = serde_json::to_value(row).unwrap();
        let mut columns: Vec<&str> = T::FIELDS.iter().map(|field| field.split('.').next().unwrap()).collect();
        columns.dedup();
        let mut fields: Vec<&str> = row.as_object().unwrap().keys().map(String::as_str).collect();
        columns.sort_unstable();
        columns.dedup();
        fields.sort_unstable();
        assert_eq!(columns, fields, "{}", std::any::type_name::<T>());
    }

    #[test]
    fn each_field_has_a_column() {
        use crate::config::changes::{Kind, Target, Who};
        let source = Some("192.0.2.9:7".parse().unwrap());
        complete(&FlowRow { rule: Some("r".into()), source, ..flow() });
        let who = Some(Who { uid: 1, pid: 2 });
        complete(&OperationRow { ago_ms: 1, what: "x".into(), who });
        complete(&EventRow { number: 1, ago_ms: 1, grave: false, what: "x".into(), who });
        complete(&KilledRow::default());
        complete(&ClearedRow::default());
        complete(&ChangedRow {
            object: Target::new(Kind::Server, "p/a"),
            text: String::new(),
            changed: true,
            before: None,
            after: None,
            flows: Some(1),
        });
        for (name, text) in [
            ("services", include_str!("testing/service.json")),
            ("servers", include_str!("testing/server.json")),
            ("others", include_str!("testing/others.json")),
        ] {
            let value: Value = serde_json::from_str(text).unwrap();
            match name {
                "services" => complete(&serde_json::from_value::<ServiceRow>(value).unwrap()),
                "servers" => complete(&serde_json::from_value::<ServerRow>(value).unwrap()),
                _ => {
                    complete(&serde_json::from_value::<RuleRow>(value["rule"].clone()).unwrap());
                    complete(&serde_json::from_value::<NatRow>(value["nat"].clone()).unwrap());
                    complete(&serde_json::from_value::<MonitorRow>(value["monitor"].clone()).unwrap());
                    complete(&serde_json::from_value::<HistoryRow>(value["history"].clone()).unwrap());
                    complete(&serde_json::from_value::<StickyRow>(value["sticky"].clone()).unwrap());
                    complete(&serde_json::from_value::<SourceRow>(value["source"].clone()).unwrap());
                    complete(&serde_json::from_value::<PoolRow>(value["pool"].clone()).unwrap());
                    complete(&serde_json::from_value::<ChangeRow>(value["change"].clone()).unwrap());
                }
            }
        }
    }
}
