//! What the types `http`, `udp` and `dns` of `[[pool.monitor]]` send and expect.

use super::{Keys, text};
use crate::config::raw::probe::{RCODES, RECORDS};
use crate::health::settings::{DnsExpect, DnsKind, Expect, HttpProbe, LoadSource, Probe};
use std::fmt::Write as _;

/// Adds the keys of one type.
pub(super) fn probe(keys: &mut Keys, probe: &Probe) {
    match probe {
        Probe::Icmp | Probe::Tcp => {}
        Probe::Http(probe) => http(keys, probe),
        Probe::Udp { payload, expect } => udp(keys, payload, expect),
        Probe::Dns { name, kind, expect } => dns(keys, name, *kind, *expect),
    }
}

fn http(keys: &mut Keys, probe: &HttpProbe) {
    let HttpProbe { host, path, headers, status, expect, max_bytes, load } = probe;
    keys.put("host", text::quoted(host));
    keys.put("path", text::quoted(path));
    keys.put_some("headers", Some(headers).filter(|headers| !headers.is_empty()).map(|headers| text::table(headers)));
    keys.put_list("status", text::set(status, text::range));
    expected(keys, expect.as_ref());
    keys.put("max-bytes", max_bytes);
    let (header, regex) = match load {
        None => (None, None),
        Some(LoadSource::Header { name, maintenance }) => (Some((name, maintenance)), None),
        Some(LoadSource::Regex(pattern)) => (None, Some(pattern)),
    };
    keys.put_some("load-header", header.map(|(name, _)| text::quoted(name)));
    if let Some((_, maintenance)) = header {
        keys.put_some("maintenance-header", maintenance.as_ref().map(|name| text::quoted(name)));
    }
    keys.put_some("load-regex", regex.map(|pattern| text::quoted(pattern)));
}

/// Adds the three keys of which one says what an answer must be.
fn expected(keys: &mut Keys, expect: Option<&Expect>) {
    let bytes = |bytes: &[u8]| Some(text::quoted(&String::from_utf8_lossy(bytes)));
    let (contains, prefix, regex) = match expect {
        None => (None, None, None),
        Some(Expect::Contains(text)) => (bytes(text), None, None),
        Some(Expect::Prefix(text)) => (None, bytes(text), None),
        Some(Expect::Regex(pattern)) => (None, None, Some(text::quoted(pattern))),
    };
    keys.put_some("expect-contains", contains);
    keys.put_some("expect-prefix", prefix);
    keys.put_some("expect-regex", regex);
}

fn udp(keys: &mut Keys, payload: &[u8], expect: &Expect) {
    // An empty prefix is what an absent key stands for.
    expected(keys, Some(expect).filter(|expect| **expect != Expect::Prefix(Vec::new())));
    let text = std::str::from_utf8(payload).ok().filter(|text| !text.contains(char::is_control));
    let (text, hex) = match text {
        Some("") => (None, None),
        Some(text) => (Some(text::quoted(text)), None),
        None => (None, Some(text::quoted(&hex(payload)))),
    };
    keys.put_some("payload", text);
    keys.put_some("payload-hex", hex);
}

/// Writes bytes as `80 00 00 01`.
fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(3 * bytes.len());
    for (at, byte) in bytes.iter().enumerate() {
        let gap = if at > 0 { " " } else { "" };
        // Writing to a string cannot fail.
        let _ = write!(out, "{gap}{byte:02x}");
    }
    out
}

fn dns(keys: &mut Keys, name: &str, kind: DnsKind, expect: Option<DnsExpect>) {
    keys.put("query", text::quoted(name));
    keys.put_word("record", &RECORDS, &kind);
    let (address, rcode) = match expect {
        None => (None, None),
        Some(DnsExpect::Address(address)) => (Some(address), None),
        Some(DnsExpect::Rcode(code)) => (None, Some(code)),
    };
    keys.put_some("expect-address", address.map(|address| text::quoted(&address.to_string())));
    match rcode {
        Some(code) => keys.put_word("expect-rcode", &RCODES, &code),
        None => keys.put_some("expect-rcode", None::<&str>),
    }
}
