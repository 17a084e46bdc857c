//! The record of a flow, in the table or half-open.

use super::{Base, Skipped, kind};
use crate::engine::state::wire::{Fields, Value, Writer};
use crate::flow::{Key, NUMBERS, NewFlow, SavedFlow, TimeoutState};
use crate::ids::{ServerId, ServiceId};
use crate::packet::{Addresses, Protocol};

/// Writes a key: protocol, ports, source, destination.
fn key_bytes(key: &Key) -> ([u8; 37], usize) {
    let mut bytes = [0; 37];
    bytes[0] = key.protocol.number(false);
    bytes[1..3].copy_from_slice(&key.src_port.to_be_bytes());
    bytes[3..5].copy_from_slice(&key.dst_port.to_be_bytes());
    match key.addresses {
        Addresses::V4 { src, dst } => {
            bytes[5..9].copy_from_slice(&src.to_be_bytes());
            bytes[9..13].copy_from_slice(&dst.to_be_bytes());
            (bytes, 13)
        }
        Addresses::V6 { src, dst } => {
            bytes[5..21].copy_from_slice(&src.to_be_bytes());
            bytes[21..].copy_from_slice(&dst.to_be_bytes());
            (bytes, 37)
        }
    }
}

fn key(value: Value<'_>) -> Option<Key> {
    let [protocol, a, b, c, d, addresses @ ..] = value.0 else { return None };
    let (src_port, dst_port) = (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]));
    let protocol = Protocol::of_number(*protocol);
    let (src, dst) = addresses.split_at(addresses.len() / 2);
    let addresses = Addresses::new(Value(src).address()?, Value(dst).address()?)?;
    let is_sound = match protocol {
        Protocol::Tcp | Protocol::Udp | Protocol::Sctp => true,
        Protocol::Icmp => src_port == dst_port,
        Protocol::Ip(_) => (src_port, dst_port) == (0, 0),
    };
    is_sound.then_some(Key { addresses, src_port, dst_port, protocol })
}

const fn state_code(state: TimeoutState) -> u64 {
    match state {
        TimeoutState::Opening => 0,
        TimeoutState::Established => 1,
        TimeoutState::Closing => 2,
        TimeoutState::Reset => 3,
        TimeoutState::UdpOneWay => 4,
        TimeoutState::UdpTwoWay => 5,
        TimeoutState::Icmp => 6,
    }
}

fn state(value: Value<'_>) -> Option<TimeoutState> {
    TimeoutState::ALL.into_iter().find(|state| Some(state_code(*state)) == value.number())
}

/// A flow with the numbers that the state gives to its service, server, rule and NAT pool; and whether its client's sticky
/// slot counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine::state) struct FlowRecord {
    pub saved: SavedFlow,
    pub rule: Option<u32>,
    pub nat_pool: Option<u32>,
    pub is_counted: bool,
    /// In a copy: its slot there.
    pub slot: Option<u32>,
}

const ANSWERED: u64 = 1;
const PROVEN: u64 = 2;
const COUNTED: u64 = 4;
/// Above it: what picked the server.
const PICKED_BY: u32 = 4;

impl FlowRecord {
    pub(in crate::engine::state) fn write(&self, out: &mut Vec<u8>, base: Base) {
        let SavedFlow { flow, state, created, touched, answered, proven, numbers, packets, bytes, .. } = &self.saved;
        let mut record = Writer::new(out, if flow.half_open { kind::HALF_OPEN } else { kind::FLOW });
        for (tag, key) in [(1, &flow.client), (2, &flow.server)] {
            let (bytes, len) = key_bytes(key);
            record.bytes(tag, &bytes[..len]);
        }
        record.number(3, flow.service.0.into());
        record.number(4, flow.server_id.0.into());
        if let Some(rule) = self.rule {
            record.present(5, rule.into());
        }
        if let Some(pool) = self.nat_pool {
            record.present(6, pool.into());
        }
        record.number(7, state_code(*state));
        let flag = |is: bool, flag| if is { flag } else { 0 };
        let flags = flag(*answered, ANSWERED) | flag(*proven, PROVEN) | flag(self.is_counted, COUNTED);
        record.number(8, flags | u64::from(flow.picked_by) << PICKED_BY);
        record.signed(9, base.of(*touched));
        record.signed(10, base.of(*created));
        if *numbers != [0; NUMBERS] {
            record.bytes(11, numbers);
        }
        record.number(12, packets[0]);
        record.number(13, packets[1]);
        record.number(14, bytes[0]);
        record.number(15, bytes[1]);
        if let Some(slot) = self.slot {
            record.present(16, slot.into());
        }
        record.end();
    }

