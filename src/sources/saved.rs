//! The lists in use as text, for the gateway after this one: until DNS has answered it, its servers are those of the last
//! good list, and their flows go on.
//!
//! The text names its version. The servers are written as those of a `servers-file`, and read by its reader.

use super::list::{addresses, read};
use super::settings::{Found, SourceSettings};
use crate::balance::{Admin, ServerSettings};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The version of the text: a reader reads its own only. New keys do not change it.
const VERSION: u32 = 1;

/// The text.
#[derive(Debug, Serialize, Deserialize)]
struct Text {
    version: u32,
    pools: Vec<OfPool>,
}

/// The list of a pool.
#[derive(Debug, Serialize, Deserialize)]
struct OfPool {
    pool: String,
    /// Of which kind the source is, and where: another one's list is not used.
    kind: String,
    from: String,
    servers: Vec<Value>,
}

/// Writes the lists of sources.
pub fn save(settings: &[SourceSettings], found: &Found) -> Vec<u8> {
    let of_pool = |source: &SourceSettings| {
        let list = found.get(&source.pool)?;
        let (kind, from) = (source.from.kind().to_owned(), source.from.to_string());
        Some(OfPool { pool: source.pool.clone(), kind, from, servers: list.iter().map(write).collect() })
    };
    let text = Text { version: VERSION, pools: settings.iter().filter_map(of_pool).collect() };
    serde_json::to_vec(&text).expect("the text has only string keys, and a Vec takes all")
}

/// Reads the lists of those sources that have not changed.
///
/// # Errors
/// Why the text cannot be read.
pub fn load(text: &[u8], settings: &[SourceSettings]) -> Result<Found, String> {
    let text: Text = serde_json::from_slice(text).map_err(|error| format!("lists of servers: {error}"))?;
    if text.version != VERSION {
        return Err(format!(
            "lists of servers are written in version {} of the format, and this program reads version {VERSION}",
            text.version
        ));
    }
    let mut found = Found::new();
    for own in text.pools {
        let is = |source: &&SourceSettings| {
            (source.pool.as_str(), source.from.kind(), source.from.to_string())
                == (&own.pool, own.kind.as_str(), own.from.clone())
        };
        if settings.iter().any(|source| is(&source)) {
            let servers = read(&serde_json::to_vec(&own.servers).unwrap_or_default());
            let servers = servers.map_err(|wrong| format!("the list of servers of pool {}: {wrong}", own.pool))?;
            found.insert(own.pool, Arc::new(servers));
        }
    }
    Ok(found)
}

fn write(server: &ServerSettings) -> Value {
    let state = match server.admin {
        Admin::Enabled => "enabled",
        Admin::Draining => "draining",
        Admin::Disabled => "disabled",
    };
    let addresses: Vec<String> = addresses(server).map(|address| address.to_string()).collect();
    let mut keys = Map::new();
    let ServerSettings { name, weight, backup, priority, .. } = server;
    for (key, value) in [
        ("address", json!(addresses)),
        ("name", json!(name)),
        ("weight", json!(weight)),
        ("backup", json!(backup)),
        ("priority", json!(priority)),
        ("state", json!(state)),
        ("port", json!(server.port)),
        ("max-flows", json!(server.max_flows)),
    ] {
        if !value.is_null() {
            keys.insert(key.into(), value);
        }
    }
    Value::Object(keys)
}

#[cfg(test)]
mod tests {
    use super::super::settings::From;
    use super::*;

    #[test]
    fn the_lists_are_read_as_they_were_written_for_the_same_sources_only() {
        let list = "10.0.0.7:8080 weight=3 state=draining max-flows=9\n[2001:db8::9]:8080 address=10.0.0.9:8080 backup priority=2\n\
                    10.0.0.10 name=x\n";
        let servers = read(list.as_bytes()).unwrap();
        let source = |pool: &str, name: &str| SourceSettings {
            pool: pool.into(),
            from: From::Services(name.into()),
            least: 1,
            families: [true; 2],
        };
        let all = [source("a", "_a._tcp.example"), source("b", "_b._tcp.example"), source("c", "_c._tcp.example")];
        let found: Found = [("a".into(), Arc::new(servers.clone())), ("b".into(), Arc::new(Vec::new()))].into();
        let text = save(&all, &found);
        assert_eq!(load(&text, &all), Ok(found));
        let others = [source("a", "_other._tcp.example"), source("d", "_a._tcp.example")];
        assert_eq!(load(&text, &others), Ok(Found::new()));
        assert!(load(b"{\"version\":2,\"pools\":[]}", &all).unwrap_err().contains("version 2"));
        assert!(load(b"x", &all).is_err());
    }
}
