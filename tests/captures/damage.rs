//! Captures that are truncated, damaged or not captures at all: a clear error and no file, or with `--partial` the
//! intact part; never a panic.

use super::captures::{Row, dir, frames, inputs, replay};
use super::is_sound;
use equipoise::config;
use equipoise::replay::{Args, Format, run};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// A directory with a capture `in.pcap` and an earlier output.
struct Place(tempfile::TempDir);

const EARLIER: &[u8] = b"an output of earlier";

impl Place {
    fn new(capture: &[u8]) -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        fs::write(place.input(), capture).unwrap();
        place
    }

    fn input(&self) -> PathBuf {
        self.0.path().join("in.pcap")
    }

    fn output(&self) -> PathBuf {
        self.0.path().join("out.pcapng")
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> =
            self.0.path().read_dir().unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Replays `input`, which must fail, without and with an earlier output; returns the message.
    fn refused(&self, input: &Path, options: &[&str]) -> String {
        let before = self.names();
        let refused = replay(input, Some(&self.output()), options);
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(1), "{}: {said}", input.display());
        assert_eq!(String::from_utf8(refused.stdout).unwrap(), "", "a report of what could not be read");
        assert!(said.contains(input.to_str().unwrap()), "the file is not named: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert_eq!(self.names(), before, "files are left");

        fs::write(self.output(), EARLIER).unwrap();
        assert_eq!(replay(input, Some(&self.output()), options).status.code(), Some(1));
        assert_eq!(fs::read(self.output()).unwrap(), EARLIER, "the earlier output is gone");
        fs::remove_file(self.output()).unwrap();
        assert_eq!(self.names(), before, "files are left");
        said
    }

    /// Replays the intact part; returns report and output.
    fn partly(&self) -> (String, Vec<u8>) {
        let before = self.names();
        let done = replay(&self.input(), Some(&self.output()), &["--partial", "--json"]);
        let (report, said) = (String::from_utf8(done.stdout).unwrap(), String::from_utf8(done.stderr).unwrap());
        assert!(done.status.success() && said.is_empty(), "{said}");
        let output = fs::read(self.output()).unwrap();
        fs::remove_file(self.output()).unwrap();
        assert_eq!(self.names(), before, "files are left");
        (report, output)
    }
}

fn capture(row: &Row) -> Vec<u8> {
    fs::read(row.path()).unwrap()
}

/// Returns where each record (pcap) or block (pcapng) begins, in little-endian captures.
fn starts(capture: &[u8]) -> Vec<usize> {
    let word = |at: usize| u32::from_le_bytes(capture[at..at + 4].try_into().unwrap()) as usize;
    let is_pcapng = word(0) == 0x0a0d_0d0a;
    let (mut at, mut starts) = (if is_pcapng { 0 } else { 24 }, Vec::new());
    while at < capture.len() {
        starts.push(at);
        at += if is_pcapng { word(at + 4) } else { 16 + word(at + 8) };
    }
    starts
}

/// The uncompressed inputs: offsets in the file are those of the capture.
fn plain() -> Vec<Row> {
    inputs().into_iter().filter(|row| !row.name.ends_with(".gz")).collect()
}

fn missing(report: &str) -> Option<String> {
    let lines = report.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.filter_map(|line| Some(line.get("missing")?.as_str()?.to_owned())).next()
}

#[test]
fn a_truncated_capture_is_refused_and_its_whole_packets_replayed_on_request() {
    for row in inputs() {
        let whole = capture(&row);
        let place = Place::new(&whole);
        let (report, all) = place.partly();
        assert_eq!(missing(&report), None, "{}", row.name);
        for cut in [whole.len() / 2 + 1, whole.len() - 1] {
            let capture = &whole[..cut];
            if !row.name.ends_with(".gz") {
                assert!(!starts(&whole).contains(&cut), "{}: another place to cut is needed", row.name);
            }
            let place = Place::new(capture);
            let said = place.refused(&place.input(), &[]);
            assert!(said.contains("truncated") && said.contains("at byte "), "{}: {said}", row.name);
            let (report, output) = place.partly();
            let missing = missing(&report).unwrap_or_else(|| panic!("{}: {report}", row.name));
            assert!(said.contains(&missing), "{missing}");
            is_sound(capture, report.as_bytes(), &output).unwrap_or_else(|e| panic!("{}: {e}", row.name));
            let (all, part) = (frames(&all), frames(&output));
            assert!(!part.is_empty() && part.len() <= all.len() && all.starts_with(&part), "{}", row.name);
            let text = replay(&place.input(), None, &["--partial"]);
            let text = String::from_utf8(text.stdout).unwrap();
            assert!(text.contains(&format!("PARTIAL: {missing}")), "{text}");
        }
    }
}

