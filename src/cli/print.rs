//! `equipoise print`: configurations of the programs that elect the active gateway of a pair, and announce it.
//!
//! It holds no policy, and touches nothing.

use crate::config::{PairRoutes, PairSettings, Settings};
use crate::gateway::setup::QUIET;
use crate::gateway::wanted;
use ipnet::IpNet;
use std::fmt::Write;
use std::net::Ipv4Addr;
use std::path::Path;
use std::str::FromStr;

/// An address that moves with the active role, and the interface that gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Moving {
    address: IpNet,
    interface: String,
}

impl FromStr for Moving {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || format!("\"{text}\" is not an address on an interface: write 192.0.2.1/24@eth0");
        let (address, interface) = text.split_once('@').ok_or_else(form)?;
        let address = address.parse::<IpNet>().map_err(|_| form())?;
        if interface.is_empty() || interface.len() > 15 || interface.contains(|c: char| c.is_whitespace() || c == '/') {
            return Err(form());
        }
        Ok(Moving { address, interface: interface.into() })
    }
}

fn pair(settings: &Settings) -> Result<&PairSettings, String> {
    settings.sync.as_ref().ok_or_else(|| "the configuration has no [sync]: a single gateway needs no election".into())
}

/// Writes a configuration of keepalived for this gateway of the pair.
///
/// # Errors
/// What is missing in the configuration or on the command line.
pub(super) fn keepalived(settings: &Settings, moving: &[Moving], router: u8) -> Result<String, String> {
    let pair = pair(settings)?;
    let [first, ..] = moving else {
        return Err(
            "no address that moves: add --address 192.0.2.1/24@eth0, once for each network whose hosts use this \
                    gateway"
                .into(),
        );
    };
    let Some(track) = &pair.track_file else {
        return Err(
            "the configuration has no `track-file` in [sync], by which keepalived learns whether this gateway may be \
                    elected: add `track-file = \"/run/equipoise/track\"`"
                .into(),
        );
    };
    let mut text = election(pair, track, first, router);
    tracked_interfaces(&mut text, moving, first, &settings.gateway.device);
    moving_addresses(&mut text, moving, first);
    let socket = settings.gateway.control_socket.display();
    for (event, role) in [("master", "active"), ("backup", "standby"), ("fault", "standby"), ("stop", "standby")] {
        let wait = if role == "active" { " --wait 10" } else { "" };
        // keepalived does not wait for the end of one before it starts the next.
        let _ = writeln!(text, "    notify_{event} \"/usr/bin/eqctl --socket {socket} role {role} --in-order{wait}\"");
    }
    text += "}\n";
    Ok(text)
}

/// Returns the global part and the begin of the instance: who is elected, and how.
fn election(pair: &PairSettings, track: &Path, first: &Moving, router: u8) -> String {
    format!(
        "# keepalived, for gateway {} (its peer is {}). The other gateway gets the same file, printed from its own\n\
         # configuration.\n\
         global_defs {{\n\
         \x20   router_id {}\n\
         \x20   # The device of the gateway comes and goes with its process.\n\
         \x20   dynamic_interfaces\n\
         \x20   enable_script_security\n\
         \x20   script_user root\n\
         \x20   vrrp_garp_master_repeat 3\n\
         \x20   # Seconds. After a split, hosts in the other half learn again who has the addresses.\n\
         \x20   vrrp_garp_master_refresh 1\n\
         \x20   # Keeps a busy machine from missing advertisements and being taken for dead.\n\
         \x20   vrrp_priority -20\n\
         }}\n\n\
         track_file equipoise {{\n\
         \x20   file \"{}\"\n\
         \x20   weight 1\n\
         \x20   # Until the gateway has written it, this one is not elected.\n\
         \x20   init_file -254\n\
         }}\n\n\
         vrrp_instance equipoise {{\n\
         \x20   # Equal on both: whoever is active stays active when the other one comes back.\n\
         \x20   state BACKUP\n\
         \x20   priority 150\n\
         \x20   interface {}\n\
         \x20   virtual_router_id {router}\n\
         \x20   version 3\n\
         \x20   # Seconds: a peer that dies is missed after 0.4 s.\n\
         \x20   advert_int 0.1\n",
        pair.node,
        pair.peer,
        pair.node,
        track.display(),
        first.interface,
    )
}

/// Adds the interfaces without which the gateway is of no use; the one that carries the election counts by itself.
fn tracked_interfaces(text: &mut String, moving: &[Moving], first: &Moving, device: &str) {
    let others = moving.iter().map(|moving| moving.interface.as_str()).filter(|name| *name != first.interface);
    let mut interfaces: Vec<&str> = others.collect();
    interfaces.sort_unstable();
    interfaces.dedup();
    interfaces.push(device);
    *text += "    # Without one of them, this gateway is of no use.\n    track_interface {\n";
    interfaces.iter().for_each(|name| *text += &format!("        {name}\n"));
    *text += "    }\n    track_file {\n        equipoise\n    }\n";
}

