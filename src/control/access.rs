//! The server of metrics, page and API, as reported to control sessions: where it listens, and what changes need.

use super::protocol::HttpRow;
use std::fmt;
use std::net::SocketAddr;

/// What changes over HTTP need to have: 128 random bits in hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Token(String);

impl Token {
    /// Makes it from random bytes.
    pub fn new(random: [u8; 16]) -> Token {
        Token(random.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Returns its text.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Compares in a time that does not depend on where the difference is.
    pub fn is(&self, other: &str) -> bool {
        let differences = self.0.bytes().zip(other.bytes()).fold(0, |all, (a, b)| all | (a ^ b));
        !self.0.is_empty() && self.0.len() == other.len() && differences == 0
    }
}

/// Without the token itself, so that it gets into no log.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// The state of the server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HttpState {
    /// Where it should listen; none if it is not configured.
    pub listen: Option<SocketAddr>,
    /// Why it does not listen there; none if it does.
    pub error: Option<String>,
    /// What changes need to have.
    pub token: Token,
}

impl HttpState {
    /// Returns the row of `eqctl status`.
    pub(super) fn row(&self) -> Option<HttpRow> {
        self.listen.map(|listen| HttpRow { listen, error: self.error.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_only_itself_and_is_not_printed() {
        let token = Token::new([0xa5; 16]);
        let text = token.text().to_owned();
        assert_eq!((text.len(), token.is(&text)), (32, true));
        for other in ["", &text[1..], &text.replace('5', "4"), &format!("{text}0")] {
            assert!(!token.is(other), "{other}");
        }
        assert!(!Token::default().is(""), "no token is no token");
        assert!(!format!("{token:?}").contains("a5"));
    }
}
