//! Settings and packets for the engine's own tests.

use super::explain::Foreseen;
use super::{Cursor, Engine, FlowQuery, FlowRow, Verdict};
use crate::balance::{Listen, PoolSettings, ServerSettings, ServiceSettings};
use crate::config::Settings;
use crate::flow::TableSettings;
use crate::ids::{PoolId, ServerId};
use crate::packet::{Addresses, Meta, Protocol, Transport, parse};
use crate::time::Instant;
use etherparse::{PacketBuilder, PacketBuilderStep, TcpHeader};

/// A client.
pub(super) const CLIENT: [u8; 4] = [198, 51, 100, 7];
/// The address of the service of [`settings`].
pub(super) const VIP: [u8; 4] = [192, 0, 2, 80];

/// Returns one TCP, UDP and ICMP service on 192.0.2.80 and 2001:db8::80, port 80, over `servers` servers 10.0.2.1 … on
/// port 8080.
pub(super) fn settings(servers: u8, max_flows: u32) -> Settings {
    let listen = |protocol, address: &str| {
        Listen::one(
            address.parse().unwrap(),
            protocol,
            if protocol == Protocol::Icmp { 0 } else { 80 },
            if protocol == Protocol::Icmp { 65_535 } else { 80 },
        )
    };
    let mut listens = Vec::new();
    for address in ["192.0.2.80", "2001:db8::80"] {
        listens.extend([Protocol::Tcp, Protocol::Udp].map(|protocol| listen(protocol, address)));
    }
    listens.push(listen(Protocol::Icmp, "192.0.2.90"));
    Settings {
        seed: 0,
        table: TableSettings { max_flows, ..TableSettings::default() },
        services: vec![ServiceSettings::new("web", listens, PoolId(0))],
        pools: vec![PoolSettings::new("pool", (0..u32::from(servers)).map(ServerId).collect())],
        servers: (1..=servers)
            .map(|i| ServerSettings {
                v4: Some([10, 0, 2, i].into()),
                v6: Some([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(i)].into()),
                port: Some(8080),
                ..ServerSettings::new(&format!("s{i}"), PoolId(0))
            })
            .collect(),
        ..Settings::default()
    }
}

/// Checks that the foreseen outcome of a packet is the actual one: every packet in the engine's tests is foreseen
/// first.
pub(super) fn assert_foreseen(foreseen: &Foreseen, verdict: &Verdict, packet: &[u8]) {
    if let Some(said) = &foreseen.verdict {
        assert_eq!((said, &foreseen.bytes[..]), (verdict, packet));
    }
}

/// Returns what is known of the first flow, half-open or not.
pub(super) fn first_flow(engine: &super::Engine) -> crate::flow::Facts {
    let table = engine.shard.table();
    let first = table.slots(0).find(|(_, used)| *used);
    table.facts(first.expect("there is a flow").0)
}

/// Hands in a packet.
pub(super) fn send(engine: &mut Engine, now: Instant, packet: &mut [u8]) -> Verdict {
    engine.handle_packet(now, packet, Meta::default())
}

/// Takes the packets that the engine sends of its own.
pub(super) fn sent(engine: &mut Engine, now: Instant) -> Vec<Vec<u8>> {
    let mut buffer = vec![0; 65_535];
    std::iter::from_fn(|| engine.poll_transmit(now, &mut buffer).map(|(len, _)| buffer[..len].to_vec())).collect()
}

/// Takes the events, in words.
pub(super) fn events(engine: &mut Engine) -> Vec<String> {
    std::iter::from_fn(|| engine.poll_event()).map(|event| event.to_string()).collect()
}

/// Returns the rows of up to 1000 flows.
pub(super) fn flows(engine: &Engine, now: Instant) -> Vec<FlowRow> {
    let mut rows = Vec::new();
    engine.flows(now, &FlowQuery::default(), Cursor::default(), 1000, &mut rows);
    rows
}

/// Returns a point in time, in seconds.
pub(super) fn at(seconds: u64) -> Instant {
    Instant::from_nanos(seconds * 1_000_000_000)
}

/// Returns the packet with its payload.
pub(super) fn bytes(builder: PacketBuilderStep<TcpHeader>, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    builder.write(&mut out, payload).unwrap();
    out
}

/// Returns a SYN of [`CLIENT`] to [`VIP`].
pub(super) fn syn(port: u16) -> Vec<u8> {
    bytes(tcp(CLIENT, port, VIP, 80, 100).syn(), b"")
}

/// Returns a TCP segment over IPv4.
pub(super) fn tcp(src: [u8; 4], src_port: u16, dst: [u8; 4], dst_port: u16, seq: u32) -> PacketBuilderStep<TcpHeader> {
    PacketBuilder::ipv4(src, dst, 64).tcp(src_port, dst_port, seq, 1000)
}

/// Opens a flow by an IPv4 datagram, has its server answer, and the client send again: it is a conversation.
pub(super) fn converse(engine: &mut super::Engine, now: Instant, query: &[u8]) {
    let mut there = query.to_vec();
    assert!(matches!(engine.handle_packet(now, &mut there, Meta::default()), Verdict::Forward { .. }));
    let parsed = parse(&there).unwrap();
    let (Addresses::V4 { src, dst }, Transport::Udp { src: src_port, dst: dst_port, .. }) =
        (parsed.addresses, parsed.transport)
    else {
        panic!("{parsed:?}");
    };
    let mut back = Vec::new();
    let answer = PacketBuilder::ipv4(dst.to_be_bytes(), src.to_be_bytes(), 60).udp(dst_port, src_port);
    answer.write(&mut back, b"answer").unwrap();
    for packet in [&mut back, &mut query.to_vec()] {
        assert!(matches!(engine.handle_packet(now, packet, Meta::default()), Verdict::Forward { .. }));
    }
}
