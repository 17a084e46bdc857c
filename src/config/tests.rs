//! Whole files: the examples, every broken file under `fixtures/config/`, sizes, and damage.

mod example;
mod keys;
mod listing;
mod outside;
mod values;

use super::*;
use crate::balance::{Listen, Protocol};
use crate::flow::{TableSettings, Timeouts};
use crate::ids::{PoolId, ServerId};
use proptest::prelude::*;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

const GATEWAY: &str = include_str!("../../fixtures/config/gateway.toml");
const MINIMAL: &str = include_str!("../../fixtures/config/minimal.toml");

fn fixtures(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/config").join(folder)
}

/// Compares what `render` says of each file of a folder with the `.txt` beside it; `BLESS=1` rewrites the `.txt`.
fn each_file_says(folder: &str, least: usize, render: impl Fn(&[u8], &str) -> String) {
    let (mut seen, mut wrong) = (0, Vec::new());
    let folder = fixtures(folder);
    let mut paths: Vec<PathBuf> =
        folder.read_dir().expect("the folder of fixtures").map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name in UTF-8").to_string();
        if !name.ends_with(".toml") {
            assert!(path.with_extension("toml").exists(), "{name} has no configuration");
            continue;
        }
        seen += 1;
        let got = render(&std::fs::read(&path).expect("a file"), &name) + "\n";
        let expected = path.with_extension("txt");
        if std::env::var_os("BLESS").is_some_and(|value| value == "1") {
            std::fs::write(&expected, &got).expect("the expected text can be written");
        } else if std::fs::read_to_string(&expected).ok().as_deref() != Some(got.as_str()) {
            wrong.push(format!("the .txt of {name} should say:\n{got}"));
        }
    }
    assert!(wrong.is_empty(), "{}\nBLESS=1 rewrites the expected texts", wrong.join("\n"));
    assert!(seen >= least, "only {seen} files in {}", folder.display());
}

#[test]
fn each_broken_file_gets_its_message() {
    each_file_says("broken", 30, |bytes, name| parse_bytes(bytes, name).expect_err(name).to_string());
}

#[test]
fn the_configuration_of_the_package_is_idle_and_its_example_is_valid() {
    let text = include_str!("../../tools/deb/equipoise.toml");
    let parsed = parse_with_warnings(text, "equipoise.toml").unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((parsed.warnings.len(), parsed.settings.services.len()), (0, 0));
    let (before, example) = text.split_once("# [[service]]").expect("an example");
    let example = format!("# [[service]]{example}").replace("# ", "").replace("#\n", "\n");
    let settings = parse(&format!("{}{example}", before.replace("service = []\n", "")), "equipoise.toml");
    let settings = settings.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((settings.services.len(), settings.servers.len()), (1, 2));
    // If the line is not deleted, the error says so.
    let error = parse(&format!("{before}{example}"), "equipoise.toml").expect_err("two of them").to_string();
    assert!(error.contains("delete the line `service = []`"), "{error}");
}

#[test]
fn each_warned_file_gets_its_warnings_and_its_settings() {
    each_file_says("warned", 3, |bytes, name| {
        let parsed = parse_bytes(bytes, name).unwrap_or_else(|error| panic!("{error}"));
        assert!(!parsed.warnings.is_empty(), "{name}");
        parsed.render_warnings(false).trim_end().to_string()
    });
}

