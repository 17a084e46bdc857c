//! Strange traffic: several hundred captures of odd, ancient and malformed packets through the engine, with services
//! on every address. None causes a panic, no packet that arrives valid leaves with a bad checksum, and tshark agrees.
//!
//! `STRANGE_CAPTURES=DIR cargo test --release --test strange -- --nocapture` takes the captures below a directory
//! instead: for example the test suites of packet analysers, or your own.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "helpers of a test program")]
#![allow(clippy::disallowed_methods, reason = "its closing line states how long it took")]

#[path = "../common/oracle.rs"]
mod oracle;
#[path = "../common/random.rs"]
mod random;

mod captures;
mod craft;
mod transports;
mod tshark;

use captures::Capture;
use equipoise::capture::{Frame, Reader};
use equipoise::config::Settings;
use equipoise::engine::Counters;
use equipoise::replay::{Args, Format, run};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Listens on a network, for every protocol that a service can have.
fn listens(network: &str) -> String {
    let words = ":1-65535/tcp :1-65535/udp :1-65535/sctp /icmp /gre /esp /ipip /ip-33 /ip-89 /ip-103 /ip-136";
    let protocols: Vec<_> = words.split(' ').map(|protocol| format!("\"{network}{protocol}\"")).collect();
    protocols.join(", ")
}

const SERVERS: &str = r#"
[[pool]]
name = "all"
server = [
    { name = "one", address = ["10.9.0.1", "fd09::1"] },
    { name = "two", address = ["10.9.0.2", "fd09::2"] },
    { name = "three", address = ["10.9.0.3", "fd09::3"], port = 8080 },
]
"#;

/// The configurations, by name.
fn configurations() -> Vec<(&'static str, Settings)> {
    let (four, six) = (listens("0.0.0.0/0"), listens("[::]/0"));
    let both = format!("listen = [{four}, {six}]\npool = \"all\"\n");
    let flows = "[flows]\nmax = 500\n";
    let defaults = include_str!("../../fixtures/config/every-address.toml").replace("max = 65536", "max = 500");
    let silent = format!(
        "{flows}[answers]\nno-service = \"drop\"\nother-protocol = \"drop\"\nno-room = \"drop\"\n[[service]]\nname = \"all\"\nunknown-tcp = \
         \"drop\"\nlast-resort = \"drop\"\n{both}{SERVERS}"
    );
    let full = format!(
        r#"{flows}
[[nat-pool]]
name = "out"
addresses = ["10.0.9.0/31", "fd00:9::1"]
[[nat-pool]]
name = "four"
addresses = ["10.0.8.1-10.0.8.4"]
[[service]]
name = "four"
listen = [{four}]
pool = "all"
nat = "full"
nat-pool = "out"
mss-clamp = 1200
[service.sticky]
by = "network"
[[service]]
name = "six"
listen = ["[::]/0:1-65535/tcp", "[::]/0:1-65535/udp", "[::]/0/icmp"]
pool = "old"
nat = "full"
nat-pool = "four"
[service.sticky]
[[rule]]
name = "some"
to = "10.0.0.0/8"
action = "reject"
[[rule]]
name = "few"
from = "198.51.100.0/24"
protocol = "udp"
ports = "1-52"
action = "drop"
[[rule]]
name = "slow"
protocol = "tcp"
action = "balance"
client-rate = 50
{SERVERS}
[[pool]]
name = "old"
server = [{{ name = "old-1", address = "10.9.1.1" }}, {{ name = "old-2", address = "10.9.1.2" }}]
"#
    );
    let texts = [("defaults", defaults), ("silent", silent), ("full", full)];
    let parse = |(name, text): (&'static str, String)| {
        let parsed = equipoise::config::parse_bytes(text.as_bytes(), name).unwrap_or_else(|error| panic!("{error}"));
        (name, parsed.settings)
    };
    texts.map(parse).into()
}

/// The totals of all replays.
#[derive(Debug, Default)]
struct Figures {
    captures: u64,
    refused: u64,
    packets: u64,
    skipped: u64,
    forwarded: u64,
    consumed: u64,
    dropped: u64,
    sent: u64,
    /// Input and output packets, for tshark to check.
    pairs: Vec<tshark::Pair>,
}

#[test]
fn strange_traffic_never_panics_and_valid_packets_leave_valid() {
    let start = Instant::now();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/captures");
    let own = std::env::var_os("STRANGE_CAPTURES");
    let list = own.as_ref().map_or_else(|| captures::all(&fixtures), |own| captures::below(Path::new(own)));
    assert!(own.is_some() || list.len() >= 300, "{} captures", list.len());
    let configurations = configurations();
    let middle = list.len() / 2;
    let (first, second) = list.split_at(middle);
    let replay = |list: &[Capture]| {
        let place = tempfile::tempdir().expect("a temporary directory");
        let mut figures = Figures::default();
        for capture in list {
            for (name, settings) in &configurations {
                check(capture, name, settings, place.path(), &mut figures);
            }
        }
        figures
    };
    let (mut all, other) = std::thread::scope(|scope| {
        let other = scope.spawn(|| replay(second));
        (replay(first), other.join().expect("the other half"))
    });
    all.captures = list.len() as u64;
    all.pairs.extend(other.pairs);
    let [refused, packets, skipped] =
        [all.refused + other.refused, all.packets + other.packets, all.skipped + other.skipped];
    let [forwarded, consumed] = [all.forwarded + other.forwarded, all.consumed + other.consumed];
    let [dropped, sent] = [all.dropped + other.dropped, all.sent + other.sent];
    assert!(own.is_some() || forwarded > 0 && consumed > 0 && dropped > 0 && skipped > 0 && sent > 0);
    let agreed = tshark::agrees(&all.pairs, own.is_none());
    println!(
        "strange traffic: {} captures under {} configurations ({refused} replays refused as damaged); {packets} packets = \
         {forwarded} forwarded + {consumed} consumed + {dropped} dropped; {skipped} frames skipped, {sent} packets sent; \
         tshark agrees on {agreed} frames; {} s",
        all.captures,
        configurations.len(),
        start.elapsed().as_secs()
    );
}

