//! Packets of flows, and what else an explanation can show.

use crate::case::{CONFIG, Case, Shows, bytes, config_with};
use crate::drops::piece;
use crate::drops_errors::error;
use equipoise::engine::Duty;

const TCP: &str = "tcp 198.51.100.7:4711 -> 192.0.2.80:80";

fn other(name: &'static str) -> Case {
    Case::new(Shows::Other(name))
}

/// An established flow of 198.51.100.7:4711 to web-1.
pub(crate) fn established(case: Case) -> Case {
    case.packet(TCP)
        .packet("tcp 10.0.2.1:8080 -> 198.51.100.7:4711 syn ack seq 500 ack 1")
        .packet("tcp 198.51.100.7:4711 -> 192.0.2.80:80 ack seq 1 ack 501")
        .wait(1_500)
}

/// A half-open flow of 198.51.100.7:4711 that web-1 has answered.
fn answered(case: Case) -> Case {
    case.packet(TCP).packet("tcp 10.0.2.1:8080 -> 198.51.100.7:4711 syn ack seq 500 ack 1")
}

pub(crate) fn cases() -> Vec<Case> {
    let one = CONFIG.replace("max = 100", "max = 1");
    let web = |key: &str| CONFIG.replace("pool = \"web\"\n[[service]]", &format!("pool = \"web\"\n{key}\n[[service]]"));
    let sticky = web("[service.sticky]\nby = \"network\"");
    let long = bytes("udp 198.51.100.7:4711 -> 192.0.2.80:53 len 3000");
    let nat = "nat = \"full\"\nnat-pool = \"out\"";
    let across = format!(
        "seed = 1\n[flows]\nmax = 100\n[[nat-pool]]\nname = \"out\"\naddresses = [\"10.0.9.1\"]\n\
         [[pool]]\nname = \"web\"\nserver = [{{ name = \"web-1\", address = \"10.0.2.1\" }}]\n\
         [[service]]\nname = \"six\"\nlisten = [\"[2001:db8::80]:53/udp\", \"192.0.2.80:53/udp\"]\npool = \"web\"\n{nat}"
    );
    let resort = web("last-resort-pool = \"sorry\"")
        + "[[pool]]\nname = \"sorry\"\nserver = [{ name = \"page\", address = [\"10.0.4.1\", \"fd00:4::1\"], port = 80 }]";
    let two = "seed = 1\n[flows]\nmax = 100\n\
               [[pool]]\nname = \"web\"\nserver = [{ name = \"web-1\", address = \"10.0.2.1\", port = 8080 }]\n\
               [[service]]\nname = \"web\"\nlisten = \"192.0.2.80:80/tcp\"\npool = \"web\"\n\
               [[service]]\nname = \"shop\"\nlisten = \"192.0.2.81:80/tcp\"\npool = \"web\"\n";
    let adopt = web("algorithm = \"maglev\"\nunknown-tcp = \"adopt\"\nmaglev-table = 1009");
    vec![
        established(other("flow-from-the-client"))
            .packet("tcp 198.51.100.7:4711 -> 192.0.2.80:80 psh ack seq 1 ack 501 len 100"),
        established(other("flow-from-the-server"))
            .packet("tcp 10.0.2.1:8080 -> 198.51.100.7:4711 psh ack seq 501 ack 1 len 100"),
        other("flow-answered").packet(TCP).packet("tcp 10.0.2.1:8080 -> 198.51.100.7:4711 syn ack seq 500 ack 1"),
        established(other("flow-that-is-reset")).packet("tcp 198.51.100.7:4711 -> 192.0.2.80:80 rst seq 1"),
        established(other("flow-whose-reset-is-not-believed"))
            .packet("tcp 198.51.100.7:4711 -> 192.0.2.80:80 rst seq 9000"),
        established(other("flow-that-is-replaced"))
            .packet("tcp 198.51.100.7:4711 -> 192.0.2.80:80 rst seq 1")
            .packet("tcp 198.51.100.7:4711 -> 192.0.2.80:80 syn seq 77000"),
        other("pair-server-sends-on-what-the-peer-may-know")
            .with_duty(Duty::Known)
            .packet("tcp 10.0.2.1:8080 -> 198.51.100.7:4711 psh ack seq 501 ack 1 len 10"),
        other("pair-standby-leaves-a-new-connection").with_duty(Duty::Standby).packet(TCP),
        established(other("pair-standby-forwards-for-a-flow"))
            .with_duty(Duty::Standby)
            .packet("tcp 198.51.100.7:4711 -> 192.0.2.80:80 psh ack seq 1 ack 501 len 100"),
        established(other("pair-standby-ends-no-flow"))
            .event("server web/web-1 down")
            .with_duty(Duty::Standby)
            .packet("tcp 198.51.100.7:4711 -> 192.0.2.80:80 syn seq 77000"),
        other("flow-whose-server-is-down").packet(TCP).event("server web/web-1 down").wait(100).packet(TCP),
        established(other("flow-that-a-new-connection-leaves"))
            .event("server web/web-1 down")
            .wait(100)
            .packet("tcp 198.51.100.7:4711 -> 192.0.2.80:80 syn seq 77000")
            .wait(1_000)
            .packet("tcp 198.51.100.7:4711 -> 192.0.2.80:80 syn seq 77000"),
        Case::with(Shows::Other("flow-that-yields-its-return-key"), two)
            .packet("tcp 198.51.100.7:4711 -> 192.0.2.80:80 syn seq 0")
            .packet("tcp 10.0.2.1:8080 -> 198.51.100.7:4711 rst ack seq 0 ack 1")
            .packet("tcp 198.51.100.7:4711 -> 192.0.2.81:80 syn seq 500"),
        other("connection-that-is-not-known").packet("tcp 10.0.2.1:8080 -> 198.51.100.7:4711 ack seq 900 ack 100 len 5"),
        other("flow-whose-syn-is-sent-again").packet(TCP).wait(1_000).packet(TCP),
        other("error-about-a-flow")
            .packet(TCP)
            .bytes(error((3, 1), 0, &bytes("tcp 198.51.100.7:4711 -> 10.0.2.1:8080"))),
        Case::with(Shows::Other("sticky-client"), &sticky)
            .packet(TCP)
            .wait(2_000)
            .packet("tcp 198.51.100.99:4711 -> 192.0.2.80:80"),
        Case::with(Shows::Other("sticky-client-of-a-draining-server"), &sticky)
            .packet(TCP)
            .event("server web/web-1 drain")
            .wait(2_000)
            .packet("tcp 198.51.100.99:4711 -> 192.0.2.80:80"),
        Case::with(Shows::Other("last-resort"), &resort)
            .event("server web/web-1 down")
            .event("server web/web-2 down")
            .event("server web/web-3 drain")
            .packet(TCP),
        Case::with(Shows::Other("candidates-that-are-out"), &config_with("", "").replace(
            "{ name = \"web-1\", ",
            "{ name = \"web-0\", address = \"10.0.2.9\", max-flows = 1 },\n{ name = \"spare\", address = \"10.0.2.8\", backup = true },\n{ name = \"web-1\", ",
        ))
            .event("server web/web-1 disable")
            .event("server web/web-2 weight 0")
            .packet("tcp 198.51.100.9:1 -> 192.0.2.80:80")
            .packet("tcp 198.51.100.9:2 -> 192.0.2.80:80")
            .packet(TCP),
        Case::with(Shows::Other("ipv6-client-of-few"), CONFIG).packet("tcp [2001:db8::7]:4711 -> [2001:db8::80]:80"),
        Case::with(Shows::Other("full-nat-and-another-family"), &across)
            .packet("udp [2001:db8::7]:4711 -> [2001:db8::80]:53 len 30"),
        Case::with(Shows::Other("full-nat"), &across).packet("udp 198.51.100.7:4711 -> 192.0.2.80:53 len 30"),
        Case::with(Shows::Other("adopted-connection"), &adopt)
            .packet("tcp 198.51.100.7:4711 -> 192.0.2.80:80 ack seq 700 ack 900 len 5"),
        Case::with(Shows::Other("segment-size"), &web("mss-clamp = 1200")).bytes(with_mss()),
        Case::with(Shows::Other("rule-that-passes"), &config_with("", "[[rule]]\nname = \"office\"\nfrom = \"198.51.100.0/24\"\naction = \"pass\""))
            .packet("udp 198.51.100.7:4711 -> 203.0.113.9:53 len 8"),
        Case::with(Shows::Other("rule-that-names-a-service"), &config_with("", "[[rule]]\nname = \"wan\"\ningress = \"wan\"\naction = \"drop\"\n\
             [[rule]]\nname = \"catch\"\nto = \"203.0.113.0/24\"\nprotocol = \"udp\"\naction = \"balance\"\nservice = \"dns\""))
            .packet("udp 198.51.100.7:4711 -> 203.0.113.9:53 len 8"),
        Case::with(Shows::Other("rule-by-ingress"), &config_with("", "[[rule]]\nname = \"lan\"\ningress = \"lan\"\naction = \"drop\"\n\
             [[rule]]\nname = \"wan\"\ningress = \"wan\"\naction = \"reject\""))
            .with_meta(bytes(TCP), equipoise::packet::Meta { ingress: 2, ..Default::default() }),
        established(other("flow-that-a-syn-does-not-replace")).packet("tcp 198.51.100.7:4711 -> 192.0.2.80:80 syn seq 5000"),
        established(other("flow-of-a-draining-server")).event("server web/web-1 drain 60s")
            .packet("tcp 198.51.100.7:4711 -> 192.0.2.80:80 fin ack seq 1 ack 501"),
        Case::with(Shows::Other("flow-too-big-for-its-path"), &CONFIG.replace("[[pool]]\nname = \"dns\"", "[[pool]]\nname = \"dns\"\nmtu = 1400"))
            .packet("udp 198.51.100.7:4711 -> 192.0.2.80:53 len 8")
            .packet("udp 198.51.100.7:4711 -> 192.0.2.80:53 len 1400 df"),
        other("foreign").packet("udp 198.51.100.7:4711 -> 203.0.113.9:53 len 8"),
        other("foreign-from-a-servers-service-port").packet("tcp 10.0.2.1:8080 -> 198.51.100.7:4711 syn ack"),
        other("first-fragment").bytes(piece(&long, 0, 1440, 1)),
        other("later-fragment").bytes(piece(&long, 0, 1440, 1)).bytes(piece(&long, 1440, 2880, 1)),
        Case::with(Shows::Other("table-that-evicts"), &one)
            .packet("udp 198.51.100.9:1 -> 192.0.2.80:53 len 8")
            .packet("udp 198.51.100.7:4711 -> 192.0.2.80:53 len 8"),
        answered(Case::with(Shows::Other("handshake-that-makes-a-flow-give-way"), &one)
            .packet("udp 198.51.100.9:1 -> 192.0.2.80:53 len 8"))
            .packet("tcp 198.51.100.7:4711 -> 192.0.2.80:80 ack seq 1 ack 501"),
        // The conversation has been idle for less than 2 min.
        answered(Case::with(Shows::Other("handshake-that-finds-no-room"), &(one.clone() + "[[rule]]\nname = \"all\"\naction = \"balance\"\n"))
            .packet("udp 198.51.100.9:1 -> 192.0.2.80:53 len 8")
            .packet("udp 10.0.2.2:53 -> 198.51.100.9:1 len 8")
            .packet("udp 198.51.100.9:1 -> 192.0.2.80:53 len 8"))
            .packet("tcp 198.51.100.7:4711 -> 192.0.2.80:80 ack seq 1 ack 501"),
        Case::with(Shows::Other("half-open-store-that-is-full"), &CONFIG.replace("max = 100", "max = 100\nhalf-open = 1"))
            .packet("tcp 198.51.100.9:1 -> 192.0.2.80:80")
            .packet(TCP),
        Case::with(Shows::Other("cut-into-fragments"), &CONFIG.replace("[[pool]]\nname = \"dns\"", "[[pool]]\nname = \"dns\"\nmtu = 1280"))
            .packet("udp 198.51.100.7:4711 -> 192.0.2.80:53 len 1400"),
    ]
}

/// A SYN that states a segment size of 1460 bytes.
fn with_mss() -> Vec<u8> {
    let mut packet = Vec::new();
    etherparse::PacketBuilder::ipv4([198, 51, 100, 7], [192, 0, 2, 80], 64)
        .tcp(4711, 80, 1, 65_535)
        .syn()
        .options(&[etherparse::TcpOptionElement::MaximumSegmentSize(1460)])
        .expect("room for the option")
        .write(&mut packet, &[])
        .expect("a packet");
    packet
}
