//! Imports go downward only, nothing outside the gateway touches the system, and the tools see what they may see.
//!
//! The sources are read as text: every path, in a `use` declaration or inline, is checked against [`LAYERS`] in `src/` and
//! against [`DRIVERS`] beside it. Comments, literals and inline test modules are not read.

#[path = "layering/tokens.rs"]
mod tokens;

use std::fs;
use std::path::{Path, PathBuf};
use tokens::{paths, tokens, without_tests};

/// What a layer may use.
struct Layer {
    name: &'static str,
    /// The layers below it.
    below: &'static [&'static str],
    /// The modules of [`SYSTEM`] that it may use nevertheless.
    std: &'static [&'static str],
    /// Whether it may use all of `std` and the crates of the feature `daemon`.
    daemon: bool,
}

/// What a program beside `src/` may use; it may use all of `std`.
struct Driver {
    dir: &'static str,
    /// Modules of the library.
    uses: &'static [&'static str],
    /// Crates of the feature `daemon`.
    daemon: &'static [&'static str],
}

const fn core(name: &'static str, below: &'static [&'static str]) -> Layer {
    Layer { name, below, std: &[], daemon: false }
}

const CORE: &[&str] = &[
    "ids",
    "time",
    "histogram",
    "state",
    "packet",
    "flow",
    "balance",
    "policy",
    "health",
    "sources",
    "config",
    "engine",
    "sync",
];
const WORLDS: &[&str] = &[
    "ids",
    "time",
    "state",
    "packet",
    "flow",
    "balance",
    "policy",
    "health",
    "sources",
    "config",
    "engine",
    "sync",
    "capture",
    "control",
    "replay",
    "import",
    "web",
    "gateway",
    "conformance",
    "demo",
    "cli",
];

/// The layers, bottom up, in the order of README's map.
const LAYERS: &[Layer] = &[
    core("ids", &[]),
    core("time", &[]),
    core("bucket", &["time"]),
    core("histogram", &[]),
    core("rng", &[]),
    core("schedule", &["time"]),
    core("state", &[]),
    core("tournament", &["rng"]),
    core("words", &[]),
    core("packet", &["ids", "time"]),
    core("flow", &["ids", "time", "rng", "tournament", "words", "packet"]),
    core("balance", &["ids", "time", "rng", "schedule", "state", "tournament", "words", "packet", "flow"]),
    core("policy", &["ids", "time", "bucket", "rng", "packet", "flow", "balance"]),
    core("health", &["ids", "time", "histogram", "rng", "schedule", "state", "words", "packet"]),
    core("sources", &["ids", "time", "balance"]),
    core("config", &["ids", "time", "state", "words", "packet", "flow", "balance", "policy", "health", "sources"]),
    core(
        "engine",
        &["ids", "time", "bucket", "state", "words", "packet", "flow", "balance", "policy", "health", "config"],
    ),
    core("sync", &["ids", "time", "words", "packet", "flow", "engine"]),
    Layer { name: "capture", below: &["ids", "time", "packet"], std: &["io", "sync"], daemon: false },
    Layer { name: "control", below: CORE, std: &["sync"], daemon: false },
    Layer {
        name: "replay",
        below: &[
            "ids", "time", "state", "packet", "flow", "balance", "policy", "health", "config", "engine", "capture",
            "control",
        ],
        std: &["io"],
        daemon: false,
    },
    core("import", &[]),
    core("web", &["sync", "control"]),
    Layer {
        name: "gateway",
        below: &[
            "ids", "time", "bucket", "state", "packet", "flow", "balance", "policy", "health", "sources", "config",
            "engine", "sync", "capture", "control", "web",
        ],
        std: &[],
        daemon: true,
    },
    Layer { name: "conformance", below: &["config", "replay"], std: &[], daemon: true },
    Layer { name: "demo", below: WORLDS, std: &[], daemon: true },
    Layer { name: "cli", below: WORLDS, std: &[], daemon: true },
    Layer { name: "main", below: &["cli"], std: &[], daemon: true },
];

/// The programs beside `src/` that are held to a rule.
const DRIVERS: &[Driver] = &[
    // What the tool can print, a golden test can print.
    Driver { dir: "tools/eqctl", uses: &["control"], daemon: &["clap", "ratatui", "terminal_size"] },
    // Manual pages and completions.
    Driver { dir: "tools/deb", uses: &["cli"], daemon: &["clap"] },
    // The gateway for its huge pages; the system for threads and signals of live gateways.
    Driver {
        dir: "benches",
        uses: &[
            "ids", "time", "state", "packet", "flow", "balance", "policy", "health", "config", "engine", "control",
            "gateway",
        ],
        daemon: &["rustix"],
    },
    Driver {
        dir: "fuzz",
        uses: &[
            "ids", "time", "packet", "flow", "health", "balance", "policy", "sources", "config", "engine", "sync",
            "capture", "control", "web",
        ],
        daemon: &[],
    },
];

/// Files that may use more of `std` than their layer.
const EXCEPTIONS: &[(&str, &[&str])] = &[
    // The client side of the control socket.
    ("control/client.rs", &["io", "os"]),
    // Captures and reports as files, replaced atomically.
    ("replay/files.rs", &["fs", "process"]),
];

/// Modules of `std` that touch the system or block.
const SYSTEM: &[&str] = &["arch", "env", "fs", "io", "net", "os", "process", "sync", "thread", "time"];
/// What is a plain value in these modules.
const PLAIN: &[(&str, &[&str])] = &[
    ("time", &["Duration"]),
    // Immutable where the core has it: a shared value without a lock.
    ("sync", &["Arc"]),
    ("net", &["IpAddr", "Ipv4Addr", "Ipv6Addr", "SocketAddr", "SocketAddrV4", "SocketAddrV6", "AddrParseError"]),
];

/// Checks a file's text; `file` is its path below `src/`. Returns one line per violation.
fn check(file: &str, text: &str, daemon: &[String]) -> Vec<String> {
    let module: Vec<&str> = file.trim_end_matches(".rs").split('/').filter(|name| *name != "mod").collect();
    let Some(layer) = LAYERS.iter().find(|layer| layer.name == module[0]) else {
        return vec![format!("{file}: `{}` is not a layer: add it to LAYERS", module[0])];
    };
    let tokens = without_tests(tokens(text));
    let mut wrong: Vec<String> = paths(&tokens)
        .iter()
        .filter_map(|path| refuse(layer, file, &module, path, daemon))
        .map(|why| format!("{file}: {why}"))
        .collect();
    for (i, token) in tokens.iter().enumerate() {
        let behind = |n: usize| tokens.get(i + n).map_or("", String::as_str);
        match (token.as_str(), behind(1), behind(2)) {
            ("unsafe", ..) if layer.name != "gateway" => wrong.push(format!("{file}: unsafe code outside gateway/")),
            ("#", "[", "path") | ("include", "!", _) => {
                wrong.push(format!("{file}: includes the text of another file"))
            }
            _ => {}
        }
    }
    wrong
}

/// Checks the text of a driver's file; `file` is its path below the project's root. Returns one line per violation.
fn check_driver(file: &str, text: &str, daemon: &[String]) -> Vec<String> {
    let inside = |driver: &&Driver| file.strip_prefix(driver.dir).is_some_and(|rest| rest.starts_with('/'));
    let Some(driver) = DRIVERS.iter().find(inside) else {
        return vec![format!("{file}: its directory has no rule: add it to DRIVERS")];
    };
    let refuse = |path: &Vec<String>| {
        let mut names = path.iter().map(String::as_str).filter(|name| !name.is_empty());
        let first = names.next()?;
        let why = match (first, names.next()) {
            ("equipoise", None | Some("*" | "self")) => "the library as a whole".into(),
            ("equipoise", Some(module)) if !driver.uses.contains(&module) => {
                format!("{} may not use {module}", driver.dir)
            }
            (name, _) if daemon.iter().any(|krate| krate == name) && !driver.daemon.contains(&name) => {
                format!("a crate of the daemon in {}", driver.dir)
            }
            _ => return None,
        };
        Some(format!("{file}: `{}`: {why}", path.join("::")))
    };
    let tokens = without_tests(tokens(text));
    let mut wrong: Vec<String> = paths(&tokens).iter().filter_map(refuse).collect();
    if tokens.iter().any(|token| token == "unsafe") {
        wrong.push(format!("{file}: unsafe code outside src/gateway/"));
    }
    wrong
}

/// Says why a layer may not use a path.
fn refuse(layer: &Layer, file: &str, module: &[&str], path: &[String], daemon: &[String]) -> Option<String> {
    let shown = path.join("::");
    let mut rest = path.iter().map(String::as_str).skip_while(|name| name.is_empty() || *name == "self").peekable();
    let first = rest.next()?;
    let mut up = 0;
    match first {
        "crate" | "equipoise" => up = module.len(),
        "super" => {
            up = 1;
            while rest.next_if(|name| matches!(*name, "super" | "self")).is_some() {
                up += 1;
            }
        }
        "std" | "core" | "alloc" => return refuse_std(layer, file, &shown, rest.next(), rest.next()),
        name if !layer.daemon && daemon.iter().any(|krate| krate == name) => {
            return Some(format!("`{shown}`: a crate of the daemon in {}", layer.name));
        }
        _ => {}
    }
    if up == 0 || up < module.len() {
        return None;
    }
    // A path from the root: the next name is a layer. Without one, or with `*`, it would be an alias of the root.
    match rest.next() {
        None | Some("*" | "self") => Some(format!("`{shown}`: the crate as a whole")),
        Some(name) if name == layer.name || layer.below.contains(&name) => None,
        Some(name) => Some(format!("`{shown}`: {name} is not below {}", layer.name)),
    }
}

fn refuse_std(layer: &Layer, file: &str, shown: &str, module: Option<&str>, name: Option<&str>) -> Option<String> {
    let Some(module) = module.filter(|module| !matches!(*module, "*" | "self")) else {
        return Some(format!("`{shown}`: std as a whole"));
    };
    let plain = PLAIN.iter().any(|(of, names)| *of == module && name.is_some_and(|name| names.contains(&name)));
    let excepted = EXCEPTIONS.iter().any(|(of, modules)| *of == file && modules.contains(&module));
    let allowed = layer.daemon || plain || excepted || layer.std.contains(&module) || !SYSTEM.contains(&module);
    (!allowed).then(|| format!("`{shown}`: touches the system, in {}", layer.name))
}

/// Returns the crates of the feature `daemon`, spelled as in code.
fn daemon_crates() -> Vec<String> {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("the manifest can be read");
    let feature = manifest.split("\ndaemon = [").nth(1).and_then(|rest| rest.split(']').next()).expect("the feature");
    feature.split('"').filter_map(|word| word.strip_prefix("dep:")).map(|name| name.replace('-', "_")).collect()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the Rust files below a directory, sorted.
fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap_or_else(|e| panic!("read {}: {e}", dir.display())) {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            if !path.ends_with("target") {
                found.extend(sources(&path));
            }
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn imports_go_downward_and_only_the_gateway_touches_the_system() {
    let (src, daemon) = (root().join("src"), daemon_crates());
    let files = sources(&src);
    let mut wrong = Vec::new();
    for path in &files {
        let file = path.strip_prefix(&src).expect("below src").to_str().expect("a plain name");
        // lib.rs only lists the layers; test files may use what they like.
        if file == "lib.rs" || file.split('/').any(|part| part == "testing.rs" || part.starts_with("tests")) {
            continue;
        }
        wrong.extend(check(file, &fs::read_to_string(path).expect("a source file"), &daemon));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(files.len() > 50, "only {} files seen", files.len());
}

#[test]
fn tools_benches_and_fuzz_targets_use_what_they_may() {
    let daemon = daemon_crates();
    let mut wrong = Vec::new();
    let mut read = Vec::new();
    for path in ["tools", "benches", "fuzz"].into_iter().flat_map(|dir| sources(&root().join(dir))) {
        let file = path.strip_prefix(root()).expect("below the root").to_str().expect("a plain name").to_owned();
        wrong.extend(check_driver(&file, &fs::read_to_string(&path).expect("a source file"), &daemon));
        read.push(file);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for driver in DRIVERS {
        assert!(read.iter().any(|file| file.starts_with(driver.dir)), "no source file in {}", driver.dir);
    }
}

/// Returns the rows of README's map: the modules of `src/` that each one names.
fn map() -> Vec<Vec<String>> {
    let readme = fs::read_to_string(root().join("README.md")).expect("README.md");
    let map = readme.split("\n## ").find(|section| section.starts_with("The map\n")).expect("a section \"The map\"");
    let places = map.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let modules = |place: &str| {
        let names = place.split('`').filter_map(|name| name.strip_prefix("src/"));
        names.map(|name| name.trim_end_matches(".rs").trim_end_matches('/').to_owned()).collect()
    };
    places.map(modules).filter(|row: &Vec<String>| !row.is_empty()).collect()
}

#[test]
fn the_map_in_the_readme_shows_the_layers_in_order() {
    let map = map();
    let row = |name: &str| map.iter().position(|row| row.iter().any(|module| module == name));
    let layers: Vec<&Layer> = LAYERS.iter().filter(|layer| layer.name != "main").collect();
    let rows: Vec<(&str, Option<usize>)> = layers.iter().map(|layer| (layer.name, row(layer.name))).collect();
    assert!(rows.iter().all(|(_, row)| row.is_some()), "not in the map: {rows:?}");
    assert!(rows.is_sorted_by_key(|(_, row)| *row), "the map has another order than LAYERS: {rows:?}");
    let strangers: Vec<_> = map.iter().flatten().filter(|name| layers.iter().all(|l| l.name != **name)).collect();
    assert!(strangers.is_empty(), "in the map and not in LAYERS: {strangers:?}");
}

#[test]
fn the_list_of_layers_is_in_order() {
    for (i, layer) in LAYERS.iter().enumerate() {
        let place = |name: &str| LAYERS.iter().position(|other| other.name == name).expect("a layer");
        let above = layer.below.iter().filter(|below| !layer.daemon && place(below) >= i);
        assert_eq!(above.collect::<Vec<_>>(), Vec::<&&str>::new(), "{}", layer.name);
    }
}

#[test]
fn the_crates_of_the_daemon_are_read_from_the_manifest() {
    let daemon = daemon_crates();
    for name in ["mio", "rustix", "libc", "clap", "env_logger", "netlink_sys", "signal_hook_mio", "aya"] {
        assert!(daemon.iter().any(|krate| krate == name), "{name} in {daemon:?}");
    }
}

#[test]
fn a_forbidden_path_is_refused_however_it_is_written() {
    let forbidden = [
        ("engine/hit.rs", "use mio::Poll;"),
        ("engine/hit.rs", "use ::mio::Poll;"),
        ("engine/hit.rs", "use r#mio::Poll;"),
        ("engine/hit.rs", "use mio as harmless;"),
        ("engine/hit.rs", "use {std::fmt, mio::{Poll, Token}};"),
        ("engine/hit.rs", "pub(crate) use\n    // beside\n    mio::Poll;"),
        ("engine/hit.rs", "extern crate mio;"),
        ("engine/hit.rs", "fn f() { let poll = mio::Poll::new(); }"),
        ("engine/hit.rs", "fn f(poll: &::mio::Poll) {}"),
        ("engine/hit.rs", "fn f() { libc::getpid(); }"),
        ("engine/mod.rs", "use crate::gateway;"),
        ("engine/mod.rs", "use super::gateway::Tun;"),
        ("engine/hit.rs", "use super::super::gateway::Tun;"),
        ("engine/hit.rs", "use self::super::super::gateway::Tun;"),
        ("engine/hit.rs", "use crate::{flow::Table, gateway::Tun};"),
        ("engine/hit.rs", "use crate as all;"),
        ("engine/hit.rs", "use crate::*;"),
        ("engine/hit.rs", "use crate::{self as all};"),
        ("engine/hit.rs", "use equipoise::gateway::Tun;"),
        ("engine/hit.rs", "fn f() { crate::gateway::run() }"),
        ("engine/hit.rs", "fn f() -> Option<crate::control::Client> { None }"),
        ("engine/hit.rs", "use std::time::Instant;"),
        ("engine/hit.rs", "use std::time;"),
        ("engine/hit.rs", "use std::time::*;"),
        ("engine/hit.rs", "use std::{fmt, time::{Duration, SystemTime}};"),
        ("engine/hit.rs", "fn f() { std::time::Instant::now(); }"),
        ("engine/hit.rs", "use std as s;"),
        ("engine/hit.rs", "use std::{self};"),
        ("engine/hit.rs", "use std::net::{IpAddr, TcpStream};"),
        ("engine/hit.rs", "use std::net as n;"),
        ("engine/hit.rs", "use std::sync::Mutex;"),
        ("flow/table.rs", "use std::thread;"),
        ("balance/mod.rs", "use std::fs;"),
        ("packet/parse.rs", "fn f() { std::process::exit(1) }"),
        ("config/mod.rs", "use std::fs::read_to_string;"),
        ("config/mod.rs", "use std::env;"),
        ("packet/parse.rs", "use crate::flow::Key;"),
        ("flow/table.rs", "use crate::balance::Balancer;"),
        ("flow/table.rs", "use crate::engine::Engine;"),
        ("capture/mod.rs", "use crate::engine::Engine;"),
        ("control/session.rs", "use std::os::unix::net::UnixStream;"),
        ("replay/mod.rs", "use std::fs::File;"),
        ("gateway/mod.rs", "use crate::demo::run;"),
        ("gateway/mod.rs", "use crate::cli::Args;"),
        ("main.rs", "use equipoise::engine::Engine;"),
        ("engine/hit.rs", "fn f() { unsafe { g() } }"),
        ("engine/hit.rs", "#[path = \"../gateway/tun.rs\"] mod tun;"),
        ("engine/hit.rs", "include!(\"../gateway/tun.rs\");"),
        ("engine/hit.rs", "const A: char = '\"'; use mio::Poll; const B: char = '\"';"),
        ("engine/hit.rs", "const A: &str = r#\"\"\"#; use mio::Poll;"),
        ("engine/hit.rs", "#[cfg(test)] mod tests { fn f() {} } use mio::Poll;"),
        ("engine/hit.rs", "#[cfg(test)] mod tests; use mio::Poll;"),
        ("misc.rs", "use std::fmt;"),
    ];
    let daemon = daemon_crates();
    for (file, text) in forbidden {
        assert_ne!(check(file, text, &daemon), Vec::<String>::new(), "{file}: {text}");
    }
}

#[test]
fn a_driver_that_reaches_too_far_is_refused() {
    let daemon = daemon_crates();
    let forbidden = [
        ("tools/eqctl/main.rs", "use equipoise::engine::FlowRow;"),
        ("tools/eqctl/main.rs", "use equipoise::{control::Request, engine::FlowRow};"),
        ("tools/eqctl/main.rs", "fn f() { equipoise::gateway::run() }"),
        ("tools/eqctl/main.rs", "use equipoise as e;"),
        ("tools/eqctl/main.rs", "use equipoise::*;"),
        ("tools/eqctl/main.rs", "use ::equipoise::ids;"),
        ("tools/eqctl/main.rs", "use mio::Poll;"),
        ("tools/eqctl/main.rs", "fn f() { unsafe { g() } }"),
        ("tools/other/main.rs", "fn main() {}"),
        ("benches/engine.rs", "use equipoise::replay::Args;"),
        ("benches/engine.rs", "use mio::Poll;"),
        ("fuzz/bodies.rs", "use equipoise::gateway::Gateway;"),
    ];
    for (file, text) in forbidden {
        assert_ne!(check_driver(file, text, &daemon), Vec::<String>::new(), "{file}: {text}");
    }
    let permitted = [
        ("tools/eqctl/main.rs", "use equipoise::control::{Request, render}; use clap::Parser; use std::fs;"),
        ("benches/engine.rs", "#[path = \"../tests/common/random.rs\"] mod random; use equipoise::engine::Engine;"),
        ("fuzz/bodies/drive.rs", "use super::super::oracle; use equipoise::capture::Reader;"),
    ];
    for (file, text) in permitted {
        assert_eq!(check_driver(file, text, &daemon), Vec::<String>::new(), "{file}: {text}");
    }
}

#[test]
fn a_permitted_line_passes() {
    let permitted = [
        ("engine/hit.rs", "use crate::flow::{Found, Step}; use super::Engine; use std::fmt;"),
        ("engine/hit.rs", "use std::net::{IpAddr, SocketAddr}; use std::time::Duration;"),
        ("engine/hit.rs", "// use mio::Poll;\n/* mio::Poll /* std::fs */ */ const A: &str = \"mio::Poll\";"),
        ("engine/hit.rs", "//! mio::Poll\nconst A: &[u8] = br##\"use mio::Poll;\"##;"),
        ("engine/hit.rs", "fn f<'a>(x: &'a str) -> impl Iterator + use<'a> { self::g(x) }"),
        ("engine/hit.rs", "#[cfg(test)] mod tests { use std::fs; fn f() { if true {} } }"),
        ("control/client.rs", "use std::os::unix::net::UnixStream; use std::io;"),
        ("replay/files.rs", "use std::fs::File;"),
        ("gateway/tun.rs", "use mio::unix::SourceFd; fn f() { unsafe { libc::getpid() }; }"),
        ("demo/mod.rs", "use crate::gateway::run; use std::time::Instant;"),
        ("main.rs", "use equipoise::cli;"),
        ("time.rs", "pub use std::time::Duration;"),
    ];
    for (file, text) in permitted {
        assert_eq!(check(file, text, &daemon_crates()), Vec::<String>::new(), "{text}");
    }
}
