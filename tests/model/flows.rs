//! The flow table: a list with linear search.

use super::engine::{NOWHERE, Name};
use super::tcp::Tracker;
use equipoise::balance::PickedBy;
use equipoise::engine::FlowRow;
use equipoise::flow::{TOUCH_GRAIN, TableSettings, TimeoutState, Timeouts};
use equipoise::packet::{Protocol, Side};
use equipoise::time::{Duration, Instant};
use std::net::SocketAddr;

#[derive(Debug, Clone)]
pub struct Flow {
    pub protocol: Protocol,
    pub client: SocketAddr,
    pub listen: SocketAddr,
    /// The server's address and port, and the source that it sees.
    pub server_end: SocketAddr,
    pub source: SocketAddr,
    pub service: usize,
    pub server: usize,
    pub rule: Option<usize>,
    pub picked_by: PickedBy,
    pub state: TimeoutState,
    pub profile: usize,
    pub created: Instant,
    /// When its timer was last restarted, to a resolution of [`TOUCH_GRAIN`], and the sequence number of that restart.
    pub touched: Instant,
    pub order: u64,
    pub packets: [u64; 2],
    pub bytes: [u64; 2],
    pub tcp: Tracker,
}

impl Flow {
    pub fn name(&self) -> Name {
        (self.client, self.listen, self.protocol)
    }

    /// Returns the source and destination of packets sent by a side.
    pub fn ends(&self, side: Side) -> (SocketAddr, SocketAddr) {
        match side {
            Side::Client => (self.client, self.listen),
            Side::Server => (self.server_end, self.source),
        }
    }

    /// Returns whether no packet from the server has been forwarded yet.
    pub fn is_unanswered(&self) -> bool {
        self.packets[1] == 0
    }
}

#[derive(Debug, Clone)]
pub struct Flows {
    pub all: Vec<Flow>,
    pub most: usize,
    timeouts: Vec<Timeouts>,
    touches: u64,
}

impl Flows {
    pub fn new(settings: &TableSettings) -> Self {
        let timeouts = std::iter::once(settings.timeouts).chain(settings.profiles.iter().copied()).collect();
        Flows { all: Vec::new(), most: settings.max_flows as usize, timeouts, touches: 0 }
    }

    /// Returns the index of the flow that such a packet belongs to, and the side that sends it.
    pub fn find(&self, protocol: Protocol, src: SocketAddr, dst: SocketAddr) -> Option<(usize, Side)> {
        let of = |side: Side| {
            let place = self.all.iter().position(|flow| flow.protocol == protocol && flow.ends(side) == (src, dst));
            place.map(|place| (place, side))
        };
        of(Side::Client).or_else(|| of(Side::Server))
    }

    pub fn push(&mut self, flow: Flow) -> usize {
        self.touches += 1;
        self.all.push(Flow { order: self.touches, ..flow });
        self.all.len() - 1
    }

    /// Restarts a flow's timer in the given state.
    pub fn touch(&mut self, now: Instant, place: usize, state: TimeoutState) {
        let flow = &mut self.all[place];
        if flow.state == state && now.since(flow.touched) < TOUCH_GRAIN {
            return;
        }
        self.touches += 1;
        (flow.state, flow.touched, flow.order) = (state, now, self.touches);
    }

    /// Returns when a flow expires if no further packet arrives.
    pub fn deadline(&self, flow: &Flow) -> Instant {
        flow.touched + self.timeouts[flow.profile].of(flow.state) + TOUCH_GRAIN
    }

    /// Returns the next expired flow: by deadline, then state, then profile, then least recently touched.
    pub fn first_due(&self, now: Instant) -> Option<usize> {
        let due = (0..self.all.len()).filter(|place| self.deadline(&self.all[*place]) <= now);
        due.min_by_key(|place| {
            let flow = &self.all[*place];
            (self.deadline(flow), flow.state, flow.profile, flow.order)
        })
    }

    /// Returns the earliest deadline of all flows.
    pub fn next(&self) -> Option<Instant> {
        self.all.iter().map(|flow| self.deadline(flow)).min()
    }

    /// Returns the flows that may be evicted: the longest idle flows in the first state of the list below that is in
    /// use. Established flows and two-way UDP flows are never evicted.
    pub fn may_make_room(&self) -> Vec<usize> {
        use TimeoutState::{Closing, Icmp, Opening, Reset, UdpOneWay};
        for state in [Opening, Reset, Closing, UdpOneWay, Icmp] {
            let those: Vec<usize> = (0..self.all.len()).filter(|place| self.all[*place].state == state).collect();
            if let Some(first) = those.iter().map(|place| self.all[*place].touched).min() {
                return those.into_iter().filter(|place| self.all[*place].touched == first).collect();
            }
        }
        Vec::new()
    }

    /// Returns the row that is displayed for a flow.
    pub fn row(&self, now: Instant, flow: &Flow, names: (&str, &str, Option<&str>)) -> FlowRow {
        let millis = |span: Duration| span.as_millis() as u64;
        FlowRow {
            id: NOWHERE,
            protocol: flow.protocol,
            client: flow.client,
            listen: flow.listen,
            service: names.0.into(),
            server: names.1.into(),
            server_address: flow.server_end,
            source: Some(flow.source).filter(|source| *source != flow.client),
            picked_by: flow.picked_by,
            rule: names.2.map(Into::into),
            state: flow.state,
            age_ms: millis(now.since(flow.created)),
            idle_ms: millis(now.since(flow.touched)),
            expires_in_ms: millis(self.deadline(flow).since(now)),
            packets_in: flow.packets[0],
            bytes_in: flow.bytes[0],
            packets_out: flow.packets[1],
            bytes_out: flow.bytes[1],
        }
    }
}
