//! Rows for tests.

use crate::balance::{PickedBy, Protocol};
use crate::engine::FlowRow;
use crate::flow::TimeoutState;
use crate::ids::FlowId;

/// An established flow of 198.51.100.9 to the service `web`.
pub(in crate::control) fn flow() -> FlowRow {
    FlowRow {
        id: FlowId { index: 7, generation: 0 },
        protocol: Protocol::Tcp,
        client: "198.51.100.9:999".parse().unwrap(),
        listen: "192.0.2.1:80".parse().unwrap(),
        service: "web".into(),
        pool: "farm".into(),
        server: "a".into(),
        server_address: "10.0.0.1:8080".parse().unwrap(),
        source: None,
        state: TimeoutState::Established,
        age_ms: 3_720_000,
        idle_ms: 200,
        expires_in_ms: 7_439_800,
        picked_by: PickedBy::Algorithm,
        rule: None,
        packets_in: 1_000,
        bytes_in: 1_500_000,
        packets_out: 7,
        bytes_out: 512,
        shortcut: false,
    }
}
