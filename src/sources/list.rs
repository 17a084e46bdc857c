//! The file of servers: one per line, or JSON.
//!
//! It must not open files.

use crate::balance::{Admin, ServerSettings};
use crate::ids::PoolId;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

/// Most servers of one source.
pub const MOST_SERVERS: usize = 16_384;
/// Longest file in bytes.
pub const MOST_BYTES: usize = 4 << 20;
/// Longest name in characters.
const LONGEST_NAME: usize = 128;

/// What is wrong with a list, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// Line, from 1; `None` where the whole file is meant.
    pub line: Option<usize>,
    /// What is wrong and what to do.
    pub text: String,
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

fn wrong(line: impl Into<Option<usize>>, text: impl Into<String>) -> Wrong {
    Wrong { line: line.into(), text: text.into() }
}

/// Reads a list of servers, in the order of the file.
///
/// A file with one mistake is refused as a whole: half a list would remove the servers of the other half.
///
/// # Errors
/// [`Wrong`] with the line of the first mistake.
pub fn read(bytes: &[u8]) -> Result<Vec<ServerSettings>, Wrong> {
    if bytes.len() > MOST_BYTES {
        return Err(wrong(None, format!("longer than {} MiB: this cannot be a list of servers", MOST_BYTES >> 20)));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        wrong(line, "not UTF-8 text: save the file as UTF-8")
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let entries = if is_json(text) { json(text)? } else { lines(text)? };
    let mut servers = Vec::with_capacity(entries.len());
    let mut names: HashMap<String, Option<usize>> = HashMap::new();
    let mut places: HashMap<(IpAddr, Option<u16>), Option<usize>> = HashMap::new();
    for (line, entry) in entries {
        let server = entry.server().map_err(|text| wrong(line, text))?;
        if servers.len() == MOST_SERVERS {
            return Err(wrong(line, format!("more than {MOST_SERVERS} servers: split the pool")));
        }
        if let Some(first) = names.insert(server.name.clone(), line) {
            return Err(wrong(line, format!("a second server {}{}: remove one of them", server.name, at(first))));
        }
        for address in addresses(&server) {
            if let Some(first) = places.insert((address, server.port), line) {
                let help = "remove one of them; a larger share of the flows is a larger weight";
                return Err(wrong(line, format!("a second server with this address and port{}: {help}", at(first))));
            }
        }
        servers.push(server);
    }
    Ok(servers)
}

/// Writes a list of servers, as JSON that [`read`] reads.
pub fn write(servers: &[ServerSettings]) -> String {
    let entry = |server: &ServerSettings| Entry {
        address: Address::Several(addresses(server).map(|address| address.to_string()).collect()),
        port: server.port.map(u32::from),
        name: Some(server.name.clone()),
        weight: Some(server.weight.into()),
        max_flows: server.max_flows,
        backup: server.backup,
        priority: Some(server.priority.into()),
        state: Some(
            match server.admin {
                Admin::Enabled => "enabled",
                Admin::Draining => "draining",
                Admin::Disabled => "disabled",
            }
            .into(),
        ),
    };
    let entries: Vec<Entry> = servers.iter().map(entry).collect();
    serde_json::to_string(&entries).unwrap_or_default()
}

fn at(line: Option<usize>) -> String {
    line.map_or(String::new(), |line| format!(", the first is in line {line}"))
}

/// The addresses of a server, IPv4 first.
pub(super) fn addresses(server: &ServerSettings) -> impl Iterator<Item = IpAddr> {
    server.v4.map(IpAddr::V4).into_iter().chain(server.v6.map(IpAddr::V6))
}

/// Whether a list is JSON. A line can also begin with the bracket of an IPv6 address.
fn is_json(text: &str) -> bool {
    let text = text.trim_start();
    let inside = text.strip_prefix('[').map(str::trim_start);
    text.starts_with('{') || inside.is_some_and(|rest| rest.is_empty() || rest.starts_with(['{', '"', ']']))
}

/// A server as the file has it.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Entry {
    address: Address,
    port: Option<u32>,
    name: Option<String>,
    weight: Option<u32>,
    max_flows: Option<u32>,
    #[serde(default)]
    backup: bool,
    priority: Option<u32>,
    state: Option<String>,
}

/// One address, with or without a port, or one of each family.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Address {
    One(String),
    Several(Vec<String>),
}

impl Default for Address {
    fn default() -> Self {
        Address::Several(Vec::new())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    servers: Vec<serde_json::Value>,
}

fn json(text: &str) -> Result<Vec<(Option<usize>, Entry)>, Wrong> {
    let failed = |error: serde_json::Error| {
        let form = "write [{\"address\": \"10.0.0.7\", \"port\": 8080}]";
        let line = Some(error.line()).filter(|line| *line > 0);
        wrong(line, format!("not a list of servers: {error}; {form}"))
    };
    let items: Vec<serde_json::Value> = if text.trim_start().starts_with('{') {
        serde_json::from_str::<Document>(text).map_err(failed)?.servers
    } else {
        serde_json::from_str(text).map_err(failed)?
    };
    let entry = |(at, value): (usize, serde_json::Value)| {
        // An untagged enum would not say what is wrong.
        let entry = match value {
            serde_json::Value::String(address) => Entry { address: Address::One(address), ..Entry::default() },
            value => serde_json::from_value(value)
                .map_err(|error| wrong(None, format!("server {} of the list: {error}", at + 1)))?,
        };
        Ok((None, entry))
    };
    items.into_iter().enumerate().map(entry).collect()
}

fn lines(text: &str) -> Result<Vec<(Option<usize>, Entry)>, Wrong> {
    let mut entries = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let Some(address) = words.next() else { continue };
        let mut entry = Entry { address: Address::One(address.into()), ..Entry::default() };
        for word in words {
            set(&mut entry, word).map_err(|text| wrong(at + 1, text))?;
        }
        entries.push((Some(at + 1), entry));
    }
    Ok(entries)
}

