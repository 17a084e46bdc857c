//! Half-open flows that the peer has told of: here they count as begun when their records arrived, so their age says nothing
//! beside a flow that the peer tells of later.

use crate::engine::Engine;
use crate::ids::FlowId;
use std::collections::BTreeMap;

/// Most of them that are remembered: as many as go over at once, and as many again that wait there for their answers.
const MOST: usize = 8192;

/// Half-open flows of the peer, by slot: their generation.
#[derive(Debug, Default)]
pub(super) struct Echoes(BTreeMap<u32, u32>);

impl Echoes {
    /// Remembers one. If there are too many, those go that have ended or gone on, or else all: of what is not remembered,
    /// the age decides.
    pub(super) fn note(&mut self, engine: &Engine, flow: FlowId) {
        if self.0.len() >= MOST {
            self.0.retain(|index, generation| is_there(engine, *index, *generation));
            if self.0.len() > MOST / 2 {
                self.0.clear();
            }
        }
        self.0.insert(flow.index, flow.generation);
    }

    /// Returns whether the half-open flow in a slot is one of them.
    pub(super) fn has(&self, engine: &Engine, slot: u32) -> bool {
        self.0.get(&slot).is_some_and(|generation| is_there(engine, slot, *generation))
    }

    pub(super) fn memory(&self) -> usize {
        // A tree's nodes are at least half full.
        self.0.len() * 2 * size_of::<(u32, u32)>()
    }
}

fn is_there(engine: &Engine, index: u32, generation: u32) -> bool {
    engine.half_open_flow(FlowId { index, generation }).is_some()
}
