//! Servers by the name that operators use: `pool/server`, or `server` alone where only one pool has it.

use super::Settings;
use super::words::{closest, plain};
use std::fmt;

/// Most servers that an ambiguous name lists.
const LISTED: usize = 5;

/// Why a name stands for no server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoServer {
    /// No server has it.
    Unknown {
        /// The name as it was given.
        name: String,
        /// The closest name that exists, `pool/server`, if any is close.
        near: Option<String>,
    },
    /// Servers of several pools have it.
    Ambiguous {
        /// The name as it was given.
        name: String,
        /// These servers, `pool/server`, in the order of the file.
        all: Vec<String>,
    },
}

impl fmt::Display for NoServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoServer::Unknown { name, near: Some(near) } => {
                write!(f, "there is no server {}; did you mean {near}?", plain(name))
            }
            NoServer::Unknown { name, near: None } => {
                write!(f, "there is no server {}; `eqctl servers` lists them", plain(name))
            }
            NoServer::Ambiguous { name, all } => {
                let listed = all[..all.len().min(LISTED)].join(", ");
                let more = all.len().saturating_sub(LISTED);
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                write!(f, "several pools have a server {name}: write {listed}{more}")
            }
        }
    }
}

impl std::error::Error for NoServer {}

/// Returns the place of the server with this name among [`Settings::servers`].
///
/// # Errors
/// [`NoServer`] if there is none, or if several pools have one and the name does not say which.
pub fn find_server(settings: &Settings, name: &str) -> Result<usize, NoServer> {
    let servers = || settings.servers.iter().enumerate();
    let pool = |at: usize| settings.pools[settings.servers[at].pool.0 as usize].name.as_str();
    let full = |at: usize| format!("{}/{}", pool(at), settings.servers[at].name);
    if let Some((in_pool, server)) = name.split_once('/') {
        let found = servers().find(|(at, own)| own.name == server && pool(*at) == in_pool);
        return found.map(|(at, _)| at).ok_or_else(|| unknown(name, servers().map(|(at, _)| full(at))));
    }
    let all: Vec<usize> = servers().filter(|(_, own)| own.name == name).map(|(at, _)| at).collect();
    match all[..] {
        [one] => Ok(one),
        [] => Err(unknown(name, servers().map(|(at, _)| full(at)))),
        _ => Err(NoServer::Ambiguous { name: name.into(), all: all.into_iter().map(full).collect() }),
    }
}

/// The error for a name that no server has.
fn unknown(name: &str, all: impl Iterator<Item = String>) -> NoServer {
    let all: Vec<String> = all.collect();
    let part =
        |full: &'_ str| full.split_once('/').filter(|_| !name.contains('/')).map_or(0, |(pool, _)| pool.len() + 1);
    let near = closest(name, all.iter().map(|full| &full[part(full)..]));
    let near = near.and_then(|near| all.iter().find(|full| &full[part(full)..] == near).cloned());
    NoServer::Unknown { name: name.into(), near }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn settings() -> Settings {
        let text = "[[service]]\nname='w'\nlisten='192.0.2.80:80/tcp'\npool='web'\n\
                    [[service]]\nname='x'\nlisten='192.0.2.81:80/tcp'\npool='api'\n\
                    [[pool]]\nname='web'\nserver=[{name='a',address='10.0.0.1'},{name='b',address='10.0.0.2'}]\n\
                    [[pool]]\nname='api'\nserver=[{name='a',address='10.0.0.3'},{name='srv-10',address='10.0.0.4'}]\n";
        parse(text, "test.toml").unwrap()
    }

    #[test]
    fn a_server_is_found_by_either_form_and_a_wrong_name_says_what_is_near() {
        let settings = settings();
        let find = |name: &str| find_server(&settings, name).map_err(|error| error.to_string());
        for (name, want) in [("web/a", 0), ("web/b", 1), ("b", 1), ("api/a", 2), ("srv-10", 3)] {
            assert_eq!(find(name), Ok(want), "{name}");
        }
        for (name, want) in [
            ("a", "several pools have a server a: write web/a, api/a"),
            ("web/srv-10", "there is no server web/srv-10; did you mean api/srv-10?"),
            ("srv-11", "there is no server srv-11; did you mean api/srv-10?"),
            ("wbe/a", "there is no server wbe/a; did you mean web/a?"),
            ("nobody", "there is no server nobody; `eqctl servers` lists them"),
            ("", "there is no server \"\"; `eqctl servers` lists them"),
            ("a/b/c d\u{1b}", "there is no server \"a/b/c d\\u{1b}\"; `eqctl servers` lists them"),
        ] {
            assert_eq!(find(name), Err(want.into()), "{name}");
        }
    }
}
