//! New flows that are refused by rules and limits, or for want of room.

use crate::case::{CONFIG, Case, Shows, config_with};
use equipoise::engine::Reason;

const TCP: &str = "tcp 198.51.100.7:4711 -> 192.0.2.80:80";

/// A case whose rules are two that do not match, and this one.
fn ruled(reason: Reason, rule: &str) -> Case {
    let others = "[[rule]]\nname = \"off\"\nenabled = false\naction = \"drop\"\n\
                  [[rule]]\nname = \"elsewhere\"\nfrom = \"203.0.113.0/24\"\nports = [443, \"8000-8010\"]\nprotocol = \"tcp\"\n\
                  action = \"reject\"\n";
    Case::with(Shows::Drop(reason), &config_with("", &format!("{others}[[rule]]\nname = \"this\"\n{rule}")))
}

/// Opens flows from the ports 1 to `count` of the client.
fn flows(mut case: Case, count: u16) -> Case {
    for port in 1..=count {
        case = case.packet(&format!("tcp 198.51.100.7:{port} -> 192.0.2.80:80"));
    }
    case
}

/// Opens connections from the ports 1 to `count` of the client; each goes to the server of that number.
fn connections(mut case: Case, count: u16) -> Case {
    for port in 1..=count {
        case = case.packet(&format!("tcp 198.51.100.7:{port} -> 192.0.2.80:80"));
        case = case.packet(&format!("tcp 10.0.2.{port}:8080 -> 198.51.100.7:{port} syn ack seq 500 ack 1"));
        case = case.packet(&format!("tcp 198.51.100.7:{port} -> 192.0.2.80:80 ack seq 1 ack 501"));
    }
    case
}

/// A case with a table of ten flows, and services of two priorities.
fn crowded(reason: Reason, priority: &str, used: u16) -> Case {
    let config = CONFIG.replace("max = 100", "max = 10").replace(
        "pool = \"web\"\n[[service]]",
        &format!("pool = \"web\"\npriority = \"{priority}\"\n[[service]]\nname = \"vip\"\nlisten = \"192.0.2.80:443/udp\"\npool = \"vip\"\npriority = \"high\"\n[[service]]"),
    );
    let pool = "[[pool]]\nname = \"vip\"\nserver = [{ name = \"vip-1\", address = \"10.0.2.9\", port = 8080 }]\n";
    let mut case = Case::with(Shows::Drop(reason), &format!("{config}\n{pool}"));
    // Conversations: other datagrams would give way.
    for port in 1..=used {
        let asks = format!("udp 198.51.100.9:{port} -> 192.0.2.80:443 len 8");
        let answers = format!("udp 10.0.2.9:8080 -> 198.51.100.9:{port} len 8");
        case = case.packet(&asks).packet(&answers).packet(&asks);
    }
    case.packet(TCP)
}

