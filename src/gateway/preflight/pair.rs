//! Whether this gateway can be one of a pair: its key, and the tunnel to the other one.

use super::Problem;
use crate::config::{PairSettings, Settings};
use crate::gateway::netlink::Netlink;
use crate::gateway::pair_key;

/// Kinds of devices whose packets are encrypted, or may be: "tun" is that of VPN programs, "vti" and "xfrm" are those of IPsec.
const TUNNELS: [&str; 7] = ["wireguard", "xfrm", "vti", "vti6", "macsec", "tun", "ovpn"];

/// Returns what is missing.
pub(super) fn problems(settings: &Settings, netlink: &mut Netlink) -> Vec<Problem> {
    let Some(pair) = &settings.sync else { return Vec::new() };
    let key = pair_key(&pair.key_file).err().map(|why| match why.split_once(": ") {
        Some((what, fix)) => Problem::new(what, fix),
        None => Problem::new(why, "make a key file of the pair"),
    });
    key.into_iter().chain(interface(pair, netlink)).collect()
}

fn interface(pair: &PairSettings, netlink: &mut Netlink) -> Option<Problem> {
    let name = pair.interface.as_ref()?;
    let kind = match netlink.kind(name) {
        Ok(Some(kind)) => kind,
        Ok(None) => {
            return Some(Problem::new(
                format!("there is no interface {name}, which leads to the other gateway (sync.interface)"),
                "set up the tunnel before the gateway is started",
            ));
        }
        Err(error) => return Some(Problem::new(error.to_string(), "allow netlink sockets")),
    };
    if pair.insecure || kind == "loopback" || TUNNELS.contains(&kind.as_str()) {
        return None;
    }
    Some(Problem::new(
        format!(
            "interface {name} is not a tunnel (kind: {kind}): flows would be sent to {} without encryption",
            pair.peer
        ),
        "name a WireGuard, IPsec or MACsec interface in sync.interface; or, if the network between the two gateways is protected \
         otherwise, write insecure = true",
    ))
}