/// Sets a key of a line: `weight=3`, or `backup` alone.
fn set(entry: &mut Entry, word: &str) -> Result<(), String> {
    let (key, value) = word.split_once('=').unwrap_or((word, ""));
    let number = || value.parse::<u32>().map_err(|_| format!("{} is not a number for `{key}`", shown(value)));
    match key {
        "name" => entry.name = Some(value.into()),
        "weight" => entry.weight = Some(number()?),
        "max-flows" => entry.max_flows = Some(number()?),
        "priority" => entry.priority = Some(number()?),
        "state" => entry.state = Some(value.into()),
        "backup" => match value {
            "" | "true" => entry.backup = true,
            "false" => entry.backup = false,
            _ => return Err(format!("{} is not a value for `backup`: write true or false", shown(value))),
        },
        "address" => {
            let Address::One(first) = &entry.address else { return Err("a third address".into()) };
            entry.address = Address::Several(vec![first.clone(), value.into()]);
        }
        _ => {
            let known = "address, name, weight, state, backup, priority, max-flows";
            return Err(format!("unknown key {}: known keys are {known}, as in `weight=3`", shown(key)));
        }
    }
    Ok(())
}

/// A value in a message, short and without what a terminal would obey.
fn shown(text: &str) -> String {
    let short: String = text.chars().take(60).collect();
    format!("{short:?}")
}

impl Entry {
    fn server(self) -> Result<ServerSettings, String> {
        let texts = match self.address {
            Address::One(text) => vec![text],
            Address::Several(texts) => texts,
        };
        let range = |key: &str, number: Option<u32>, least: u32, most: u32| match number {
            Some(number) if !(least..=most).contains(&number) => {
                Err(format!("`{key}` is out of range: allowed are {least} to {most}"))
            }
            number => Ok(number),
        };
        let port = |number: Option<u32>| range("port", number, 1, 65_535).map(|port| port.map(|port| port as u16));
        let mut server = ServerSettings::new("", PoolId(0));
        server.port = port(self.port)?;
        for text in &texts {
            let (address, of_text) = address(text)?;
            let of_text = port(of_text)?;
            if of_text.is_some() && server.port.is_some_and(|port| Some(port) != of_text) {
                return Err(format!("{} has another port than the server", shown(text)));
            }
            server.port = server.port.or(of_text);
            let twin = match address {
                IpAddr::V4(v4) => server.v4.replace(v4).is_some(),
                IpAddr::V6(v6) => server.v6.replace(v6).is_some(),
            };
            if twin {
                return Err("a server has at most one IPv4 and one IPv6 address: make it two servers".into());
            }
        }
        let Some(first) = addresses(&server).next() else { return Err("a server needs an address".into()) };
        server.name = match self.name {
            Some(name) if is_name(&name) => name,
            Some(name) => {
                let chars = "letters, digits, \"-\", \"_\", \".\", \":\", \"[\" and \"]\"";
                return Err(format!("{} is not a name: allowed are 1 to {LONGEST_NAME} {chars}", shown(&name)));
            }
            None => place(first, server.port),
        };
        server.weight = range("weight", self.weight, 0, 65_535)?.map_or(1, |weight| weight as u16);
        server.priority = range("priority", self.priority, 1, 65_535)?.map_or(1, |priority| priority as u16);
        server.max_flows = range("max-flows", self.max_flows, 1, 100_000_000)?;
        server.backup = self.backup;
        server.admin = match self.state.as_deref() {
            None | Some("enabled") => Admin::Enabled,
            Some("draining") => Admin::Draining,
            Some("disabled") => Admin::Disabled,
            Some(other) => {
                return Err(format!("unknown state {}: allowed are enabled, draining and disabled", shown(other)));
            }
        };
        Ok(server)
    }
}

/// Whether a text can be the name of a server.
pub(super) fn is_name(text: &str) -> bool {
    let sound = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '[' | ']');
    (1..=LONGEST_NAME).contains(&text.chars().count()) && text.chars().all(sound)
}

/// The name of a server that has none: `10.0.0.7:8080`, `[2001:db8::7]:8080`, or the address alone.
pub(super) fn place(address: IpAddr, port: Option<u16>) -> String {
    match port {
        Some(port) => SocketAddr::new(address, port).to_string(),
        None => address.to_string(),
    }
}

/// Reads `10.0.0.7:8080`, `10.0.0.7`, `[2001:db8::7]:8080`, `[2001:db8::7]` or `2001:db8::7`.
fn address(text: &str) -> Result<(IpAddr, Option<u32>), String> {
    if let Ok(both) = text.parse::<SocketAddr>() {
        return Ok((both.ip(), Some(both.port().into())));
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let parsed = bare.parse::<IpAddr>().ok().filter(|address| address.is_ipv6() || bare.len() == text.len());
    let address = parsed.ok_or_else(|| {
        format!("{} is not an address: write 10.0.0.7:8080, 10.0.0.7 or [2001:db8::7]:8080", shown(text))
    })?;
    Ok((address, None))
}
