//! The HTTP/1.1 request of a monitor, and the incremental parsing of its response (RFC 9112). It must not know
//! connections.

use super::settings::{HttpProbe, LoadSource, Probe};
use super::targets::Monitor;
use super::why::Failure;

/// Maximum bytes of header sections, including those of interim responses.
const MOST_HEAD: usize = 16 << 10;
/// Header fields for which there is room at first; a head with more is parsed again with room for all that fit into
/// [`MOST_HEAD`].
const USUAL_FIELDS: usize = 64;
/// Length from which on a head is parsed only once an empty line has arrived.
const PARSED_EARLY: usize = 1 << 10;
/// Length of the shortest field line: `a:` and its line end.
const LEAST_FIELD: usize = 3;

/// The load that a server reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Load {
    /// In percent, 0 to 100.
    pub percent: u8,
    pub maintenance: bool,
}

/// Builds the request.
pub(super) fn request(probe: &HttpProbe) -> Vec<u8> {
    let mut out = format!("GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", probe.path, probe.host);
    let defaults = [("User-Agent", "equipoise"), ("Accept", "*/*")];
    let own = probe.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let missing =
        defaults.into_iter().filter(|(d, _)| !probe.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(d)));
    for (name, value) in missing.chain(own) {
        out.push_str(&format!("{name}: {value}\r\n"));
    }
    out.push_str("\r\n");
    out.into_bytes()
}

/// How the end of a body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked(Chunk),
    UntilClose,
}

/// The position in a chunked body (RFC 9112, 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunk {
    /// In the size, with its digits so far.
    Size(u64, u8),
    /// After the size, on its line.
    Extension(u64),
    Data(u64),
    /// In the line end after the data.
    End,
    /// In the trailer, with the length of its line so far.
    Trailer(usize),
}

/// A response, as far as it has been received.
#[derive(Debug, Default)]
pub(super) struct Response {
    head: Vec<u8>,
    body: Vec<u8>,
    framing: Option<Framing>,
    /// There is a verdict: the rest of the body is only read to its end.
    decided: bool,
    complete: bool,
    pub load: Option<Load>,
}

type Verdict = Result<(), Failure>;

impl Response {
    pub(super) fn clear(&mut self) {
        self.head.clear();
        self.body.clear();
        (self.framing, self.load) = (None, None);
        (self.decided, self.complete) = (false, false);
    }

    /// Returns whether the head has been received, so that the end of the response can be found.
    pub(super) fn has_begun(&self) -> bool {
        self.framing.is_some()
    }

    /// Returns whether all of it has been received.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Takes the next bytes; returns a verdict as soon as there is one. Bytes after that are read only to find the end of
    /// the response.
    pub(super) fn feed(&mut self, monitor: &Monitor, bytes: &[u8]) -> Option<Verdict> {
        let verdict = match self.framing {
            Some(_) => self.feed_body(monitor, bytes),
            None => self.feed_head(monitor, bytes),
        };
        self.decided |= verdict.is_some();
        verdict
    }

    fn feed_head(&mut self, monitor: &Monitor, bytes: &[u8]) -> Option<Verdict> {
        // The buffer of the stack limits the bytes per call, so `head` is limited as well.
        let before = self.head.len();
        self.head.extend_from_slice(bytes);
        // A long head that arrives byte by byte is parsed once; a short one early, as it may not be HTTP at all.
        let new = &self.head[before.saturating_sub(2)..];
        let ends = new.windows(2).any(|pair| pair == b"\n\n") || new.windows(3).any(|line| line == b"\n\r\n");
        if !ends && (PARSED_EARLY..=MOST_HEAD).contains(&self.head.len()) {
            return None;
        }
        loop {
            match self.read_head(monitor) {
                Err(failure) => return Some(Err(failure)),
                Ok(Head::Partial) if self.head.len() > MOST_HEAD => {
                    return Some(Err(Failure::Malformed("HTTP header too long")));
                }
                Ok(Head::Partial) => return None,
                Ok(Head::Interim) => {}
                Ok(Head::Final { len, verdict }) => {
                    self.decided = verdict.is_some();
                    let rest = self.head.split_off(len.min(self.head.len()));
                    let later = self.feed_body(monitor, &rest);
                    return verdict.or(later);
                }
            }
        }
    }

    /// Returns the verdict on a connection that ended without one.
    pub(super) fn end(&mut self, monitor: &Monitor) -> Verdict {
        match self.framing {
            Some(Framing::UntilClose) => self.judge_body(monitor),
            _ => Err(Failure::Closed),
        }
    }

