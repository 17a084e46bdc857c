//! Resting ports as values, from which another pool lets them rest again.

use super::{Class, KINDS, Mapping, NatPool, Ports, Resting, kind};
use crate::time::Instant;

/// A port that rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rest {
    /// The source that its flow had.
    pub mapping: Mapping,
    /// When it can be assigned again.
    pub until: Instant,
    /// Whether its flow was tentative to its end.
    pub tentative: bool,
}

impl NatPool {
    /// Returns the ports that rest, in the order in which they were freed; those after `after` ports that rest until then
    /// or longer.
    pub fn resting(&self, (until, after): (Instant, usize)) -> impl Iterator<Item = Rest> + '_ {
        let first = self.resting.partition_point(|rests| rests.until < until);
        let all = self.resting.iter().enumerate().skip(first + after);
        let all = all.filter(|(at, rests)| !self.woken.has(*at, rests));
        all.filter_map(|(_, rests)| {
            let protocol = KINDS[usize::from(rests.kind)];
            // Of each class, the port of some client that gets one of it.
            let classes = [0, 1, 1024, 1025].into_iter().filter_map(|port| Class::of(&self.settings, protocol, port));
            let class = classes.into_iter().find(|class| class.number == rests.class)?;
            let address = self.addresses[rests.address as usize].address;
            let mapping = Mapping { address, port: class.port(rests.index), protocol, server: rests.server };
            Some(Rest { mapping, until: rests.until, tentative: rests.tentative })
        })
    }

    /// Returns whether the pool has this source, and no flow has it or makes it rest. A protocol without ports shares it.
    pub fn is_free(&self, mapping: &Mapping) -> bool {
        if kind(mapping.protocol).is_none() {
            return self.owns(mapping.address);
        }
        let Some((at, kind, class, index)) = self.place(mapping) else { return false };
        self.ports(at, kind, (mapping.server, class.number)).is_none_or(|ports| !ports.busy.has(index))
    }

    /// Lets a free port rest; returns whether it does: not if it is in use, or too many rest.
    pub fn let_rest(&mut self, rest: &Rest) -> bool {
        if !self.is_free(&rest.mapping) || self.resting_len() >= self.most_resting {
            return false;
        }
        let Some((at, place, class, index)) = self.place(&rest.mapping) else { return false };
        let server = rest.mapping.server;
        let kind = self.addresses[at].kinds[place].get_or_insert_default();
        let ports = kind.ports.entry((server, class.number)).or_insert_with(Ports::none);
        ports.busy.add(index);
        ports.resting.add(index);
        if rest.tentative {
            ports.resting_tentative.add(index);
        }
        kind.resting += 1;
        self.push_resting(Resting {
            until: rest.until,
            server,
            address: at as u32,
            kind: place as u8,
            class: class.number,
            index,
            tentative: rest.tentative,
        });
        true
    }
}
