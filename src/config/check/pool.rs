//! Checks within one pool.
//!
//! It must not know services. Where a value could not be read, nothing is concluded from its absence.

use super::unique;
use crate::config::problem::{Draft, Span};
use crate::config::raw::pool::{RawPool, RawServer};
use std::collections::HashMap;
use std::net::IpAddr;

/// Checks one pool by itself, and against the MTU of the gateway's device.
pub(crate) fn check(pool: &RawPool, device_mtu: u16, drafts: &mut Vec<Draft>) {
    let place = pool.place();
    unique("servers of one pool", pool.servers.iter().filter_map(|server| server.name.as_ref()), drafts);
    if pool.servers.is_empty() && pool.is_whole {
        drafts.push(
            Draft::error(place, "a pool needs a server")
                .help("add a [[pool.server]] below it, with `name` and `address`"),
        );
        return;
    }
    check_use(pool, drafts);
    check_passive(pool, drafts);
    check_mtu(pool, device_mtu, drafts);
    check_addresses(pool, drafts);
}

/// Checks that the pool has servers that take flows.
fn check_use(pool: &RawPool, drafts: &mut Vec<Draft>) {
    let place = pool.place();
    if pool.is_whole && pool.servers.iter().all(|server| server.settings.weight == 0) {
        let draft = Draft::error(place, "all servers of this pool have weight 0");
        let draft = draft.also(pool.servers[0].weight_place.clone(), "the first one");
        drafts.push(draft.help("give at least one server a weight above 0, or no flow can be placed"));
    } else if pool.is_whole && !pool.servers.iter().any(RawServer::takes_flows) {
        let draft = Draft::warning(place, "at the start, no server of this pool takes new flows");
        drafts.push(draft.help("each is draining, disabled or has weight 0; enable one, here or at run time"));
    } else if pool.is_whole && pool.servers.iter().all(|server| server.settings.backup) {
        let draft = Draft::warning(place, "all servers of this pool are backups");
        drafts
            .push(draft.help("they are used as if none were a backup; remove `backup` from those that are used first"));
    }
}

fn check_passive(pool: &RawPool, drafts: &mut Vec<Draft>) {
    let passive = pool.passive.as_ref();
    if let Some((passive, (hold, longest))) = passive.and_then(|passive| Some((passive, passive.places.clone()?)))
        && passive.settings.longest < passive.settings.hold
    {
        let draft = Draft::error(longest, "`longest` is shorter than `hold`").also(hold, "first time out of service");
        drafts.push(draft.help("the time out of service begins with `hold` and doubles up to `longest`"));
    }
}

/// Checks the path MTU against the device's, and the least of IPv6.
fn check_mtu(pool: &RawPool, device_mtu: u16, drafts: &mut Vec<Draft>) {
    let six = pool.servers.iter().flat_map(|server| &server.addresses).find(|address| address.get_ref().is_ipv6());
    if let (Some(mtu), Some(six)) = (&pool.mtu, six)
        && *mtu.get_ref() < 1280
    {
        let draft = Draft::error(mtu.span(), format!("a path MTU of {} bytes is too small for IPv6", mtu.get_ref()));
        let draft = draft.also(six.span(), "an IPv6 server of this pool");
        drafts.push(
            draft.help("write 1280 or more (RFC 8200, section 5), or give IPv4 and IPv6 servers pools of their own"),
        );
    }
    if let Some(mtu) = pool.mtu.as_ref().filter(|mtu| *mtu.get_ref() > device_mtu) {
        let title = format!("this path MTU is greater than the device's, {device_mtu} bytes");
        let help = "packets never exceed the device's MTU: raise `mtu` in [gateway], or lower this one";
        drafts.push(Draft::warning(mtu.span(), title).help(help));
    }
}

fn check_addresses(pool: &RawPool, drafts: &mut Vec<Draft>) {
    let mut seen: HashMap<(IpAddr, Option<u16>), Span> = HashMap::new();
    for server in &pool.servers {
        for address in &server.addresses {
            let key = (*address.get_ref(), server.settings.port);
            match seen.get(&key) {
                None => {
                    seen.insert(key, address.span());
                }
                Some(first) => {
                    let draft = Draft::error(address.span(), "two servers of one pool have the same address and port");
                    let draft = draft.label("the second").also(first.clone(), "the first");
                    drafts.push(
                        draft.help(
                            "remove one of them; to give a server a larger share of the flows, raise its `weight`",
                        ),
                    );
                }
            }
        }
    }
}