pub(crate) fn cases() -> Vec<Case> {
    let one_server = |head: &str, tail: &str| {
        format!(
            "seed = 1\n[flows]\nmax = 100\n[[pool]]\nname = \"web\"\nserver = [{{ name = \"web-1\", address = \"10.0.2.1\", port = 8080 }}]\n\
             [[service]]\nname = \"web\"\nlisten = [\"192.0.2.80:80/tcp\", \"192.0.2.81:80/tcp\"]\npool = \"web\"\n{head}\n{tail}"
        )
    };
    let nat = "nat = \"full\"\nnat-pool = \"out\"";
    let pool = "[[nat-pool]]\nname = \"out\"\naddresses = [\"10.0.9.1\"]\nports = \"5000-5000\"";
    let across = format!(
        "[answers]\nother-protocol = \"drop\"\n[[service]]\nname = \"six\"\nlisten = \"[2001:db8::80]:53/udp\"\npool = \"web\"\n{nat}\n{pool}"
    );
    vec![
        ruled(Reason::RuleDrop, "from = \"198.51.100.0/24\"\naction = \"drop\"").packet(TCP),
        ruled(Reason::RuleLoop, "from = \"198.51.100.0/24\"\naction = \"pass\"").packet(TCP),
        flows(ruled(Reason::RuleRate, "action = \"balance\"\nrate = 3"), 3).packet(TCP),
        connections(ruled(Reason::RuleFlows, "action = \"balance\"\nflows = 3"), 3).packet(TCP),
        flows(ruled(Reason::ClientRate, "action = \"balance\"\nclient-rate = 3\nrate = 100"), 3).packet(TCP),
        connections(ruled(Reason::ClientFlows, "action = \"balance\"\nclient-flows = 3\nflows = 100"), 3).packet(TCP),
        connections(
            Case::with(
                Shows::Drop(Reason::ServerFlows),
                &one_server("", "").replace("port = 8080 }", "port = 8080, max-flows = 1 }"),
            )
            .packet(TCP),
            1,
        )
        .packet("tcp 10.0.2.1:8080 -> 198.51.100.7:4711 syn ack seq 500 ack 1")
        .packet("tcp 198.51.100.7:4711 -> 192.0.2.80:80 ack seq 1 ack 501"),
        flows(Case::with(Shows::Drop(Reason::GatewayRate), &CONFIG.replace("max = 100", "max = 100\nrate = 4")), 4)
            .packet(TCP),
        crowded(Reason::TableLow, "low", 8),
        crowded(Reason::TableNormal, "normal", 9),
        Case::with(Shows::Drop(Reason::TableFull), &CONFIG.replace("max = 100", "max = 1"))
            .packet("tcp 198.51.100.9:1 -> 192.0.2.80:80")
            .packet("tcp 10.0.2.1:8080 -> 198.51.100.9:1 syn ack seq 500 ack 1")
            .packet("tcp 198.51.100.9:1 -> 192.0.2.80:80 ack seq 1 ack 501")
            .packet("udp 198.51.100.7:4711 -> 192.0.2.80:53 len 8"),
        Case::with(Shows::Drop(Reason::ReturnKeyTaken), &one_server("", "[answers]\nno-room = \"drop\""))
            .packet("tcp 198.51.100.7:4711 -> 192.0.2.81:80")
            .packet(TCP),
        Case::with(Shows::Drop(Reason::NatExhausted), &one_server(nat, pool))
            .packet("tcp 198.51.100.9:1 -> 192.0.2.80:80")
            .packet("tcp 10.0.2.1:8080 -> 10.0.9.1:5000 syn ack seq 500 ack 1")
            .packet("tcp 198.51.100.9:1 -> 192.0.2.80:80 ack seq 1 ack 501")
            .packet(TCP),
        Case::with(Shows::Other("half-open-flow-that-gives-way-for-its-port"), &one_server(nat, pool))
            .packet("tcp 198.51.100.9:1 -> 192.0.2.80:80")
            .packet(TCP),
        // IPv4 has no datagrams of which only a fragment's length is known: a jumbo option would be needed.
        Case::with(Shows::Drop(Reason::Untranslatable), &one_server("", &across)).bytes(routed()),
        Case::with(Shows::Drop(Reason::AnswerLimit), &config_with("", "[answers]\nper-second = 1"))
            .packet("udp 198.51.100.7:4711 -> 192.0.2.80:54")
            .packet("udp 198.51.100.7:4712 -> 192.0.2.80:54"),
        {
            let mut case = Case::new(Shows::Drop(Reason::AnswerQueueFull)).stuck();
            for seq in 0..256 {
                case = case.packet(&format!("icmp 198.51.100.7 -> 192.0.2.80 seq {seq}"));
            }
            case.packet("icmp 198.51.100.7 -> 192.0.2.80 seq 256")
        },
    ]
}

/// A first fragment with options behind its Fragment header, for which IPv4 has no place.
pub(crate) fn routed() -> Vec<u8> {
    let mut packet = crate::case::bytes("udp [2001:db8::7]:4711 -> [2001:db8::80]:53 len 1000");
    packet[6] = 44;
    packet.splice(40..40, [60, 0, 0, 1, 0, 0, 0, 9, 17, 0, 1, 4, 0, 0, 0, 0]);
    let len = (packet.len() - 40) as u16;
    packet[4..6].copy_from_slice(&len.to_be_bytes());
    packet
}
