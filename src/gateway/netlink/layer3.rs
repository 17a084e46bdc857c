//! The devices at which IP packets arrive.

use super::{LinkAttribute, LinkInfo, LinkMessage, Message, Netlink, NetlinkError};
use netlink_packet_route::link::LinkLayerType;
use std::collections::{BTreeMap, HashMap};

/// Kinds of devices that take the packets of those below them, so that these are no place where IP packets arrive.
const TAKERS: [&str; 4] = ["bridge", "bond", "team", "openvswitch"];

impl Netlink {
    /// Returns the kind of a device: `wireguard`, `veth`; `ethernet` or `other` for one of hardware. None if there is none.
    pub fn kind(&mut self, name: &str) -> Result<Option<String>, NetlinkError> {
        let answers = self.dump("listing devices", Message::GetLink(LinkMessage::default()))?;
        let links = answers.into_iter().filter_map(|m| if let Message::NewLink(m) = m { Some(m) } else { None });
        let is_named = |link: &LinkMessage| {
            link.attributes.iter().any(|attribute| matches!(attribute, LinkAttribute::IfName(own) if own == name))
        };
        Ok(links.into_iter().find(is_named).map(|link| {
            let infos = link.attributes.iter().find_map(|attribute| match attribute {
                LinkAttribute::LinkInfo(infos) => Some(infos),
                _ => None,
            });
            let kind = infos.into_iter().flatten().find_map(|info| match info {
                LinkInfo::Kind(kind) => Some(kind.to_string()),
                _ => None,
            });
            kind.unwrap_or_else(|| match link.header.link_layer_type {
                LinkLayerType::Loopback => "loopback".into(),
                LinkLayerType::Ether => "ethernet".into(),
                _ => "other".into(),
            })
        }))
    }

    /// Returns index and name of the devices at which IP packets arrive: all but the ports of bridges and bonds.
    pub fn layer3_devices(&mut self) -> Result<BTreeMap<u32, String>, NetlinkError> {
        Ok(self.layer3_links()?.into_iter().map(|(index, (name, _))| (index, name)).collect())
    }

    /// Returns these devices, and of each whether it has an Ethernet header.
    pub fn layer3_links(&mut self) -> Result<BTreeMap<u32, (String, bool)>, NetlinkError> {
        let answers = self.dump("listing devices", Message::GetLink(LinkMessage::default()))?;
        let links = answers.into_iter().filter_map(|m| if let Message::NewLink(m) = m { Some(m) } else { None });
        let (mut names, mut above, mut takers) = (BTreeMap::new(), HashMap::new(), Vec::new());
        for link in links {
            let index = link.header.index;
            let is_ethernet = link.header.link_layer_type == LinkLayerType::Ether;
            for attribute in link.attributes {
                match attribute {
                    LinkAttribute::IfName(name) => drop(names.insert(index, (name, is_ethernet))),
                    LinkAttribute::Controller(upper) => drop(above.insert(index, upper)),
                    LinkAttribute::LinkInfo(infos) => takers.extend(infos.iter().filter_map(|info| match info {
                        LinkInfo::Kind(kind) if TAKERS.contains(&kind.to_string().as_str()) => Some(index),
                        _ => None,
                    })),
                    _ => {}
                }
            }
        }
        names.retain(|index, _| above.get(index).is_none_or(|upper| !takers.contains(upper)));
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::testing::namespace;
    use std::process::Command;

    #[test]
    fn ports_of_a_bridge_are_not_among_them_and_the_bridge_is() {
        let (Some(ns), Some(far)) = (namespace("eq-mlay3"), namespace("eq-mlay3-far")) else { return };
        ns.cable("port", &far, "port").unwrap();
        ns.cable("alone", &far, "alone").unwrap();
        ns.run(|| {
            for words in ["link add bridge0 type bridge", "link set port master bridge0"] {
                assert!(Command::new("ip").args(words.split(' ')).status().unwrap().success(), "{words}");
            }
            let found = Netlink::open().unwrap().layer3_devices().unwrap();
            let mut names: Vec<_> = found.values().map(String::as_str).collect();
            names.sort_unstable();
            assert_eq!(names, ["alone", "bridge0", "lo"]);
            let kind = |name| Netlink::open().unwrap().kind(name).unwrap();
            assert_eq!(
                ["alone", "bridge0", "lo", "none"].map(kind),
                ["veth", "bridge", "loopback", ""].map(|kind| { (!kind.is_empty()).then(|| kind.to_owned()) })
            );
        })
        .unwrap();
    }
}
