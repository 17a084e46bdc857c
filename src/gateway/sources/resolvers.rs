//! The resolvers of the system: `nameserver` lines of /etc/resolv.conf (resolv.conf(5)).

use crate::config::Settings;
use crate::sources::From;
use std::net::{IpAddr, SocketAddr};

/// Where the system names its resolvers.
const FILE: &str = "/etc/resolv.conf";
/// The port of DNS.
const PORT: u16 = 53;
/// The C library takes no more.
const MOST: usize = 3;

/// Reads the resolvers of the system; empty if there are none.
pub(in crate::gateway) fn of_system() -> Vec<SocketAddr> {
    parse(&std::fs::read_to_string(FILE).unwrap_or_default())
}

/// Returns the ports of the resolvers that a configuration uses; empty if it resolves no names.
pub(in crate::gateway) fn ports(settings: &Settings) -> Vec<u16> {
    if settings.sources.iter().all(|source| matches!(source.from, From::File(_))) {
        return Vec::new();
    }
    let servers = &settings.dns.servers;
    let mut ports: Vec<u16> = servers.iter().map(SocketAddr::port).chain(servers.is_empty().then_some(PORT)).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn parse(text: &str) -> Vec<SocketAddr> {
    let address = |line: &str| {
        let mut words = line.split_whitespace();
        let is_server = words.next() == Some("nameserver");
        // An address with a zone, `fe80::1%eth0`, needs an interface that may be gone by then.
        words.next().filter(|_| is_server)?.parse::<IpAddr>().ok()
    };
    text.lines().filter_map(address).take(MOST).map(|address| SocketAddr::new(address, PORT)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_three_name_servers_are_taken() {
        let text = "# nameserver 192.0.2.9\nsearch example\nnameserver 192.0.2.1\nnameserver\tfe80::1%eth0\n\
                    nameserver 2001:db8::53 # here\noptions edns0\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n";
        let found: Vec<String> = parse(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["192.0.2.1:53", "[2001:db8::53]:53", "192.0.2.2:53"]);
        assert_eq!(parse(""), []);
    }
}
