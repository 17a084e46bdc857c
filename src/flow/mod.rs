//! The connection table: keys, entries, expiry, TCP tracker.
//!
//! It must not know services, algorithms or packets' bytes.

pub mod settings;

pub use settings::*;
