//! Servers of another gateway that this configuration does not have: flows that it has begun go on with them here.
//!
//! Such a server has a slot like one that has been removed: it is in no pool, and gets no new flow.

use super::{InUse, Plan};
use crate::balance::{Admin, PoolSettings, ServerIdentity, ServerSettings};
use crate::config::Settings;
use crate::ids::{PoolId, ServerId};
use std::collections::HashMap;
use std::net::IpAddr;

/// Most servers that are not configured and have a slot.
pub(in crate::engine) const MOST_GUESTS: usize = 4096;

/// Most bytes of the name of a service or pool, and of a server, as in a configuration.
const MOST_NAME: [usize; 2] = [64, 128];

/// Returns whether a service or pool of a configuration could have this name: any other one must not reach a log or a terminal.
pub(in crate::engine) fn is_name(text: &str) -> bool {
    fits(text, MOST_NAME[0])
}

fn fits(text: &str, most: usize) -> bool {
    let of_names = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:[]".contains(&byte);
    (1..=most).contains(&text.len()) && text.bytes().all(of_names)
}

/// Returns a server that another gateway names; none if no server of a configuration has such a name: it would be shown,
/// and kept.
pub(in crate::engine) fn guest(
    (pool, name): (&str, &str),
    addresses: [Option<IpAddr>; 2],
    port: Option<u16>,
) -> Option<ServerIdentity> {
    let addresses = addresses.into_iter().flatten().collect();
    (is_name(pool) && fits(name, MOST_NAME[1])).then(|| ServerIdentity {
        pool: pool.into(),
        name: name.into(),
        addresses,
        port,
    })
}

impl Plan {
    /// Returns this plan with servers that it does not have, and their slots, as far as there is room. All others keep
    /// their slots, but those of earlier guests that are not in use become vacant unless they are `needed`.
    pub(in crate::engine) fn hosting(
        &self,
        guests: &[ServerIdentity],
        in_use: &InUse,
        needed: impl Fn(ServerId) -> bool,
    ) -> (Plan, Vec<Option<ServerId>>) {
        let mut settings = self.settings.clone();
        let mut listed = vec![false; settings.servers.len()];
        self.order.servers.iter().for_each(|id| listed[id.0 as usize] = true);
        for (at, server) in settings.servers.iter_mut().enumerate() {
            let stays = listed[at] || in_use.servers.get(at) == Some(&true) || needed(ServerId(at as u32));
            if !stays {
                *server = ServerSettings::new("", server.pool);
            }
        }
        let named = settings.servers.iter().filter(|server| !server.name.is_empty()).count();
        let mut room = MOST_GUESTS.saturating_sub(named - self.order.servers.len());
        let mut vacant = (0..listed.len()).filter(|at| settings.servers[*at].name.is_empty()).collect::<Vec<_>>();
        vacant.reverse();
        let mut pools = Pools::of(&settings, &self.order.pools);
        let mut slots = Vec::with_capacity(guests.len());
        for guest in guests {
            if room == 0 {
                slots.push(None);
                continue;
            }
            room -= 1;
            let pool = pools.find(&mut settings, &guest.pool);
            let server = ServerSettings { admin: Admin::Draining, ..guest.settings(pool) };
            let slot = vacant.pop().unwrap_or(settings.servers.len());
            match settings.servers.get_mut(slot) {
                Some(place) => *place = server,
                None => settings.servers.push(server),
            }
            slots.push(Some(ServerId(slot as u32)));
        }
        (Plan::compile(settings, Some(Box::new(self.written().clone())), self.order.clone()), slots)
    }
}

/// The pools of a plan by name, and the slots of those that were of guests which have gone: each guest may name another one.
struct Pools {
    by_name: HashMap<String, PoolId>,
    vacant: Vec<PoolId>,
}

impl Pools {
    fn of(settings: &Settings, of_file: &[PoolId]) -> Pools {
        let mut in_use = vec![false; settings.pools.len()];
        let of_servers = settings.servers.iter().filter(|server| !server.name.is_empty()).map(|server| server.pool);
        // A service that has been removed still names its pool.
        let of_services = settings.services.iter().map(|service| service.pool);
        of_file.iter().copied().chain(of_servers).chain(of_services).for_each(|pool| in_use[pool.0 as usize] = true);
        let (mut by_name, mut vacant) = (HashMap::new(), Vec::new());
        for (at, pool) in settings.pools.iter().enumerate() {
            let id = PoolId(at as u32);
            if in_use[at] {
                by_name.entry(pool.name.clone()).or_insert(id);
            } else {
                vacant.push(id);
            }
        }
        Pools { by_name, vacant }
    }

