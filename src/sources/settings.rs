//! What a pool takes its servers from, as checked settings.

use crate::balance::ServerSettings;
use crate::time::Duration;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// The source of a pool's servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceSettings {
    /// Name of the pool.
    pub pool: String,
    /// Where the servers come from.
    pub from: From,
    /// A list with fewer servers is not used while there is a longer one.
    pub least: u32,
    /// Families of which the pool's services reach servers, IPv4 first.
    pub families: [bool; 2],
}

/// Where servers come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// A file with this absolute path.
    File(PathBuf),
    /// The SRV records of a name (RFC 2782).
    Services(String),
    /// The addresses of a name.
    Addresses {
        /// The name.
        name: String,
        /// The port of all of them; without one, servers have the port that the client connected to.
        port: Option<u16>,
    },
}

impl From {
    /// Returns the word for its kind.
    pub const fn kind(&self) -> &'static str {
        match self {
            From::File(_) => "file",
            From::Services(_) => "dns-srv",
            From::Addresses { .. } => "dns-address",
        }
    }
}

/// The path of the file, or the name.
impl std::fmt::Display for From {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            From::File(path) => path.display().fmt(f),
            From::Services(name) | From::Addresses { name, .. } => f.write_str(name),
        }
    }
}

/// How names are resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsSettings {
    /// The resolvers, in order; if there are none, the live gateway takes those of the system.
    pub servers: Vec<SocketAddr>,
    /// How long an answer is used at least.
    pub min_ttl: Duration,
    /// How long an answer is used at most.
    pub max_ttl: Duration,
}

/// The servers that sources have found, by the name of the pool.
///
/// Within a pool their names are unique. Their `pool` has no meaning, and their `slow_start` is that of the pool.
pub type Found = BTreeMap<String, Arc<Vec<ServerSettings>>>;
