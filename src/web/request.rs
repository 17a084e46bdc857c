//! The requests of HTTP/1.1 (RFC 9112) and 1.0, with bounds for all that a client can send.
//!
//! A body has a length; chunked ones are refused. It must not know what is asked for.

/// Longest request line with all headers, in bytes. Browsers send the cookies of every program at the same address.
pub const MOST_HEAD: usize = 16 * 1024;
/// Most headers.
pub const MOST_HEADERS: usize = 64;
/// Longest body in bytes.
pub const MOST_BODY: usize = 4 * 1024;

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Reads.
    Get,
    /// Reads, and only the head of the response is sent.
    Head,
    /// Changes something.
    Post,
    /// Anything else.
    Other,
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What is done.
    pub method: Method,
    /// The path, without the query, as sent.
    pub path: String,
    /// The keys and values of the query, decoded.
    pub query: Vec<(String, String)>,
    /// `Host`; HTTP/1.0 may lack it.
    pub host: Option<String>,
    /// `Accept`.
    pub accept: Option<String>,
    /// `Origin`: the page that a browser sends the request for.
    pub origin: Option<String>,
    /// `Sec-Fetch-Site`: how that page is related to this server.
    pub fetch_site: Option<String>,
    /// The token of `Authorization: Bearer`.
    pub bearer: Option<String>,
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// Whether the connection is to stay open.
    pub keep_alive: bool,
    /// The body.
    pub body: Vec<u8>,
}

/// What the first bytes of a connection are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// The beginning of a request.
    Partial,
    /// A request of so many bytes.
    Whole(Box<Request>, usize),
    /// No request that is answered: the status and what is wrong. The connection is of no further use.
    Bad(u16, &'static str),
}

/// Reads the first request of some bytes.
pub fn read(bytes: &[u8]) -> Read {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let head = match parsed.parse(&bytes[..bytes.len().min(MOST_HEAD)]) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) if bytes.len() >= MOST_HEAD => return Read::Bad(431, "the headers are too long"),
        Ok(httparse::Status::Partial) => return Read::Partial,
        Err(httparse::Error::TooManyHeaders) => return Read::Bad(431, "too many headers"),
        Err(httparse::Error::Version) => return Read::Bad(505, "only HTTP/1.0 and 1.1 are spoken here"),
        Err(_) => return Read::Bad(400, "no HTTP request"),
    };
    match request(&parsed) {
        Err(why) => Read::Bad(why.0, why.1),
        Ok((_, length)) if length > MOST_BODY => Read::Bad(413, "the body is too long"),
        Ok((_, length)) if bytes.len() < head + length => Read::Partial,
        Ok((request, length)) => {
            let body = bytes[head..head + length].to_vec();
            Read::Whole(Box::new(Request { body, ..request }), head + length)
        }
    }
}

/// Returns a request without its body, and the length of that.
fn request(parsed: &httparse::Request<'_, '_>) -> Result<(Request, usize), (u16, &'static str)> {
    let bad = (400, "no HTTP request");
    let target = parsed.path.ok_or(bad)?;
    if !target.starts_with('/') {
        return Err((400, "the target must be a path"));
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    // Nobody needs two of these, and two readers may believe different ones.
    let one = |name: &str| {
        let mut found = parsed.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
        match (found.next(), found.next()) {
            (None, _) => Ok(None),
            (Some(header), None) => {
                std::str::from_utf8(header.value).map(|value| Some(value.trim().to_owned())).map_err(|_| bad)
            }
            _ => Err((400, "a header is there twice")),
        }
    };
    if one("transfer-encoding")?.is_some() {
        return Err((501, "chunked bodies are not read here: send Content-Length"));
    }
    let length = match one("content-length")? {
        None => 0,
        Some(digits) if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) => return Err(bad),
        // Whatever is longer than the number is too long.
        Some(digits) => digits.parse().unwrap_or(usize::MAX),
    };
    let host = one("host")?;
    let is_newer = parsed.version == Some(1);
    if is_newer && host.is_none() {
        return Err((400, "there is no Host header"));
    }
    let connection = one("connection")?.unwrap_or_default().to_ascii_lowercase();
    let says = |word: &str| connection.split(',').any(|part| part.trim() == word);
    let method = match parsed.method {
        Some("GET") => Method::Get,
        Some("HEAD") => Method::Head,
        Some("POST") => Method::Post,
        _ => Method::Other,
    };
    let bearer = one("authorization")?;
    let bearer = bearer.and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
    });
    let request = Request {
        method,
        path: path.into(),
        query: pairs(query).ok_or((400, "the query cannot be read"))?,
        host,
        accept: accept(parsed),
        origin: one("origin")?,
        fetch_site: one("sec-fetch-site")?,
        bearer,
        content_type: one("content-type")?,
        keep_alive: if is_newer { !says("close") } else { says("keep-alive") },
        body: Vec::new(),
    };
    Ok((request, length))
}

