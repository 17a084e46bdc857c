//! Captures: reading and writing pcap and pcapng, link types, one-line descriptions of packets.
//!
//! It reads from and writes to what it is given, and must not know files, the engine or clocks.

mod error;
mod head;
mod link;
mod rare;
mod reader;
mod writer;

#[cfg(test)]
mod tests;

pub use crate::packet::describe;
pub use error::CaptureError;
pub use head::NotIp;
pub use link::Link;
pub use reader::{Frame, Reader};
pub use writer::Writer;
