//! Runs a case and compares the output with its files and with the oracle.

use crate::oracle;
use equipoise::capture::{Frame, Reader};
use equipoise::engine::Counters;
use equipoise::replay::{Args, Format, run};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const INPUTS: [&str; 4] = ["in.pcapng", "in.pcap", "in.pcapng.gz", "in.pcap.gz"];

fn cases_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("pcap-tests/cases")
}

/// Returns the names of all case directories, sorted.
pub fn directories() -> Vec<String> {
    let entries = fs::read_dir(cases_dir()).expect("pcap-tests/cases");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a plain name")).collect();
    names.sort_unstable();
    names
}

fn asked(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| value == "1")
}

/// Replays a case: its report and its translated capture must match its files.
pub fn check(name: &str) {
    let dir = cases_dir().join(name);
    let (input, events) = files(&dir);
    let config = dir.join("config.toml");
    let text = fs::read(&config).unwrap_or_else(|error| panic!("cannot read {}: {error}", config.display()));
    let parsed = equipoise::config::parse_bytes(&text, &config.display().to_string());
    let settings = parsed.unwrap_or_else(|error| panic!("{error}")).settings;
    let out = tempfile::tempdir().expect("a temporary directory");
    let replay = |format| {
        let output = out.path().join("out.pcapng");
        let args = Args {
            settings: settings.clone(),
            input: input.clone(),
            output: Some(output.clone()),
            format,
            partial: false,
            drain: false,
            events: events.clone(),
        };
        let mut report = Vec::new();
        run(&args, &mut report).unwrap_or_else(|error| panic!("{name}: {error}"));
        (report, fs::read(output).expect("the translated capture"))
    };
    let (report, capture) = replay(Format::Text);
    assert!(replay(Format::Text) == (report.clone(), capture.clone()), "{name}: two replays, two results");
    let (json, again) = replay(Format::Json);
    assert!(again == capture, "{name}: the capture depends on the format of the report");
    check_packets(name, &frames(&fs::read(&input).expect("the input")), &frames(&capture), &json);
    compare_or_write(name, "expect.txt", &report, "BLESS");
    compare_or_write(name, "out.pcapng", &capture, "BLESS");
}

/// Returns a case's input and its event file, if any; fails if a file is missing or does not belong to a case.
fn files(dir: &Path) -> (PathBuf, Option<PathBuf>) {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("cannot read {}: {error}", dir.display()));
    let mut found: BTreeSet<_> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a plain name")).collect();
    let inputs: Vec<_> = INPUTS.into_iter().filter(|name| found.remove(*name)).collect();
    assert_eq!(inputs.len(), 1, "{}: want exactly one of {INPUTS:?}, have {inputs:?}", dir.display());
    let events = found.remove("events.txt").then(|| dir.join("events.txt"));
    if asked("BLESS") {
        found.extend(["expect.txt", "out.pcapng"].map(String::from));
    }
    let want = ["config.toml", "expect.txt", "out.pcapng"];
    assert!(found.iter().eq(want.iter()), "{}: beside the input want {want:?}, have {found:?}", dir.display());
    (dir.join(inputs[0]), events)
}

fn frames(capture: &[u8]) -> Vec<Frame> {
    let mut reader = Reader::new(capture).expect("a capture");
    std::iter::from_fn(|| reader.next_frame().expect("a whole capture")).collect()
}

/// Returns the IP packet of a frame.
fn packet(frame: &Frame) -> &[u8] {
    &frame.data[frame.link.ip_offset(&frame.data).expect("an IP packet")..]
}

/// Walks the report in JSON along with both captures: what arrives valid must leave valid, what is foreign unchanged,
/// what the engine originates must be valid, and all totals must add up.
fn check_packets(name: &str, came: &[Frame], went: &[Frame], report: &[u8]) {
    let lines = report.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let lines: Vec<Value> = lines.map(|line| serde_json::from_slice(line).expect("JSON")).collect();
    let mut went = went.iter();
    let (mut sent, mut told, mut skipped) = (0, 0, 0);
    // Whether the last packet that was emitted as others was valid.
    let mut became: Option<&[u8]> = None;
    for line in &lines {
        if let Some(told_of) = line.get("packet") {
            told += 1;
            let number = told_of["number"].as_u64().expect("a number");
            became = (told_of["verdict"] == "emit").then(|| packet(&came[number as usize - 1]));
            if told_of["verdict"] != "forward" {
                continue;
            }
            let (before, after) = (&came[number as usize - 1], went.next().expect("a frame for each line"));
            // A frame with an earlier timestamp leaves at the time of the previous one.
            let at = came[..number as usize].iter().map(|frame| frame.at).max().unwrap_or_default();
            assert_eq!((at, before.link), (after.at, after.link), "{name} #{number}: time and link type");
            same_or_valid(name, number, packet(before), packet(after), told_of["why"] == "foreign");
        } else if line.get("sent").is_some() {
            sent += 1;
            let own = packet(went.next().expect("a frame of the engine's own"));
            match became.map(oracle::is_valid) {
                Some(false) => assert!(!oracle::is_valid(own), "{name}: what arrived invalid became valid"),
                _ => {
                    oracle::check(own).unwrap_or_else(|why| panic!("{name}: packet {sent} of the engine's own: {why}"))
                }
            }
        } else if line.get("skipped").is_some() {
            skipped += 1;
        }
    }
    assert_eq!(went.count(), 0, "{name}: frames without a line");
    assert_eq!(told + skipped, came.len() as u64, "{name}: one line per frame");
    let last = |key: &str| lines.iter().rev().find_map(|line| line.get(key)).expect("the end of a report").clone();
    let counters: Counters = serde_json::from_value(last("counters")).expect("counters");
    assert!(counters.add_up(), "{name}: {counters:?}");
    assert_eq!((counters.packets_in, counters.transmitted), (told, sent), "{name}: packets in, and sent");
    let ended: u64 = counters.flows_ended.iter().map(|ended| ended.count).sum();
    assert_eq!(counters.flows_opened, counters.flows + ended, "{name}: flows opened = flows + ended");
    let states: u64 = counters.states.iter().map(|state| state.count).sum();
    let of_servers = lines.iter().filter_map(|line| line.get("server")?.get("flows")?.as_u64()).sum::<u64>();
    assert_eq!((states, of_servers), (counters.flows, counters.flows), "{name}: flows by state and by server");
}

