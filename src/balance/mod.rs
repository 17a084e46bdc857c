//! Which server a new flow goes to: services, pools, servers, and one file an algorithm.
//!
//! It must not know packets, flows or time; it is handed candidates and answers with one of them.

pub mod settings;

pub use settings::*;
