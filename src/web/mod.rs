//! Metrics, the page and the API over HTTP/1.1, without sockets: bytes in, requests out; rows in, responses out.
//!
//! ```text
//!  bytes -> request -> guard: for us? -> route -> what is wanted -> (gateway/http asks the loop) -> tables, metrics -> bytes
//! ```
//!
//! Everything that a client sends is bounded: see [`request`]. It must know neither sockets, threads nor clocks.

pub mod guard;
pub mod metrics;
pub mod page;
pub mod request;
pub mod response;
pub mod route;
pub mod tables;

pub use guard::Guard;
pub use request::{Read, Request};
pub use response::{Body, Response};
pub use route::{Route, View};
