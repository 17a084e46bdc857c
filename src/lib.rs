//! Equipoise: a NAT load balancer as a library.
//!
//! ```text
//!  bytes + time --> parse -> classify -> look up -> (miss: admit) -> rewrite -> verdict
//!                   packet/            flow/         balance/        packet/    engine/
//! ```
//!
//! The engine is sans-IO: it is given packets and times, and returns verdicts. Four drivers share it: the live gateway
//! (`gateway/`), the replay (`replay/`), the simulated world of the tests, and the benches. Imports go downward only, in
//! the order of the modules below. What uses the system needs the feature `daemon`; the checklist, the demo and rare link
//! types have features of their own.

pub mod ids;
mod rng;
mod schedule;
pub mod time;

pub mod packet;

pub mod flow;

pub mod health;

pub mod balance;
pub mod policy;

pub mod config;

pub mod engine;

pub mod control;

pub mod capture;
pub mod replay;

#[cfg(feature = "daemon")]
pub mod gateway;

#[cfg(feature = "conformance")]
pub mod conformance;

#[cfg(feature = "daemon")]
pub mod cli;

#[cfg(feature = "demo")]
pub mod demo;