    /// Returns the pool of a name, which is made if there is none.
    fn find(&mut self, settings: &mut Settings, name: &str) -> PoolId {
        *self.by_name.entry(name.to_owned()).or_insert_with(|| {
            let pool = PoolSettings::new(name, Vec::new());
            match self.vacant.pop() {
                Some(slot) => {
                    settings.pools[slot.0 as usize] = pool;
                    slot
                }
                None => {
                    settings.pools.push(pool);
                    PoolId(settings.pools.len() as u32 - 1)
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn guest(n: usize) -> ServerIdentity {
        let addresses = vec![IpAddr::from([10, 9, (n >> 8) as u8, n as u8])];
        ServerIdentity { pool: ["web", "another"][n % 2].into(), name: format!("guest-{n}"), addresses, port: None }
    }

    #[test]
    fn guests_have_slots_behind_the_others_as_far_as_there_is_room_and_no_pool_has_them() {
        let text = "[[service]]\nname='web'\nlisten='192.0.2.80:80/tcp'\npool='web'\n[[pool]]\nname='web'\n\
                    server=[{name='a',address='10.0.0.1'},{name='b',address='10.0.0.2'}]\n";
        let settings = config::parse(text, "guests.toml").unwrap_or_else(|error| panic!("{error}"));
        let plan = Plan::new(&settings);
        let guests: Vec<ServerIdentity> = (0..MOST_GUESTS + 10).map(guest).collect();
        let (hosting, slots) = plan.hosting(&guests, &InUse::default(), |_| false);
        assert_eq!(slots.iter().flatten().count(), MOST_GUESTS);
        assert!((2..).zip(&slots[..MOST_GUESTS]).all(|(at, slot)| *slot == Some(ServerId(at))));
        assert!(slots.iter().flatten().all(|slot| !hosting.roster().is_in_a_pool(*slot)));
        assert_eq!(hosting.pool_and_server(ServerId(3)), ("another", "guest-1"));
        assert_eq!((hosting.written(), hosting.order()), (&settings, plan.order()));
        // Those that nobody needs make room.
        let (again, slots) = hosting.hosting(&[guest(9000)], &InUse::default(), |slot| slot == ServerId(2));
        assert_eq!((slots, again.pool_and_server(ServerId(2)).1), (vec![Some(ServerId(3))], "guest-0"));
        assert!(again.pool_and_server(ServerId(4)).1.is_empty());
    }

    #[test]
    fn guests_that_come_and_go_leave_no_pools_behind() {
        let text = "[[service]]\nname='web'\nlisten='192.0.2.80:80/tcp'\npool='web'\n[[pool]]\nname='web'\n\
                    server=[{name='a',address='10.0.0.1'}]\n[[pool]]\nname='spare'\nserver=[{name='z',address='10.0.0.9'}]\n";
        let settings = config::parse(text, "guests.toml").unwrap_or_else(|error| panic!("{error}"));
        let mut plan = Plan::new(&settings);
        for round in 0..5usize {
            let own = |n: usize| ServerIdentity { pool: format!("pool-{round}-{n}"), ..guest(100 * round + n) };
            let guests: Vec<ServerIdentity> = (0..10).map(own).collect();
            let (hosting, slots) = plan.hosting(&guests, &InUse::default(), |_| false);
            assert!(slots.iter().all(Option::is_some));
            for (guest, slot) in guests.iter().zip(slots) {
                assert_eq!(hosting.pool_and_server(slot.unwrap()), (&*guest.pool, &*guest.name));
            }
            assert_eq!((hosting.settings().pools.len(), hosting.settings().servers.len()), (12, 12), "round {round}");
            assert_eq!(hosting.pool_and_server(ServerId(1)), ("spare", "z"));
            plan = hosting;
        }
    }

    #[test]
    fn a_guest_has_a_name_that_a_configuration_could_give_it() {
        let is_one = |pool: &str, name: &str| super::guest((pool, name), [None; 2], None).is_some();
        assert!(is_one("web", "a") && is_one(&"p".repeat(64), &"n".repeat(128)) && is_one("web", "[2001:db8::7]:80"));
        for (pool, name) in [("", "a"), ("web", ""), ("web", "\u{1b}[2J"), ("w\nb", "a"), ("web", "ä"), ("a b", "a")] {
            assert!(!is_one(pool, name), "{pool:?} {name:?}");
        }
        assert!(!is_one(&"p".repeat(65), "a") && !is_one("web", &"n".repeat(129)));
    }
}
