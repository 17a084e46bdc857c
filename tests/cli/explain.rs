//! Explanations: of packets, of a packet in a capture, of a running gateway.

use super::{CONFIG, eqctl, equipoise, gateway, stderr, stdout, write};
use equipoise::engine::FlowRow;
use std::path::Path;

#[test]
fn explain_shows_what_would_become_of_packets_one_after_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let config = write(&dir, "lb.toml", CONFIG.as_bytes());
    let packet = "udp 198.51.100.7:5000 -> 192.0.2.80:53 len 5";
    let output = equipoise(&["explain", "--config", &config, packet, packet]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    let (first, second) = text.split_once("\n\n").expect("two explanations");
    assert!(first.contains("opens a flow") && first.contains("p/b") && first.contains("CHOSEN"), "{first}");
    assert!(second.contains("flow         0.0 udp, udp-one-way, from the client"), "{second}");

    let output = equipoise(&["explain", "--config", &config, "--json", "--event", "server p/b down", packet]);
    let explanation: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(explanation["outcome"]["server"], "p/a", "{explanation}");
    assert_eq!(explanation["candidates"][1]["health"], "down", "{explanation}");
    assert!(stdout(&output).starts_with("{\n"), "one object, indented");

    let cases: [(&[&str], &str); 5] = [
        (&["udp 198.51.100.7 -> 192.0.2.80:53"], "column 5: \"198.51.100.7\" is an address without a port"),
        (&[], "<PACKET>"),
        (&["--event", "server p/c down", packet], "--event \"server p/c down\": column 8"),
        (&["--event", "12 server p/a down", packet], "write `server POOL/SERVER"),
        (&["--seed", "x", packet], "--seed"),
    ];
    for (args, want) in cases {
        let output = equipoise(&[&["explain", "--config", &config], args].concat());
        assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(2), ""), "{args:?}");
        assert!(stderr(&output).contains(want), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn a_packet_of_a_capture_is_explained_and_verified() {
    let explain = |case: &str, more: &[&str]| {
        let dir = format!("pcap-tests/cases/{case}");
        let inputs = [format!("{dir}/in.pcapng"), format!("{dir}/in.pcap")];
        let (config, capture) =
            (format!("{dir}/config.toml"), inputs.into_iter().find(|path| Path::new(path).exists()));
        let capture = capture.expect("a capture");
        equipoise(&[&["replay", "--config", &config, &capture, "--explain"], more].concat())
    };
    let case = "udp-goes-both-ways";
    let output = explain(case, &["1"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.starts_with("frame        1 at 0.000000\npacket       UDP "), "{text}");
    assert!(text.ends_with("verified     the packet met this outcome\n") && !text.contains("Counters"), "{text}");
    let output = explain(case, &["2", "--json"]);
    let explanation: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&explanation["number"], &explanation["verified"]), (&2.into(), &true.into()), "{explanation}");
    assert_eq!(explanation["outcome"]["verdict"], "forward", "{explanation}");

    for (case, args, code, want) in [
        (case, &["999"][..], 1, "has no frame 999: its frames are numbered from 1 to"),
        (case, &["0"], 2, "--explain"),
        (case, &["1", "-w", "out.pcapng"], 2, "cannot be used with"),
        ("a-frame-without-a-whole-ip-packet-is-skipped", &["1"], 1, "frame 1 was not replayed"),
    ] {
        let output = explain(case, args);
        assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(code), ""), "{args:?}");
        assert!(stderr(&output).contains(want), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn eqctl_explains_a_packet_a_flow_and_a_client() {
    let dir = tempfile::tempdir().unwrap();
    let socket = gateway(&dir, 4);
    let shown = |args: &[&str]| {
        let output = eqctl(&socket, args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
        stdout(&output)
    };
    let text = shown(&["explain", "udp 198.51.100.7:5000 -> 192.0.2.80:53"]);
    assert!(text.starts_with("packet       UDP 198.51.100.7:5000") && text.contains("candidates\n"), "{text}");
    let flow: FlowRow = serde_json::from_str(&shown(&["flows", "--json", "--client", "100.0.0.2"])).unwrap();
    let text = shown(&["explain", "--flow", &flow.id.to_string()]);
    assert!(text.contains("client 100.0.0.2:5000 -> 192.0.2.80:53 (service dns)"), "{text}");
    let json = shown(&["explain", "--json", "--flow", &flow.id.to_string()]);
    let explanation: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(explanation["from"], "client", "{json}");

    let text = shown(&["explain", "--client", "100.0.0.2"]);
    assert!(text.starts_with("FLOW ") && text.contains("A new flow to service dns: udp 100.0.0.2:40000 ->"), "{text}");
    let text = shown(&["explain", "--client", "198.51.100.7"]);
    assert!(text.starts_with("client 198.51.100.7 has no flows\n"), "{text}");
    let json: serde_json::Value =
        serde_json::from_str(&shown(&["explain", "--json", "--client", "100.0.0.2"])).unwrap();
    assert_eq!((&json["flows"], &json["listed_flows"][0]["client"]), (&1.into(), &"100.0.0.2:5000".into()), "{json}");
    assert_eq!(json["explanations"][0]["service"], "dns", "{json}");
    assert!(shown(&["counters"]).contains("in 4 = forwarded 4"), "explaining changes nothing");

    let unknown = eqctl(&socket, &["explain", "--flow", "99.0"]);
    assert!(unknown.status.code() == Some(1) && stderr(&unknown).contains("no flow 99.0"), "{}", stderr(&unknown));
    for args in [&["explain"][..], &["explain", "tcp"], &["explain", "--flow", "1.0", "--client", "::1"]] {
        assert_eq!(eqctl(&socket, args).status.code(), Some(2), "{args:?}");
    }
}
