//! The tables `[answers]` and `[fragments]`: each value read and checked by itself.
//!
//! It must not know services.

use crate::config::fields::Fields;
use crate::config::settings::{AnswerSettings, NoRoom};
use crate::flow::FragmentSettings;
use crate::time::Duration;
use serde_spanned::Spanned;

/// Most answers a second.
const MOST_ANSWERS: u64 = 1_000_000;
/// Most fragmented packets that are remembered.
const MOST_PACKETS: u64 = 1_000_000;
/// Most bytes of fragments that wait: 1 GiB.
const MOST_BYTES: u64 = 1 << 30;

/// Reads `[answers]`.
pub(crate) fn answers(top: &mut Fields<'_, '_>) -> AnswerSettings {
    let defaults = AnswerSettings::default();
    let Some((table, span)) = top.table("answers", "[answers]") else { return defaults };
    let known = ["no-service", "other-protocol", "no-room", "per-second"];
    let mut fields = Fields::new(table, span, "[answers]", &known, top.drafts);
    let no_room =
        [("prohibited", NoRoom::Prohibited), ("host-unreachable", NoRoom::HostUnreachable), ("drop", NoRoom::Drop)];
    AnswerSettings {
        no_service: fields.word("no-service", &[("reject", true), ("drop", false)]).unwrap_or(defaults.no_service),
        other_protocol: fields
            .word("other-protocol", &[("unreachable", true), ("drop", false)])
            .unwrap_or(defaults.other_protocol),
        no_room: fields.word("no-room", &no_room).unwrap_or(defaults.no_room),
        per_second: fields.count("per-second", 1..=MOST_ANSWERS).unwrap_or(defaults.per_second),
    }
}

/// Reads `[fragments]`.
pub(crate) fn fragments(top: &mut Fields<'_, '_>) -> FragmentSettings {
    let defaults = FragmentSettings::default();
    let Some((table, span)) = top.table("fragments", "[fragments]") else { return defaults };
    let mut fields = Fields::new(table, span, "[fragments]", &["timeout", "max-packets", "max-bytes"], top.drafts);
    // RFC 6146, 4: at least 2 s; RFC 8200, 4.5: a host waits 60 s.
    let timeout = fields.duration_in("timeout", Duration::from_secs(2)..=Duration::from_secs(60));
    FragmentSettings {
        timeout: timeout.map_or(defaults.timeout, Spanned::into_inner),
        max_packets: fields.count("max-packets", 1..=MOST_PACKETS).unwrap_or(defaults.max_packets),
        max_bytes: fields.count("max-bytes", 65_535..=MOST_BYTES).unwrap_or(defaults.max_bytes),
    }
}
