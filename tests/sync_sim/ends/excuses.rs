//! What may happen to talks: no gateway that is left can have known better.

use super::Ends;
use super::config::ANY;
use super::talk::{State, Talk};
use std::net::SocketAddrV4;

/// For how long a half-open flow stays at a gateway that has been told of it and of nothing else, less a moment.
const HALF_OPEN: u64 = 7_000;

impl Ends {
    /// Something has happened to a talk that must not, unless it may be lost, which is counted.
    pub(super) fn broken(&mut self, of: &Talk, what: impl Fn(&Talk) -> String) {
        if !of.may_be_lost() {
            return self.fail(what(of));
        }
        if let Some(talk) = self.talks.iter_mut().find(|talk| talk.id == of.id && !talk.was_spared) {
            talk.was_spared = true;
            self.counts.spared += 1;
        }
    }

    /// Only what was there by a time is known to the gateway that is left, or that gets the packets; and what it has been told
    /// of since `told` before a client got its answer.
    pub fn excuse(&mut self, (t, told): (u64, u64), known: u64, slots_known: u64) {
        for talk in &mut self.talks {
            let is_told = talk.told.is_some_and(|at| at >= told && t <= at + HALF_OPEN);
            // Other half-open flows are not told.
            if talk.confirmed_at.is_none_or(|since| since + 1000 > known) {
                talk.excused |= !is_told;
                self.counts.told += u64::from(is_told && !talk.excused);
            }
        }
        self.unstick(slots_known);
    }

    /// A connection begins on the NAT port of another one. If the gateway that gives the port cannot know that it is in use, what
    /// becomes of the two is excused, and counted: it gave the port before it started again, and only its peer, from which it has
    /// not learned since, knows the former connection.
    pub(super) fn excuse_unknown_port(&mut self, former: u32, begun: u32) {
        let Some(started) = self.unlearned_since else { return };
        let begins = self.talk(begun).is_some_and(|talk| talk.state == State::Opening);
        let is_older = self.talk(former).and_then(|talk| talk.open_since).is_some_and(|since| since < started);
        if !(begins && is_older) {
            return;
        }
        for talk in self.talks.iter_mut().filter(|talk| [former, begun].contains(&talk.id)) {
            talk.excused = true;
            self.counts.spared += u64::from(!std::mem::replace(&mut talk.was_spared, true));
        }
    }

    /// Both gateways open conversations that only one of them knows: each may choose another server.
    pub fn excuse_any(&mut self, known: u64) {
        for talk in self.talks.iter_mut().filter(|talk| talk.service == ANY) {
            talk.excused |= talk.open_since.is_none_or(|since| since + 1000 > known);
        }
    }

    /// The other gateway knows of a connection whose client is about to get its answer.
    pub fn told(&mut self, t: u64, client: SocketAddrV4) {
        let talk = self.talks.iter_mut().find(|talk| talk.local == client && talk.state == State::Opening);
        talk.into_iter().for_each(|talk| talk.told = Some(t));
    }

    /// An operator has ended the flow of a client's port.
    pub fn killed(&mut self, client: SocketAddrV4) {
        self.talks.iter_mut().filter(|talk| talk.local == client).for_each(|talk| talk.excused = true);
    }
}