/// Adds the addresses: advertisements carry those of one family, and the others move along.
fn moving_addresses(text: &mut String, moving: &[Moving], first: &Moving) {
    let v6 = |moving: &Moving| moving.address.addr().is_ipv6();
    for (block, of_family) in [("virtual_ipaddress", v6(first)), ("virtual_ipaddress_excluded", !v6(first))] {
        let of: Vec<&Moving> = moving.iter().filter(|moving| v6(moving) == of_family).collect();
        if !of.is_empty() {
            *text += &format!("    {block} {{\n");
            of.iter().for_each(|moving| *text += &format!("        {} dev {}\n", moving.address, moving.interface));
            *text += "    }\n";
        }
    }
}

/// Writes a configuration of BIRD 2 for this gateway of the pair: what a routing daemon announces for it.
///
/// # Errors
/// What is missing in the configuration.
pub(super) fn bird(settings: &Settings, router: Option<Ipv4Addr>) -> Result<String, String> {
    let pair = pair(settings)?;
    if pair.routes != PairRoutes::WhenActive {
        return Err("the service addresses of this gateway are routed always: add `routes = \"when-active\"` to [sync], so that \
                    BIRD can tell whether it is active"
            .into());
    }
    let device = &settings.gateway.device;
    let router = router
        .map_or("# router id 192.0.2.1;   an IPv4 address of this gateway".into(), |id| format!("router id {id};"));
    let mut text = format!(
        "# BIRD 2, for gateway {} (its peer is {}): announces the service addresses while this gateway is active.\n\
         # Add protocols that tell your routers (bgp, ospf) with `export where source = RTS_INHERIT && ifname = \"{device}\";`.\n\
         {router}\n\n\
         protocol device {{\n    scan time 1;\n}}\n",
        pair.node, pair.peer
    );
    let routed = wanted::routed_addresses(settings);
    for (family, is_v6) in [("ipv4", false), ("ipv6", true)] {
        if !routed.iter().any(|to| to.addr().is_ipv6() == is_v6) {
            continue;
        }
        let _ = write!(
            text,
            "\n# What the gateway has routed to its device; routes of metric {QUIET} are those of a standby.\n\
             protocol kernel equipoise_{family} {{\n\
             \x20   learn;\n\
             \x20   scan time 1;\n\
             \x20   {family} {{\n\
             \x20       import where ifname = \"{device}\" && krt_metric < {QUIET};\n\
             \x20       export none;\n\
             \x20   }};\n\
             }}\n"
        );
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn settings(more: &str) -> Settings {
        let text = format!(
            "[sync]\nnode = 'a'\npeer = 'b'\naddress = '127.0.0.1:7400'\npeer-address = '127.0.0.2:7400'\nkey-file = '/k'\n{more}\n\
             [[service]]\nname = 'x'\nlisten = ['192.0.2.80:80/tcp', '[2001:db8::80]:80/tcp']\npool = 'p'\n\
             [[pool]]\nname = 'p'\nserver = [{{ name = 's', address = ['10.0.0.1', '2001:db8:1::1'] }}]\n"
        );
        parse(&text, "x.toml").unwrap()
    }

    #[test]
    fn keepalived_gets_each_address_in_the_block_of_its_family() {
        let settings = settings("track-file = '/run/equipoise/track'");
        let moving: Vec<Moving> =
            ["192.0.2.1/24@eth0", "10.0.0.1/24@eth1", "2001:db8::1/64@eth0"].map(|text| text.parse().unwrap()).into();
        let text = keepalived(&settings, &moving, 51).unwrap();
        for part in [
            "interface eth0\n",
            "virtual_ipaddress {\n        192.0.2.1/24 dev eth0\n        10.0.0.1/24 dev eth1\n    }\n",
            "virtual_ipaddress_excluded {\n        2001:db8::1/64 dev eth0\n    }\n",
            "file \"/run/equipoise/track\"\n",
            "notify_master \"/usr/bin/eqctl --socket /run/equipoise/control.sock role active --in-order --wait 10\"\n",
            "track_interface {\n        eth1\n        equipoise0\n",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(keepalived(&settings, &[], 51).unwrap_err().contains("--address"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let moving = ["192.0.2.1/24@eth0".parse().unwrap()];
        assert!(keepalived(&settings(""), &moving, 51).unwrap_err().contains("track-file"));
        assert!(bird(&settings(""), None).unwrap_err().contains("when-active"));
        assert!(bird(&Settings::default(), None).unwrap_err().contains("[sync]"));
        for wrong in ["192.0.2.1/24", "192.0.2.1@eth0", "192.0.2.1/24@", "192.0.2.1/24@a b"] {
            assert!(wrong.parse::<Moving>().unwrap_err().contains("192.0.2.1/24@eth0"), "{wrong}");
        }
    }

    #[test]
    fn bird_learns_the_routes_of_both_families_while_they_are_those_of_an_active_gateway() {
        let text = bird(&settings("routes = 'when-active'"), Some("192.0.2.1".parse().unwrap())).unwrap();
        assert!(text.contains("router id 192.0.2.1;\n"), "{text}");
        for family in ["ipv4", "ipv6"] {
            assert!(
                text.contains(&format!(
                    "{family} {{\n        import where ifname = \"equipoise0\" && krt_metric < 1000000;"
                )),
                "{text}"
            );
        }
    }
}
