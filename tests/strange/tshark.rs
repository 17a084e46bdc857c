//! The independent judge: one run of tshark over all input and output.

use super::craft;
use std::fs;
use std::process::Command;

/// An input packet, or nothing if the engine originated the other, and the output packet for it.
#[derive(Debug, Clone)]
pub struct Pair {
    pub name: String,
    pub came: Vec<u8>,
    pub went: Vec<u8>,
    /// Whether the oracle found the input valid.
    pub is_valid: bool,
}

/// Without stateful analysis, since packets of all captures are in one file.
const OPTIONS: [&str; 6] = [
    "ip.check_checksum:TRUE",
    "tcp.check_checksum:TRUE",
    "udp.check_checksum:TRUE",
    "sctp.checksum:automatic",
    "ip.defragment:FALSE",
    "ipv6.defragment:FALSE",
];
const FIELDS: [&str; 8] = [
    "ip.checksum",
    "tcp.checksum",
    "udp.checksum",
    "icmp.checksum",
    "icmpv6.checksum",
    "sctp.checksum",
    "dccp.checksum",
    "pim.cksum",
];

/// Checks that tshark finds no bad checksum in the output that it did not find in the input; returns the number of
/// frames that it checked. Equal pairs are checked once. With `of_all`, it must have checked checksums of every
/// protocol.
pub fn agrees(pairs: &[Pair], of_all: bool) -> usize {
    let mut pairs: Vec<&Pair> = pairs.iter().collect();
    pairs.sort_by(|a, b| (&a.came, &a.went).cmp(&(&b.came, &b.went)));
    pairs.dedup_by(|a, b| (&a.came, &a.went) == (&b.came, &b.went));
    let packets: Vec<Vec<u8>> = pairs.iter().flat_map(|pair| [pair.came.clone(), pair.went.clone()]).collect();
    let place = tempfile::tempdir().expect("a temporary directory");
    let file = place.path().join("all.pcap");
    fs::write(&file, craft::pcap(false, true, 101, usize::MAX, &packets)).expect("what tshark reads");
    let mut command = Command::new("tshark");
    command.args(["-n", "-Q", "-T", "fields", "-E", "occurrence=a", "-E", "separator=;"]).arg("-r").arg(&file);
    for option in OPTIONS {
        command.args(["-o", option]);
    }
    for field in FIELDS {
        command.args(["-e", &format!("{field}.status")]);
    }
    let start = std::time::Instant::now();
    let done = command.env("HOME", place.path()).output().unwrap_or_else(|error| {
        panic!("tshark, of the Debian package \"tshark\", cannot be run: {error}; apt-get install tshark")
    });
    println!("tshark took {} s for {} frames", start.elapsed().as_secs(), packets.len());
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "tshark: {said}");
    let text = String::from_utf8(done.stdout).expect("numbers");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), packets.len(), "one line per frame: {said}");
    // A status of 0 is bad, 1 good, 2 not verified, 3 absent.
    let is_bad = |line: &str| line.split([';', ',']).any(|status| status == "0");
    // What the engine's own errors quote is as valid as it was received; the outer checksums are its own.
    let outer = |line: &str| {
        let columns: Vec<&str> = line.split(';').collect();
        let is_error = columns[3..5].iter().any(|status| !status.is_empty());
        let first = |at: &usize| columns[*at].split(',').next().unwrap_or_default();
        let counted: &[usize] = if is_error { &[0, 3, 4] } else { &[0, 1, 2, 5, 6, 7] };
        counted.iter().map(first).collect::<Vec<_>>().join(";")
    };
    for (pair, both) in pairs.iter().zip(lines.chunks(2)) {
        let [came, went] = both else { unreachable!("two lines a pair") };
        let went = if pair.came.is_empty() { outer(went) } else { went.to_string() };
        // For an unsound packet it may check no checksum before, and one after.
        let judged_right = came.split_once(';').is_some_and(|(_, transports)| transports.contains('1'));
        let was_right = !is_bad(came) && (pair.is_valid || judged_right);
        let (wrong, why) = (was_right && is_bad(&went), format!("{came} became {went}"));
        assert!(!wrong, "{}: {why}\n{:02x?}\n{:02x?}", pair.name, pair.came, pair.went);
    }
    for (at, field) in FIELDS.iter().enumerate() {
        let judged = lines.iter().filter(|line| line.split(';').nth(at).is_some_and(|all| all.contains('1'))).count();
        assert!(!of_all || judged > 100, "tshark judged {judged} sums of {field}");
    }
    lines.len()
}
