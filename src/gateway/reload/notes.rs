//! What the history says of reloads.

use super::{Asker, Done};
use crate::control::{Ledger, ReloadKind};
use crate::time::Instant;

/// Changes of one reload that are noted one by one, so that a large one does not take the place of everything else.
const MOST_NOTES: usize = 20;

/// Notes in the ledger what a reload of the file has changed, and who asked for it.
pub(super) fn note(ledger: &mut Ledger, now: Instant, asker: Asker, result: &Done) {
    let who = match asker {
        Asker::Signal => None,
        Asker::Session(_, who) => who,
        // The ledger has its own notes of changes, and the engine events of servers.
        Asker::Operator(_) | Asker::Outside => return,
    };
    match result {
        Ok((rows, _)) => {
            // The ledger has noted changes of operators that no longer apply.
            let mut rows = rows.iter().filter(|row| row.kind != ReloadKind::Dropped);
            for row in rows.by_ref().take(MOST_NOTES) {
                ledger.saw_reload(now, who, format!("reload: {row}"));
            }
            let more = rows.count();
            if more > 0 {
                ledger.saw_reload(now, who, format!("reload: {more} more changes; see the log"));
            }
        }
        Err(why) => {
            let first = why.lines().next().unwrap_or_default();
            ledger.saw_reload(now, who, format!("reload: nothing was changed: {first}"));
        }
    }
}
