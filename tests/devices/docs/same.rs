//! What counts as the same output: words and columns are compared, and figures that do not depend on how fast the machine is.
//! What `equipoise` prints without a gateway is compared to the byte.

use regex::Regex;
use std::sync::LazyLock;

/// What varies, and what stands for it.
static VARIES: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    let rules = [
        // What is configured is compared: values as in a file, and the timeout of a state.
        (r#"("|ends in )(\d+)(m\d\ds|ms|[smhd])"#, "${1}${2}_$3"),
        // Times of day.
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIME"),
        // Spans as tables print them (4.2s, 1h02m), and others (12 ms, 1.5us).
        (r"\b(\d+d\d\dh|\d+h\d\dm|\d+m\d\ds|\d+(\.\d+)? ?(ns|us|µs|ms|milliseconds)|\d+(\.\d+)?s)\b", "SPAN"),
        // Where nothing has been, there is nothing to vary.
        (r"\b([1-9][\d,]*(\.\d+)?|0\.\d+) (B|[KMGT]iB|[kMGT]?bit/s)", "SIZE"),
        (r"\b(pid|process) \d+\b", "$1 N"),
        // Ports that a client's kernel chooses; downloads have 40001 and the next ones.
        (r"\b(198\.51\.100\.\d+):(32[7-9]\d\d|3[3-9]\d{3}|400[1-9]\d|40[1-9]\d\d|4[1-9]\d{3}|[56]\d{4})\b", "$1:PORT"),
        // Flows: their place and generation in the table.
        (r"(^|\bflow )h?\d+\.\d+\b", "${1}N"),
        (r"^in [\d,]+ = .*: adds up$", "in = N: adds up"),
        // A latency is not measured while the gateway did not run.
        (r"\banswered in SPAN", "answered"),
        (r"\bup SPAN", "up"),
        // Of the last results of a monitor, those that failed: how many, if there are any, and of how many.
        (r" {2}0 of \d{1,2} {2}", "  0 of N  "),
        (r" {2}[1-9]\d? of \d{1,2} {2}", "  N of N  "),
        // Of a pair: what is under way, and what identifies all flows.
        (r"( \(digests agree\))?(, \d+ frames? behind)?$", ""),
        (r"^digest +[0-9a-f]+$", "digest N"),
        // Columns are as wide as their widest cell.
        (r" {2,}", "  "),
        (r"-{4,}", "----"),
    ];
    // The crate is built without the tables of Unicode.
    let ascii = |rule: &str| rule.replace(r"\b", r"(?-u:\b)").replace(r"\d", "[0-9]");
    rules.map(|(rule, by)| (Regex::new(&ascii(rule)).unwrap(), by)).into()
});

/// Headers of columns whose numbers vary.
const COUNTERS: &[&str] = &["PKTS IN", "PKTS OUT", "PACKETS", "DEVICE"];

fn plain(line: &str) -> String {
    let line = VARIES.iter().fold(line.to_owned(), |line, (rule, by)| rule.replace_all(&line, *by).into_owned());
    line.trim().to_owned()
}

/// A line of a table, without the numbers that end where a header of [`COUNTERS`] does.
fn without_counters(header: &str, line: &str) -> String {
    let mut line: Vec<char> = line.chars().collect();
    for end in COUNTERS.iter().filter_map(|column| header.find(column).map(|at| at + column.len())) {
        let before = line.get(..end).unwrap_or_default();
        let from = before.iter().rposition(|c| !c.is_ascii_digit() && *c != ',').map_or(0, |place| place + 1);
        line.get_mut(from..end).unwrap_or_default().fill(' ');
    }
    line.into_iter().collect()
}

fn plain_lines(lines: &[&str]) -> Vec<String> {
    let mut header = "";
    let mut all = Vec::new();
    for line in lines {
        let is_header = line.starts_with(|c: char| c.is_ascii_uppercase())
            && line.chars().all(|c| c.is_ascii_uppercase() || " /-+".contains(c));
        if is_header {
            header = line;
        }
        all.push(plain(&without_counters(header, line)));
    }
    all
}

/// Whether a command does the same wherever and whenever it runs: it talks to no gateway, and is none.
fn is_fixed(command: &str) -> bool {
    ["explain", "replay", "check", "import", "print"]
        .iter()
        .any(|name| command.strip_prefix("equipoise ").is_some_and(|words| words.split(' ').next() == Some(name)))
}

