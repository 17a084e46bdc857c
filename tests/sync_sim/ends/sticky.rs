//! Which servers sticky clients have.

use super::Ends;
use super::config::STICKY;
use super::talk::Talk;
use std::net::Ipv4Addr;

impl Ends {
    /// An operator has had a gateway forget the server of a client.
    pub fn cleared(&mut self, t: u64, client: usize) {
        self.stuck.remove(&client);
        self.cleared_at.insert(client, t);
        // A handshake that goes on gives it a server anew.
        let asks = |talk: &Talk| talk.client == client && talk.service == STICKY && !talk.confirmed;
        if !self.talks.iter().any(asks) {
            self.forgotten.insert(client);
        }
    }

    /// The same for the servers of sticky clients.
    pub fn unstick(&mut self, known: u64) {
        self.stuck.retain(|_, (_, since)| *since + 1000 <= known);
    }

    /// A server may be down: its sticky clients get another one, and stay there.
    pub fn doubt(&mut self, t: u64, server: Ipv4Addr) {
        self.stuck.retain(|_, (own, _)| *own != server);
        self.doubted_at.insert(server, t);
    }

    /// The server of a talk that opens is the one that its client has.
    pub(super) fn judge_server(&mut self, at: usize) {
        let talk = &self.talks[at];
        // One that goes on with the flow of the former one of its port has the server of that, which is not the client's any more if
        // an operator has had it forgotten, or that server was down.
        let was_doubted = talk.server.is_some_and(|server| self.doubted_at.contains_key(&server));
        let may_go_on = talk.goes_on() && (was_doubted || self.cleared_at.contains_key(&talk.client));
        let stuck = self.stuck.get(&talk.client).filter(|_| talk.service == STICKY && self.sticks && !may_go_on);
        self.counts.held += u64::from(stuck.is_some());
        if let Some((own, _)) = stuck.filter(|(own, _)| Some(*own) != talk.server) {
            let text = format!("a sticky client of {own} gets to another server: {talk:?}");
            self.fail(text);
        }
    }

    /// A talk that goes on tells which server its client has, unless that is known.
    pub(super) fn stick(&mut self, t: u64, at: usize) {
        let talk = &mut self.talks[at];
        let is_its = talk.service == STICKY
            && talk.confirmed
            && !talk.excused
            && self.calm
            && !self.stuck.contains_key(&talk.client);
        // One that is older stays with its server, which is not the client's any more.
        let cleared_at = self.cleared_at.get(&talk.client).map_or(0, |at| at + 1000);
        let doubted_at = talk.server.and_then(|server| self.doubted_at.get(&server)).map_or(0, |at| at + 1000);
        if !is_its || talk.open_since.is_none_or(|since| since < cleared_at.max(doubted_at)) {
            return;
        }
        // Before both were in step, one gateway may have given it a server without knowing that it has one. Nor does one tell
        // that may go on with the flow of the former one of its port.
        if !talk.was_calm || talk.goes_on() && cleared_at.max(doubted_at) > 0 {
            self.counts.early += u64::from(!std::mem::replace(&mut talk.was_early, true));
            return;
        }
        self.counts.pinned += 1;
        talk.server.into_iter().for_each(|server| _ = self.stuck.insert(talk.client, (server, t)));
    }
}