/// Replays a capture twice and checks the result.
fn check(capture: &Capture, config: &str, settings: &Settings, place: &Path, figures: &mut Figures) {
    let name = format!("{} ({config})", capture.name);
    let input = place.join("in");
    fs::write(&input, &capture.file).expect("the input");
    let replay = |output: PathBuf| {
        let args = Args {
            settings: settings.clone(),
            input: input.clone(),
            output: Some(output.clone()),
            format: Format::Json,
            partial: capture.is_damaged,
            drain: false,
            events: None,
        };
        let mut report = Vec::new();
        let done = run(&args, &mut report).map_err(|error| error.to_string());
        done.map(|_| (report, fs::read(output).expect("the translated capture")))
    };
    let once = replay(place.join("once"));
    assert!(once == replay(place.join("twice")), "{name}: two replays, two results");
    let (report, went) = match once {
        Ok(done) => done,
        Err(_) if capture.is_damaged => {
            figures.refused += 1;
            return;
        }
        Err(error) => panic!("{name}: {error}"),
    };
    judge(&name, &frames(&capture.file), &frames(&went), &report, figures);
}

/// Returns the frames of a capture, as far as it can be read.
fn frames(capture: &[u8]) -> Vec<Frame> {
    let Ok(mut reader) = Reader::new(capture) else { return Vec::new() };
    std::iter::from_fn(|| reader.next_frame().ok()?).collect()
}

fn packet(frame: &Frame) -> &[u8] {
    &frame.data[frame.link.ip_offset(&frame.data).expect("an IP packet")..]
}

fn judge(name: &str, came: &[Frame], went: &[Frame], report: &[u8], figures: &mut Figures) {
    let lines = report.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let lines: Vec<Value> = lines.map(|line| serde_json::from_slice(line).expect("JSON")).collect();
    let mut went = went.iter();
    let (mut told, mut skipped, mut sent) = (0, 0, 0);
    // The last input, if it was emitted as other packets, or its fragments were released.
    let mut cause: &[u8] = &[];
    let mut is_cause = false;
    for line in &lines {
        if let Some(one) = line.get("packet") {
            told += 1;
            let number = one["number"].as_u64().expect("a number") as usize;
            cause = packet(&came[number - 1]);
            is_cause = one["verdict"] == "forward" || one["verdict"] == "emit";
            match one["verdict"].as_str() {
                Some("forward" | "emit") => figures.forwarded += 1,
                Some("consume") => figures.consumed += 1,
                _ => figures.dropped += 1,
            }
            if one["verdict"] == "forward" {
                let after = packet(went.next().expect("a frame for each line"));
                pair(&format!("{name} #{number}"), cause, after, figures);
                if one["why"] == "foreign" {
                    assert!(cause.starts_with(after), "{name} #{number}: a foreign packet was changed");
                }
            }
        } else if line.get("sent").is_some() {
            sent += 1;
            let own = packet(went.next().expect("a frame of the engine's own"));
            let of = if is_cause { cause } else { &[] };
            pair(&format!("{name} sent {sent}"), of, own, figures);
        } else if line.get("skipped").is_some() {
            skipped += 1;
        }
    }
    if captures::UNKNOWN.iter().any(|link| name.starts_with(&format!("link {link} "))) {
        assert!(told == 0 && skipped == 8, "{name}: {told} packets found, {skipped} frames skipped");
    } else if name.starts_with("link ") {
        assert!(told == 8 && skipped == 0, "{name}: {told} packets found, {skipped} frames skipped");
    }
    assert_eq!(went.count(), 0, "{name}: frames without a line");
    assert_eq!(told + skipped, came.len() as u64, "{name}: one line per frame");
    let counters = lines.iter().rev().find_map(|line| line.get("counters")).expect("counters").clone();
    let counters: Counters = serde_json::from_value(counters).expect("counters");
    assert!(counters.add_up(), "{name}: {counters:?}");
    assert_eq!((counters.packets_in, counters.transmitted), (told, sent), "{name}: packets in, and sent");
    let ended: u64 = counters.flows_ended.iter().map(|ended| ended.count).sum();
    assert_eq!(counters.flows_opened, counters.flows + ended, "{name}: flows opened = flows + ended");
    figures.packets += told;
    figures.skipped += skipped;
    figures.sent += sent;
}

/// Compares output with input; packets that the engine originates have no input, and must be valid. tshark may know
/// more than the oracle about packets that the oracle does not find valid (source routes, SCTP checksums), so it gets
/// every pair.
fn pair(name: &str, came: &[u8], went: &[u8], figures: &mut Figures) {
    let is_valid = came.is_empty() || oracle::check(came).is_ok();
    if is_valid {
        oracle::check(went)
            .unwrap_or_else(|why| panic!("{name}: arrived valid and left invalid: {why}\n{came:02x?}\n{went:02x?}"));
    }
    figures.pairs.push(tshark::Pair { name: name.into(), came: came.to_vec(), went: went.to_vec(), is_valid });
}
