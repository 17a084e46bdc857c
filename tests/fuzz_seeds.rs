//! The committed inputs of the fuzz targets, on the ordinary build: each must still be survived.

#[path = "../fuzz/bodies.rs"]
mod bodies;
#[path = "common/oracle.rs"]
mod oracle;

use std::path::Path;

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

/// Seeds can be cut out of the captures of the cases; `tools/fuzz seed` has them written into the corpus.
#[test]
fn seeds_are_made() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let rewrites = std::env::var_os("EQUIPOISE_SEED").is_some_and(|value| value == "1");
    let corpus = if rewrites { root.join("fuzz/corpus") } else { scratch.path().to_owned() };
    for target in ["parse", "engine"] {
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
            // As the target `engine` reads it: the packet as it is, its length, no meta.
            script.extend([5, packet.len() as u8, 0]);
            script.extend(packet);
            if number % 4 == 0 {
                std::fs::write(corpus.join(format!("parse/{name}-{number}")), packet).expect("a seed");
                made += 1;
            }
            number += 1;
        }
        script.truncate(2048);
        std::fs::write(corpus.join(format!("engine/{name}")), script).expect("a seed");
    }
    assert!(made > 100, "{made} seeds");
}
