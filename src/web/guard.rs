//! Who may ask, and who may change: what a browser is made to send on behalf of another site is refused.
//!
//! - **Host.** A site can give its own name the address of this server (DNS rebinding), and would read everything. So the
//!   name that a client uses must be an address, `localhost`, or one of the configuration.
//! - **Changes** need the token, which only whoever may use the control socket knows, in a header that no form and no link
//!   can send; and where a browser says which page it sends a request for, that must be ours.

use super::request::Request;
use crate::control::Token;
use std::net::{IpAddr, SocketAddr};

/// Why a request is refused: status and message.
pub type Refusal = (u16, String);

/// The rules.
#[derive(Debug, Clone)]
pub struct Guard {
    /// Names besides addresses and `localhost`, in lower case.
    names: Vec<String>,
    token: Token,
}

impl Guard {
    /// Makes it.
    pub fn new(names: Vec<String>, token: Token) -> Guard {
        Guard { names, token }
    }

    /// Returns the token.
    pub fn token(&self) -> &Token {
        &self.token
    }

    /// Allows other names.
    pub fn rename(&mut self, names: Vec<String>) {
        self.names = names;
    }

    /// Refuses a request for a name that is not ours.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn admit(&self, request: &Request) -> Result<(), Refusal> {
        let Some(host) = &request.host else { return Ok(()) };
        let name = name_of(host);
        let is_ours = |name: &str| name == "localhost" || self.names.iter().any(|own| own == name);
        if name.as_deref().is_some_and(|name| name.parse::<IpAddr>().is_ok() || is_ours(name)) {
            return Ok(());
        }
        let host = name.as_deref().unwrap_or("that");
        Err((
            421,
            format!("this server does not call itself {host}: add the name to `names` of [http], or use an address"),
        ))
    }

    /// Refuses a change that nobody with the token asked for, or that a browser sends for another site.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn admit_change(&self, request: &Request) -> Result<(), Refusal> {
        if request.fetch_site.as_deref().is_some_and(|site| site != "same-origin") {
            return Err((403, "another site asks for this change".into()));
        }
        if let Some(origin) = &request.origin {
            let own = request.host.as_ref().map(|host| format!("http://{host}"));
            if own.is_none_or(|own| !own.eq_ignore_ascii_case(origin)) {
                return Err((403, "another site asks for this change".into()));
            }
        }
        let json = request.content_type.as_deref().map(|kind| kind.split(';').next().unwrap_or_default().trim());
        if json.is_none_or(|kind| !kind.eq_ignore_ascii_case("application/json")) {
            return Err((415, "a change is sent as application/json".into()));
        }
        match &request.bearer {
            None => Err((401, "a change needs the token that `eqctl token` prints".into())),
            Some(token) if !self.token.is(token) => {
                Err((401, "this is not the token: `eqctl token` prints it, and each start has another one".into()))
            }
            Some(_) => Ok(()),
        }
    }
}

/// Returns the name or address in a `Host` header, in lower case.
fn name_of(host: &str) -> Option<String> {
    if let Ok(at) = host.parse::<SocketAddr>() {
        return Some(at.ip().to_string());
    }
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<IpAddr>().ok().map(|address| address.to_string());
    }
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) => return None,
        None => host,
    };
    (!name.is_empty()).then(|| name.trim_end_matches('.').to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::super::request::{Read, read};
    use super::*;

    fn guard() -> Guard {
        Guard::new(vec!["lb.example.net".into()], Token::new([0xab; 16]))
    }

    fn request(headers: &str) -> Request {
        let text = format!("POST / HTTP/1.1\r\n{headers}\r\n\r\n");
        match read(text.as_bytes()) {
            Read::Whole(request, _) => *request,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn only_addresses_and_own_names_are_answered() {
        for (host, admitted) in [
            ("127.0.0.1:9480", true),
            ("127.0.0.1", true),
            ("[::1]:9480", true),
            ("[::1]", true),
            ("localhost:1", true),
            ("LocalHost", true),
            ("LB.example.net.:80", true),
            ("example.net", false),
            ("evil.example:9480", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("a:b:c", false),
            ("[::1", false),
            ("", false),
        ] {
            let got = guard().admit(&request(&format!("Host: {host}")));
            assert_eq!(got.is_ok(), admitted, "{host:?}: {got:?}");
            assert!(got.err().is_none_or(|(status, _)| status == 421));
        }
    }

    #[test]
    fn a_change_needs_the_token_and_comes_from_no_other_site() {
        let token = guard().token().text().to_owned();
        let good = format!("Host: 127.0.0.1:9480\r\nContent-Type: application/json\r\nAuthorization: Bearer {token}");
        for (headers, status) in [
            (good.clone(), 200),
            (format!("{good}\r\nOrigin: http://127.0.0.1:9480\r\nSec-Fetch-Site: same-origin"), 200),
            (format!("{good}\r\nOrigin: http://127.0.0.1:9481"), 403),
            (format!("{good}\r\nOrigin: https://127.0.0.1:9480"), 403),
            (format!("{good}\r\nOrigin: null"), 403),
            (format!("{good}\r\nSec-Fetch-Site: cross-site"), 403),
            (format!("{good}\r\nSec-Fetch-Site: same-site"), 403),
            (format!("{good}\r\nSec-Fetch-Site: none"), 403),
            (good.replace("application/json", "text/plain"), 415),
            (good.replace("Content-Type: application/json\r\n", ""), 415),
            (good.replace("Bearer", "Basic"), 401),
            (good.replace(&token, &token[1..]), 401),
            (good.replace(&token, &token.replace('a', "b")), 401),
            (good.replace(&token, ""), 401),
        ] {
            let got = guard().admit_change(&request(&headers));
            assert_eq!(got.as_ref().map_or_else(|why| why.0, |()| 200), status, "{headers}: {got:?}");
        }
        assert!(!format!("{:?}", guard()).contains("abab"));
    }
}
