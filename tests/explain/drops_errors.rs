//! ICMP that is dropped, and what the monitors drop.

use crate::case::{Case, Shows, bytes, config_with};
use crate::drops::drop;
use crate::setup::icmp_error;
use equipoise::engine::Reason;
use std::net::IpAddr;

/// An error of a server about a packet that came to it, to the client.
pub(crate) fn error(kind: (u8, u8), mtu: u32, about: &[u8]) -> Vec<u8> {
    icmp_error(IpAddr::from([10, 0, 2, 1]), IpAddr::from([198, 51, 100, 7]), kind, mtu, about)
}

/// A case with a flow of TCP from 198.51.100.7:4711 to the server web-1, and the SYN as it came there.
fn with_flow(case: Case) -> (Case, Vec<u8>) {
    let case = case.event("server web/web-2 down").event("server web/web-3 down");
    (
        case.packet("tcp 198.51.100.7:4711 -> 192.0.2.80:80 seq 1000"),
        bytes("tcp 198.51.100.7:4711 -> 10.0.2.1:8080 seq 1000"),
    )
}

pub(crate) fn cases() -> Vec<Case> {
    let about_flow = |reason, kind, mtu, spoil: fn(&mut Vec<u8>)| {
        let (case, seen) = with_flow(drop(reason));
        let mut error = error(kind, mtu, &seen);
        spoil(&mut error);
        case.bytes(error)
    };
    let probing = || {
        config_with(
            "",
            "[gateway]\nprobe-address = [\"10.0.9.9\", \"fd00:9::9\"]\n[[pool]]\nname = \"watched\"\n[[pool.monitor]]\ntype = \"icmp\"\n\
             [[pool.server]]\nname = \"w\"\naddress = \"10.0.3.1\"",
        )
    };
    let (implausible, _) = with_flow(drop(Reason::IcmpImplausible));
    let unknown = bytes("udp 192.0.2.80:53 -> 198.51.100.7:4711 len 8");
    let to_service =
        |about: &[u8]| icmp_error(IpAddr::from([198, 51, 100, 7]), IpAddr::from([192, 0, 2, 80]), (3, 3), 0, about);
    vec![
        drop(Reason::IcmpUnhandled).packet("icmp 198.51.100.7 -> 192.0.2.80 reply"),
        drop(Reason::IcmpNoFlow).bytes(to_service(&unknown)),
        implausible.bytes(error((3, 1), 0, &bytes("tcp 198.51.100.7:4711 -> 10.0.2.1:8080 seq 900000"))),
        drop(Reason::BadQuote).bytes(to_service(&unknown[..24])),
        about_flow(Reason::IcmpBadMtu, (3, 4), 40, |_| {}),
        about_flow(Reason::IcmpObsolete, (4, 0), 0, |_| {}),
        about_flow(Reason::BadIcmpChecksum, (3, 1), 0, |error| error[22] ^= 1),
        Case::with(Shows::Drop(Reason::NoProbe), &probing()).packet("udp 198.51.100.7:4711 -> 10.0.9.9:53 len 8"),
        Case::with(Shows::Drop(Reason::BadProbeChecksum), &probing()).bytes({
            let mut packet = bytes("icmp 10.0.3.1 -> 10.0.9.9 reply");
            packet[22] ^= 1;
            packet
        }),
    ]
}
