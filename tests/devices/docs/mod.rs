//! The commands of README.md and docs/ are run, in the network of [`lab`], and must print what the page shows.
//!
//! A page's blocks of the language `console` are run in order. A line that begins with a prompt is a command, and what
//! follows it is its output: `gateway# ` is root on the gateway, `client$ ` a client, `$ ` anybody in the source tree. A block
//! of the language `toml` whose first line is a comment with a path is that file on the gateway. What a page needs besides, such
//! as a server that fails, is in comments of the form `<!-- lab: web-3 stops -->` ([`lab::Lab::wish`]).
//!
//! [`same`] says which figures are not compared. `BLESS=1 cargo test --test devices docs` rewrites what differs.

mod lab;
mod machine;
mod page;
mod same;
mod servers;

use crate::queues::own_user_namespace_is_the_first;
use lab::Lab;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Pages with commands.
const PAGES: &[&str] = &[
    "README.md",
    "docs/first-service.md",
    "docs/questions.md",
    "docs/drain.md",
    "docs/server-down.md",
    "docs/reload.md",
    "docs/firewall.md",
    "docs/failover.md",
    "docs/moving-from-ipvs.md",
    "docs/moving-from-an-appliance.md",
    "docs/replay.md",
];

/// Runs the commands of a page; returns what differs, twice: on a machine with much other work probes time out.
fn play_twice(file: &str) -> Vec<String> {
    let differs = play(file);
    if differs.is_empty() {
        return differs;
    }
    println!("{file} is played again, because the first time this differed: {}", differs.join("\n"));
    play(file)
}

/// Runs the commands of a page; returns what differs.
fn play(file: &str) -> Vec<String> {
    let path = root().join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    let mut lab = Lab::new(&file.replace(['/', '.'], "-"));
    let played = page::play(&text, &mut lab);
    assert!(played.commands > 0, "{file} has no commands");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &played.text).unwrap();
    }
    played.differs.into_iter().map(|what| format!("{file} (BLESS=1 rewrites it): {what}")).collect()
}

/// All at once, since most of their time is waiting. `PAGE=docs/drain.md` plays one alone.
#[test]
fn the_commands_print_what_the_pages_show() {
    if !own_user_namespace_is_the_first() {
        // Without the right to load BPF programs there are other queues, notes and warnings.
        println!("SKIPPED: the commands of the documentation need CAP_BPF in the first user namespace");
        return;
    }
    let only = std::env::var("PAGE").ok();
    let pages = PAGES.iter().filter(|page| only.as_ref().is_none_or(|only| only == *page));
    let differs: Vec<String> = std::thread::scope(|scope| {
        let pages: Vec<_> = pages.map(|page| (page, scope.spawn(|| play_twice(page)))).collect();
        let ended = pages
            .into_iter()
            .flat_map(|(page, thread)| thread.join().unwrap_or_else(|_| vec![format!("{page}: it panicked")]));
        ended.collect()
    });
    assert!(differs.is_empty(), "{}", differs.join("\n"));
}

/// Those whose commands another test runs, on a gateway without devices.
const ELSEWHERE: &[(&str, &str)] = &[("docs/changes.md", "tests/cli/changes.rs")];

fn files(dir: &Path) -> Vec<String> {
    let all = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    all.filter(|name| name.ends_with(".md")).collect()
}

#[test]
fn no_page_shows_commands_that_nobody_runs() {
    let pages =
        files(&root()).into_iter().chain(files(&root().join("docs")).into_iter().map(|name| format!("docs/{name}")));
    for page in pages {
        let shows = std::fs::read_to_string(root().join(&page)).unwrap().lines().any(|line| line == "```console");
        let runs = PAGES.contains(&page.as_str()) || ELSEWHERE.iter().any(|(file, _)| *file == page);
        assert_eq!(shows, runs, "{page}: it shows commands, or it is in the list of pages that do");
    }
    for (page, test) in ELSEWHERE {
        assert!(std::fs::read_to_string(root().join(test)).unwrap().contains(page), "{test} does not run {page}");
    }
}
