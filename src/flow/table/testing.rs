//! What the tests of several rooms need.

use super::*;

/// Returns a record in no list.
pub(super) fn blank() -> Flow {
    let packed = entry::Packed { addresses: [0; 2], ports: 0 };
    Flow {
        client: packed,
        server: packed,
        deltas: Deltas::default(),
        tcp: Ends::default(),
        server_id: ServerId(0),
        touched: 0,
        state: TimeoutState::Established,
        flags: USED,
        profile: 0,
        protocol: crate::packet::proto::TCP,
        generation: 0,
        packets: [0; 2],
        bytes: [0; 2],
        created: Instant::ZERO,
        wheel: Links::NONE,
        order: Links::NONE,
        service: ServiceId(0),
        rule: 0,
        nat_pool: NO_POOL,
    }
}