#[test]
fn a_truncation_is_located_to_the_byte() {
    for row in plain() {
        let whole = capture(&row);
        let starts = starts(&whole);
        let place = Place::new(&whole);
        // The last packet, its header, one in the middle.
        for (nth, behind) in [(starts.len() - 1, 20), (starts.len() - 1, 3), (starts.len() / 2, 17)] {
            fs::write(place.input(), &whole[..starts[nth] + behind]).unwrap();
            let said = place.refused(&place.input(), &[]);
            assert!(said.contains(&format!("begins at byte {},", starts[nth])), "{}: {said}", row.name);
        }
        for cut in [1, 3, 10, 23] {
            fs::write(place.input(), &whole[..cut]).unwrap();
            place.refused(&place.input(), &[]);
        }
    }
}

#[test]
fn a_damaged_header_is_located_to_the_byte_and_what_precedes_it_replayed_on_request() {
    for row in plain() {
        let whole = capture(&row);
        let starts = starts(&whole);
        // In pcap: the highest byte of a packet's length. In pcapng: the leading and trailing block length, and the
        // packet's length.
        let fields: &[isize] = if row.name.ends_with("pcapng") { &[4, 6, -4, 22] } else { &[10, 11] };
        let place = Place::new(&whole);
        let all = frames(&place.partly().1);
        for nth in [starts.len() / 3, starts.len() / 2, starts.len() - 2] {
            for field in fields {
                let begin = if *field < 0 { starts[nth + 1] } else { starts[nth] };
                let mut damaged = whole.clone();
                damaged[begin.checked_add_signed(*field).unwrap()] ^= 0x55;
                fs::write(place.input(), &damaged).unwrap();
                let said = place.refused(&place.input(), &[]);
                assert!(said.contains(&format!("at byte {},", starts[nth])), "{} {field}: {said}", row.name);
                let (report, output) = place.partly();
                assert!(said.contains(&missing(&report).unwrap()), "{said}");
                is_sound(&damaged, report.as_bytes(), &output).unwrap_or_else(|e| panic!("{}: {e}", row.name));
                let part = frames(&output);
                assert!(!part.is_empty() && part.len() < all.len() && all.starts_with(&part), "{}", row.name);
            }
        }
        // The file's first bytes.
        for (at, flip) in [(0, 0x55), (3, 0x55)] {
            let mut damaged = whole.clone();
            damaged[at] ^= flip;
            fs::write(place.input(), &damaged).unwrap();
            place.refused(&place.input(), &[]);
            place.refused(&place.input(), &["--partial"]);
        }
    }
}

#[test]
fn a_damaged_gzip_stream_is_refused() {
    for row in inputs().iter().filter(|row| row.name.ends_with(".gz")) {
        let whole = capture(row);
        let place = Place::new(&whole);
        // The method, the compressed data, and the checksum and length after it.
        for at in [2, whole.len() / 2, whole.len() - 8, whole.len() - 1] {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x55;
            fs::write(place.input(), &damaged).unwrap();
            let said = place.refused(&place.input(), &[]);
            assert!(said.contains("byte "), "{said}");
        }
    }
}