    /// Reads a flow; none if no flow is like that.
    pub(in crate::engine::state) fn read(
        (kind, fields): (u8, Fields<'_>),
        base: Base,
        skipped: &mut Skipped,
    ) -> Option<FlowRecord> {
        let (half_open, mut slot) = (kind == kind::HALF_OPEN, None);
        let (mut client, mut server, mut of) = (None, None, None);
        let (mut service, mut server_id, mut flags) = (0, 0, 0);
        let (mut rule, mut nat_pool, mut numbers) = (None, None, [0; NUMBERS]);
        let (mut touched, mut created) = (base.0, base.0);
        let (mut packets, mut bytes) = ([0; 2], [0; 2]);
        for (tag, value) in fields {
            match tag {
                1 => client = Some(key(value)?),
                2 => server = Some(key(value)?),
                3 => service = value.as_number()?,
                4 => server_id = value.as_number()?,
                5 => rule = Some(value.as_number()?),
                6 => nat_pool = Some(value.as_number()?),
                7 => of = Some(state(value)?),
                8 => flags = value.number()?,
                9 => touched = base.at(value.signed()?),
                10 => created = base.at(value.signed()?),
                11 => numbers = value.0.try_into().ok()?,
                12 | 13 => packets[usize::from(tag) - 12] = value.number()?,
                14 | 15 => bytes[usize::from(tag) - 14] = value.number()?,
                16 => slot = Some(value.as_number()?),
                _ => skipped.0 += 1,
            }
        }
        let (client, server, state) = (client?, server?, of.unwrap_or(TimeoutState::Opening));
        let picked_by = (flags >> PICKED_BY) as u8;
        let opens = client.protocol == Protocol::Tcp && matches!(state, TimeoutState::Opening | TimeoutState::Reset);
        if !is_sound(&client, &server, state, nat_pool.is_some()) || picked_by > 3 || half_open && !opens {
            return None;
        }
        let flow = NewFlow {
            client,
            server,
            service: ServiceId(service),
            server_id: ServerId(server_id),
            profile: 0,
            nat_pool: crate::flow::NO_POOL,
            rule: crate::policy::NO_RULE,
            picked_by,
            half_open,
        };
        let (answered, proven) = (flags & ANSWERED != 0, flags & PROVEN != 0 && !half_open);
        let saved =
            SavedFlow { flow, state, created, touched, answered, proven, numbers, is_behind: false, packets, bytes };
        Some(FlowRecord { saved, rule, nat_pool, is_counted: flags & COUNTED != 0, slot })
    }
}

/// Returns whether a flow can have these keys and be in this state. Only one with a port of a NAT pool has another source
/// towards its server than its client.
fn is_sound(client: &Key, server: &Key, state: TimeoutState, has_nat: bool) -> bool {
    use TimeoutState::{Closing, Established, Icmp, Opening, Reset, UdpOneWay, UdpTwoWay};
    let crosses = client.addresses.is_v6() != server.addresses.is_v6();
    let fits = match client.protocol {
        Protocol::Tcp => matches!(state, Opening | Established | Closing | Reset),
        Protocol::Udp => matches!(state, UdpOneWay | UdpTwoWay),
        Protocol::Icmp => state == Icmp,
        Protocol::Sctp | Protocol::Ip(_) => matches!(state, UdpOneWay | UdpTwoWay) && !crosses,
    };
    let is_same_source = || (client.addresses.src(), client.src_port) == (server.addresses.dst(), server.dst_port);
    fits && client.protocol == server.protocol && client != server && (has_nat || is_same_source())
}
