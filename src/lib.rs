//! Equipoise: a NAT load balancer as a library.
//!
//! ```text
//!  bytes + time --> parse ---> look ----------------> Step ---> carry out ---> verdict
//!                   packet/    reads plan, standing,            rewrites, counts,
//!                              shard; changes nothing           makes flows; decides nothing
//! ```
//!
//! The engine is sans-IO: packets and times are passed in, verdicts come out. It has four drivers: the live gateway
//! (`gateway/`), the replay of captures (`replay/`), the simulated network of the tests, and the benches.
//!
//! The layers, from the bottom up, each importing only layers below it (`tests/layering.rs` checks this):
//!
//! ```text
//!  ids, state, time, words           identifiers, health, time, enums of words
//!  bucket, histogram, rng, schedule, tournament
//!                                    token buckets, counts by size, random numbers, wake-ups, the least of many
//!  packet                            parsing, checksums, rewriting, building
//!  flow                              flow table, TCP tracker, fragments, NAT ports
//!  balance, policy, health           choice of the server, admission of flows, monitoring
//!  sources                           servers from files and DNS
//!  config                            TOML to checked settings
//!  engine                            the sans-IO core
//!  sync                              two gateways that share their flows
//!  capture, control, replay          pcap and pcapng; inspection; replay of captures
//!  import                            configurations of other balancers
//!  web                               metrics, page and API, as requests and responses
//!  gateway                           the live gateway: everything that touches the system
//!  conformance, demo, cli            the checklist, the demo, the command line
//! ```
//!
//! `gateway` and the layers above it are part of the feature `daemon`.

mod bucket;
pub mod histogram;
pub mod ids;
mod rng;
mod schedule;
pub mod state;
pub mod time;
mod tournament;
mod words;

pub mod packet;

pub mod flow;

pub mod balance;
pub mod policy;

pub mod health;
pub mod sources;

pub mod config;

pub mod engine;
pub mod sync;

pub mod capture;
pub mod control;
pub mod import;
pub mod replay;

#[cfg(feature = "web")]
pub mod web;

#[cfg(feature = "daemon")]
pub mod gateway;

#[cfg(feature = "conformance")]
pub mod conformance;

#[cfg(feature = "daemon")]
pub mod cli;

#[cfg(feature = "demo")]
pub mod demo;