    fn read_head(&mut self, monitor: &Monitor) -> Result<Head, Failure> {
        let Probe::Http(probe) = &monitor.settings.probe else {
            return Ok(Head::Final { len: 0, verdict: Some(Ok(())) });
        };
        let mut fields = vec![httparse::EMPTY_HEADER; USUAL_FIELDS];
        let mut head = httparse::Response::new(&mut fields);
        let mut parsed = lenient().parse_response(&mut head, &self.head);
        if parsed == Err(httparse::Error::TooManyHeaders) {
            fields = vec![httparse::EMPTY_HEADER; self.head.len().min(MOST_HEAD) / LEAST_FIELD + 1];
            head = httparse::Response::new(&mut fields);
            parsed = lenient().parse_response(&mut head, &self.head);
        }
        let len = match parsed {
            Ok(httparse::Status::Complete(len)) => len,
            Ok(httparse::Status::Partial) => return Ok(Head::Partial),
            Err(_) => return Err(Failure::Malformed("HTTP header")),
        };
        let status = head.code.unwrap_or(0);
        if (100..200).contains(&status) && status != 101 {
            self.head.drain(..len);
            return Ok(Head::Interim);
        }
        let framing = framing(status, head.headers)?;
        self.load = load_of_fields(probe, head.headers);
        self.framing = Some(framing);
        let right = |(first, last): &(u16, u16)| (*first..=*last).contains(&status);
        if !(probe.status.iter().any(right) || probe.status.is_empty() && right(&(200, 299))) {
            let failure = Failure::Status { got: status, want: ranges(&probe.status) };
            return Ok(Head::Final { len, verdict: Some(Err(failure)) });
        }
        let by_head = monitor.matcher.is_none() && monitor.load.is_none();
        Ok(Head::Final { len, verdict: by_head.then_some(Ok(())) })
    }

    fn feed_body(&mut self, monitor: &Monitor, mut bytes: &[u8]) -> Option<Verdict> {
        let Probe::Http(probe) = &monitor.settings.probe else { return None };
        let most = probe.max_bytes as usize;
        let mut verdict = None;
        while !self.complete {
            if !self.decided && self.body.len() >= most {
                verdict = Some(self.judge_body(monitor));
                self.decided = true;
            }
            let room = if self.decided { usize::MAX } else { most - self.body.len() };
            let left = match self.framing.as_mut()? {
                Framing::UntilClose => u64::MAX,
                Framing::Length(0) => {
                    self.complete = true;
                    break;
                }
                Framing::Length(left) => *left,
                Framing::Chunked(Chunk::Data(left)) if *left > 0 => *left,
                Framing::Chunked(chunk) => {
                    let Some((byte, later)) = bytes.split_first() else { break };
                    bytes = later;
                    match chunk.step(*byte) {
                        None => return verdict.or(Some(Err(Failure::Malformed("HTTP chunk")))),
                        Some(None) => self.complete = true,
                        Some(Some(next)) => *chunk = next,
                    }
                    continue;
                }
            };
            if bytes.is_empty() {
                break;
            }
            let size = room.min(bytes.len()).min(usize::try_from(left).unwrap_or(usize::MAX));
            let (now, later) = bytes.split_at(size);
            bytes = later;
            match self.framing.as_mut()? {
                Framing::Length(left) | Framing::Chunked(Chunk::Data(left)) => *left -= size as u64,
                Framing::UntilClose | Framing::Chunked(_) => {}
            }
            if !self.decided {
                self.body.extend_from_slice(now);
            }
        }
        if self.complete && !self.decided {
            verdict = Some(self.judge_body(monitor));
        }
        verdict
    }

    fn judge_body(&mut self, monitor: &Monitor) -> Verdict {
        if let Some(found) = monitor.load.as_ref().and_then(|regex| regex.captures(&self.body)) {
            let maintenance = found.name("maintenance").is_some_and(|flag| is_set(flag.as_bytes()));
            let percent = found.name("load").and_then(|load| percent(load.as_bytes()));
            self.load = percent.map(|percent| Load { percent, maintenance });
        }
        match &monitor.matcher {
            Some(matcher) if !matcher.matches(&self.body) => Err(Failure::Body),
            _ => Ok(()),
        }
    }
}

enum Head {
    Partial,
    /// An interim response was removed from the front.
    Interim,
    /// The body begins after `len` bytes; there is a verdict if the head alone decides it.
    Final {
        len: usize,
        verdict: Option<Verdict>,
    },
}

