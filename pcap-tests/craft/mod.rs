//! Makes the captures of all cases from readable descriptions.
//!
//! In all of them clients are 198.51.100.0/24 and 2001:db8:c::/48, services 192.0.2.0/24 and 2001:db8::/64, servers
//! 10.0.2.0/24 and fd00::/64; all others are foreign. It must not know how the engine treats a packet.

pub mod balance;
pub mod errors;
pub mod film;
pub mod fragments;
pub mod full;
pub mod headers;
pub mod icmp;
pub mod limits;
pub mod links;
pub mod malformed;
pub mod nat;
pub mod pieces;
pub mod policy;
pub mod standing;
pub mod talk;
pub mod tcp;
pub mod timeouts;
pub mod udp;
pub mod way;

use film::Film;

/// Returns the name and bytes of the capture that a case's function makes.
pub fn capture(craft: fn(&mut Film)) -> (&'static str, Vec<u8>) {
    let mut film = Film::new();
    craft(&mut film);
    film.develop()
}

/// A client's address, with ports from 40000 up.
pub const C4: &str = "198.51.100.7:40000";
/// The same, IPv6.
pub const C6: &str = "[2001:db8:c::7]:40000";
/// The service on TCP.
pub const WEB4: &str = "192.0.2.80:80";
/// The same, IPv6.
pub const WEB6: &str = "[2001:db8::80]:80";
/// The service on UDP.
pub const DNS4: &str = "192.0.2.80:53";
/// The same, IPv6.
pub const DNS6: &str = "[2001:db8::80]:53";
/// The service on UDP whose timeouts are the default ones.
pub const QUIC4: &str = "192.0.2.80:443";
/// The same, IPv6.
pub const QUIC6: &str = "[2001:db8::80]:443";
