//! What a reload has changed, for the log: line by line, in portions, as each line takes some microseconds.

use super::Asker;
use crate::control::ReloadRow;

/// Lines written before packets get their turn.
pub(super) const PORTION: usize = 64;

/// Rows of which some are in the log.
#[derive(Debug)]
pub(super) struct Telling {
    pub(super) asker: Asker,
    pub(super) rows: Vec<ReloadRow>,
    told: usize,
}

impl Telling {
    pub(super) fn new(asker: Asker, rows: Vec<ReloadRow>) -> Telling {
        Telling { asker, rows, told: 0 }
    }

    /// Writes a portion of the lines; returns true if there are more.
    pub(super) fn tell(&mut self) -> bool {
        if self.rows.is_empty() && !matches!(self.asker, Asker::Outside) {
            log::info!("reload: no changes");
        }
        for row in self.rows.iter().skip(self.told).take(PORTION) {
            match self.asker {
                // The log has said which servers came and went.
                Asker::Outside => log::log!(level(row, log::Level::Debug), "servers from outside: {row}"),
                _ => log::log!(level(row, log::Level::Info), "reload: {row}"),
            }
        }
        self.told = (self.told + PORTION).min(self.rows.len());
        self.told < self.rows.len()
    }
}

fn level(row: &ReloadRow, usual: log::Level) -> log::Level {
    if row.is_problem() { log::Level::Warn } else { usual }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_lines_are_written_in_portions() {
        let rows = (0..10_000).map(|n| ReloadRow::dropped(n.to_string())).collect();
        let mut telling = Telling::new(Asker::Signal, rows);
        let mut told = vec![0];
        while telling.tell() {
            told.push(telling.told);
        }
        told.push(telling.told);
        assert!(told.windows(2).all(|pair| (1..=PORTION).contains(&(pair[1] - pair[0]))), "{told:?}");
        assert_eq!(telling.told, 10_000);
        assert!(!Telling::new(Asker::Outside, Vec::new()).tell());
    }
}
