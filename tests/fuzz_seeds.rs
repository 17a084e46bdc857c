//! The committed inputs of the fuzz targets, on the ordinary build: each must still pass.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "helpers of a test program")]

#[path = "../fuzz/bodies.rs"]
mod bodies;
#[path = "common/oracle.rs"]
mod oracle;

use proptest::prelude::*;
use std::path::Path;

/// One step of the target `engine`, encoded as it reads them, such that flows are opened, live and end.
fn step() -> impl Strategy<Value = Vec<u8>> {
    let from_client = (any::<bool>(), 0..2u8, prop::sample::select(vec![2u8, 3, 6]), 0..2u8, 0..8u8);
    let segment = (prop::sample::select(vec![2u8, 2, 2, 0x10, 0x10, 0x11, 4]), any::<[u8; 4]>());
    let packet = (from_client, prop::sample::select(vec![0u8, 0, 2, 2, 4, 5, 6, 0xc2]), segment);
    let packet = packet.prop_map(|((v6, client, service, src, dst), protocol, (flags, numbers))| {
        let mut bytes = vec![0, u8::from(v6) | client << 1 | service << 4, src | dst << 3 | 1 << 6, protocol];
        if protocol == 0 {
            bytes.extend(numbers);
            bytes.push(flags);
        }
        bytes.extend([7; 8]);
        if protocol & 0xc0 != 0 {
            // More Fragments, or a later one of the same few packets.
            bytes.extend([numbers[0] & 0xe0, numbers[1] & 1]);
        }
        bytes
    });
    let reply = prop::sample::select(vec![0x12u8, 0x12, 0x10, 0x10, 0x11, 4, 0x14]).prop_map(|flags| vec![7, flags, 0]);
    prop_oneof![
        9 => packet,
        7 => reply,
        2 => any::<[u8; 6]>().prop_map(|rest| [&[8], &rest[..]].concat()),
        2 => any::<[u8; 6]>().prop_map(|rest| [&[6], &rest[..]].concat()),
        1 => (any::<u16>(), 0..24u8).prop_map(|(time, scale)| [&[9], &time.to_be_bytes()[..], &[scale]].concat()),
        1 => prop::collection::vec(any::<u8>(), 1..20),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Random packets, replies, errors, changes and waits for the target `engine`: checksums, totals and all counts
    /// of flows hold.
    #[test]
    fn the_books_balance_whatever_packets_and_changes_come(steps in prop::collection::vec(step(), 1..300)) {
        bodies::engine_target(&steps.concat());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// The target `state` with what random histories leave, damaged or not.
    #[test]
    fn the_books_balance_whatever_state_is_read(
        steps in prop::collection::vec(step(), 1..300),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut state = bodies::state_after(&steps.concat());
        damage.iter().for_each(|(at, byte)| *at.get_mut(&mut state) = *byte);
        bodies::state_target(&state);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// The target `sync` with the frames of a peer with a random history, damaged or not.
    #[test]
    fn the_books_balance_whatever_a_peer_says(
        steps in prop::collection::vec(step(), 1..300),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        more in prop::collection::vec(any::<[u8; 6]>(), 0..6),
    ) {
        let mut frames = bodies::sync_after(&steps.concat());
        damage.iter().for_each(|(at, byte)| *at.get_mut(&mut frames) = *byte);
        // Commands, packets and time.
        more.iter().for_each(|body| frames.extend([&[0, 0, 6, body[0] % 7], &body[1..], &[0]].concat()));
        bodies::sync_target(&frames);
    }
}

#[test]
fn every_committed_input_is_survived() {
    for (name, body) in bodies::BODIES {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let entries = folder.read_dir().unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
        paths.sort();
        assert!(paths.len() >= 5, "only {} inputs in {}", paths.len(), folder.display());
        for path in &paths {
            let bytes = std::fs::read(path).expect("an input");
            let survived = std::panic::catch_unwind(|| body(&bytes));
            assert!(survived.is_ok(), "target {name} fails on {}", path.display());
        }
        println!("{name}: {} inputs", paths.len());
    }
}

/// Seeds can be extracted from the captures of the cases; `tools/fuzz seed` writes them into the corpus.
#[test]
fn seeds_are_made() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let rewrites = std::env::var_os("EQUIPOISE_SEED").is_some_and(|value| value == "1");
    let corpus = if rewrites { root.join("fuzz/corpus") } else { scratch.path().to_owned() };
    for target in ["parse", "engine", "state", "sync"] {
        std::fs::create_dir_all(corpus.join(target)).expect("a directory");
    }
    let mut made = 0;
    let cases = root.join("pcap-tests/cases").read_dir().expect("the cases");
    let mut cases: Vec<_> = cases.map(|entry| entry.expect("an entry").path()).collect();
    cases.sort();
    for case in cases {
        let name = case.file_name().and_then(|name| name.to_str()).expect("a plain name");
        let input = ["in.pcapng", "in.pcap"].map(|file| case.join(file)).into_iter().find(|path| path.exists());
        let Some(bytes) = input.and_then(|path| std::fs::read(path).ok()) else { continue };
        let Ok(mut reader) = equipoise::capture::Reader::new(&bytes[..]) else { continue };
        let mut script = Vec::new();
        let mut number = 0;
        while let Ok(Some(frame)) = reader.next_frame() {
            let Ok(offset) = frame.link.ip_offset(&frame.data) else { continue };
            let packet = frame.data.get(offset..).unwrap_or_default();
            if packet.len() > 200 {
                continue;
            }
            // As the target `engine` reads it: the packet as it is, its length, no metadata.
            script.extend([5, packet.len() as u8, 0]);
            script.extend(packet);
            if number % 4 == 0 {
                std::fs::write(corpus.join(format!("parse/{name}-{number}")), packet).expect("a seed");
                made += 1;
            }
            number += 1;
        }
        script.truncate(2048);
        let state = bodies::state_after(&script);
        if state.len() < 2048 {
            std::fs::write(corpus.join(format!("state/{name}")), state).expect("a seed");
        }
        let frames = bodies::sync_after(&script);
        if frames.len() < 4096 {
            std::fs::write(corpus.join(format!("sync/{name}")), frames).expect("a seed");
        }
        std::fs::write(corpus.join(format!("engine/{name}")), script).expect("a seed");
    }
    assert!(made > 100, "{made} seeds");
}

#[test]
fn the_fuzzers_lock_file_knows_every_package() {
    let read = |file: &str| {
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect("a file");
        text.parse::<toml::Table>().expect("TOML")
    };
    let (manifest, lock) = (read("Cargo.toml"), read("fuzz/Cargo.lock"));
    let packages = lock["package"].as_array().expect("packages");
    let own = packages.iter().find(|package| package["name"].as_str() == Some("equipoise")).expect("this package");
    let locked = own["dependencies"].as_array().expect("its dependencies");
    let wanted = manifest["dependencies"].as_table().expect("dependencies").iter();
    // Optional ones belong to the daemon, which no target uses.
    let wanted = wanted.filter(|(_, what)| what.get("optional").is_none()).map(|(name, _)| name.as_str());
    let missing: Vec<_> = wanted.filter(|name| locked.iter().all(|known| known.as_str() != Some(name))).collect();
    assert!(missing.is_empty(), "{missing:?}; `cargo check` in fuzz/ updates its lock file");
}
