//! Other timeouts for new flows, while live flows keep theirs.

use super::super::settings::{MOST_PROFILES, TableSettings, TimeoutState, Timeouts};
use super::{Table, ticks_of};
use crate::time::Duration;

impl Table {
    /// Makes the timeouts of `settings` apply to new flows; live flows keep theirs. The size of the table stays.
    ///
    /// At most 256 different sets of timeouts are in use at a time, those of live flows included. Beyond that, new flows
    /// get the table's own, and this returns false.
    pub fn change_timeouts(&mut self, settings: &TableSettings) -> bool {
        let further = settings.profiles.iter().take(MOST_PROFILES);
        let wanted: Vec<Timeouts> = std::iter::once(&settings.timeouts).chain(further).copied().collect();
        let mut numbers: Vec<Option<u8>> = wanted.iter().map(|timeouts| self.number_of(timeouts)).collect();
        for (place, timeouts) in wanted.iter().enumerate() {
            if numbers[place].is_none() {
                let again = wanted[..place].iter().position(|before| before == timeouts);
                numbers[place] = match again {
                    Some(before) => numbers[before],
                    None => self.free_number(&numbers).inspect(|number| self.set_profile(*number, timeouts)),
                };
            }
        }
        let own = numbers[0].unwrap_or(self.numbers[0]);
        self.numbers = numbers.iter().map(|number| number.unwrap_or(own)).collect();
        numbers.iter().all(Option::is_some)
    }

    fn number_of(&self, timeouts: &Timeouts) -> Option<u8> {
        self.timeouts.iter().position(|own| own == timeouts).map(|number| number as u8)
    }

    /// Returns a number that is not in use, neither by a flow nor among `taken`.
    fn free_number(&self, taken: &[Option<u8>]) -> Option<u8> {
        if self.timeouts.len() <= MOST_PROFILES {
            return Some(self.timeouts.len() as u8);
        }
        // Only after 256 changes of timeouts are all flows looked at.
        let mut used = [false; MOST_PROFILES + 1];
        taken.iter().flatten().for_each(|number| used[usize::from(*number)] = true);
        for (index, _) in self.slots(0).filter(|(_, is_used)| *is_used) {
            used[usize::from(self.facts(index).profile)] = true;
        }
        used.iter().position(|used| !used).map(|number| number as u8)
    }

    fn set_profile(&mut self, number: u8, timeouts: &Timeouts) {
        let ticks = TimeoutState::ALL.map(|state| ticks_of(timeouts, state));
        let place = usize::from(number);
        if place == self.timeouts.len() {
            self.timeouts.push(*timeouts);
            self.ticks.push(ticks);
        } else {
            (self.timeouts[place], self.ticks[place]) = (*timeouts, ticks);
        }
        self.half_open.set_profile(number, [TimeoutState::Opening, TimeoutState::Reset].map(|at| ticks[at as usize]));
    }

    /// Returns how long a new flow would live in a state without a packet; `profile` is numbered as in [`super::NewFlow`].
    pub fn timeout_of_new(&self, profile: u8, state: TimeoutState) -> Duration {
        self.timeout(self.number(profile), state)
    }

    /// Returns the number under which the table keeps a profile of the settings.
    pub(super) fn number(&self, profile: u8) -> u8 {
        self.numbers.get(usize::from(profile)).copied().unwrap_or(self.numbers[0])
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::super::*;
    use super::*;

    fn opening(secs: u64) -> Timeouts {
        Timeouts { opening: Duration::from_secs(secs), udp_one_way: Duration::from_secs(secs), ..Timeouts::default() }
    }

    fn settings(own: u64, further: &[u64]) -> TableSettings {
        TableSettings {
            max_flows: 600,
            max_half_open: 600,
            timeouts: opening(own),
            profiles: further.iter().map(|secs| opening(*secs)).collect(),
        }
    }

    #[test]
    fn live_flows_keep_their_timeouts_and_new_ones_get_the_newer() {
        let mut table = Table::new(&settings(100, &[20]));
        let at = |secs: u64| Instant::from_nanos(secs * 1_000_000_000);
        let open = |table: &mut Table, port, profile, half_open| {
            table.insert(at(0), &NewFlow { profile, half_open, ..new_flow(port) })
        };
        let before = [open(&mut table, 1, 0, true), open(&mut table, 2, 1, true)];
        assert!(table.change_timeouts(&settings(50, &[100, 10])));
        let after = [3, 4, 5].map(|port| open(&mut table, port, port as u8 - 3, true));
        let secs = |table: &Table, index| table.deadline(index).since(at(0)).as_nanos().div_ceil(1_000_000_000);
        assert_eq!(before.map(|index| secs(&table, index)), [101, 21]);
        assert_eq!(after.map(|index| secs(&table, index)), [51, 101, 11]);
        assert_eq!(table.timeout_of_new(2, TimeoutState::Opening), Duration::from_secs(10));
        // The soonest of all is due first.
        let mut most = 100;
        assert_eq!(table.expired(at(12), &mut most), Some(after[2]));
    }

    #[test]
    fn timeouts_of_which_all_are_new_are_kept_apart() {
        let mut table = Table::new(&settings(100, &[]));
        let both = Timeouts { reset: Duration::from_secs(7), ..opening(50) };
        assert!(table.change_timeouts(&TableSettings { timeouts: both, ..settings(100, &[]) }));
        let index = table.insert(Instant::ZERO, &NewFlow { half_open: true, ..new_flow(1) });
        assert_eq!(table.deadline(index).since(Instant::ZERO).as_nanos().div_ceil(1_000_000_000), 51);
        assert_eq!(table.timeout_of_new(0, TimeoutState::Reset), Duration::from_secs(7));
    }

    #[test]
    fn numbers_that_no_flow_has_are_used_again_and_no_two_sets_share_one() {
        let mut table = Table::new(&settings(1, &[]));
        let at = Instant::ZERO;
        for secs in 2..2000 {
            assert!(table.change_timeouts(&settings(secs, &[secs + 5000])), "{secs}");
            if secs < 100 {
                table.insert(at, &NewFlow { profile: 1, half_open: secs % 2 == 0, ..new_flow(secs as u16) });
            }
        }
        let mut lives: Vec<u128> = table
            .slots(0)
            .filter(|(_, used)| *used)
            .map(|(index, _)| table.deadline(index).since(at).as_nanos() / 1_000_000_000)
            .collect();
        lives.sort_unstable();
        assert!(lives.iter().zip(2..).all(|(life, secs)| (5000 + secs..=5001 + secs).contains(life)), "{lives:?}");
        assert_eq!((lives.len(), table.timeouts.len()), (98, 256));
        // All 256 are in use: the table's own apply, and it says so.
        for secs in 0..300u64 {
            table.change_timeouts(&settings(1, &[secs + 9000]));
            table.insert(at, &NewFlow { profile: 1, half_open: false, ..new_flow(secs as u16 + 200) });
        }
        assert!(!table.change_timeouts(&settings(1, &[77_777])));
        assert_eq!(table.timeout_of_new(1, TimeoutState::Opening), Duration::from_secs(1));
    }
}
