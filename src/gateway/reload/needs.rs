//! What the system needs for a plan. For 10,000 servers each part takes longer than a packet may wait, so all of it is made in
//! the thread that prepares the plan.

use super::super::bpf::{AddressSet, addresses_of};
use super::super::paths::Targets;
use super::super::wanted::Routing;
use crate::config::Settings;

/// What the system needs for the settings of a plan.
#[derive(Debug)]
pub(in crate::gateway) struct Needs {
    /// The servers that the BPF programs have to know.
    pub(super) servers: AddressSet,
    pub(super) routing: Routing,
    /// The servers whose paths are looked up; taken once.
    pub(super) targets: Option<Targets>,
}

impl Needs {
    /// Computes it; `by_slot` are the settings of the plan by slot.
    pub(super) fn new(settings: &Settings, by_slot: &Settings) -> Needs {
        Needs { targets: Some(Targets::new(by_slot, &settings.gateway.device)), ..Needs::of(settings) }
    }

    /// The same without what is looked up already.
    pub(super) fn of(settings: &Settings) -> Needs {
        Needs { servers: addresses_of(settings), routing: Routing::of(settings), targets: None }
    }
}
