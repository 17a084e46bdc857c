//! Equipoise: a NAT load balancer as a library.
//!
//! ```text
//!  bytes + time --> parse -> classify -> look up -> (miss: admit) -> rewrite -> verdict
//!                   packet/            flow/         balance/        packet/    engine/
//! ```
//!
//! The engine is sans-IO: it is handed packets and times, and answers with verdicts. Four drivers
//! share it: the live gateway (`gateway/`), the replay (`replay.rs`), the simulated world of the
//! tests, and the benches. Imports go downward only, in the order of the modules below; what
//! touches the system stands behind the feature `daemon`.

pub mod ids;
mod rng;
mod schedule;
pub mod time;

pub mod packet;

#[allow(unreachable_pub)] // for now
pub mod flow;

#[allow(unreachable_pub)] // for now
pub mod balance;
#[allow(unreachable_pub)] // for now
pub mod policy;

#[allow(unreachable_pub)] // for now
pub mod health;

#[allow(unreachable_pub)] // for now
pub mod config;

#[allow(unreachable_pub)] // for now
pub mod engine;

pub mod capture;
pub mod control;
#[allow(unreachable_pub)] // for now
pub mod replay;

#[cfg(feature = "daemon")]
pub mod gateway;

#[cfg(feature = "conformance")]
pub mod conformance;

#[cfg(feature = "daemon")]
#[allow(unreachable_pub)] // for now
pub mod cli;

#[cfg(feature = "demo")]
pub mod demo;
