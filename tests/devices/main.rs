//! The built `equipoise` on a real TUN device, between real programs, in network namespaces.
//!
//! It must not know anything inside the gateway: it observes through `eqctl`, as an operator would.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "helpers of a test program")]
#![allow(clippy::disallowed_methods, reason = "real programs take real time")]

mod browser;
mod bulk;
mod calm;
mod changes;
mod docs;
mod fairness;
mod http;
mod inspection;
#[allow(dead_code, reason = "some of it is only for tests/lab.rs")]
mod lab;
mod lifecycle;
mod manager;
mod marks;
mod messages;
mod monitors;
mod operators;
mod outside;
mod outward;
mod packets;
mod page;
mod pair;
mod path;
mod queues;
mod reload;
mod resort;
mod servers;
mod shortcut;
mod spread;
mod standing;
mod state;
mod takeover;
mod terminal;
mod tunnels;
mod watch;
mod world;

/// A service for [`world::World::configuration`]: name, port and protocol, servers, their port (0: the same).
type Service = (&'static str, &'static str, usize, u16);

/// What [`world::World::nginx`] serves.
const WEB: Service = ("web", "80/tcp", 3, 8080);
