//! What a reload changes besides the engine: the programs' maps, routes and rules, what is watched.

use super::super::bpf::AddressSet;
use super::super::follower::Follower;
use super::super::marking::Marking;
use super::super::queues::Opener;
use super::super::setup::{Changes, Installed};
use super::super::wanted::Routing;
use super::super::watch::Keeper;
use crate::config::Settings;
use crate::control::{About, Ledger};
use crate::engine::Engine;
use std::sync::Arc;

/// Parts of the system changed before packets get their turn; each takes the kernel some microseconds.
const PORTION: usize = 16;
/// What a reload changes besides the engine.
pub(in crate::gateway) struct Surroundings<'a> {
    pub(in crate::gateway) engine: &'a mut Engine,
    pub(in crate::gateway) ledger: &'a mut Ledger,
    pub(in crate::gateway) follower: &'a mut Follower,
    pub(in crate::gateway) keeper: &'a mut Keeper,
    pub(in crate::gateway) marking: Option<&'a mut Marking>,
    pub(in crate::gateway) opener: &'a mut Opener,
    pub(in crate::gateway) installed: Option<&'a mut Installed>,
    pub(in crate::gateway) about: &'a mut Arc<About>,
}

impl Surroundings<'_> {
    /// Adds the servers and addresses of settings to the programs' maps; returns what had no room.
    pub(super) fn extend_maps(&mut self, settings: &Settings, servers: &AddressSet) -> Option<String> {
        let steering = self.opener.extend(servers);
        let marks = self.marking.as_mut().map_or(Ok(()), |marking| marking.extend(settings, servers));
        let error = steering.and(marks).err()?;
        Some(format!(
            "the BPF programs do not know all new servers ({error}): their replies may not be translated; restart the gateway"
        ))
    }

    /// Removes from the programs' maps what is not in the settings.
    pub(super) fn restrict_maps(&mut self, settings: &Settings, servers: &AddressSet) {
        self.opener.restrict(servers);
        if let Some(marking) = &mut self.marking {
            marking.restrict(settings, servers);
        }
    }

    /// Makes the system follow settings; returns what there is to do. `has_retired` says whether there may be flows of what has
    /// been removed.
    pub(super) fn follow_settings(&mut self, settings: &Settings, routing: &Routing, has_retired: bool) -> Changes {
        let Some(installed) = &mut self.installed else { return Changes::default() };
        let changes = installed.follow((settings, routing), (self.engine.retired(), has_retired));
        // Replies first: no client's packet may enter before its reply can.
        if let Err(error) = installed.follow_errors(self.follower.interfaces()) {
            log::warn!("replies of new servers may not be translated: {error}");
        }
        self.keeper.follow(installed);
        changes
    }

    /// Changes a portion of the system; returns whether all of it is done.
    pub(super) fn carry_out(&mut self, changes: &mut Changes) -> bool {
        let Some(installed) = &mut self.installed else { return true };
        if !changes.is_done() {
            installed.carry_out(changes, PORTION);
            return false;
        }
        let interfaces = self.follower.interfaces();
        let done = installed.follow_errors(interfaces).and_then(|()| installed.follow_announcements());
        if let Err(error) = done {
            log::warn!("packets of new services or servers may not arrive: {error}");
        }
        self.keeper.follow(installed);
        true
    }
}