/// Returns `Accept`, which may come in several headers.
fn accept(parsed: &httparse::Request<'_, '_>) -> Option<String> {
    let all = parsed.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("accept"));
    let all: Vec<&str> = all.filter_map(|header| std::str::from_utf8(header.value).ok()).collect();
    (!all.is_empty()).then(|| all.join(", "))
}

/// Reads a query.
fn pairs(query: &str) -> Option<Vec<(String, String)>> {
    let parts = query.split('&').filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            Some((decoded(&key.replace('+', " "))?, decoded(&value.replace('+', " "))?))
        })
        .collect()
}

/// Decodes `%41`; none if that gives no text.
pub fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
        bytes.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(text: &str) -> Request {
        match read(text.as_bytes()) {
            Read::Whole(request, len) if len == text.len() => *request,
            other => panic!("{text:?}: {other:?}"),
        }
    }

    #[test]
    fn a_request_is_read_with_what_matters() {
        let request = whole(
            "POST /api/x?a=1&b=%2f+c&d HTTP/1.1\r\nhost: 127.0.0.1:9480\r\nAuthorization: Bearer  t0k\r\nOrigin: http://o\r\n\
             Sec-Fetch-Site: same-origin\r\nContent-Type: application/json\r\nAccept: a\r\naccept: b;q=0.5\r\ncontent-length: 2\r\n\r\n{}",
        );
        assert_eq!((request.method, request.path.as_str()), (Method::Post, "/api/x"));
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(request.query, [pair("a", "1"), pair("b", "/ c"), pair("d", "")]);
        assert_eq!((request.host.as_deref(), request.bearer.as_deref()), (Some("127.0.0.1:9480"), Some("t0k")));
        assert_eq!((request.accept.as_deref(), request.body.as_slice()), (Some("a, b;q=0.5"), b"{}".as_slice()));
        assert!(request.keep_alive && request.origin.is_some() && request.fetch_site.is_some());
    }

    #[test]
    fn connections_stay_open_as_the_version_says() {
        for (text, stays) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", true),
            ("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n", false),
            ("GET / HTTP/1.0\r\n\r\n", false),
            ("HEAD / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", true),
        ] {
            assert_eq!(whole(text).keep_alive, stays, "{text:?}");
        }
    }

    #[test]
    fn each_prefix_of_a_request_is_partial() {
        let text = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
        for len in 0..text.len() {
            assert_eq!(read(&text.as_bytes()[..len]), Read::Partial, "{len}");
        }
        assert!(matches!(read(format!("{text}GET /").as_bytes()), Read::Whole(_, len) if len == text.len()));
    }

    #[test]
    fn what_is_too_long_or_ambiguous_is_refused() {
        let headers = |more: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{more}\r\n");
        let many = "X: y\r\n".repeat(MOST_HEADERS);
        let long = format!("X: {}\r\n", "y".repeat(MOST_HEAD));
        for (text, status) in [
            (headers(&many), 431),
            (headers(&long), 431),
            (headers("Content-Length: 4097\r\n"), 413),
            (headers("Content-Length: 99999999999999999999999\r\n"), 413),
            (headers("Content-Length: -1\r\n"), 400),
            (headers("Content-Length: 1\r\nContent-Length: 1\r\n"), 400),
            (headers("Transfer-Encoding: chunked\r\n"), 501),
            (headers("Host: b\r\n"), 400),
            ("GET / HTTP/1.1\r\n\r\n".into(), 400),
            ("GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n".into(), 400),
            ("GET /?a=%zz HTTP/1.1\r\nHost: a\r\n\r\n".into(), 400),
            ("GET /?a=%ff HTTP/1.1\r\nHost: a\r\n\r\n".into(), 400),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n".into(), 505),
            ("\u{16}\u{3}\u{1}\u{2}\r\n\r\n".into(), 400),
        ] {
            let got = read(text.as_bytes());
            assert!(matches!(got, Read::Bad(found, _) if found == status), "{text:.40}: {got:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_take_more_than_it_was_given(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut text = b"POST /a%20b?c=d HTTP/1.1\r\nHost: a\r\n".to_vec();
            text.extend(&bytes);
            for some in [&bytes[..], &text] {
                if let Read::Whole(request, len) = read(some) {
                    prop_assert!(len <= some.len() && request.body.len() <= MOST_BODY);
                }
            }
        }
    }
}
