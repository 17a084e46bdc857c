//! The checklist: what a correct NAT does, the RFC that requires it, and the cases that prove it here.
//!
//! Plain data, one file per field. It must not know how cases are run.

mod icmp;
mod others;
mod packets;
mod room;
mod tcp;
mod udp;

/// Where a requirement comes from and what proves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Its name, unique: `RFC 4787 REQ-5`.
    pub id: &'static str,
    /// The section that requires it.
    pub section: &'static str,
    /// The requirement.
    pub requirement: &'static str,
    /// The value, or the behaviour chosen where the RFC leaves it open.
    pub value: &'static str,
    /// What proves it.
    pub proof: Proof,
}

/// What proves a requirement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// Replays whose outcome is known octet by octet; all of them must match.
    Cases(&'static [&'static str]),
    /// Why it does not apply.
    NotApplicable(&'static str),
}

const fn row(
    id: &'static str,
    section: &'static str,
    requirement: &'static str,
    value: &'static str,
    cases: &'static [&'static str],
) -> Row {
    Row { id, section, requirement, value, proof: Proof::Cases(cases) }
}

const fn not(id: &'static str, section: &'static str, requirement: &'static str, reason: &'static str) -> Row {
    Row { id, section, requirement, value: "-", proof: Proof::NotApplicable(reason) }
}

/// Why mappings are per flow.
const PER_FLOW: &str = "a mapping belongs to one flow between a client and a service address; no third party learns it, and none may use it";

/// Every requirement, in the order of the checklist.
pub const ROWS: &[&[Row]] = &[
    udp::UDP,
    tcp::TCP,
    icmp::ICMP,
    room::LARGE,
    room::SYN_FLOOD,
    room::TABLE,
    packets::FAMILIES,
    packets::SUMS,
    packets::FIELDS,
    others::SPOOFING,
    others::OTHERS,
];
