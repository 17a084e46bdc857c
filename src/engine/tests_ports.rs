//! Property test of NAT pool ports: each port in use towards a server endpoint belongs to exactly one flow, and each
//! flow's port is in use.

use super::testing::{VIP, bytes, flows, settings};
use super::*;
use crate::balance::{Admin, Listen, Nat, OnDown};
use crate::flow::{NatPoolSettings, TimeoutState};
use crate::ids::{NatPoolId, ServerId};
use crate::packet::Protocol;
use crate::time::Duration;
use etherparse::{PacketBuilder, PacketBuilderStep, TcpHeader};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

const VIP6: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80];
/// Ports per address of the pool.
const PORTS: u32 = 4;

/// An input.
#[derive(Debug, Clone)]
enum Step {
    /// A client's packet: whether over IPv6, client number, port, protocol, TCP flags.
    Asks(bool, u8, u16, u8, u8),
    /// A server's packet to the flow at an index of the list, with TCP flags.
    Answers(usize, u8),
    Changes(Change),
    Kills(usize),
    Waits(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let server = (0..3u32).prop_map(ServerId);
    let admin = prop::sample::select(vec![Admin::Enabled, Admin::Draining, Admin::Disabled]);
    let deadline = prop::option::of((0..5u64).prop_map(Duration::from_secs));
    let change = prop_oneof![
        (server.clone(), admin, deadline).prop_map(|(server, admin, deadline)| Change::Admin {
            server,
            admin,
            deadline
        }),
        (server, prop::option::of(any::<bool>())).prop_map(|(server, up)| Change::Health { server, up }),
    ];
    prop_oneof![
        8 => (any::<bool>(), 1..4u8, 1..4u16, 0..6u8, 0..5u8).prop_map(|(v6, n, port, protocol, flags)| Step::Asks(v6, n, port, protocol, flags)),
        8 => (0..8usize, 0..5u8).prop_map(|(at, flags)| Step::Answers(at, flags)),
        2 => change.prop_map(Step::Changes),
        1 => (0..8usize).prop_map(Step::Kills),
        2 => prop::sample::select(vec![0, 1, 3, 61, 119, 250, 301, 8000]).prop_map(Step::Waits),
    ]
}

fn engine(visible: bool, hold: u64, reset: bool) -> Engine {
    let mut settings = settings(3, 6);
    settings.servers[0].v4 = None;
    settings.servers[1].v6 = None;
    let mut pool =
        NatPoolSettings { first_port: 5000, last_port: 5000 + PORTS as u16 - 1, ..NatPoolSettings::new("out") };
    pool.hold = Duration::from_secs(hold);
    pool.v4 = vec![[10, 0, 9, 1].into(), [10, 0, 9, 2].into()];
    pool.v6 = vec![Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 1)];
    settings.nat_pools = vec![pool];
    let only_for = if visible { vec!["198.51.100.1/32".parse().unwrap()] } else { vec![] };
    let service = &mut settings.services[0];
    service.nat = Nat::Full { pool: NatPoolId(0), only_for, families: [true, true] };
    service.on_down = reset.then_some(OnDown::Reset);
    for address in [IpAddr::from(VIP), IpAddr::from(VIP6)] {
        service.listen.push(Listen::one(address, Protocol::Icmp, 0, 65_535));
        service.listen.push(Listen::one(address, Protocol::Sctp, 80, 80));
        service.listen.push(Listen::one(address, Protocol::Ip(47), 0, 0));
    }
    Engine::new(&settings)
}

fn flagged(tcp: PacketBuilderStep<TcpHeader>, flags: u8) -> Vec<u8> {
    let tcp = match flags {
        0 => tcp.syn(),
        1 => tcp.ack(501),
        2 => tcp.fin().ack(501),
        3 => tcp.rst(),
        _ => tcp.syn().ack(101),
    };
    bytes(tcp, b"")
}