#[test]
fn the_example_is_read_as_its_comments_say() {
    let parsed = parse_with_warnings(GATEWAY, "gateway.toml").unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(parsed.warnings, []);
    let settings = &parsed.settings;
    // Its [gateway], [flows] and [timeouts] show the defaults, where there are any.
    let (probe_v4, probe_v6) = ("192.0.2.1".parse().ok(), "2001:db8:80::1".parse().ok());
    assert_eq!(
        settings.gateway,
        GatewaySettings { client_mtu: Some(1500), probe_v4, probe_v6, ..GatewaySettings::default() }
    );
    let established = crate::time::Duration::from_secs(3 * 3600);
    let dns = crate::time::Duration::from_secs(30);
    let dns = Timeouts { udp_one_way: dns, udp_two_way: dns, ..Timeouts::default() };
    let profiles = vec![Timeouts { established, ..Timeouts::default() }, dns];
    assert_eq!(settings.table, TableSettings { max_flows: 262_144, profiles, ..TableSettings::default() });
    assert_eq!(settings.seed, 1);
    let names: Vec<&str> = settings.servers.iter().map(|server| server.name.as_str()).collect();
    assert_eq!(names, ["web-1", "web-2", "web-3", "dns-1", "dns-2", "media-1", "media-2"], "the order of the file");
    assert_eq!(settings.pools[1].servers, [ServerId(3), ServerId(4)]);
    assert!(settings.pools.iter().enumerate().all(|(at, pool)| {
        pool.servers.iter().all(|server| settings.servers[server.0 as usize].pool == PoolId(at as u32))
    }));
    let pools: Vec<PoolId> = settings.services.iter().map(|service| service.pool).collect();
    assert_eq!(pools, [PoolId(0), PoolId(0), PoolId(1), PoolId(2)]);
    let (web, dns) = (&settings.servers[0], &settings.servers[3]);
    assert_eq!((web.v4, web.v6), ("198.51.100.11".parse().ok(), "2001:db8:100::11".parse().ok()));
    assert_eq!((web.port, web.weight, dns.port, dns.weight), (None, 2, Some(5353), 1));
    let range = Listen::one("192.0.2.90".parse().expect("an address"), Protocol::Udp, 16384, 16483);
    assert_eq!(settings.services[3].listen, [range]);
    let want = "configuration is valid: 4 services, 12 listen addresses, 3 pools, 7 servers, 4 monitors, 2 rules, \
                at most 262,144 flows, device equipoise0";
    assert_eq!(summary(settings), want);
}

#[test]
fn the_minimal_configuration_is_valid() {
    let parsed = parse_bytes(MINIMAL.as_bytes(), "minimal.toml").unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(parsed.settings, parse(MINIMAL, "elsewhere.toml").expect("valid"));
    assert_eq!((parsed.render_warnings(true), parsed.settings.servers.len()), (String::new(), 1));
}

#[test]
fn problems_can_be_serialised() {
    let text = MINIMAL.replace("web-1", "web 1").replace("pool = \"web\"", "pool = \"wep\"");
    let error = parse(&text, "x.toml").expect_err("two mistakes");
    let json = serde_json::to_value(&error).expect("serialisable");
    assert_eq!(json["origin"], "x.toml");
    assert_eq!(json["problems"][0]["severity"], "error");
    assert_eq!((&json["problems"][0]["line"], &json["problems"][0]["column"]), (&5.into(), &8.into()));
    assert_eq!(json["problems"][0]["excerpt"], "\"wep\"");
    assert_eq!(json["problems"][1]["title"], "\"web 1\" is not a valid name");
    assert_eq!(json["problems"].as_array().map(Vec::len), error.problems().len().into());
    assert_eq!(json["problems"].as_array().map(Vec::len), Some(2));
}

#[test]
fn colours_appear_only_on_request() {
    let error = parse("seed = -1", "x.toml").expect_err("wrong");
    assert!(!error.render(false).contains('\u{1b}'));
    assert!(error.render(true).contains("\u{1b}["));
}

