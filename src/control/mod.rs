//! Inspection of a running gateway: requests, answers, and how they are printed.
//!
//! ```text
//!  eqctl -> client ==(Unix socket, newline JSON)== gateway -> session -> engine
//!     `---> render <--- demo, replay
//! ```
//!
//! The core of it knows no socket and no clock: [`Session`] is fed bytes and answers with bytes.
//! Only [`client`] opens a socket, and it stands behind the feature `daemon`.

#[cfg(feature = "daemon")]
pub mod client;
pub mod protocol;
pub mod render;
mod session;

pub use protocol::{Answer, DeviceCounters, Done, Failure, PROTOCOL, Request, Status, Totals};
pub use session::{About, CHUNK, MAX_INPUT, Progress, Session};
