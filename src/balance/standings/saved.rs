//! What operators, servers and the traffic have told of a server, saved and made again elsewhere.

use super::{News, Standings};
use crate::balance::roster::Roster;
use crate::balance::server::{REPORT_LIFE, Report};
use crate::balance::settings::Admin;
use crate::ids::ServerId;
use crate::time::Instant;

/// A server's standing without what its monitors say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SavedServer {
    /// The weight, and the configured one.
    pub weight: [u16; 2],
    /// The administrative state, and the configured one.
    pub admin: [Admin; 2],
    /// When draining ends by force.
    pub deadline: Option<Instant>,
    /// The load that it reported, and when.
    pub load: Option<(u8, Instant)>,
    /// Whether it asks for no new flows.
    pub maintenance: bool,
    /// When its passive hold ends.
    pub held_until: Option<Instant>,
    /// When it last came back.
    pub back_since: Option<Instant>,
}

impl Standings {
    /// Returns a server's standing as a value.
    pub fn save(&self, roster: &Roster, now: Instant, server: ServerId) -> SavedServer {
        let (state, settings) = (self.server(server), roster.server(server));
        SavedServer {
            weight: [state.weight, settings.weight],
            admin: [state.admin, settings.admin],
            deadline: state.deadline,
            load: state.report.map(|report| (report.load, report.at)),
            maintenance: state.maintenance,
            held_until: state.held_until(now),
            back_since: state.back_since,
        }
    }

    /// Gives a server a saved standing. What an operator changed applies unless the configuration has changed for that key
    /// since.
    pub fn restore(&mut self, roster: &Roster, now: Instant, server: ServerId, saved: &SavedServer) {
        let settings = roster.server(server);
        let state = &mut self.servers[server.0 as usize];
        if saved.weight[1] == settings.weight {
            state.weight = saved.weight[0];
        }
        if saved.admin[1] == settings.admin {
            state.admin = saved.admin[0];
            state.deadline = saved.deadline.filter(|_| state.admin == Admin::Draining);
        }
        // Another clock may be ahead: what has yet to happen would hold until then.
        let past = |at: Instant| at.min(now);
        if let Some((load, at)) =
            saved.load.map(|(load, at)| (load, past(at))).filter(|(_, at)| *at + REPORT_LIFE > now)
        {
            state.report = Some(Report { load: load.min(100), at });
            state.maintenance = saved.maintenance;
        }
        if let Some(until) = saved.held_until.filter(|until| *until > now)
            && let Some(passive) = roster.passive(server)
        {
            state.hold_until(now, until.min(now + passive.longest));
        }
        state.back_since = saved.back_since.map(past);
        self.publish(server, News::Report);
        self.publish(server, News::Standing);
        self.watch(roster, now, server);
    }
}