fn packet(src: SocketAddr, dst: SocketAddr, protocol: Protocol, flags: u8, fragment: bool, asks: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let ip = match (src.ip(), dst.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => PacketBuilder::ipv4(src.octets(), dst.octets(), 60),
        (IpAddr::V6(src), IpAddr::V6(dst)) => PacketBuilder::ipv6(src.octets(), dst.octets(), 60),
        other => panic!("{other:?}"),
    };
    let (from, to) = (src.port(), dst.port());
    match (protocol, src.is_ipv4()) {
        (Protocol::Tcp, _) => out = flagged(ip.tcp(from, to, if asks { 100 } else { 500 }, 1000), flags),
        (Protocol::Icmp, true) if asks => ip.icmpv4_echo_request(from, 1).write(&mut out, b"ping").unwrap(),
        (Protocol::Icmp, true) => ip.icmpv4_echo_reply(to, 1).write(&mut out, b"ping").unwrap(),
        (Protocol::Icmp, false) if asks => ip.icmpv6_echo_request(from, 1).write(&mut out, b"ping").unwrap(),
        (Protocol::Icmp, false) => ip.icmpv6_echo_reply(to, 1).write(&mut out, b"ping").unwrap(),
        _ => ip.udp(from, to).write(&mut out, b"eight or more bytes").unwrap(),
    }
    let number = protocol.number(src.is_ipv6());
    if src.is_ipv6() {
        out[6] = number;
    } else {
        out[9] = number;
        out[6..8].copy_from_slice(if fragment { &[0x20, 0] } else { &[0, 0] });
        out[10..12].fill(0);
        let sum = !crate::packet::checksum::fold(crate::packet::checksum::add(0, &out[..20]));
        out[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    out
}

fn take(engine: &mut Engine, now: &mut Instant, step: &Step) {
    match *step {
        Step::Asks(v6, n, port, protocol, flags) => {
            let (client, vip): (IpAddr, IpAddr) = if v6 {
                ([0x20, 1, 0x0d, 0xb8, 0, 0xc, 0, 0, 0, 0, 0, 0, 0, 0, 0, n].into(), VIP6.into())
            } else {
                ([198, 51, 100, n].into(), VIP.into())
            };
            let kinds = [Protocol::Tcp, Protocol::Udp, Protocol::Icmp, Protocol::Sctp, Protocol::Ip(47), Protocol::Udp];
            let kind = kinds[usize::from(protocol)];
            let (src, dst) = (SocketAddr::new(client, port), SocketAddr::new(vip, 80));
            let mut packet = packet(src, dst, kind, flags, protocol == 5, true);
            engine.handle_packet(*now, &mut packet, Meta::default());
        }
        Step::Answers(at, flags) => {
            if let Some(flow) = flows(engine, *now).get(at) {
                let to = flow.source.unwrap_or(flow.client);
                let mut packet = packet(flow.server_address, to, flow.protocol, flags, false, false);
                engine.handle_packet(*now, &mut packet, Meta::default());
            }
        }
        Step::Changes(ref change) => engine.apply(*now, change.clone()).unwrap(),
        Step::Kills(at) => {
            if let Some(flow) = flows(engine, *now).get(at).map(|flow| flow.id) {
                engine.apply(*now, Change::Kill { flow }).unwrap();
            }
        }
        Step::Waits(seconds) => {
            *now = *now + Duration::from_secs(seconds);
            while engine.poll_timeout().is_some_and(|due| due <= *now) {
                engine.handle_timeout(*now);
            }
        }
    }
    let mut buffer = vec![0; 65_535];
    while engine.poll_transmit(*now, &mut buffer).is_some() {}
}

fn books_are_right(engine: &Engine, now: Instant) -> Result<(), TestCaseError> {
    let mut have: BTreeMap<_, BTreeMap<SocketAddr, (BTreeSet<u16>, u32)>> = BTreeMap::new();
    for flow in flows(engine, now) {
        let Some(source) = flow.source.filter(|_| flow.protocol.has_ports()) else { continue };
        prop_assert!((5000..5000 + PORTS as u16).contains(&source.port()));
        let port = if flow.protocol == Protocol::Icmp { 0 } else { flow.server_address.port() };
        let server = SocketAddr::new(flow.server_address.ip(), port);
        let (ports, half_open) = have.entry((source.ip(), flow.protocol)).or_default().entry(server).or_default();
        prop_assert!(ports.insert(source.port()), "two flows on one port");
        *half_open += u32::from(flow.state == TimeoutState::Opening);
        prop_assert!(*half_open <= PORTS / 2);
    }
    for row in engine.nat_pools() {
        let own = have.remove(&(row.address, row.protocol)).unwrap_or_default();
        prop_assert_eq!(own.values().map(|(ports, _)| ports.len()).sum::<usize>(), row.used as usize);
        prop_assert!(own.values().map(|(_, half_open)| half_open).sum::<u32>() <= row.half_open);
        let most = own.values().map(|(ports, _)| ports.len() as u32).max().unwrap_or(0);
        prop_assert!(row.free <= PORTS - most && own.len() <= row.servers as usize);
        prop_assert_eq!(row.fullest_server.is_none(), row.used + row.resting == 0);
        if row.resting == 0 {
            prop_assert_eq!((row.free, row.servers as usize), (PORTS - most, own.len()));
        }
    }
    prop_assert!(have.is_empty());
    prop_assert!(engine.counters().add_up());
    Ok(())
}

proptest! {
    #[test]
    fn each_port_in_use_belongs_to_one_flow_for_any_input(
        visible: bool, reset: bool, hold in prop::sample::select(vec![0, 120]), steps in prop::collection::vec(step(), 1..120),
    ) {
        let (mut engine, mut now) = (engine(visible, hold, reset), Instant::from_nanos(1_000_000_000));
        for step in &steps {
            take(&mut engine, &mut now, step);
            books_are_right(&engine, now)?;
        }
        // All flows end, and finally all ports are free.
        take(&mut engine, &mut now, &Step::Waits(20_000));
        engine.handle_timeout(now + Duration::from_secs(121));
        prop_assert_eq!(engine.counters().flows, 0);
        prop_assert!(engine.nat_pools().iter().all(|row| (row.free, row.used, row.resting) == (PORTS, 0, 0)));
    }
}