#[test]
fn bytes_that_are_not_utf8_are_named_with_their_offset() {
    for (bytes, offset, byte, help) in [
        (&b"\xff\xfes\0e\0"[..], 0, "0xff", "UTF-16"),
        (b"\x1f\x8b\x08\0", 1, "0x8b", "gzip"),
        (b"seed = 1\nx = \"\xc3\"", 14, "0xc3", "UTF-8"),
        (b"# cut off \xe2\x82", 10, "0xe2", "UTF-8"),
    ] {
        let error = parse_bytes(bytes, "x.toml").expect_err("not UTF-8");
        let [problem] = error.problems() else { panic!("{error}") };
        assert_eq!(problem.title, format!("the file is not UTF-8 text: byte {byte} at offset {offset}"));
        assert!(problem.help.contains(help), "{error}");
        assert!(error.to_string().contains("x.toml"), "{error}");
    }
}

/// A configuration with one pool, in which every `nth` server is wrong in two ways.
fn large(servers: usize, nth: usize) -> String {
    let mut text = MINIMAL.to_string();
    for at in 0..servers {
        let (name, address) = if at % nth == nth - 1 { (0, at % 250) } else { (at, at) };
        let [_, b, c, d] = u32::try_from(address).expect("small").to_be_bytes();
        write!(text, "[[pool.server]]\nname = \"s{name}\"\naddress = \"10.{b}.{c}.{d}\"\n").expect("a string grows");
    }
    text
}

/// The limit is generous, as test machines are noisy; quadratic time would take minutes.
#[test]
#[allow(clippy::disallowed_methods, reason = "a test of speed reads the clock")]
fn ten_thousand_servers_are_read_in_linear_time() {
    let begin = Instant::now();
    let settings = parse(&large(10_000, usize::MAX), "large.toml").unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(settings.servers.len(), 10_001);
    let error = parse(&large(10_000, 2), "large.toml").expect_err("half of them are wrong");
    assert!(error.problems().len() >= 9_800, "{}", error.problems().len());
    let shown = error.to_string();
    assert!(shown.len() < 60_000 && shown.contains("more problems"), "{}", shown.len());
    assert!(begin.elapsed().as_secs() < 20, "{:?}", begin.elapsed());
}

/// Parses without a panic; an error has a problem, and its places are within the text.
fn survives(bytes: &[u8]) {
    match parse_bytes(bytes, "x.toml") {
        Ok(parsed) => {
            assert!(!parsed.settings.services.is_empty());
            parsed.render_warnings(false);
        }
        Err(error) => {
            assert!(error.problems().iter().any(|problem| problem.severity == Severity::Error));
            let lines = bytes.iter().filter(|byte| **byte == b'\n').count() + 1;
            assert!(error.problems().iter().all(|problem| (1..=lines).contains(&problem.line)));
            let shown = error.render(false);
            assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{shown:?}");
            error.render(true);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        survives(&bytes);
    }

    #[test]
    fn random_text_of_toml_characters_never_panics(text in "(seed|name|icmp|\\[timeouts\\]\n|\\[\\[pool\\]\\]\n|[\\[\\]{}=\"'.,#\\\\a-cu0-9ü\u{9b}\u{202e}\u{1b}\t\r\n :/_-]){0,80}") {
        survives(text.as_bytes());
    }

    #[test]
    fn a_damaged_example_never_panics(
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0..40_usize, "[\\[\\]{}=\"'.,#\\\\a0ü\r\n :/-]{0,4}"), 1..6)
    ) {
        // Without comments, so that the damage hits what is read.
        let lines: Vec<&str> = GATEWAY.lines().filter(|line| !line.starts_with('#')).collect();
        let mut bytes = lines.join("\n").into_bytes();
        for (at, length, with) in cuts {
            let at = at.index(bytes.len() + 1);
            let end = (at + length).min(bytes.len());
            bytes.splice(at..end, with.bytes());
        }
        survives(&bytes);
    }

    #[test]
    fn a_listen_address_of_random_text_never_panics(text in "[\\[\\]0-9a-f.:/tcpudim-]{0,30}") {
        for listen in address::listen(&text).into_iter().flatten() {
            prop_assert_eq!(address::listen(&listen.to_string()), Ok(vec![listen]));
        }
    }
}
