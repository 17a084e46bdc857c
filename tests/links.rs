//! Links of README.md and docs/ lead to files that exist, and to headings that these have; paths in the text exist too.

#![allow(clippy::unwrap_used, reason = "helpers of a test program")]

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Folders of the source tree by which a path in the text is recognized.
const FOLDERS: &[&str] = &["src", "tests", "tools", "docs", "fixtures", "findings", "benches", "fuzz", "pcap-tests"];

/// What a page refers to, and what can be referred to in it.
#[derive(Debug, Default)]
struct Page {
    links: Vec<String>,
    paths: Vec<String>,
    anchors: Vec<String>,
}

/// The anchor of a heading, as GitHub makes it: letters and digits in lower case, and `-` for blanks.
fn slug(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

fn is_path(code: &str) -> bool {
    let is_plain = code.chars().all(|c| c.is_ascii_alphanumeric() || "./-_".contains(c));
    is_plain && code.split_once('/').is_some_and(|(first, _)| FOLDERS.contains(&first))
}

fn read(text: &str) -> Page {
    let (mut page, mut heading) = (Page::default(), None::<String>);
    let mut seen: HashMap<String, usize> = HashMap::new();
    for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                page.links.push(dest_url.to_string())
            }
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::End(TagEnd::Heading(_)) => {
                let own = slug(&heading.take().unwrap_or_default());
                let times = seen.entry(own.clone()).or_default();
                page.anchors.push(if *times == 0 { own } else { format!("{own}-{times}") });
                *times += 1;
            }
            Event::Text(text) => heading.iter_mut().for_each(|heading| *heading += &text),
            Event::Code(code) => {
                heading.iter_mut().for_each(|heading| *heading += &code);
                if is_path(&code) {
                    page.paths.push(code.to_string());
                }
            }
            _ => {}
        }
    }
    page
}

/// Returns what is wrong with the references of a page in a folder.
fn wrong(page: &Page, own: &Path) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let lacks = |path: &&String| !root.join(path).exists();
    let mut wrong: Vec<String> = page.paths.iter().filter(lacks).map(|path| format!("{path} does not exist")).collect();
    for link in page.links.iter().filter(|link| !link.contains("://")) {
        let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
        let path = if file.is_empty() { own.to_owned() } else { own.parent().unwrap().join(file) };
        if !path.exists() {
            wrong.push(format!("link {link}: there is no such file"));
        } else if !anchor.is_empty() {
            let target = read(&std::fs::read_to_string(&path).unwrap());
            if !target.anchors.iter().any(|own| own == anchor) {
                wrong.push(format!("link {link}: there is no such heading, but {:?}", target.anchors));
            }
        }
    }
    wrong
}

fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<PathBuf> = docs.filter(|path| path.extension().is_some_and(|end| end == "md")).collect();
    all.push(root.join("README.md"));
    all.sort();
    all
}

#[test]
fn every_link_leads_somewhere() {
    let pages = pages();
    assert!(pages.len() > 20, "{pages:?}");
    let mut found = Vec::new();
    for path in &pages {
        let page = read(&std::fs::read_to_string(path).unwrap());
        found.extend(wrong(&page, path).into_iter().map(|what| format!("{}: {what}", path.display())));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn every_page_is_in_the_index() {
    let index = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/README.md");
    let links = read(&std::fs::read_to_string(&index).unwrap()).links;
    for path in pages().iter().filter(|path| path.parent() == index.parent() && **path != index) {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(links.iter().any(|link| link == name), "{name} is not in docs/README.md");
    }
}

#[test]
fn a_dead_link_is_found() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/README.md");
    let of = |text: &str| wrong(&read(text), &own);
    for good in [
        "[x](#tasks) [y](../README.md#the-map) [z](https://example.invalid/a) `src/lib.rs` `src/engine/`",
        "[reload](reload.md)",
    ] {
        assert_eq!(of(good), Vec::<String>::new(), "{good}");
    }
    assert_eq!(read("# A `b` c: d!\n# A\n# A\n").anchors, ["a-b-c-d", "a", "a-1"]);
    for bad in [
        "[x](none.md)",
        "[x](#no-such-part)",
        "[y](../README.md#no-such-part)",
        "![p](none.png)",
        "`src/no/such.rs`",
        "| a |\n|---|\n| [x](none.md) |",
    ] {
        assert_eq!(of(bad).len(), 1, "{bad}");
    }
}