#[test]
fn what_is_not_a_capture_is_refused_by_name() {
    let place = Place::new(b"");
    let path = |name: &str| place.0.path().join(name);
    fs::write(path("text.txt"), "time,packet\n1,SYN\n").unwrap();
    fs::write(path("program"), fs::read(env!("CARGO_BIN_EXE_equipoise")).unwrap()).unwrap();
    fs::write(path("zeros"), [0; 4096]).unwrap();
    fs::write(path("text.gz"), gzip(b"not a capture either")).unwrap();
    fs::write(path("empty.gz"), gzip(b"")).unwrap();
    fs::create_dir(path("directory")).unwrap();
    for (name, want) in [
        ("in.pcap", "the file is empty"),
        ("text.txt", "begins with the text \"time\""),
        ("program", "not a pcap or pcapng file"),
        ("zeros", "not a pcap or pcapng file"),
        ("text.gz", "begins with the text \"not \""),
        ("empty.gz", "empty"),
        ("directory", "directory"),
        ("missing", "No such file"),
    ] {
        for options in [&[][..], &["--partial"]] {
            let said = place.refused(&path(name), options);
            assert!(said.contains(want), "{name}: {said}");
        }
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

#[test]
fn the_output_may_not_be_the_input_and_needs_an_existing_directory() {
    let row = &inputs()[0];
    let place = Place::new(&capture(row));
    let same = replay(&place.input(), Some(&place.input()), &[]);
    assert_eq!(same.status.code(), Some(1));
    assert!(String::from_utf8(same.stderr).unwrap().contains("is the input capture"));
    assert_eq!(fs::read(place.input()).unwrap(), capture(row));
    let nowhere = place.0.path().join("no such directory/out.pcapng");
    let refused = replay(&place.input(), Some(&nowhere), &[]);
    assert_eq!((refused.status.code(), &refused.stdout[..]), (Some(1), &b""[..]));
    assert!(String::from_utf8(refused.stderr).unwrap().contains(nowhere.to_str().unwrap()));
    fs::create_dir(place.output()).unwrap();
    let refused = replay(&place.input(), Some(&place.output()), &[]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8(refused.stderr).unwrap().contains("out.pcapng"));
    assert_eq!(place.names(), ["in.pcap", "out.pcapng"]);
}

/// A small generator (xorshift64*): the same positions in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % end
    }
}

/// Damages a capture at `flips` positions: half of them anywhere, half in the first 32 bytes of a record, where its
/// header is.
fn damage(whole: &[u8], starts: &[usize], flips: usize, random: &mut Random) -> Vec<u8> {
    let mut damaged = whole.to_vec();
    for _ in 0..flips {
        let at = match random.below(2) {
            1 if !starts.is_empty() => starts[random.below(starts.len())] + random.below(32),
            _ => random.below(whole.len()),
        };
        damaged[at.min(whole.len() - 1)] ^= 1 + random.below(255) as u8;
    }
    damaged
}

#[test]
fn flipped_bytes_anywhere_never_panic_and_give_an_error_or_a_sound_output() {
    let text = fs::read_to_string(dir().join("gateway.toml")).unwrap();
    let settings = config::parse(&text, "gateway.toml").unwrap();
    let (mut random, mut sound, mut refused) = (Random(2), 0, 0);
    for row in inputs() {
        let whole = capture(&row);
        let starts = if row.name.ends_with(".gz") { Vec::new() } else { starts(&whole) };
        let place = Place::new(&whole);
        for round in 0..32 {
            let damaged = damage(&whole, &starts, 1 + round % 4, &mut random);
            fs::write(place.input(), &damaged).unwrap();
            let args = Args {
                settings: settings.clone(),
                input: place.input(),
                output: Some(place.output()),
                format: Format::Json,
                partial: round % 3 == 1,
                drain: round % 8 == 0,
                events: None,
            };
            let mut report = Vec::new();
            let done = catch_unwind(AssertUnwindSafe(|| run(&args, &mut report)));
            match done.unwrap_or_else(|_| panic!("{}: round {round} panicked", row.name)) {
                Ok(_) => {
                    let output = fs::read(place.output()).unwrap();
                    is_sound(&damaged, &report, &output).unwrap_or_else(|e| panic!("{}, {round}: {e}", row.name));
                    fs::remove_file(place.output()).unwrap();
                    sound += 1;
                }
                Err(error) => {
                    assert!(error.to_string().contains("in.pcap"), "{}, {round}: {error}", row.name);
                    assert!(report.is_empty(), "{}, {round}: a report of what was refused", row.name);
                    refused += 1;
                }
            }
            assert_eq!(place.names(), ["in.pcap"], "{}, {round}: files are left", row.name);
        }
    }
    // Both must have occurred, or the test shows nothing.
    assert!(sound > 50 && refused > 50, "{sound} sound, {refused} refused");
}
