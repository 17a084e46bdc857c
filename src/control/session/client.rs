//! What holds for a client, piece by piece: its flows, then what a new flow of it meets at each service.

use super::super::explain::explain;
use super::super::packet_words::PacketWords;
use super::super::protocol::{Answer, ClientRow, Done, Explained};
use crate::balance::{Listen, ServiceSettings};
use crate::engine::{Cursor, Engine, FlowQuery};
use crate::packet::Protocol;
use crate::time::Instant;
use ipnet::IpNet;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

/// Most flows that are listed.
const MOST_FLOWS: u64 = 100;
/// The source port of the packets that are explained.
const PORT: u16 = 40_000;

/// An answer about a client that is under way.
#[derive(Debug)]
pub(super) struct ClientWalk {
    row: ClientRow,
    at: Place,
    rows: u64,
}

/// How far the answer is.
#[derive(Debug)]
enum Place {
    Flows(Cursor),
    /// The service whose turn it is.
    Service(usize),
}

impl ClientWalk {
    pub(super) fn new(client: IpAddr) -> Self {
        ClientWalk { row: ClientRow { client, flows: 0, listed: 0 }, at: Place::Flows(Cursor::default()), rows: 0 }
    }

    /// Does a bounded amount of work; returns what is left to do.
    pub(super) fn go_on(mut self, engine: &Engine, now: Instant, pending: &mut VecDeque<Answer>) -> Option<Self> {
        match self.at {
            Place::Flows(from) => self.flows(engine, now, from, pending),
            Place::Service(place) => match engine.plan().settings().services.get(place) {
                Some(service) => {
                    self.service(engine, now, service, pending);
                    self.at = Place::Service(place + 1);
                }
                None => {
                    let more = self.row.flows > self.row.listed;
                    pending.push_back(Answer::Done(Done { rows: self.rows, more }));
                    return None;
                }
            },
        }
        Some(self)
    }

    fn flows(&mut self, engine: &Engine, now: Instant, from: Cursor, pending: &mut VecDeque<Answer>) {
        let query = FlowQuery { client: Some(IpNet::from(self.row.client)), ..FlowQuery::default() };
        let mut rows = Vec::new();
        let next = engine.flows(now, &query, from, super::flows::ROWS, &mut rows);
        self.row.flows += rows.len() as u64;
        let room = (MOST_FLOWS - self.row.listed) as usize;
        let listed = rows.into_iter().take(room).map(|row| Answer::Flow(Box::new(row)));
        let before = pending.len();
        pending.extend(listed);
        let added = (pending.len() - before) as u64;
        self.row.listed += added;
        self.rows += added;
        match next {
            Some(from) => self.at = Place::Flows(from),
            None => {
                pending.push_back(Answer::Client(self.row));
                self.rows += 1;
                self.at = Place::Service(0);
            }
        }
    }

    fn service(&mut self, engine: &Engine, now: Instant, service: &ServiceSettings, pending: &mut VecDeque<Answer>) {
        let client = self.row.client;
        let listen = service.listen.iter().find(|listen| listen.address.is_ipv4() == client.is_ipv4());
        let Some(packet) = listen.and_then(|listen| opening(listen, client)) else { return };
        let explanation = explain(engine, now, &packet);
        let service = Some(service.name.clone());
        pending.push_back(Answer::Explanation(Box::new(Explained { service, packet, explanation })));
        self.rows += 1;
    }
}

/// Returns the packet by which a client opens a flow to a listen address: of a network the first address that a host can
/// have, of ports the first.
fn opening(listen: &Listen, client: IpAddr) -> Option<PacketWords> {
    let network = listen.network();
    let mut address = network.addr();
    if address.is_unspecified() {
        address = network.hosts().find(|host| !host.is_unspecified())?;
    }
    let port = match listen.protocol {
        Protocol::Icmp => listen.first_port.max(1),
        _ => listen.first_port,
    };
    PacketWords::opening(listen.protocol, SocketAddr::new(client, PORT), SocketAddr::new(address, port))
}
