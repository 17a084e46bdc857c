//! Whether a policy rule that the kernel lists is one that was installed.
//!
//! The kernel lists more than was asked for: defaults, marks of state. It must not know why rules are looked for.

use super::is_marked;
use netlink_packet_route::rule::{RuleAttribute, RuleMessage};

/// Returns those that carry the mark of a gateway.
pub(super) fn ours(rules: Vec<RuleMessage>) -> Vec<RuleMessage> {
    let is_ours = |rule: &RuleMessage| {
        rule.attributes.iter().any(|a| matches!(a, RuleAttribute::Protocol(by) if is_marked(u8::from(*by))))
    };
    rules.into_iter().filter(is_ours).collect()
}

/// Returns whether `found` does what `wanted` says: each attribute of it, and no further selector.
pub(in super::super) fn same(wanted: &RuleMessage, found: &RuleMessage) -> bool {
    wanted.header.family == found.header.family
        && wanted.header.action == found.header.action
        && wanted.header.src_len == found.header.src_len
        && found.header.dst_len == 0
        && wanted.attributes.iter().all(|a| found.attributes.iter().any(|b| is_same(a, b)))
        && found.attributes.iter().filter(|b| selects(b)).all(|b| wanted.attributes.iter().any(|a| is_same(a, b)))
}

fn is_same(a: &RuleAttribute, b: &RuleAttribute) -> bool {
    match (a, b) {
        // Numbers that the crate may give two names.
        (RuleAttribute::IpProtocol(a), RuleAttribute::IpProtocol(b)) => u8::from(*a) == u8::from(*b),
        (RuleAttribute::Protocol(a), RuleAttribute::Protocol(b)) => u8::from(*a) == u8::from(*b),
        _ => a == b,
    }
}

fn selects(attribute: &RuleAttribute) -> bool {
    use RuleAttribute as A;
    match attribute {
        A::L3MDev(on) => *on,
        A::FwMark(mark) => *mark != 0,
        _ => matches!(
            attribute,
            A::Destination(_)
                | A::Source(_)
                | A::Iifname(_)
                | A::Oifname(_)
                | A::TunId(_)
                | A::UidRange(_)
                | A::IpProtocol(_)
                | A::SourcePortRange(_)
                | A::DestinationPortRange(_)
        ),
    }
}
