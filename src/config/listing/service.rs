//! Services, with stickiness and timeouts.

use super::{Keys, Object, keys, text, timeouts};
use crate::balance::{Algorithm, LastResort, Listen, Mss, Nat, Prefixes, ServiceSettings, Stickiness, Tuning};
use crate::config::raw::service::{LAST_RESORTS, ON_DOWN, UNKNOWN_TCP};
use crate::config::settings::Settings;
use crate::ids::PoolId;

/// Lists one `[[service]]` with the tables below it.
pub(super) fn service(service: &ServiceSettings, settings: &Settings) -> Object {
    let ServiceSettings {
        name,
        enabled,
        listen,
        pool,
        algorithm,
        tuning,
        sticky,
        on_down,
        last_resort,
        unknown_tcp,
        timeouts: _,
        priority,
        mss,
        nat,
    } = service;
    let mut keys = Keys::of(&keys::SERVICE);
    keys.put("enabled", enabled);
    keys.put_list("listen", listens(listen));
    keys.put("pool", pool_name(*pool, settings));
    keys.put("algorithm", text::quoted(algorithm.name()));
    tune(&mut keys, *algorithm, tuning);
    keys.put_word("on-down", &ON_DOWN, on_down);
    if let LastResort::Pool(pool) = last_resort {
        keys.put("last-resort-pool", pool_name(*pool, settings));
    } else {
        keys.put_word("last-resort", &LAST_RESORTS, last_resort);
        keys.put_some("last-resort-pool", None::<&str>);
    }
    keys.put("priority", text::quoted(priority.name()));
    keys.put_word("unknown-tcp", &UNKNOWN_TCP, unknown_tcp);
    match mss {
        Mss::Off => keys.put("mss-clamp", text::quoted("off")),
        Mss::Auto => keys.put("mss-clamp", text::quoted("auto")),
        Mss::To(bytes) => keys.put("mss-clamp", bytes),
    }
    translate(&mut keys, nat, settings);
    timeouts::of_service(&mut keys, service, settings);
    stick(&mut keys, sticky.as_ref(), settings);
    keys.named(name)
}

fn pool_name(pool: PoolId, settings: &Settings) -> String {
    text::quoted(&settings.pools[pool.0 as usize].name)
}

fn listens(listen: &[Listen]) -> Vec<String> {
    let mut sorted = listen.to_vec();
    sorted.sort_by_key(|l| (l.address, l.prefix, l.protocol, l.first_port, l.last_port));
    sorted.iter().map(|listen| text::quoted(&listen.to_string())).collect()
}

fn tune(keys: &mut Keys, algorithm: Algorithm, tuning: &Tuning) {
    let Tuning { rate_window, maglev_table, hash } = tuning;
    match algorithm {
        Algorithm::ConnectionRate => keys.put("rate-window", text::span(*rate_window)),
        Algorithm::Maglev => {
            keys.put("maglev-table", maglev_table);
            client(keys, "hash", ["hash-ipv4-prefix", "hash-ipv6-prefix"], *hash, "flow");
        }
        Algorithm::SourceHash => {
            client(keys, "hash", ["hash-ipv4-prefix", "hash-ipv6-prefix"], *hash, "flow");
        }
        _ => {}
    }
}

/// Adds what makes one client; `each` is the word where nothing does.
fn client(
    keys: &mut Keys,
    key: &'static str,
    lengths: [&'static str; 2],
    prefixes: Option<Prefixes>,
    each: &'static str,
) {
    match prefixes {
        None => keys.put(key, text::quoted(each)),
        Some(Prefixes::ADDRESS) => keys.put(key, text::quoted("address")),
        Some(Prefixes { v4, v6 }) => {
            keys.put(key, text::quoted("network"));
            keys.put(lengths[0], v4);
            keys.put(lengths[1], v6);
        }
    }
}

fn translate(keys: &mut Keys, nat: &Nat, settings: &Settings) {
    match nat {
        Nat::Destination => keys.put("nat", text::quoted("destination")),
        // The families are those of the NAT pool.
        Nat::Full { pool, only_for, families: _ } => {
            keys.put("nat", text::quoted("full"));
            keys.put("nat-pool", text::quoted(&settings.nat_pools[pool.0 as usize].name));
            keys.put_list("full-nat-for", text::set(only_for, text::network));
        }
    }
}

fn stick(keys: &mut Keys, sticky: Option<&Stickiness>, settings: &Settings) {
    keys.below(&keys::STICKY);
    let prefixes = sticky.map(|sticky| sticky.prefixes);
    client(keys, "by", ["ipv4-prefix", "ipv6-prefix"], prefixes, "connection");
    let Some(Stickiness { prefixes: _, idle, slots, group }) = sticky else { return };
    keys.put("idle", text::span(*idle));
    keys.put("slots", slots);
    keys.put_some("group", settings.sticky_groups.get(group).map(|name| text::quoted(name)));
}
