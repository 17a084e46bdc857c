//! Rates, from two looks at the counters.

use crate::engine::{Rates, ServerRow, ServiceRow};

/// The counters of a server or service: flows, packets and bytes in, packets and bytes out.
type Counters = [u64; 5];

/// Returns the rates between two looks; none if the counters have begun anew in between, or no time has passed.
fn between(before: Counters, after: Counters, seconds: f64) -> Option<Rates> {
    if seconds <= 0.0 || before.iter().zip(&after).any(|(before, after)| after < before) {
        return None;
    }
    let rate = |at: usize| (after[at] - before[at]) as f64 / seconds;
    Some(Rates { flows: rate(0), packets_in: rate(1), bytes_in: rate(2), packets_out: rate(3), bytes_out: rate(4) })
}

fn of_service(row: &ServiceRow) -> Counters {
    [row.flows_total, row.packets_in, row.bytes_in, row.packets_out, row.bytes_out]
}

fn of_server(row: &ServerRow) -> Counters {
    [row.flows_total, row.packets_in, row.bytes_in, row.packets_out, row.bytes_out]
}

/// Fills in the rates of services, from their rows `seconds` before.
pub fn measure_services(rows: &mut [ServiceRow], before: &[ServiceRow], seconds: f64) {
    let known: std::collections::BTreeMap<_, _> = before.iter().map(|row| (&row.service, of_service(row))).collect();
    for row in rows {
        row.rates = known.get(&row.service).and_then(|before| between(*before, of_service(row), seconds));
    }
}

/// Fills in the rates of servers, from their rows `seconds` before.
pub fn measure_servers(rows: &mut [ServerRow], before: &[ServerRow], seconds: f64) {
    let name = |row: &ServerRow| (row.name(), row.removed);
    let known: std::collections::BTreeMap<_, _> = before.iter().map(|row| (name(row), of_server(row))).collect();
    for row in rows {
        row.rates = known.get(&name(row)).and_then(|before| between(*before, of_server(row), seconds));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_per_second_and_missing_where_counters_began_anew() {
        let row = |flows_total, bytes_in| {
            let row: ServiceRow = serde_json::from_str(include_str!("testing/service.json")).unwrap();
            ServiceRow { flows_total, bytes_in, rates: None, ..row }
        };
        let mut rows = [row(30, 5000)];
        measure_services(&mut rows, &[row(10, 1000)], 2.0);
        let rates = rows[0].rates.unwrap();
        assert_eq!((rates.flows, rates.bytes_in, rates.bytes_out), (10.0, 2000.0, 0.0));
        measure_services(&mut rows, &[row(31, 1000)], 2.0);
        assert_eq!(rows[0].rates, None);
        measure_services(&mut rows, &[], 2.0);
        assert_eq!(rows[0].rates, None);
    }
}
