//! Every crate that is built in carries a licence that this project's users can accept.
//!
//! It knows only what `cargo metadata` reports; a crate without an SPDX expression fails.

use serde_json::Value;
use std::process::Command;

/// Licences that only require the notice to be kept.
const ALLOWED: &[&str] = &[
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "Zlib",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "0BSD",
    "ISC",
    "Unicode-3.0",
    "Unlicense",
    "CC0-1.0",
];

/// Returns whether an SPDX expression can be met with allowed licences alone: parentheses bind tightest, then AND,
/// then OR.
fn acceptable(expression: &str) -> Result<bool, String> {
    // "MIT/Apache-2.0" is how crates wrote OR before SPDX.
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    let answer = any(&mut rest)?;
    if rest.is_empty() { Ok(answer) } else { Err(format!("`{}` is left over in `{expression}`", rest.join(" "))) }
}

fn any(words: &mut &[&str]) -> Result<bool, String> {
    let mut answer = all(words)?;
    while take(words, "OR") {
        answer |= all(words)?;
    }
    Ok(answer)
}

fn all(words: &mut &[&str]) -> Result<bool, String> {
    let mut answer = one(words)?;
    while take(words, "AND") {
        answer &= one(words)?;
    }
    Ok(answer)
}

fn one(words: &mut &[&str]) -> Result<bool, String> {
    if take(words, "(") {
        let answer = any(words)?;
        return if take(words, ")") { Ok(answer) } else { Err("a parenthesis is not closed".into()) };
    }
    let Some((&name, rest)) = words.split_first() else { return Err("a licence is missing".into()) };
    *words = rest;
    if matches!(name, "OR" | "AND" | "WITH" | ")") {
        return Err(format!("`{name}` is where a licence should be"));
    }
    if !take(words, "WITH") {
        return Ok(ALLOWED.contains(&name));
    }
    let Some((&exception, rest)) = words.split_first() else { return Err("WITH names no exception".into()) };
    *words = rest;
    // An exception only grants more.
    Ok(ALLOWED.contains(&name) || ALLOWED.contains(&format!("{name} WITH {exception}").as_str()))
}

fn take(words: &mut &[&str], word: &str) -> bool {
    let found = words.first() == Some(&word);
    if found {
        *words = &words[1..];
    }
    found
}

#[test]
fn every_crate_has_an_allowed_licence() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .output()
        .expect("cargo metadata starts");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let packages = metadata["packages"].as_array().expect("it lists packages");
    assert!(packages.len() > 20, "only {} packages: is this the whole tree?", packages.len());
    let mut refused = Vec::new();
    for package in packages {
        let name = format!("{} {}", package["name"].as_str().unwrap(), package["version"].as_str().unwrap());
        match package["license"].as_str().map(acceptable) {
            Some(Ok(true)) => {}
            Some(Ok(false)) => refused.push(format!("{name}: {}", package["license"])),
            Some(Err(why)) => refused.push(format!("{name}: {} cannot be read: {why}", package["license"])),
            None => refused.push(format!("{name}: states no licence")),
        }
    }
    assert!(refused.is_empty(), "crates to replace, or licences to allow in {}:\n{}", file!(), refused.join("\n"));
}

#[test]
fn expressions_are_read_as_spdx_means_them() {
    let table: &[(&str, Result<bool, ()>)] = &[
        ("MIT", Ok(true)),
        ("GPL-3.0-only", Ok(false)),
        ("WTFPL", Ok(false)),
        ("GPL-2.0-only OR MIT", Ok(true)),
        ("GPL-2.0-only AND MIT", Ok(false)),
        ("MIT/Apache-2.0", Ok(true)),
        ("(MIT OR GPL-2.0-only) AND Unicode-3.0", Ok(true)),
        ("(MIT OR Apache-2.0) AND OpenSSL", Ok(false)),
        ("MIT OR GPL-2.0-only AND GPL-3.0-only", Ok(true)),
        ("Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT", Ok(true)),
        ("GPL-2.0-only WITH Classpath-exception-2.0", Ok(false)),
        ("", Err(())),
        ("MIT OR", Err(())),
        ("MIT Apache-2.0", Err(())),
        ("(MIT", Err(())),
        ("MIT)", Err(())),
    ];
    for (expression, want) in table {
        assert_eq!(acceptable(expression).map_err(|_| ()), *want, "{expression:?}");
    }
}