/// Whether a command printed what the page shows. A line `...` of the page stands for any lines.
pub fn same(command: &str, page: &[&str], printed: &[&str]) -> bool {
    fn fits(page: &[String], printed: &[String]) -> bool {
        match page {
            [] => printed.is_empty(),
            [dots, rest @ ..] if dots == "..." => (0..=printed.len()).any(|skip| fits(rest, &printed[skip..])),
            [line, rest @ ..] => printed.first() == Some(line) && fits(rest, &printed[1..]),
        }
    }
    let trim = |lines: &[&str]| {
        let end = lines.iter().rposition(|line| !line.trim().is_empty()).map_or(0, |last| last + 1);
        let lines = &lines[..end];
        if is_fixed(command) { lines.iter().map(|line| (*line).to_owned()).collect() } else { plain_lines(lines) }
    };
    fits(&trim(page), &trim(printed))
}

#[test]
fn figures_may_differ_and_words_and_columns_may_not() {
    let table = [
        "FLOW   CLIENT              SERVER       AGE  PKTS IN      IN",
        "7.0    198.51.100.7:40001  web/web-1   1.2s       12  1.4 KiB",
    ];
    let later = [
        "FLOW   CLIENT              SERVER       AGE  PKTS IN      IN",
        "12.5   198.51.100.7:40001  web/web-1  1m02s      104  2.0 MiB",
    ];
    assert!(same("eqctl flows", &table, &later));
    assert!(same("eqctl flows", &table, &[later[0], later[1], ""]), "an empty line at the end");
    assert!(same("eqctl flows", &["FLOW   ...", "..."][1..], &later));
    assert!(same("eqctl flows", &[table[0], "..."], &later));
    for (from, to) in [
        ("web-1", "web-2"),
        ("40001", "40002"),
        ("CLIENT", "FROM"),
        ("PKTS IN  ", ""),
        ("198.51.100.7", "198.51.100.8"),
    ] {
        let other = later.map(|line| line.replace(from, to));
        assert!(!same("eqctl flows", &table, &other.each_ref().map(String::as_str)), "{from} is {to}");
    }
    assert!(!same("eqctl flows", &table, &later[..1]) && !same("eqctl flows", &table[..1], &later));
    assert!(same(
        "eqctl flows",
        &["server web/web-1 is DOWN, 3 in a row (process 7)"],
        &["server web/web-1 is DOWN, 3 in a row (process 812)"]
    ));
    assert!(!same("eqctl flows", &["it has 1 flow left"], &["it has 2 flows left"]));
}

#[test]
fn what_is_configured_or_cannot_vary_is_compared() {
    for (page, other) in [
        (
            "timers  opening  ends in 4m00s, restarts: [timeouts]",
            "timers  opening  ends in 5m00s, restarts: [timeouts]",
        ),
        ("5 | tcp-established = \"900s\"", "5 | tcp-established = \"800s\""),
        ("web/web-1  up  3.5s  up  0 of 4  4.1 ms", "web/web-1  up  3.5s  up  1 of 4  4.1 ms"),
        ("up: 2 of 2 answered, average 11 ms", "up: 1 of 2 answered, average 11 ms"),
        (
            "shop/shop-2  3  up  0 of 20,000  due in 0.2500 rounds",
            "shop/shop-2  3  up  0 of 10,000  due in 0.2500 rounds",
        ),
        (
            "shop/shop-2  3  up  0 of 20,000  due in 0.2500 rounds",
            "shop/shop-2  3  up  0 of 20,000  due in 0.5000 rounds",
        ),
        ("flows      2 of 262,144 (0.0 %)", "flows      2 of 262,144 (0.1 %)"),
        ("web/web-3  0 B", "web/web-3  342 B"),
        ("IPv4 header checksum  0x8e45 -> 0x448b", "IPv4 header checksum  0x8e45 -> 0x448c"),
    ] {
        assert!(same("eqctl", &[page], &[page]) && !same("eqctl", &[page], &[other]), "{page}");
    }
    assert!(same(
        "eqctl",
        &["web/web-3  down  0.7s  down  2 of 3  refused"],
        &["web/web-3  down  1.7s  down  3 of 4  refused"]
    ));
    for (one, another, is_same) in [("43666", "40396", true), ("60999", "32768", true), ("40001", "40002", false)] {
        let [one, another] = [one, another].map(|port| format!("tcp  198.51.100.7:{port}  web"));
        assert_eq!(same("eqctl", &[&one], &[&another]), is_same, "{one}, {another}");
    }
    let [page, other] = [["frames 23, 3.8 KiB"], ["frames 23, 3.9 KiB"]];
    assert!(same("eqctl status", &page, &other) && !same("equipoise replay --config a b", &page, &other));
    assert!(same("equipoise run --config a", &page, &other));
}
