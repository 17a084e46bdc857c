//! Bytes of packets: parse once, read, rewrite in place, build.
//!
//! It must not know flows, services or time.

/// What the device knows about a packet beside its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Meta {
    /// The transport checksum field holds only the uncomplemented sum of the pseudo-header
    /// (`VIRTIO_NET_HDR_F_NEEDS_CSUM`); whoever sends the packet on completes it.
    pub partial_checksum: bool,
    /// Bytes of payload of each segment of a super-packet; 0 for an ordinary packet.
    pub gso_size: u16,
}

/// Which end of a flow sent a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The client, which opened the flow towards the service address.
    Client,
    /// The real server.
    Server,
}
