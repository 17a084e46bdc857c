//! Writes a state file with many established flows, for laboratories: `tools/lab-rejoin` builds and runs it.
//!
//! `established-flows CONFIG STATE NUMBER ADDRESS:PORT`, where the last one is an IPv4 service of TCP in the configuration.

#![allow(unreachable_pub, dead_code, reason = "shares helpers with tests")]

#[path = "../tests/common/established.rs"]
mod established;
#[path = "../tests/common/setup.rs"]
mod setup;

use std::path::Path;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [config, state, number, service] = words.as_slice() else {
        panic!("use: established-flows CONFIG STATE NUMBER ADDRESS:PORT");
    };
    let text = std::fs::read_to_string(config).unwrap_or_else(|error| panic!("{config}: {error}"));
    let settings = equipoise::config::parse(&text, config).unwrap_or_else(|error| panic!("{error}"));
    let number = number.parse().expect("a number of flows");
    established::write_state(Path::new(state), &settings, service.parse().expect("an address with a port"), number);
}
