//! Each packet of the golden replays meets the outcome that is explained right before it.

use equipoise::config;
use equipoise::replay::{Args, Format, ReplayError, explain};
use std::fs;
use std::path::Path;

#[test]
fn each_packet_of_the_golden_replays_meets_its_explanation() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("pcap-tests/cases");
    let (mut explained, mut wrong) = (0, Vec::new());
    for case in fs::read_dir(cases).expect("the cases") {
        let dir = case.expect("a case").path();
        let config = fs::read_to_string(dir.join("config.toml")).expect("a configuration");
        let inputs = ["in.pcapng", "in.pcap", "in.pcap.gz"].map(|name| dir.join(name));
        let args = Args {
            settings: config::parse(&config, "config.toml").expect("a valid configuration"),
            input: inputs.into_iter().find(|path| path.exists()).expect("a capture"),
            output: None,
            format: Format::Text,
            partial: false,
            drain: false,
            events: Some(dir.join("events.txt")).filter(|path| path.exists()),
        };
        for number in 1.. {
            match explain(&args, number, &mut Vec::new()) {
                Ok(()) => explained += 1,
                Err(ReplayError::NoPacket { .. }) => {}
                Err(ReplayError::NoSuchFrame { .. }) => break,
                Err(error) => wrong.push(format!("{}: {error}", dir.display())),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(explained > 500, "only {explained} packets");
}
