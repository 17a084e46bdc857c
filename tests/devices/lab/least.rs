//! The least TUN NAT: read, rewrite, write. It keeps no table, forgets nothing and refuses nobody, so whatever a gateway
//! of this kind loses and this one does not, the gateway lost by its own doing.

use super::cable::{read_all, write};
use super::packets::{TCP, UDP};
use super::{DNS, FILL, Lab, PARROT, SERVER, SERVICE, WEB, Workers};
use equipoise::gateway::tun::Tun;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Starts it.
pub fn start(lab: &Lab) -> Workers {
    let tun = lab.gateway.run(|| Tun::open_plain("least0")).unwrap().unwrap_or_else(|e| panic!("{e}"));
    lab.gateway.up("least0").unwrap();
    for (family, bits) in [(4, 32), (6, 128)] {
        let ip = format!("ip -{family}");
        lab.at_gateway(&format!("{ip} route add {}/{bits} dev least0", SERVICE[usize::from(family == 6)]));
        lab.at_gateway(&format!("{ip} route add default dev least0 table 100"));
        for device in ["server", "parrot"] {
            lab.at_gateway(&format!("{ip} rule add iif {device} lookup 100"));
        }
    }
    let mut workers = Workers::new();
    let pairs = pairs();
    workers.start("least-nat", move |stop| {
        let mut copy = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            read_all(&tun, Duration::from_millis(20), |packet| {
                copy.clear();
                copy.extend_from_slice(packet);
                if translate(&pairs, &mut copy) {
                    write(&tun, &copy);
                }
            });
        }
    });
    workers
}

/// An address in network order and a port.
struct End(Vec<u8>, [u8; 2]);

/// What is translated into each other.
struct Pair {
    protocol: u8,
    service: End,
    server: End,
}

fn pairs() -> Vec<Pair> {
    let end = |address: &str, port: u16| {
        let octets = match address.parse().unwrap() {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        End(octets, port.to_be_bytes())
    };
    let mut pairs = Vec::new();
    for family in [0, 1] {
        for (protocol, [port, own], server) in
            [(TCP, WEB, SERVER), (UDP, DNS, SERVER), (TCP, FILL, PARROT), (UDP, FILL, PARROT)]
        {
            let (service, server) = (end(SERVICE[family], port), end(server[family], own));
            pairs.push(Pair { protocol, service, server });
        }
    }
    pairs
}

/// Rewrites a packet for the service or of a server; returns whether it is either.
fn translate(pairs: &[Pair], packet: &mut [u8]) -> bool {
    let v6 = match packet.first().map(|byte| byte >> 4) {
        Some(4) => false,
        Some(6) => true,
        _ => return false,
    };
    let (protocol, source, destination, ports) = if v6 { (6, 8, 24, 40) } else { (9, 12, 16, 20) };
    if packet.len() < ports + 8 {
        return false;
    }
    for pair in pairs.iter().filter(|pair| pair.protocol == packet[protocol]) {
        for (address, port, have, want) in
            [(destination, ports + 2, &pair.service, &pair.server), (source, ports, &pair.server, &pair.service)]
        {
            if packet[address..].starts_with(&have.0) && packet[port..].starts_with(&have.1) {
                let sum = ports + if pair.protocol == TCP { 16 } else { 6 };
                let sums = if v6 { [None, Some(sum)] } else { [Some(10), Some(sum)] };
                patch(packet, address, &want.0, sums);
                patch(packet, port, &want.1, [None, Some(sum)]);
                return true;
            }
        }
    }
    false
}

/// Replaces bytes at an even place and mends the checksums that cover them (RFC 1624, equation 3).
fn patch(packet: &mut [u8], at: usize, new: &[u8], sums: [Option<usize>; 2]) {
    let word = |bytes: &[u8]| u32::from(u16::from_be_bytes([bytes[0], bytes[1]]));
    let removed: u32 = packet[at..at + new.len()].chunks(2).map(|old| 0xffff - word(old)).sum();
    let added: u32 = new.chunks(2).map(word).sum();
    for sum in sums.into_iter().flatten() {
        if packet.len() < sum + 2 {
            continue;
        }
        let mut total = 0xffff - word(&packet[sum..]) + removed + added;
        while total > 0xffff {
            total = (total & 0xffff) + (total >> 16);
        }
        packet[sum..sum + 2].copy_from_slice(&(!(total as u16)).to_be_bytes());
    }
    packet[at..at + new.len()].copy_from_slice(new);
}
