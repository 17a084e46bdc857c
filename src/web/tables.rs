//! Tables as `eqctl --json` prints them: one object per line.

use super::route::Table;
use crate::control::{Answer, ClientReport, Done, Failure, Gathered, Reason};
use serde::Serialize;
use std::collections::BTreeMap;

fn lines<T: Serialize>(rows: &[T]) -> Vec<u8> {
    let mut out = Vec::new();
    rows.iter().for_each(|row| line(&mut out, row));
    out
}

fn line(out: &mut Vec<u8>, row: &impl Serialize) {
    serde_json::to_writer(&mut *out, row).expect("a row has only string keys, and a Vec takes all");
    out.push(b'\n');
}

/// Writes a table; none if something else was gathered.
pub fn table(table: Table, gathered: &Gathered) -> Option<Vec<u8>> {
    Some(match (table, gathered) {
        (Table::Status, Gathered::All(all)) => lines(std::slice::from_ref(&all.status)),
        (Table::Counters, Gathered::All(all)) => lines(std::slice::from_ref(&all.totals)),
        (Table::Services, Gathered::All(all)) => lines(&all.services),
        (Table::Servers, Gathered::All(all)) => lines(&all.servers),
        (Table::Rules, Gathered::All(all)) => lines(&all.rules),
        (Table::Nat, Gathered::All(all)) => lines(&all.nat),
        (Table::Sources, Gathered::All(all)) => lines(&all.sources),
        (Table::Monitors, Gathered::Monitors(rows)) => lines(rows),
        (Table::History, Gathered::History(both)) => [lines(&both.0), lines(&both.1)].concat(),
        _ => return None,
    })
}

/// Writes what the reasons for drops mean, as one object.
pub fn words() -> Vec<u8> {
    let mut out = Vec::new();
    let words: BTreeMap<&str, &str> = Reason::ALL.iter().map(|reason| (reason.name(), reason.text())).collect();
    line(&mut out, &words);
    out
}

/// What the loop answered to a request of the control protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answered {
    /// The rows, one object per line, and how the answer ended.
    Rows(Vec<u8>, Done),
    /// It was refused.
    Refused(Failure),
    /// It cannot be understood, or has no end.
    Garbled,
}

/// Makes rows of the lines of an answer of the control protocol.
pub fn answered(text: &[u8]) -> Answered {
    let (mut rows, mut flows, mut explained, mut client) = (Vec::new(), Vec::new(), Vec::new(), None);
    for part in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        match serde_json::from_slice::<Answer>(part) {
            Err(_) => return Answered::Garbled,
            Ok(Answer::Done(done)) => {
                match client {
                    Some(client) => {
                        line(&mut rows, &ClientReport { client, listed_flows: flows, explanations: explained })
                    }
                    None => {
                        flows.iter().for_each(|row| line(&mut rows, row));
                        explained.iter().for_each(|row| line(&mut rows, &row.explanation));
                    }
                }
                return Answered::Rows(rows, done);
            }
            Ok(Answer::Error(failure)) => return Answered::Refused(failure),
            Ok(Answer::Flow(row)) => flows.push(*row),
            Ok(Answer::Pool(row)) => line(&mut rows, &row),
            Ok(Answer::Differs(row)) => line(&mut rows, &row),
            Ok(Answer::Changed(row)) => line(&mut rows, &row),
            Ok(Answer::Explanation(row)) => explained.push(*row),
            Ok(Answer::Client(row)) => client = Some(row),
            // Nothing else is asked for.
            Ok(_) => return Answered::Garbled,
        }
    }
    Answered::Garbled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_lose_the_name_of_what_they_are_as_with_eqctl() {
        let client = r#"{"client":"192.0.2.7","flows":0,"listed":0"#;
        let text = format!("{{\"client\":{client}}}}}\n{{\"done\":{{\"rows\":1,\"more\":false}}}}\n");
        let want = format!("{client},\"listed_flows\":[],\"explanations\":[]}}\n");
        let done = Done { rows: 1, more: false };
        assert_eq!(answered(text.as_bytes()), Answered::Rows(want.into_bytes(), done));
        let refused = answered(b"{\"error\":{\"message\":\"no\"}}\n");
        assert_eq!(refused, Answered::Refused(Failure { message: "no".into() }));
        for text in ["", "x\n", "{\"client\":1}\n", "{\"status\":{}}\n"] {
            assert_eq!(answered(text.as_bytes()), Answered::Garbled, "{text:?}");
        }
    }
}
