//! Shared by the unit tests of this directory: small settings, namespaces, a TUN device.

use super::netns::Namespace;
use crate::balance::{Listen, PoolSettings, Protocol, ServerSettings, ServiceSettings};
use crate::config::{GatewaySettings, Settings};
use crate::ids::{PoolId, ServerId};
use std::net::IpAddr;
use tun_tap::{Iface, Mode};

/// Settings with one pool; listen addresses as (address, protocol, first port, last port), servers as (address,
/// port).
pub(super) fn settings(listens: &[(&str, Protocol, u16, u16)], servers: &[(&str, Option<u16>)]) -> Settings {
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    let listen = listens
        .iter()
        .map(|(a, protocol, first_port, last_port)| Listen::one(address(a), *protocol, *first_port, *last_port))
        .collect();
    let servers: Vec<ServerSettings> = servers
        .iter()
        .enumerate()
        .map(|(i, (a, port))| ServerSettings {
            v4: if let IpAddr::V4(a) = address(a) { Some(a) } else { None },
            v6: if let IpAddr::V6(a) = address(a) { Some(a) } else { None },
            port: *port,
            ..ServerSettings::new(&format!("s{i}"), PoolId(0))
        })
        .collect();
    Settings {
        services: vec![ServiceSettings::new("web", listen, PoolId(0))],
        pools: vec![PoolSettings::new("pool", (0..u32::try_from(servers.len()).unwrap()).map(ServerId).collect())],
        servers,
        gateway: GatewaySettings { device: "eqtest0".into(), ..GatewaySettings::default() },
        ..Settings::default()
    }
}

/// Runs `ip` in the namespace of the thread.
pub(super) fn ip(words: &str) {
    let output = std::process::Command::new("ip").args(words.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
}

/// One service with an address per family, port 80, and two servers per family, one of them with its own port.
pub(super) fn two_families() -> Settings {
    settings(
        &[("192.0.2.10", Protocol::Tcp, 80, 80), ("2001:db8::10", Protocol::Tcp, 80, 80)],
        &[("10.9.0.2", Some(8080)), ("10.9.0.5", None), ("fd09::2", Some(8080)), ("fd09::5", None)],
    )
}

/// A namespace, or `None` and a line on stderr if the tests may not create any.
pub(super) fn namespace(label: &str) -> Option<Namespace> {
    match Namespace::new(label) {
        Ok(namespace) => Some(namespace),
        Err(e) => {
            assert!(!rustix::process::geteuid().is_root(), "root can make namespaces: {e}");
            eprintln!("SKIPPED: needs root: {e}");
            None
        }
    }
}

/// A TUN device in the calling thread's namespace; it dies when dropped.
pub(super) fn tun(name: &str) -> Iface {
    Iface::without_packet_info(name, Mode::Tun).unwrap()
}
