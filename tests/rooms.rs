//! The rooms of the engine have walls: their fields are private, and no function on the path of a packet outgrows the rest.
//!
//! It reads the source as text. That nothing reaches a private field from outside its module is the compiler's business.

use std::fs;
use std::path::PathBuf;

/// Rooms: the file that makes each, and its name.
const ROOMS: &[(&str, &str)] = &[
    ("engine/mod.rs", "Engine"),
    ("engine/plan/mod.rs", "Plan"),
    ("engine/standing/mod.rs", "Standing"),
    ("engine/shard/mod.rs", "Shard"),
    ("engine/shard/answers.rs", "Answers"),
    ("engine/look/mod.rs", "Look"),
    ("engine/shard/part.rs", "Part"),
    ("engine/shard/paths.rs", "Paths"),
    ("balance/roster.rs", "Roster"),
    ("balance/standings.rs", "Standings"),
    ("balance/chooser.rs", "Chooser"),
    ("policy/mod.rs", "Rules"),
    ("policy/mod.rs", "Policy"),
    ("flow/table/mod.rs", "Table"),
    ("flow/fragments.rs", "Fragments"),
    ("flow/ports/mod.rs", "NatPool"),
    ("flow/sticky.rs", "Slots"),
    ("health/mod.rs", "Monitors"),
];

/// The dispatch of a packet: functions that would grow with everything that is added.
const DISPATCH: &[(&str, &str)] = &[
    ("engine/decide.rs", "decide"),
    ("engine/decide.rs", "carry_out"),
    ("engine/look/mod.rs", "look"),
    ("engine/look/hit.rs", "hit"),
    ("engine/look/miss.rs", "miss"),
    ("engine/look/miss.rs", "without_key"),
    ("engine/look/onward.rs", "onward"),
    ("engine/shard/carry_out.rs", "carry_onward"),
];

/// Most lines of a function of the dispatch.
const MOST_LINES: usize = 70;

fn source(file: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src").join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The lines from the one that `begins` to the one that closes it at the same indentation.
fn block(text: &str, begins: impl Fn(&str) -> bool) -> Option<Vec<&str>> {
    let mut lines = text.lines().skip_while(|line| !begins(line)).peekable();
    let indent = lines.peek()?.len() - lines.peek()?.trim_start().len();
    let closes = |line: &str| line.trim_start().starts_with('}') && line.len() - line.trim_start().len() == indent;
    let mut block = Vec::new();
    for line in lines {
        block.push(line);
        if closes(line) {
            return Some(block);
        }
    }
    None
}

fn public_fields(text: &str, name: &str) -> Vec<String> {
    let begins = |line: &str| line.contains(&format!("struct {name} {{")) || line.contains(&format!("struct {name}<"));
    let body = block(text, begins).unwrap_or_else(|| panic!("no struct {name}"));
    body[1..].iter().filter(|line| line.trim_start().starts_with("pub")).map(|line| line.trim().to_owned()).collect()
}

fn lines_of(text: &str, name: &str) -> usize {
    let begins = |line: &str| line.contains(&format!("fn {name}("));
    block(text, begins).unwrap_or_else(|| panic!("no fn {name}")).len()
}

#[test]
fn the_fields_of_the_rooms_are_private() {
    for (file, name) in ROOMS {
        let public = public_fields(&source(file), name);
        assert!(public.is_empty(), "{file}: {name} has public fields: {public:?}");
    }
}

#[test]
fn the_dispatch_of_a_packet_stays_short() {
    for (file, name) in DISPATCH {
        let lines = lines_of(&source(file), name);
        assert!(lines < MOST_LINES, "{file}: {name} has {lines} lines");
    }
}

#[test]
fn the_checks_see_what_they_look_for() {
    let text = "struct Room {\n    a: u8,\n    pub(super) b: u8,\n}\nimpl Room {\n    fn long(&self) {\n        x();\n    }\n}\n";
    assert_eq!(public_fields(text, "Room"), ["pub(super) b: u8,"]);
    assert_eq!(lines_of(text, "long"), 3);
}
