//! Rows about what operators change.

use crate::config::changes::{Target, Who};
use crate::engine::{FlowRow, StickyRow};
use serde::{Deserialize, Serialize};

/// What an operator or a reload changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationRow {
    /// Milliseconds ago.
    pub ago_ms: u64,
    /// What changed: `server web/a: weight 1 -> 5 (new flows only)`.
    pub what: String,
    /// Who asked for it; none where the gateway itself did.
    #[serde(flatten)]
    pub who: Option<Who>,
}

/// What was changed at run time and is not in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeRow {
    /// The object.
    pub object: Target,
    /// The key; none if the object itself was added or removed.
    pub key: Option<String>,
    /// What the file says, in its notation; none if it lacks the object.
    pub file: Option<String>,
    /// What is in force, in the notation of the file: a value, of an added object its table; none if it was removed.
    pub value: Option<String>,
    /// Whether the key is absent, and `value` its default.
    #[serde(default)]
    pub is_default: bool,
    /// Whether it waits for its server, which comes from outside.
    #[serde(default)]
    pub waits: bool,
    /// Who asked for it.
    #[serde(flatten)]
    pub who: Who,
    /// Milliseconds ago.
    pub ago_ms: u64,
    /// Milliseconds until draining ends by force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
}

/// The configuration file as the gateway read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRow {
    /// Its name.
    pub origin: String,
    /// Its text.
    pub text: String,
}

/// An object before and after a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedRow {
    /// The object.
    pub object: Target,
    /// What was changed, a line for each key: `server web/a: weight 1 -> 5 (new flows only)`.
    pub text: String,
    /// Whether anything was changed.
    pub changed: bool,
    /// Every key before; none if the object did not exist.
    pub before: Option<serde_json::Map<String, serde_json::Value>>,
    /// Every key after; none if the object was removed.
    pub after: Option<serde_json::Map<String, serde_json::Value>>,
    /// The flows of a server that has stopped taking new ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flows: Option<u64>,
}

/// Flows before and after they were removed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct KilledRow {
    /// What was done, in one line.
    pub text: String,
    /// Whether anything was changed.
    pub changed: bool,
    /// Whether flows were only counted.
    #[serde(default)]
    pub dry_run: bool,
    /// Number of flows.
    pub flows: u64,
    /// The flows before, at most 100.
    pub before: Vec<FlowRow>,
    /// What is left of them after: nothing.
    pub after: Vec<FlowRow>,
}

/// Sticky clients before and after they were forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ClearedRow {
    /// What was done, in one line.
    pub text: String,
    /// Whether anything was changed.
    pub changed: bool,
    /// Number of clients.
    pub clients: u64,
    /// The clients before, at most 100.
    pub before: Vec<StickyRow>,
    /// What is left of them after: nothing.
    pub after: Vec<StickyRow>,
}

/// How far the draining or removal of a server is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainRow {
    /// The server, with its pool.
    pub server: String,
    /// What it does.
    pub state: DrainState,
    /// Its remaining flows.
    pub flows: u64,
    /// Milliseconds since draining began, up to its end.
    pub for_ms: Option<u64>,
    /// Milliseconds until the remaining flows are ended.
    pub deadline_ms: Option<u64>,
    /// Flows that were ended at the deadline.
    #[serde(default)]
    pub cut: u64,
    /// Of its flows, those whose connections have ended and which are only remembered; the client counts them, once there
    /// are few.
    #[serde(default)]
    pub ended: u64,
}

/// The state of draining.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DrainState {
    /// It has flows.
    Draining,
    /// Its last flow has ended by itself.
    Drained,
    /// The deadline has passed; the remaining flows were ended.
    Deadline,
    /// It was removed and has flows.
    Removing,
    /// It was removed and has no flows.
    Removed,
    /// It is enabled or disabled: nobody drains it.
    NotDraining,
}

/// A change by a reload, or what kept one from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadRow {
    /// What it is.
    pub kind: ReloadKind,
    /// The change in one line: `server web/web-2: weight 1 -> 5 (new flows only)`.
    pub text: String,
    /// The table of the object, as in the file: `pool.server`; empty where the row is about none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub table: String,
    /// The name of the object, with that of its pool for servers and monitors; empty for a table that exists once.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub object: String,
    /// The key that changed; none where the whole object was added or removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Its older value, as in the file; none if the key did not apply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Its newer value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// What a row of a reload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReloadKind {
    /// An object that is new.
    Added,
    /// An object that is gone; a server drains.
    Removed,
    /// A key of an object that has another value.
    Changed,
    /// A change that takes effect at the next start only.
    LeftOut,
    /// A change at run time that no longer applies.
    Dropped,
    /// Something that needs the operator's attention.
    Problem,
}

/// An object of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectRow {
    /// Its table: `service`, `pool.server`; empty for the top level.
    pub table: String,
    /// Its name, with that of its pool for servers and monitors; empty for a table that exists once.
    pub name: String,
    /// Its keys: the table of each, which is that of the object or one below it, the key, and the value as in the file.
    pub keys: Vec<(String, String, String)>,
}
