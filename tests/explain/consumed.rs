//! Packets that the gateway consumes, most of them with an answer.

use crate::case::{CONFIG, Case, Shows, bytes, config_with};
use crate::drops::{piece, source_routed};
use equipoise::engine::Consumed;

const TCP: &str = "tcp 198.51.100.7:4711 -> 192.0.2.80:80";

pub(crate) fn cases() -> Vec<Case> {
    Consumed::ALL.into_iter().map(case).collect()
}

fn case(kind: Consumed) -> Case {
    let shows = Shows::Consume(kind);
    let case = Case::new(shows);
    let probing = || {
        let config = config_with(
            "",
            "[gateway]\nprobe-address = \"10.0.9.9\"\n[[pool]]\nname = \"watched\"\n[[pool.monitor]]\ntype = \"icmp\"\n\
             [[pool.server]]\nname = \"w\"\naddress = \"10.0.3.1\"",
        );
        Case::with(shows, &config)
    };
    let web = |key: &str| CONFIG.replace("pool = \"web\"\n[[service]]", &format!("pool = \"web\"\n{key}\n[[service]]"));
    match kind {
        Consumed::Echo => case.packet("icmp 198.51.100.7 -> 192.0.2.80 id 7 len 8"),
        Consumed::Reset => case.packet("tcp 198.51.100.7:4711 -> 192.0.2.80:80 ack seq 100 ack 900"),
        Consumed::Rejected => {
            let rule = "[[rule]]\nname = \"block\"\nfrom = \"198.51.100.0/24\"\naction = \"reject\"";
            Case::with(shows, &config_with("", rule)).packet(TCP)
        }
        Consumed::NoServer => {
            let case = Case::with(shows, &web("last-resort = \"reset\""));
            ["server web/web-1 down", "server web/web-2 disable", "server web/web-3 weight 0"]
                .into_iter()
                .fold(case, Case::event)
                .packet(TCP)
        }
        Consumed::ServerDown => {
            let case = Case::with(shows, &web("on-down = \"reset\"")).packet(TCP);
            let case = case.packet("tcp 10.0.2.1:8080 -> 198.51.100.7:4711 syn ack seq 500 ack 1");
            let case = case.packet("tcp 198.51.100.7:4711 -> 192.0.2.80:80 ack seq 1 ack 501");
            case.event("server web/web-1 down")
                .packet("tcp 198.51.100.7:4711 -> 192.0.2.80:80 psh ack seq 1 ack 501 len 9")
        }
        Consumed::Closed => case.packet("udp 198.51.100.7:4711 -> 192.0.2.80:54 len 8"),
        Consumed::TooBig => {
            let config = CONFIG.replace("[[pool]]\nname = \"dns\"", "[[pool]]\nname = \"dns\"\nmtu = 1400");
            Case::with(shows, &config).packet("udp 198.51.100.7:4711 -> 192.0.2.80:53 len 1400 df")
        }
        Consumed::TimeExceeded => case.packet("tcp 198.51.100.7:4711 -> 192.0.2.80:80 ttl 1"),
        Consumed::SourceRoute => case.bytes(source_routed(TCP)),
        Consumed::Untranslatable => {
            let config = "seed = 1\n[flows]\nmax = 100\n[[nat-pool]]\nname = \"out\"\naddresses = [\"10.0.9.1\"]\n\
                          [[pool]]\nname = \"web\"\nserver = [{ name = \"web-1\", address = \"10.0.2.1\" }]\n\
                          [[service]]\nname = \"six\"\nlisten = \"[2001:db8::80]:53/udp\"\npool = \"web\"\nnat = \"full\"\n\
                          nat-pool = \"out\"";
            Case::with(shows, config).bytes(crate::drops_limits::routed())
        }
        Consumed::FragmentWaiting => {
            let whole = bytes("udp 198.51.100.7:4711 -> 192.0.2.80:53 len 3000");
            case.bytes(piece(&whole, 1440, 2880, 1))
        }
        // A probe of a capture; and a reply to no probe of the gateway's own.
        Consumed::Probe => probing().observing().packet("icmp 10.0.9.9 -> 10.0.3.1 id 7"),
        Consumed::LateProbe => probing().packet("icmp 10.0.3.1 -> 10.0.9.9 reply id 7"),
    }
}
