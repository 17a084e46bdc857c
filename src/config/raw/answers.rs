//! The tables `[answers]` and `[fragments]`: each value read and checked by itself.
//!
//! It must not know services.

use crate::config::fields::Fields;
use crate::config::keys;
use crate::config::settings::{AnswerSettings, NoRoom};
use crate::flow::FragmentSettings;
use toml::de::DeTable;

/// The words for what answers a packet to a port where no service listens: whether anything does.
pub(crate) const NO_SERVICE: [(&str, bool); 2] = [("reject", true), ("drop", false)];
/// The words for what answers a packet of a protocol that is not offered: whether anything does.
pub(crate) const OTHER_PROTOCOL: [(&str, bool); 2] = [("unreachable", true), ("drop", false)];
/// The words for what answers a flow that there is no room for.
pub(crate) const NO_ROOM: [(&str, NoRoom); 3] =
    [("prohibited", NoRoom::Prohibited), ("host-unreachable", NoRoom::HostUnreachable), ("drop", NoRoom::Drop)];

/// Reads `[answers]`.
pub(crate) fn answers(top: &mut Fields<'_, '_>) -> AnswerSettings {
    let empty = DeTable::new();
    let (table, span) = top.table(&keys::ANSWERS).unwrap_or((&empty, 0..0));
    let mut fields = Fields::new(table, span, &keys::ANSWERS, top.drafts);
    AnswerSettings {
        no_service: fields.choice("no-service", &NO_SERVICE).unwrap_or_default(),
        other_protocol: fields.choice("other-protocol", &OTHER_PROTOCOL).unwrap_or_default(),
        no_room: fields.choice("no-room", &NO_ROOM).unwrap_or_default(),
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
