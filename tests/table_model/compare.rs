//! Compares everything observable of the table with the list.

use super::keys;
use super::random::Random;
use super::world::{Flow, World, ticks};
use equipoise::flow::{Found, Key, Table, TimeoutState};
use equipoise::packet::Side;

impl World {
    /// Compares everything.
    pub fn compare(&self, random: &mut Random) {
        let table = &self.table;
        let half_open = (self.count(true) as u32, self.max_half_open as u32);
        assert_eq!((table.len() as usize, table.is_empty()), (self.count(false), self.flows.is_empty()));
        assert_eq!(table.half_open(), half_open);
        let without = random.pick(&self.flows).map(|flow| (flow.id.index, flow.id));
        assert_eq!(table.flows_that_stay(None) as usize, self.that_stay(None));
        assert_eq!(table.flows_that_stay(without.map(|it| it.0)) as usize, self.that_stay(without.map(|it| it.1)));
        for state in TimeoutState::ALL {
            let count = self.flows.iter().filter(|flow| flow.state == state).count();
            assert_eq!(table.count(state) as usize, count, "{state:?}");
        }
        self.flows.iter().for_each(|flow| self.compare_flow(flow));
        for _ in 0..8 {
            let (client, server, ..) = keys(random);
            for key in [client, server, client.reversed()] {
                assert_eq!(table.find(&key), self.find(&key), "{key:?}");
                let recent = |ended: &(Key, u64)| ended.0 == key && self.tick() - ended.1 <= ticks(60);
                assert_eq!(table.has_just_ended(self.now, &key), self.ended.iter().any(recent), "{key:?}");
            }
        }
        for id in &self.gone[self.gone.len().saturating_sub(8)..] {
            assert_eq!(table.slot(*id), None, "{id} is gone");
        }
        let soonest = self.flows.iter().map(|flow| self.deadline(flow)).min();
        let next = table.poll_timeout();
        assert!(next.is_some() == soonest.is_some() && next <= soonest, "{next:?} is later than {soonest:?}");
        let mut used: Vec<u32> = table.slots(0).filter(|(_, used)| *used).map(|(index, _)| index).collect();
        let mut want: Vec<u32> = self.flows.iter().map(|flow| flow.id.index).collect();
        assert!(used.is_sorted_by_key(|index| Table::position(*index)));
        used.sort_unstable();
        want.sort_unstable();
        assert_eq!(used, want);
        assert!(table.slots(0).count() <= self.max + self.max_half_open, "more slots than flows allowed");
    }

    pub fn compare_flow(&self, flow: &Flow) {
        let (table, index) = (&self.table, flow.id.index);
        assert_eq!((table.id(index), table.slot(flow.id)), (flow.id, Some(index)));
        for (side, key) in [(Side::Client, &flow.client), (Side::Server, &flow.server)] {
            assert_eq!(table.find(key), Some(Found { index, side }), "{key:?}");
            assert_eq!(table.key(index, side), *key);
            assert_eq!(table.is_v6(index, side), key.addresses.is_v6());
        }
        let (there, back) = (table.translation(index, Side::Client), table.translation(index, Side::Server));
        assert_eq!((there.addresses, there.dst_port), (flow.server.addresses.reversed(), flow.server.src_port));
        assert_eq!((back.addresses, back.src_port), (flow.client.addresses.reversed(), flow.client.dst_port));
        let times = (self.begins(flow.touched), self.deadline(flow));
        assert_eq!((table.touched(index), table.deadline(index)), times, "{flow:?}");
        let facts = table.facts(index);
        assert_eq!((facts.state, facts.created, facts.protocol), (flow.state, flow.created, flow.client.protocol));
        assert_eq!((facts.server_id, facts.service, facts.profile), (flow.server_id, flow.service, flow.profile));
        assert_eq!((facts.packets, facts.bytes, facts.answered), (flow.packets, flow.bytes, flow.packets[1] > 0));
    }
}