/// Returns a parser that accepts what RFC 9112 asks a user agent to accept, and what servers send nevertheless: folded
/// fields (5.2), blanks before a colon (5.1), more than one blank in the status line (4), and fields that are none, which
/// are ignored.
fn lenient() -> httparse::ParserConfig {
    let mut config = httparse::ParserConfig::default();
    config
        .allow_obsolete_multiline_headers_in_responses(true)
        .allow_spaces_after_header_name_in_responses(true)
        .allow_multiple_spaces_in_response_status_delimiters(true)
        .ignore_invalid_headers_in_responses(true);
    config
}

impl Chunk {
    /// Returns the next state: the outer none for an invalid byte, the inner none at the end of the body.
    fn step(self, byte: u8) -> Option<Option<Chunk>> {
        Some(Some(match (self, byte) {
            (Chunk::Size(size, digits @ 0..15), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                Chunk::Size(size << 4 | u64::from((byte as char).to_digit(16)?), digits + 1)
            }
            (Chunk::Size(size, 1..) | Chunk::Extension(size), b'\n') => match size {
                0 => Chunk::Trailer(0),
                size => Chunk::Data(size),
            },
            (Chunk::Size(size, 1..), b';' | b' ' | b'\t' | b'\r') => Chunk::Extension(size),
            (Chunk::Extension(size), _) => Chunk::Extension(size),
            (Chunk::Data(0) | Chunk::End, b'\r') => Chunk::End,
            (Chunk::Data(0) | Chunk::End, b'\n') => Chunk::Size(0, 0),
            (Chunk::Trailer(0), b'\n') => return Some(None),
            (Chunk::Trailer(_), b'\n') => Chunk::Trailer(0),
            (Chunk::Trailer(len), b'\r') => Chunk::Trailer(len),
            (Chunk::Trailer(len @ 0..MOST_HEAD), _) => Chunk::Trailer(len + 1),
            _ => return None,
        }))
    }
}

/// Determines how the body is delimited (RFC 9112, 6.3).
fn framing(status: u16, fields: &[httparse::Header<'_>]) -> Result<Framing, Failure> {
    if matches!(status, 204 | 304) {
        return Ok(Framing::Length(0));
    }
    let named = |name: &'static str| fields.iter().filter(move |f| f.name.eq_ignore_ascii_case(name)).map(|f| f.value);
    if let Some(coding) = named("transfer-encoding").next_back() {
        let last = coding.rsplit(|b| *b == b',').next().unwrap_or(coding).trim_ascii();
        let chunked = last.eq_ignore_ascii_case(b"chunked");
        return Ok(if chunked { Framing::Chunked(Chunk::Size(0, 0)) } else { Framing::UntilClose });
    }
    // RFC 9110, 8.6: the same length more than once, in one field or several, is that length.
    let mut lengths = named("content-length").flat_map(|value| value.split(|b| *b == b',')).map(<[u8]>::trim_ascii);
    let Some(first) = lengths.next() else { return Ok(Framing::UntilClose) };
    let digits = std::str::from_utf8(first).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    match digits.and_then(|text| text.parse().ok()) {
        Some(length) if lengths.all(|other| other == first) => Ok(Framing::Length(length)),
        _ => Err(Failure::Malformed("HTTP content length")),
    }
}

fn load_of_fields(probe: &HttpProbe, fields: &[httparse::Header<'_>]) -> Option<Load> {
    let Some(LoadSource::Header { name, maintenance }) = &probe.load else { return None };
    let value = |name: &str| fields.iter().find(|f| f.name.eq_ignore_ascii_case(name)).map(|f| f.value);
    let percent = percent(value(name)?)?;
    Some(Load { percent, maintenance: maintenance.as_ref().and_then(|name| value(name)).is_some_and(is_set) })
}

/// Parses `37`, `37%` or `37.5`, up to 100.
fn percent(bytes: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(bytes).ok()?.trim();
    let text = text.strip_suffix('%').unwrap_or(text).trim_end();
    let load: f64 = text.bytes().all(|b| b.is_ascii_digit() || b == b'.').then(|| text.parse().ok()).flatten()?;
    (0.0..=100.0).contains(&load).then(|| load.round() as u8)
}

fn is_set(flag: &[u8]) -> bool {
    let flag = flag.trim_ascii();
    !flag.is_empty() && ![&b"0"[..], b"no", b"false", b"off"].iter().any(|word| flag.eq_ignore_ascii_case(word))
}

fn ranges(status: &[(u16, u16)]) -> String {
    if status.is_empty() {
        return "200-299".into();
    }
    let words: Vec<String> =
        status.iter().map(|(a, b)| if a == b { a.to_string() } else { format!("{a}-{b}") }).collect();
    words.join(" or ")
}
