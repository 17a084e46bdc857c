//! What an operator sees while traffic flows: the flows, each filter, and totals that add up.

use crate::world::{CLIENT, Running, SERVICE, World, eventually, run};
use crate::{Service, WEB};
use equipoise::engine::FlowRow;
use equipoise::flow::TimeoutState;
use equipoise::packet::Protocol;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

const ECHO: Service = ("echo", "7/udp", 1, 7777);

/// Slow downloads, three per family, from local ports 40001 to 40003 and 40011 to 40013.
fn downloads(world: &World) -> Vec<Running> {
    let start = |family: usize, n: usize| {
        let port = (40_000 + 10 * family + n).to_string();
        Running::start(world.curl(family, "big").args(["-o", "/dev/null", "--local-port", &port]))
    };
    [0, 1].into_iter().flat_map(|family| (1..=3).map(move |n| start(family, n))).collect()
}

/// A UDP flow that has been replied to.
fn udp_flow(world: &World) {
    let (server, client) = (World::server_address(1, 0), CLIENT[0].parse::<IpAddr>().unwrap());
    let server = world.servers[0].run(|| UdpSocket::bind((server, 7777))).unwrap().unwrap();
    let client = world.client.run(|| UdpSocket::bind((client, 5555))).unwrap().unwrap();
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    }
    let mut buffer = [0; 16];
    client.send_to(b"ping", (SERVICE[0], 7)).unwrap();
    let (len, from) = server.recv_from(&mut buffer).expect("the question");
    server.send_to(&buffer[..len], from).unwrap();
    client.recv_from(&mut buffer).expect("the answer");
}

/// Returns whether the server's own kernel has the connection of this row.
fn server_has(world: &World, row: &FlowRow) -> bool {
    let n: usize = row.server.strip_prefix("server").unwrap().parse().unwrap();
    let output = world.sockets(n, &["state", "established"]);
    let want = [row.server_address.to_string(), row.client.to_string()];
    output.lines().any(|line| want.iter().all(|address| line.split_whitespace().any(|word| word == address)))
}

#[test]
fn flows_show_who_talks_to_whom_and_each_filter_narrows_them() {
    let world = World::new("flows");
    let _nginx = world.nginx();
    let _gateway = world.start(&world.configuration("", &[WEB, ECHO]));
    let _downloads = downloads(&world);
    udp_flow(&world);
    let mut rows = Vec::new();
    eventually("six downloads and a UDP flow under way", || {
        rows = world.flows(&[]);
        rows.len() == 7
            && rows.iter().filter(|r| r.bytes_out > 10_000 && r.state == TimeoutState::Established).count() == 6
    });
    for row in rows.iter().filter(|r| r.protocol == Protocol::Tcp) {
        let family = usize::from(row.client.is_ipv6());
        assert_eq!(
            (row.client.ip(), row.listen.ip()),
            (CLIENT[family].parse().unwrap(), SERVICE[family].parse().unwrap())
        );
        assert!((1..=3).contains(&(row.client.port() - 40_000 - 10 * family as u16)), "{row:?}");
        assert_eq!((row.service.as_str(), row.listen.port(), row.server_address.port()), ("web", 80, 8080));
        assert!(row.packets_in > 0 && row.bytes_out > row.bytes_in && row.expires_in_ms > 3_600_000, "{row:?}");
        assert!(server_has(&world, row), "{} knows nothing of {row:?}", row.server);
    }
    let udp = rows.iter().find(|r| r.protocol == Protocol::Udp).expect("the UDP flow");
    let at = |text: &str| text.parse::<SocketAddr>().unwrap();
    assert_eq!((udp.client, udp.listen), (at("198.51.100.2:5555"), at("192.0.2.80:7")));
    assert_eq!((udp.server_address, udp.state), (at("10.99.1.2:7777"), TimeoutState::UdpTwoWay));
    assert_eq!((udp.packets_in, udp.packets_out, udp.bytes_in, udp.bytes_out), (1, 1, 32, 32));

    let on_two = |r: &FlowRow| r.server == "server2";
    let of_six = rows.iter().find(|r| r.client.is_ipv6()).expect("an IPv6 flow").clone();
    let cases: [(&[&str], &dyn Fn(&FlowRow) -> bool, usize); 9] = [
        (&["--service", "web"], &|r| r.service == "web", 6),
        (&["--service", "echo"], &|r| r.service == "echo", 1),
        (&["--server", "web/server2"], &on_two, 2),
        (&["--client", "198.51.100.0/24"], &|r| r.client.is_ipv4(), 4),
        (&["--client", CLIENT[1]], &|r| r.client.is_ipv6(), 3),
        (&["--client", "203.0.113.0/24"], &|_| false, 0),
        (&["--protocol", "tcp"], &|r| r.protocol == Protocol::Tcp, 6),
        (&["--protocol", "udp"], &|r| r.protocol == Protocol::Udp, 1),
        (&["--protocol", "tcp", "--client", "198.51.100.0/24", "--service", "echo"], &|_| false, 0),
    ];
    for (filters, holds, count) in cases {
        let got = world.flows(filters);
        assert!(got.len() == count && got.iter().all(holds), "{filters:?}: want {count}, got {got:#?}");
    }
    let both = world.flows(&["--client", "2001:db8::/32", "--server", &format!("web/{}", of_six.server)]);
    let want = rows.iter().filter(|r| r.client.is_ipv6() && r.server == of_six.server).count();
    assert!(both.len() == want && both.iter().any(|r| r.id == of_six.id), "{both:?}");
    assert_eq!(world.flows(&["--limit", "4"]).len(), 4);
    for (filter, said) in [("--service", "there is no service none"), ("--server", "there is no server none")] {
        let output = world.eqctl_raw(&["flows", filter, "none"]);
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && complaint.contains(said), "{complaint}");
    }
}

