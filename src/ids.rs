//! The numbers by which the layers refer to each other's things, without knowing them.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A service's index in the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServiceId(pub u32);

/// A pool's index in the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PoolId(pub u32);

/// A NAT pool's index in the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NatPoolId(pub u32);

/// A server's index in the settings, counted over all pools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServerId(pub u32);

/// A flow's slot in the table, with a generation, so that a reused slot is a different flow.
///
/// Printed, parsed and serialized as `index.generation`: `1042.3`; that of a half-open flow, which gets another one when
/// its handshake is complete, as `h1042.3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct FlowId {
    /// Slot in the table; with [`FlowId::HALF_OPEN`] set, in the store of half-open flows.
    pub index: u32,
    /// How often the slot has been reused.
    pub generation: u32,
}

impl FlowId {
    /// Set in the index of a half-open flow.
    pub const HALF_OPEN: u32 = 1 << 31;
}

impl fmt::Display for FlowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.index & FlowId::HALF_OPEN != 0 { "h" } else { "" };
        write!(f, "{mark}{}.{}", self.index & !FlowId::HALF_OPEN, self.generation)
    }
}

impl FromStr for FlowId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // `parse` alone would accept a sign.
        let number = |t: &str| t.bytes().all(|b| b.is_ascii_digit()).then(|| t.parse().ok()).flatten();
        let (mark, rest) = text.strip_prefix('h').map_or((0, text), |rest| (FlowId::HALF_OPEN, rest));
        rest.split_once('.')
            .and_then(|(index, generation)| Some((number(index)?, number(generation)?)))
            .filter(|(index, _)| index & FlowId::HALF_OPEN == 0)
            .map(|(index, generation)| FlowId { index: index | mark, generation })
            .ok_or_else(|| {
                format!("`{text}` is not a flow ID, which has the form INDEX.GENERATION, for example 1042.3")
            })
    }
}

impl TryFrom<String> for FlowId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<FlowId> for String {
    fn from(id: FlowId) -> String {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_id_prints_parses_and_travels_as_index_dot_generation() {
        let id = FlowId { index: 1042, generation: 3 };
        assert_eq!(id.to_string(), "1042.3");
        assert_eq!("1042.3".parse(), Ok(id));
        assert_eq!(serde_json::to_string(&id).unwrap(), "\"1042.3\"");
        assert_eq!(serde_json::from_str::<FlowId>("\"1042.3\"").unwrap(), id);
        let half_open = FlowId { index: 7 | FlowId::HALF_OPEN, generation: 1 };
        assert_eq!((half_open.to_string().as_str(), "h7.1".parse()), ("h7.1", Ok(half_open)));
        for bad in ["", "1", "1.", ".1", "+1.2", "1.2.3", "4294967296.0", "2147483648.0", "a.b", "h", "hh1.2"] {
            assert!(bad.parse::<FlowId>().is_err(), "{bad}");
        }
    }
}
