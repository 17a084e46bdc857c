//! What the types `http`, `udp` and `dns` of `[[pool.monitor]]` send and expect.
//!
//! It must not know what the types share.

use crate::config::fields::{Fields, Value, found, items};
use crate::config::problem::{Draft, Span};
use crate::config::values;
use crate::config::words::quoted;
use crate::health::settings::{DnsExpect, DnsKind, Expect, HttpProbe, LoadSource, Probe};
use serde_spanned::Spanned;
use std::net::IpAddr;
use toml::de::DeValue;

const EXPECTS: [&str; 3] = ["expect-prefix", "expect-contains", "expect-regex"];
/// Headers that the probe sets itself.
const OWN_HEADERS: [&str; 4] = ["host", "connection", "content-length", "transfer-encoding"];

/// The words for the types of DNS records.
pub(crate) const RECORDS: [(&str, DnsKind); 9] = [
    ("A", DnsKind::A),
    ("AAAA", DnsKind::Aaaa),
    ("NS", DnsKind::Ns),
    ("CNAME", DnsKind::Cname),
    ("SOA", DnsKind::Soa),
    ("PTR", DnsKind::Ptr),
    ("MX", DnsKind::Mx),
    ("TXT", DnsKind::Txt),
    ("SRV", DnsKind::Srv),
];
/// The words for DNS response codes.
pub(crate) const RCODES: [(&str, u8); 6] =
    [("NOERROR", 0), ("FORMERR", 1), ("SERVFAIL", 2), ("NXDOMAIN", 3), ("NOTIMP", 4), ("REFUSED", 5)];

/// Reads the keys of the type `http`.
pub(crate) fn http(fields: &mut Fields<'_, '_>) -> Probe {
    let mut text = |key, form| {
        let text = values::text(fields, key, form).map(Spanned::into_inner);
        text.unwrap_or_else(|| fields.default_text(key).into())
    };
    let (host, path) = (text("host", "host = \"www.example.com\""), text("path", "path = \"/health\""));
    Probe::Http(HttpProbe {
        host,
        path,
        headers: headers(fields),
        status: values::status_ranges(fields, "status"),
        expect: expect(fields),
        max_bytes: fields.count_or_default("max-bytes"),
        load: load(fields),
    })
}

/// Reads a table of strings, in the order of the names.
fn headers(fields: &mut Fields<'_, '_>) -> Vec<(String, String)> {
    let form = "headers = { \"X-Probe\" = \"1\" }";
    let Some(value) = fields.value("headers") else { return Vec::new() };
    let DeValue::Table(table) = value.get_ref() else {
        let draft = Draft::error(value.span(), "`headers` must be a table of strings");
        fields.drafts.push(draft.label(found(value.get_ref())).help(format!("write `{form}`")));
        return Vec::new();
    };
    let mut all = Vec::with_capacity(table.len());
    for (name, value) in table {
        let text = name.get_ref();
        if !is_token(text) {
            fields.drafts.push(no_token(name.span(), text));
        } else if OWN_HEADERS.iter().any(|own| text.eq_ignore_ascii_case(own)) {
            let draft = Draft::error(name.span(), format!("the header {} cannot be set here", quoted(text)));
            fields
                .drafts
                .push(draft.help("`Host` is set by the key `host`; the probe has no body and closes its connection"));
        } else if let Some(value) = fields.string(text, value, form) {
            all.push((text.to_string(), value.into_inner()));
        }
    }
    all
}

/// Reads what the answer must be, from one of three keys.
fn expect(fields: &mut Fields<'_, '_>) -> Option<Expect> {
    fields.only_one_of(&EXPECTS);
    let [prefix, contains, regex] =
        EXPECTS.map(|key| values::text(fields, key, &format!("{key} = \"ok\"")).map(Spanned::into_inner));
    let bytes = [prefix.map(|text| Expect::Prefix(text.into())), contains.map(|text| Expect::Contains(text.into()))];
    bytes.into_iter().flatten().next().or(regex.map(Expect::Regex))
}

fn load(fields: &mut Fields<'_, '_>) -> Option<LoadSource> {
    fields.only_one_of(&["load-header", "load-regex"]);
    let header = header_name(fields, "load-header");
    let regex = values::text(fields, "load-regex", "load-regex = 'load=(?<load>[0-9]+)'");
    let has_header = fields.key("load-header").is_some();
    let help = "name the header of the load in `load-header`; with `load-regex`, use the group \"maintenance\"";
    let fits = fields.fits("maintenance-header", has_header, "without `load-header`", help);
    let maintenance = if fits { header_name(fields, "maintenance-header") } else { None };
    let header = header.map(|name| LoadSource::Header { name, maintenance });
    header.or(regex.map(|pattern| LoadSource::Regex(pattern.into_inner())))
}

