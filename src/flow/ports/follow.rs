//! Other addresses, ports and manners of a pool, while live flows keep what they have.
//!
//! An address that is taken out keeps its ports, apart from those that new flows get, until the last of them is free: if
//! it comes back, none of them is given twice. A port that is taken out belongs to no class; if it comes back while a flow
//! has it, the flow table refuses the second one.

use super::endpoint::{Class, Ports};
use super::{Address, KINDS, Kind, NatPool, Resting};
use crate::flow::nat_settings::NatPoolSettings;
use std::collections::BTreeMap;
use std::net::IpAddr;

impl NatPool {
    /// Follows other settings of the same pool.
    pub fn follow(&mut self, settings: &NatPoolSettings) {
        if self.settings == *settings {
            return;
        }
        // Places and classes change, by which those that have woken are known.
        self.drop_woken();
        let old = std::mem::replace(&mut self.settings, settings.clone());
        let manner = |of: &NatPoolSettings| (of.first_port, of.last_port, of.parity, of.range_class);
        if manner(&old) != manner(settings) {
            self.number_anew(&old);
        }
        if (&old.v4, &old.v6) != (&settings.v4, &settings.v6) {
            self.readdress();
        }
    }

    /// Puts the addresses in the order of the settings, and those that still have ports after them.
    fn readdress(&mut self) {
        let mut before: BTreeMap<IpAddr, (u32, Address)> = BTreeMap::new();
        for (at, own) in (0..).zip(std::mem::take(&mut self.addresses)) {
            before.insert(own.address, (at, own));
        }
        let mut places = BTreeMap::new();
        let v4 = self.settings.v4.iter().copied().map(IpAddr::V4);
        let wanted = v4.chain(self.settings.v6.iter().copied().map(IpAddr::V6));
        for address in wanted {
            let (was, own) = before.remove(&address).unzip();
            places.extend(was.map(|was| (was, self.addresses.len() as u32)));
            self.addresses.push(own.unwrap_or_else(|| Address::new(address)));
        }
        self.first_v6 = self.settings.v4.len();
        self.active = self.addresses.len();
        for (was, own) in before.into_values().filter(|(_, own)| own.is_in_use()) {
            places.insert(was, self.addresses.len() as u32);
            self.addresses.push(own);
        }
        self.resting.retain_mut(|rests| match places.get(&rests.address) {
            Some(place) => {
                rests.address = *place;
                true
            }
            None => false,
        });
    }

    /// Moves all ports to the classes of the new settings.
    fn number_anew(&mut self, old: &NatPoolSettings) {
        let new = self.settings.clone();
        for own in &mut self.addresses {
            for (place, kind) in own.kinds.iter_mut().enumerate() {
                if let Some(kind) = kind {
                    kind.number_anew(place, (old, &new));
                }
            }
        }
        let number = |rests: &Resting| {
            let (_, port) = ports_of(old, usize::from(rests.kind), rests.class, rests.index)?;
            class_of(&new, usize::from(rests.kind), port)
        };
        self.resting.retain_mut(|rests| match number(rests) {
            Some((class, index)) => {
                (rests.class, rests.index) = (class.number, index);
                true
            }
            None => false,
        });
        for rests in self.resting.iter().filter(|rests| rests.tentative) {
            let kind = self.addresses[rests.address as usize].kinds[usize::from(rests.kind)].as_mut();
            if let Some(ports) = kind.and_then(|kind| kind.ports.get_mut(&(rests.server, rests.class))) {
                ports.resting_tentative.add(rests.index);
            }
        }
    }

    /// Forgets addresses that have been taken out and have no ports any more.
    pub(super) fn forget_unused(&mut self) {
        while self.addresses.len() > self.active && self.addresses.last().is_some_and(|own| !own.is_in_use()) {
            self.addresses.pop();
        }
    }
}

impl Kind {
    fn number_anew(&mut self, place: usize, (old, new): (&NatPoolSettings, &NatPoolSettings)) {
        let before = std::mem::take(&mut self.ports);
        (self.used, self.tentative, self.resting) = (0, 0, 0);
        for ((server, number), ports) in before {
            let own = ports.busy.iter().filter_map(|index| ports_of(old, place, number, index));
            // In the order in which they were taken.
            let tentative = ports.tentative_in_order().filter_map(|index| ports_of(old, place, number, index));
            let firm = own.filter(|(index, _)| !ports.is_tentative(*index));
            for (index, port) in firm.chain(tentative) {
                let Some((class, new_index)) = class_of(new, place, port) else { continue };
                let to = self.ports.entry((server, class.number)).or_insert_with(Ports::none);
                to.busy.add(new_index);
                if ports.resting.has(index) {
                    to.resting.add(new_index);
                    self.resting += 1;
                    continue;
                }
                self.used += 1;
                if ports.is_tentative(index) {
                    to.add_tentative(new_index);
                    self.tentative += 1;
                }
            }
        }
    }
}

/// Returns an index and its port, given the number of its class.
fn ports_of(settings: &NatPoolSettings, kind: usize, number: u8, index: u16) -> Option<(u16, u16)> {
    let classes = [0, 1, 1024, 1025].into_iter().filter_map(|port| Class::of(settings, KINDS[kind], port));
    classes.into_iter().find(|class| class.number == number).map(|class| (index, class.port(index)))
}

fn class_of(settings: &NatPoolSettings, kind: usize, port: u16) -> Option<(Class, u16)> {
    let class = Class::of(settings, KINDS[kind], port)?;
    Some((class, class.index(port)?))
}