fn same_or_valid(name: &str, number: u64, came: &[u8], went: &[u8], foreign: bool) {
    if foreign {
        assert!(came.starts_with(went), "{name} #{number}: a foreign packet was changed");
    } else if oracle::check(came).is_ok() {
        oracle::check(went).unwrap_or_else(|why| panic!("{name} #{number} arrived valid and left invalid: {why}"));
    } else if oracle::check_partial(came).is_ok() {
        oracle::check_partial(went)
            .unwrap_or_else(|why| panic!("{name} #{number} arrived partial and left invalid: {why}"));
    } else {
        assert!(!oracle::is_valid(went), "{name} #{number} arrived with a wrong checksum and left with a valid one");
    }
}

/// Compares bytes with a file of a case, or writes them to it if the variable says so.
pub fn compare_or_write(case: &str, file: &str, bytes: &[u8], variable: &str) {
    let path = cases_dir().join(case).join(file);
    if asked(variable) {
        fs::create_dir_all(path.parent().expect("a parent")).expect("the directory of the case");
        fs::write(&path, bytes).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
        return;
    }
    let want = fs::read(&path).unwrap_or_else(|error| {
        panic!("cannot read {}: {error}; {variable}=1 in the environment writes it", path.display())
    });
    // Another version of the compressor compresses the same bytes differently.
    let (have, want) = if file.ends_with(".gz") { (unpack(bytes), unpack(&want)) } else { (bytes.to_vec(), want) };
    if have != want {
        let difference = if file.ends_with(".txt") { lines(&have, &want) } else { octets(&have, &want) };
        panic!(
            "pcap-tests/cases/{case}/{file} differs; where this is right, run again with {variable}=1\n{difference}"
        );
    }
}

fn unpack(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(bytes), &mut plain).expect("gzip");
    plain
}

/// Returns the first lines that differ, `-` as in the file, `+` as produced.
fn lines(have: &[u8], want: &[u8]) -> String {
    const MOST: usize = 8;
    let (have, want) = (String::from_utf8_lossy(have), String::from_utf8_lossy(want));
    let (have, want): (Vec<_>, Vec<_>) = (have.lines().collect(), want.lines().collect());
    let differs = |at: &usize| have.get(*at) != want.get(*at);
    let mut text = String::new();
    for at in (0..have.len().max(want.len())).filter(differs).take(MOST) {
        text += &format!("line {}\n", at + 1);
        for (mark, line) in [('-', want.get(at)), ('+', have.get(at))] {
            text += &line.map_or(String::new(), |line| format!("{mark} {line}\n"));
        }
    }
    text
}

/// Returns the first octets that differ, and in which frame.
fn octets(have: &[u8], want: &[u8]) -> String {
    let at = have.iter().zip(want).position(|(a, b)| a != b).unwrap_or(have.len().min(want.len()));
    let show = |bytes: &[u8]| format!("{:02x?}", &bytes[at..bytes.len().min(at + 16)]);
    let mut text =
        format!("{} bytes, want {}; at byte {at}:\n- {}\n+ {}\n", have.len(), want.len(), show(want), show(have));
    let whole = |bytes| {
        let mut reader = Reader::new(bytes).ok()?;
        Some(std::iter::from_fn(|| reader.next_frame().ok()?).collect::<Vec<_>>())
    };
    if let (Some(have), Some(want)) = (whole(have), whole(want))
        && let Some(place) = have.iter().zip(&want).position(|(a, b)| a != b)
    {
        text += &format!("frame {}:\n- {:02x?}\n+ {:02x?}\n", place + 1, want[place], have[place]);
    }
    text
}