/// Reads the name of a header, if present: a token (RFC 9110, 5.6.2).
fn header_name(fields: &mut Fields<'_, '_>, key: &str) -> Option<String> {
    let name = values::text(fields, key, &format!("{key} = \"X-Server-Load\""))?;
    if is_token(name.get_ref()) {
        return Some(name.into_inner());
    }
    fields.drafts.push(no_token(name.span(), name.get_ref()));
    None
}

fn is_token(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(allowed)
}

fn no_token(span: Span, text: &str) -> Draft {
    let draft = Draft::error(span, format!("{} is not a header name", quoted(text)));
    draft.help("use letters, digits and \"-\", such as \"X-Server-Load\"")
}

/// Reads the keys of the type `udp`.
pub(crate) fn udp(fields: &mut Fields<'_, '_>) -> Probe {
    fields.only_one_of(&["payload", "payload-hex"]);
    let text = values::text(fields, "payload", "payload = \"ping\"").map(|text| text.into_inner().into_bytes());
    let payload = text.or(hex(fields)).unwrap_or_default();
    Probe::Udp { payload, expect: expect(fields).unwrap_or(Expect::Prefix(Vec::new())) }
}

fn hex(fields: &mut Fields<'_, '_>) -> Option<Vec<u8>> {
    let text = values::text(fields, "payload-hex", "payload-hex = \"00 ff\"")?;
    let digits: Vec<Option<u8>> =
        text.get_ref().chars().filter(|c| *c != ' ').map(|c| c.to_digit(16).map(|digit| digit as u8)).collect();
    let bytes: Option<Vec<u8>> = digits.chunks(2).map(|pair| Some(pair[0]? << 4 | (*pair.get(1)?)?)).collect();
    if bytes.is_none() {
        let draft = Draft::error(text.span(), "`payload-hex` is not valid hexadecimal");
        fields.drafts.push(draft.help("write two digits per byte, 0 to 9 and a to f, such as \"00 ff 7e\""));
    }
    bytes
}

/// Reads the keys of the type `dns`.
pub(crate) fn dns(fields: &mut Fields<'_, '_>) -> Probe {
    let form = "query = \"www.example.com\"";
    let name = fields.required("query", form).and_then(|value| fields.string("query", value, form));
    let kind = fields.choice("record", &RECORDS);
    fields.only_one_of(&["expect-address", "expect-rcode"]);
    let address = fields.value("expect-address").and_then(|value| expect_address(fields, value, kind));
    let rcode = fields.word("expect-rcode", &RCODES);
    Probe::Dns {
        // A missing name has its error; the root is a name that causes no second one.
        name: name.map_or(".".into(), Spanned::into_inner),
        kind: kind.unwrap_or(DnsKind::A),
        expect: address.map(DnsExpect::Address).or(rcode.map(DnsExpect::Rcode)),
    }
}

/// Reads an address that the queried record can hold.
fn expect_address(fields: &mut Fields<'_, '_>, value: &Value<'_>, kind: Option<DnsKind>) -> Option<IpAddr> {
    let text = fields.string("expect-address", value, "expect-address = \"192.0.2.80\"")?;
    let Ok(address) = text.get_ref().parse::<IpAddr>() else {
        let draft = Draft::error(text.span(), format!("{} is not an IP address", quoted(text.get_ref())));
        fields.drafts.push(draft.help("write one address that must be among the answers, such as \"192.0.2.80\""));
        return None;
    };
    let (record, right) = if address.is_ipv4() { ("A", DnsKind::A) } else { ("AAAA", DnsKind::Aaaa) };
    if kind.is_some_and(|kind| kind != right) {
        let draft = Draft::error(text.span(), "no answer to this `record` contains such an address");
        let asked = items(value).first().map_or(text.span(), |value| value.span());
        let record_place = fields.value("record").map_or(asked, |value| value.span());
        let draft = draft.also(record_place, "the query");
        fields.drafts.push(draft.help(format!("write `record = \"{record}\"`, or another address")));
        return None;
    }
    Some(address)
}
