//! The tables `[answers]` and `[fragments]`: each value read and checked by itself.
//!
//! It must not know services.

use crate::config::fields::Fields;
use crate::config::keys;
use crate::config::settings::{AnswerSettings, NoRoom};
use crate::flow::FragmentSettings;
use toml::de::DeTable;

/// Reads `[answers]`.
pub(crate) fn answers(top: &mut Fields<'_, '_>) -> AnswerSettings {
    let empty = DeTable::new();
    let (table, span) = top.table(&keys::ANSWERS).unwrap_or((&empty, 0..0));
    let mut fields = Fields::new(table, span, &keys::ANSWERS, top.drafts);
    let no_room =
        [("prohibited", NoRoom::Prohibited), ("host-unreachable", NoRoom::HostUnreachable), ("drop", NoRoom::Drop)];
    AnswerSettings {
        no_service: fields.choice("no-service", &[("reject", true), ("drop", false)]).unwrap_or_default(),
        other_protocol: fields.choice("other-protocol", &[("unreachable", true), ("drop", false)]).unwrap_or_default(),
        no_room: fields.choice("no-room", &no_room).unwrap_or_default(),
        per_second: fields.count_or_default("per-second"),
    }
}

/// Reads `[fragments]`.
pub(crate) fn fragments(top: &mut Fields<'_, '_>) -> FragmentSettings {
    let empty = DeTable::new();
    let (table, span) = top.table(&keys::FRAGMENTS).unwrap_or((&empty, 0..0));
    let mut fields = Fields::new(table, span, &keys::FRAGMENTS, top.drafts);
    FragmentSettings {
        timeout: fields.duration_or_default("timeout"),
        max_packets: fields.count_or_default("max-packets"),
        max_bytes: fields.count_or_default("max-bytes"),
    }
}
