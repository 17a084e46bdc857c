//! The BPF objects that the gateway includes are what their sources say.

#![allow(clippy::unwrap_used, reason = "a test program")]
#![allow(clippy::disallowed_methods, reason = "it runs a tool")]

use std::path::Path;
use std::process::Command;

/// What `tools/build-bpf --check` exits with if clang is missing or another version than made the objects.
const CANNOT_TELL: i32 = 77;

#[test]
fn the_committed_objects_are_what_their_sources_give() {
    let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/build-bpf");
    let output = Command::new(tool).arg("--check").output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if output.status.code() == Some(CANNOT_TELL) {
        println!("SKIPPED: {}", said.trim());
        return;
    }
    assert!(output.status.success(), "{said}");
}
