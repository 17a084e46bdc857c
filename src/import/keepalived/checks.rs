//! Checks of real servers.

use super::super::Notes;
use super::super::ipvs::{Ask, Check};
use super::tree::Item;
use super::{millis, number, unknown};

/// What checks inherit from the virtual and the real server. Times in milliseconds.
#[derive(Debug, Clone)]
pub(super) struct Usual {
    interval: u64,
    timeout: u64,
    retries: Option<u64>,
    pause: Option<u64>,
    is_down_at_first: bool,
    host: Option<String>,
}

impl Default for Usual {
    fn default() -> Self {
        let (interval, timeout) = (60_000, 5_000);
        Usual { interval, timeout, retries: None, pause: None, is_down_at_first: false, host: None }
    }
}

impl Usual {
    /// Takes a setting; returns false if it is none of checks.
    pub(super) fn takes(&mut self, own: &Item, notes: &mut Notes) -> bool {
        match own.word() {
            "delay_loop" => self.interval = millis(own, notes).unwrap_or(self.interval),
            "connect_timeout" => self.timeout = millis(own, notes).unwrap_or(self.timeout),
            "retry" | "nb_get_retry" | "nb_sock_retry" => self.retries = number(own, notes).or(self.retries),
            "delay_before_retry" => self.pause = millis(own, notes).or(self.pause),
            "alpha" => self.is_down_at_first = true,
            "virtualhost" => self.host = own.argument(1).map(str::to_owned),
            _ => return false,
        }
        true
    }
}

/// The blocks that check a server.
const CHECKS: [&str; 10] = [
    "TCP_CHECK",
    "HTTP_GET",
    "SSL_GET",
    "UDP_CHECK",
    "DNS_CHECK",
    "SMTP_CHECK",
    "PING_CHECK",
    "MISC_CHECK",
    "FILE_CHECK",
    "BFD_CHECK",
];

pub(super) fn is_check(word: &str) -> bool {
    CHECKS.contains(&word)
}

/// The record types that both know.
const RECORDS: [&str; 8] = ["A", "AAAA", "NS", "CNAME", "SOA", "MX", "TXT", "SRV"];

/// What a check says about where it connects to, and when.
struct Common {
    check: Check,
    /// What is left for the kind of check to read.
    rest: Vec<Item>,
}

/// Reads what all checks have; none if the check is of another host.
fn common(item: &Item, usual: &Usual, notes: &mut Notes) -> Option<Common> {
    let word = item.word();
    // Each kind has its own retries and pauses (`keepalived --dump-conf`).
    let (retries, pause) = match word {
        "HTTP_GET" | "SSL_GET" => (1, 3_000),
        "DNS_CHECK" => (3, usual.interval),
        _ => (1, 1_000),
    };
    let mut check = Check {
        place: item.place(),
        ask: Ask::Tcp,
        port: None,
        interval_ms: usual.interval,
        timeout_ms: usual.timeout,
        retries: usual.retries.unwrap_or(retries),
        pause_ms: usual.pause.unwrap_or(pause),
        is_down_at_first: usual.is_down_at_first,
    };
    let (mut rest, mut elsewhere) = (Vec::new(), None);
    let mut pause = None;
    for own in &item.items {
        match own.word() {
            "connect_ip" => elsewhere = Some(own),
            "connect_port" => check.port = number(own, notes).and_then(|port| u16::try_from(port).ok()),
            "connect_timeout" => check.timeout_ms = millis(own, notes).unwrap_or(check.timeout_ms),
            "retry" | "nb_get_retry" | "nb_sock_retry" => check.retries = number(own, notes).unwrap_or(check.retries),
            "delay_before_retry" => pause = millis(own, notes),
            "delay_loop" => {
                check.interval_ms = millis(own, notes).unwrap_or(check.interval_ms);
                if word == "DNS_CHECK" && usual.pause.is_none() {
                    check.pause_ms = check.interval_ms;
                }
            }
            "alpha" => check.is_down_at_first = true,
            "bindto" | "bind_if" | "bind_port" | "fwmark" | "warmup" | "log_all_failures" => unknown(own, notes),
            _ => rest.push(own.clone()),
        }
    }
    check.pause_ms = pause.unwrap_or(check.pause_ms);
    if let Some(own) = elsewhere {
        let todo = "left out: a monitor asks the server itself; let the server answer for the other host";
        notes.add(own.place(), format!("{word} of another host has no counterpart"), todo);
        return None;
    }
    if let Some(own) = item.items.iter().find(|own| own.word() == "host") {
        let todo = "left out: write a monitor by hand";
        notes.add(own.place(), "a check of other hosts has no counterpart", todo);
        return None;
    }
    Some(Common { check, rest })
}

