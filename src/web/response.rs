//! The responses: status, headers, body.

use std::sync::Arc;

/// Longest that a browser may remember where a page came from, and more: nothing at all from elsewhere is loaded, framed
/// or sent to.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Text of the Prometheus text format.
pub const TEXT: &str = "text/plain; charset=utf-8";
/// One JSON object per line.
pub const LINES: &str = "application/x-ndjson; charset=utf-8";
/// One JSON object.
pub const JSON: &str = "application/json; charset=utf-8";

/// A body.
#[derive(Debug, Clone)]
pub enum Body {
    /// A part of the program.
    Fixed(&'static [u8]),
    /// One that others may be sent too.
    Shared(Arc<Vec<u8>>),
}

impl Body {
    /// Returns its bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Body::Fixed(bytes) => bytes,
            Body::Shared(bytes) => bytes,
        }
    }
}

/// A response.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The type of the body.
    pub content_type: &'static str,
    /// The body.
    pub body: Body,
    /// `Allow`, of a 405.
    pub allow: Option<&'static str>,
}

impl Response {
    /// Makes one.
    pub fn new(status: u16, content_type: &'static str, body: Body) -> Response {
        Response { status, content_type, body, allow: None }
    }

    /// Makes one with text.
    pub fn text(status: u16, text: impl Into<String>) -> Response {
        let mut text: String = text.into();
        if !text.ends_with('\n') {
            text.push('\n');
        }
        Response::new(status, TEXT, Body::Shared(Arc::new(text.into_bytes())))
    }

    /// Makes one that says what is wrong: as text, for the API as JSON in the form of the control protocol.
    pub fn error(status: u16, message: &str, is_api: bool) -> Response {
        if !is_api {
            return Response::text(status, message);
        }
        let json = serde_json::json!({ "error": { "message": message } });
        Response::new(status, JSON, Body::Shared(Arc::new(format!("{json}\n").into_bytes())))
    }

    /// Writes everything before the body.
    pub fn head(&self, stays_open: bool) -> Vec<u8> {
        let mut head = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n",
            self.status,
            reason(self.status),
            self.content_type,
            self.body.bytes().len()
        );
        head.push_str("Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n");
        head.push_str("Cross-Origin-Resource-Policy: same-origin\r\nCross-Origin-Opener-Policy: same-origin\r\n");
        head.push_str(&format!("Content-Security-Policy: {POLICY}\r\n"));
        if let Some(allow) = self.allow {
            head.push_str(&format!("Allow: {allow}\r\n"));
        }
        if self.status == 503 {
            head.push_str("Retry-After: 1\r\n");
        }
        head.push_str(if stays_open { "\r\n" } else { "Connection: close\r\n\r\n" });
        head.into_bytes()
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        421 => "Misdirected Request",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Status",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_has_what_clients_and_browsers_need() {
        let response = Response { allow: Some("GET, HEAD"), ..Response::error(405, "no", true) };
        let head = String::from_utf8(response.head(false)).unwrap();
        assert!(head.starts_with("HTTP/1.1 405 Method Not Allowed\r\n") && head.ends_with("\r\n\r\n"), "{head}");
        for line in [
            "Content-Type: application/json; charset=utf-8",
            "Content-Length: 27",
            "Allow: GET, HEAD",
            "Connection: close",
            "X-Content-Type-Options: nosniff",
        ] {
            assert!(head.lines().any(|have| have == line), "{line}: {head}");
        }
        assert!(head.contains("default-src 'none'") && !head.contains("unsafe"), "{head}");
        assert_eq!(response.body.bytes(), b"{\"error\":{\"message\":\"no\"}}\n");
        let open = String::from_utf8(Response::text(503, "wait").head(true)).unwrap();
        assert!(!open.contains("Connection:") && open.contains("Retry-After: 1\r\n"), "{open}");
    }
}
