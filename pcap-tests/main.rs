//! Golden replays: each case is a capture, a configuration, and the expected result, byte for byte.
//!
//! It drives the library's replay and must not know the engine. How to add a case: README.md here.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "helpers of a test program")]

mod craft;
mod golden;
#[path = "../tests/common/oracle.rs"]
mod oracle;
#[path = "../tests/common/setup.rs"]
mod setup;

use craft::film::Film;

/// A case: its name, which is a rule; the rule in words, with its source; who makes its capture.
struct Case {
    name: String,
    rule: &'static str,
    craft: fn(&mut Film),
}

/// Makes a test and a list entry for each case; `some_rule` is in `cases/some-rule/`.
macro_rules! cases {
    ($( $(#[doc = $rule:literal])+ $room:ident::$name:ident; )+) => {
        mod replays {
            $( #[test] fn $name() { crate::golden::check(&stringify!($name).replace('_', "-")); } )+
        }

        /// Returns every case, in the order of the README.
        pub fn cases() -> Vec<crate::Case> {
            vec![$( crate::Case {
                name: stringify!($name).replace('_', "-"),
                rule: concat!($($rule),+).trim(),
                craft: crate::craft::$room::$name,
            } ),+]
        }
    };
}

mod list;
use list::cases;

#[test]
fn the_list_and_the_directories_agree() {
    let mut listed: Vec<_> = cases().into_iter().map(|case| case.name).collect();
    listed.sort_unstable();
    let unique = listed.len();
    listed.dedup();
    assert_eq!(listed.len(), unique, "a name occurs twice in list.rs");
    let found = golden::directories();
    assert!(!found.is_empty(), "no case in pcap-tests/cases");
    assert_eq!(found, listed, "directories of pcap-tests/cases (left) against list.rs (right)");
}

#[test]
fn craft_makes_every_capture() {
    for case in cases() {
        let (name, bytes) = craft::capture(case.craft);
        golden::compare_or_write(&case.name, name, &bytes, "CRAFT");
    }
}

#[test]
fn the_readme_lists_every_case_and_its_rule() {
    let readme = include_str!("README.md");
    let want: Vec<_> = cases().iter().map(|case| format!("- `{}`: {}", case.name, case.rule)).collect();
    let have: Vec<_> = readme.lines().filter(|line| line.starts_with("- `")).collect();
    if let Some((have, want)) = have.iter().zip(&want).find(|(have, want)| have != want) {
        panic!("README.md says\n{have}\nand list.rs\n{want}");
    }
    let missing: Vec<_> = want.iter().skip(have.len()).map(String::as_str).collect();
    assert_eq!(
        have.len(),
        want.len(),
        "append to README.md, or remove superfluous lines there:\n{}",
        missing.join("\n")
    );
}