#[test]
fn totals_add_up_and_agree_with_the_flows_while_packets_move() {
    let world = World::new("totals");
    let _nginx = world.nginx();
    let _gateway = world.start(&world.configuration("", &[WEB]));
    let _downloads = downloads(&world);
    eventually("six downloads under way", || world.flows(&[]).iter().filter(|r| r.bytes_out > 10_000).count() == 6);
    // nginx sends its rate limit in one burst per second, so few samples see traffic.
    let (mut between, mut under, mut last) = (0, 0, u64::MAX);
    eventually("traffic between five looks and under one", || {
        let before = world.totals().engine;
        let flows: u64 = world.flows(&[]).iter().map(|r| r.packets_in + r.packets_out).sum();
        let servers: u64 = world.server_rows().iter().map(|r| r.packets_in + r.packets_out).sum();
        let after = world.totals().engine;
        assert_eq!((after.flows, after.flows_opened), (6, 6));
        let range = before.translated..=after.translated;
        assert!(range.contains(&flows) && range.contains(&servers), "{flows} and {servers} in {range:?}");
        between += usize::from(before.translated > last);
        under += usize::from(after.translated > before.translated);
        last = after.translated;
        between + under >= 5 && under >= 1
    });
    let rows = world.server_rows();
    assert!(rows.iter().all(|r| r.flows == 2 && r.flows_total == 2), "{rows:?}");
}

#[test]
fn what_is_explained_of_a_connection_is_what_the_next_real_one_meets() {
    let world = World::new("explained");
    let _nginx = world.nginx();
    let _gateway = world.start(&world.configuration("", &[WEB]));
    let text = |args: &[&str]| {
        let output = world.eqctl_raw(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    for port in 41_001..=41_006_u16 {
        let words = format!("tcp {}:{port} -> {}:80 syn", CLIENT[0], SERVICE[0]);
        let said = text(&["explain", &words]);
        // Flows of earlier connections may end in the meantime, which is no effect of asking.
        let lasting =
            |text: &str| text.lines().filter(|line| !line.contains(" of 4,096 flows")).collect::<Vec<_>>().join("\n");
        assert_eq!(lasting(&said), lasting(&text(&["explain", &words])), "asking changes nothing");
        let output = run(world.curl(0, "").args(["--local-port", &port.to_string()]));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let flows = world.flows(&[]);
        let row = flows.iter().find(|row| row.client.port() == port).expect("the connection");
        let chosen = said.lines().find(|line| line.contains("CHOSEN")).expect("a server");
        assert!(chosen.contains(&format!("web/{}", row.server)), "{said}\n{row:?}");
        assert!(said.contains(&format!("goes on to {}", row.server_address)), "{said}");
        let flow = text(&["explain", "--flow", &row.id.to_string()]);
        assert!(flow.contains(&row.client.to_string()) && flow.contains(&row.server), "{flow}");
    }
    let client = text(&["explain", "--client", CLIENT[0]]);
    assert!(client.contains("CHOSEN") && client.contains("41006"), "{client}");
    let json: serde_json::Value =
        serde_json::from_str(&text(&["explain", "--client", CLIENT[0], "--json"])).expect("JSON");
    assert!(json.is_object());
    assert_eq!(world.eqctl_raw(&["explain", "tcp nonsense"]).status.code(), Some(2));
    assert!(world.totals().engine.add_up());
}

#[test]
fn tables_for_people_have_their_columns() {
    let world = World::new("tables");
    let _nginx = world.nginx();
    let _gateway = world.start(&world.configuration("", &[WEB]));
    let output = run(&mut world.curl(0, ""));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for (args, wants) in [
        (
            &["flows"][..],
            &["CLIENT", "SERVICE", "SERVER", "STATE", "198.51.100.2:", "192.0.2.80:80", "10.99.", ":8080", "tcp"][..],
        ),
        (&["servers"], &["SERVER", "WEIGHT", "FLOWS", "server1", "server3", "10.99.2.2"]),
        (&["services"], &["SERVICE", "LISTEN", "web", "192.0.2.80:80/tcp", "[2001:db8:80::80]:80/tcp"]),
        (&["counters"], &["PACKETS", "MEANING", "translated", "adds up"]),
        (&["counters", "--all"], &["no-service", "no service on this port of the service address"]),
        (&["status"], &["equipoise0"]),
    ] {
        let output = world.eqctl_raw(args);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        for want in wants {
            assert!(text.contains(want), "eqctl {args:?} lacks {want:?}:\n{text}");
        }
    }
}