/// Reads a check; it may be several monitors, or none.
pub(super) fn read(item: &Item, usual: &Usual, notes: &mut Notes) -> Vec<Check> {
    let word = item.word();
    let program = "let a program do what it does, and write the result with `eqctl server drain` and `enable`, or to a servers-file";
    match word {
        "MISC_CHECK" => notes.add(item.place(), "a check by a program has no counterpart: left out", program),
        "FILE_CHECK" => notes.add(item.place(), "a check by a file has no counterpart: left out", program),
        "BFD_CHECK" => {
            notes.add(item.place(), "a check by BFD has no counterpart: left out", "use a monitor of type icmp")
        }
        _ => {}
    }
    if matches!(word, "MISC_CHECK" | "FILE_CHECK" | "BFD_CHECK") {
        return Vec::new();
    }
    let Some(Common { check, rest }) = common(item, usual, notes) else { return Vec::new() };
    match word {
        "HTTP_GET" => return http(&check, &rest, usual, notes),
        "UDP_CHECK" => return udp(check, &rest, notes),
        "DNS_CHECK" => return dns(check, &rest, notes),
        _ => {}
    }
    match word {
        "SSL_GET" => {
            let todo = "written as tcp, which only sees that the port accepts; ask a plain HTTP port of the server if it has one";
            notes.add(item.place(), "a check over TLS has no counterpart", todo);
        }
        "SMTP_CHECK" => {
            let todo = "written as tcp, which only sees that the port accepts";
            notes.add(item.place(), "a check of SMTP has no counterpart", todo);
        }
        _ => rest.iter().for_each(|own| unknown(own, notes)),
    }
    let ask = if word == "PING_CHECK" { Ask::Icmp } else { Ask::Tcp };
    vec![Check { ask, ..check }]
}

fn http(check: &Check, rest: &[Item], usual: &Usual, notes: &mut Notes) -> Vec<Check> {
    let of_all = rest.iter().find(|own| own.word() == "virtualhost").and_then(|own| own.argument(1));
    let of_all = of_all.or(usual.host.as_deref());
    for own in rest.iter().filter(|own| !matches!(own.word(), "url" | "virtualhost" | "http_protocol")) {
        unknown(own, notes);
    }
    if let Some(own) = rest.iter().find(|own| own.word() == "http_protocol") {
        notes.add(
            own.place(),
            "http_protocol has no counterpart",
            "nothing to do unless servers answer HTTP/1.1 otherwise",
        );
    }
    let urls: Vec<&Item> = rest.iter().filter(|own| own.word() == "url").collect();
    if urls.is_empty() {
        notes.add(check.place, "HTTP_GET without a url: left out", "add a url");
    }
    urls.into_iter().map(|url| one_url(check, url, of_all, notes)).collect()
}

fn one_url(check: &Check, url: &Item, of_all: Option<&str>, notes: &mut Notes) -> Check {
    let (mut path, mut host, mut status) = ("/".to_owned(), of_all.map(str::to_owned), Vec::new());
    for own in &url.items {
        match own.word() {
            "path" => path = own.argument(1).unwrap_or("/").to_owned(),
            "virtualhost" => host = own.argument(1).map(str::to_owned),
            "status_code" => status.extend(own.arguments().map(str::to_owned)),
            "digest" => {
                let todo = "left out: name a text of the page under expect-contains";
                notes.add(own.place(), "a digest of the page has no counterpart", todo);
            }
            word if word.starts_with("regex") => {
                let todo = "left out: write expect-regex, with the syntax of the crate regex";
                notes.add(own.place(), format!("{word} is not translated"), todo);
            }
            _ => unknown(own, notes),
        }
    }
    if host.is_none() {
        let what = "keepalived names the server's address in the header Host, a monitor \"localhost\"";
        notes.add(url.place(), what, "write host in the [[pool.monitor]] if servers tell hosts apart");
    }
    if status.is_empty() {
        status.push("200-299".into());
    }
    Check { place: url.place(), ask: Ask::Http { path, host, status }, ..check.clone() }
}

fn udp(check: Check, rest: &[Item], notes: &mut Notes) -> Vec<Check> {
    let find = |word: &str| rest.iter().find(|own| own.word() == word);
    let Some(reply) = find("require_reply") else {
        let what =
            "UDP_CHECK without require_reply succeeds unless the server refuses, which has no counterpart: left out";
        notes.add(check.place, what, "use a monitor of type udp with a question that is answered, or icmp");
        return Vec::new();
    };
    for own in rest.iter().filter(|own| !matches!(own.word(), "payload" | "require_reply")) {
        unknown(own, notes);
    }
    let hex = |own: &Item| own.arguments().collect::<Vec<_>>().join(" ");
    let payload = find("payload").map(hex).unwrap_or_default();
    if reply.argument(1).is_some() {
        let todo = "left out: write expect-prefix, expect-contains or expect-regex";
        notes.add(reply.place(), "the bytes of the required reply are not translated", todo);
    }
    vec![Check { ask: Ask::Udp { payload, prefix: None }, ..check }]
}

fn dns(check: Check, rest: &[Item], notes: &mut Notes) -> Vec<Check> {
    let find = |word: &str| rest.iter().find(|own| own.word() == word).and_then(|own| own.argument(1));
    for own in rest.iter().filter(|own| !matches!(own.word(), "type" | "name")) {
        unknown(own, notes);
    }
    let record = find("type").unwrap_or("SOA").to_ascii_uppercase();
    let query = find("name").unwrap_or(".").to_owned();
    if !RECORDS.contains(&record.as_str()) {
        notes.add(
            check.place,
            format!("DNS_CHECK for {record} records has no counterpart: left out"),
            "ask for another type",
        );
        return Vec::new();
    }
    vec![Check { ask: Ask::Dns { query, record }, ..check }]
}
