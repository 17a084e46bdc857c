//! DNS queries over UDP and the judgement of their responses (RFC 1035, RFC 3596).

use super::settings::{DnsExpect, DnsKind};
use super::why::Failure;
use crate::packet::word;
use std::net::IpAddr;

/// Builds a recursive query; returns none if the name is not a DNS name.
pub(super) fn query(id: u16, name: &str, kind: DnsKind) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(18 + name.len());
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&[0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.len() > 253 || !name.bytes().all(|b| b.is_ascii_graphic()) {
        return None;
    }
    for label in name.split('.').filter(|_| !name.is_empty()) {
        let len = u8::try_from(label.len()).ok().filter(|len| (1..=63).contains(len))?;
        out.push(len);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    out.extend_from_slice(&(kind as u16).to_be_bytes());
    out.extend_from_slice(&[0, 1]);
    Some(out)
}

/// Judges the response to a query; returns none if it does not belong to the query, so that the probe keeps waiting.
pub(super) fn judge(query: &[u8], response: &[u8], expect: Option<DnsExpect>) -> Option<Result<(), Failure>> {
    let question = query.get(12..)?;
    if response.len() < 12 || response[..2] != query[..2] || response[2] & 0xf8 != 0x80 || word(response, 4) != 1 {
        return None;
    }
    // Lengths of labels are at most 63, so comparing without case cannot confuse a length.
    if !response.get(12..12 + question.len())?.eq_ignore_ascii_case(question) {
        return None;
    }
    let rcode = response[3] & 15;
    let want = match expect {
        Some(DnsExpect::Rcode(code)) => code,
        _ => 0,
    };
    if rcode != want {
        return Some(Err(Failure::Rcode { got: rcode, want }));
    }
    let Some(DnsExpect::Address(address)) = expect else { return Some(Ok(())) };
    Some(match contains(response, 12 + question.len(), address) {
        Some(true) => Ok(()),
        Some(false) => Err(Failure::Answer),
        None => Err(Failure::Malformed("DNS answers")),
    })
}

/// Tests whether one of the answers, which begin at `at`, is `address`; returns none if they are truncated.
fn contains(response: &[u8], mut at: usize, address: IpAddr) -> Option<bool> {
    let mut found = false;
    for _ in 0..word(response, 6) {
        at = skip_name(response, at)?;
        let fixed = response.get(at..at + 10)?;
        let data = response.get(at + 10..at + 10 + usize::from(word(fixed, 8)))?;
        found |= match (address, word(fixed, 0), word(fixed, 2)) {
            (IpAddr::V4(v4), 1, 1) => data == v4.octets(),
            (IpAddr::V6(v6), 28, 1) => data == v6.octets(),
            _ => false,
        };
        at += 10 + data.len();
    }
    Some(found)
}

/// Returns the end of the name that begins at `at`: after its root label or its pointer, which is not followed.
fn skip_name(response: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *response.get(at)? {
            0 => return Some(at + 1),
            len @ 1..=63 => at += 1 + usize::from(len),
            0xc0.. => return Some(at + 2),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(query: &[u8], rcode: u8, answers: &[&[u8]]) -> Vec<u8> {
        let mut out = query.to_vec();
        (out[2], out[3], out[7]) = (0x81, 0x80 | rcode, answers.len() as u8);
        for answer in answers {
            out.extend_from_slice(answer);
        }
        out
    }

    const A: &[u8] = &[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 7];
    const CNAME: &[u8] = &[1, b'x', 0, 0, 5, 0, 1, 0, 0, 0, 60, 0, 2, 0xc0, 12];

    #[test]
    fn a_query_has_the_layout_of_rfc_1035() {
        let want = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\0\0\x1c\0\x01";
        assert_eq!(query(0x1234, "www.example.", DnsKind::Aaaa).unwrap(), want);
        assert_eq!(query(1, ".", DnsKind::Ns).unwrap()[12..], [0, 0, 2, 0, 1]);
        let long = "a".repeat(64);
        for bad in ["a..b", ".a", "a b", "ä", &long, &"a.".repeat(130)] {
            assert_eq!(query(1, bad, DnsKind::A), None, "{bad}");
        }
    }

    #[test]
    fn a_response_answers_by_id_question_code_and_address() {
        let query = query(77, "a.example", DnsKind::A).unwrap();
        let seven = Some(DnsExpect::Address([192, 0, 2, 7].into()));
        let eight = Some(DnsExpect::Address([192, 0, 2, 8].into()));
        let good = response(&query, 0, &[CNAME, A]);
        let upper = good.iter().map(u8::to_ascii_uppercase).collect::<Vec<_>>();
        let other_id = [&[0, 78], &good[2..]].concat();
        let cases = [
            (&good, None, Some(Ok(()))),
            (&good, seven, Some(Ok(()))),
            (&good, eight, Some(Err(Failure::Answer))),
            (&upper, None, Some(Ok(()))),
            (&response(&query, 3, &[]), None, Some(Err(Failure::Rcode { got: 3, want: 0 }))),
            (&response(&query, 3, &[]), Some(DnsExpect::Rcode(3)), Some(Ok(()))),
            (&good, Some(DnsExpect::Rcode(3)), Some(Err(Failure::Rcode { got: 0, want: 3 }))),
            (&other_id, None, None),
            (&query, None, None),
        ];
        for (bytes, expect, want) in cases {
            assert_eq!(judge(&query, bytes, expect), want, "{bytes:?} {expect:?}");
        }
        for cut in 0..good.len() {
            let got = judge(&query, &good[..cut], seven);
            assert!(!matches!(got, Some(Ok(()))), "{cut}");
        }
    }
}
