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

/// Returns a new TCP flow of a client's port.
pub(super) fn new_flow(port: u16) -> NewFlow {
    let key = |src: u32, src_port, dst: u32, dst_port| Key {
        protocol: Protocol::Tcp,
        addresses: Addresses::V4 { src, dst },
        src_port,
        dst_port,
    };
    NewFlow {
        client: key(0xc633_6407, port, 0xc000_0250, 80),
        server: key(0x0a00_0001, 80, 0xc633_6407, port),
        service: ServiceId(0),
        server_id: ServerId(0),
        profile: 0,
        nat_pool: NO_POOL,
        rule: 0,
        picked_by: 0,
        half_open: false,
    }
}
