//! Pools, their servers, and what their monitors share.

use super::{Keys, Object, keys, probe, text};
use crate::balance::{Passive, PoolSettings, ServerSettings};
use crate::config::raw::monitor::INITIAL;
use crate::config::raw::pool::STATES;
use crate::config::settings::Settings;
use crate::health::settings::{Floor, HealthSettings, MonitorSettings, PoolWatch, Probe};
use crate::ids::PoolId;
use crate::sources::{From, SourceSettings};

/// Lists every `[[pool]]` with `[pool.passive]`.
pub(super) fn pools(settings: &Settings) -> Vec<Object> {
    // The seed is that of the file, and the sources are those of the gateway.
    let HealthSettings { seed: _, source_v4: _, source_v6: _, pools: watched } = &settings.health;
    let mut floors = vec![Floor::None; settings.pools.len()];
    // Its servers are those of the pool.
    for PoolWatch { pool, monitors: _, floor, servers: _ } in watched {
        floors[pool.0 as usize] = *floor;
    }
    let source = |pool: &PoolSettings| settings.sources.iter().find(|source| source.pool == pool.name);
    settings.pools.iter().zip(floors).map(|(pool, floor)| one(pool, floor, source(pool))).collect()
}

fn one(pool: &PoolSettings, floor: Floor, source: Option<&SourceSettings>) -> Object {
    let PoolSettings { name, servers: _, passive, mtu } = pool;
    let mut keys = Keys::of(&keys::POOL);
    let floor = match floor {
        Floor::None => None,
        Floor::Count(count) => Some(count.to_string()),
        Floor::Percent(percent) => Some(text::quoted(&format!("{percent}%"))),
    };
    keys.put_some("floor", floor);
    keys.put_some("mtu", *mtu);
    // The families follow from the services.
    let (mut file, mut domain, mut of_all, mut fewest) = (None, None, None, None);
    if let Some(SourceSettings { pool: _, from, least, families: _ }) = source {
        fewest = Some(*least);
        match from {
            From::File(path) => file = Some(text::quoted(&path.to_string_lossy())),
            From::Services(of) => domain = Some(text::quoted(of)),
            From::Addresses { name: of, port } => (domain, of_all) = (Some(text::quoted(of)), *port),
        }
    }
    keys.put_some("servers-file", file);
    keys.put_some("servers-dns", domain);
    keys.put_some("servers-port", of_all);
    if let Some(fewest) = fewest {
        keys.put("servers-least", fewest);
    }
    if let Some(Passive { failures, within, hold, longest }) = passive {
        keys.below(&keys::PASSIVE);
        keys.put("failures", failures);
        keys.put("within", text::span(*within));
        keys.put("hold", text::span(*hold));
        keys.put("longest", text::span(*longest));
    }
    keys.named(name)
}

/// Lists one `[[pool.server]]`.
pub(super) fn server(server: &ServerSettings, settings: &Settings) -> Object {
    let ServerSettings { name, pool, v4, v6, port, weight, max_flows, slow_start, backup, priority, admin } = server;
    let mut keys = Keys::of(&keys::SERVER);
    keys.put_list("address", text::one_per_family(*v4, *v6));
    keys.put_some("port", *port);
    keys.put("weight", weight);
    keys.put_some("max-flows", *max_flows);
    keys.put("slow-start", text::span(*slow_start));
    keys.put("backup", backup);
    keys.put("priority", priority);
    keys.put_word("state", &STATES, admin);
    keys.named(in_pool(*pool, name, settings))
}

/// Lists every `[[pool.monitor]]`.
pub(super) fn monitors(settings: &Settings) -> Vec<Object> {
    let watched = settings.health.pools.iter();
    let all = watched.flat_map(|watch| watch.monitors.iter().map(|monitor| (watch.pool, monitor)));
    all.map(|(pool, monitor)| self::monitor(monitor).named(in_pool(pool, &monitor.name, settings))).collect()
}

fn monitor(monitor: &MonitorSettings) -> Keys {
    let MonitorSettings {
        name: _,
        probe,
        ports,
        interval,
        timeout,
        samples,
        max_lost,
        max_latency,
        fall,
        rise,
        initial,
        jitter_percent,
    } = monitor;
    let mut keys = Keys::of(&keys::MONITOR);
    keys.put("type", text::quoted(probe.name()));
    if *probe != Probe::Icmp {
        keys.put_list("ports", text::set(ports, u16::to_string));
    }
    keys.put("interval", text::span(*interval));
    keys.put("jitter", jitter_percent);
    keys.put("timeout", text::span(*timeout));
    keys.put("fall", fall);
    keys.put("rise", rise);
    keys.put("samples", samples);
    keys.put_some("max-lost", *max_lost);
    keys.put_some("max-latency", max_latency.map(text::span));
    keys.put_word("initial", &INITIAL, initial);
    probe::probe(&mut keys, probe);
    keys
}

/// The name of a server or monitor with its pool.
fn in_pool(pool: PoolId, name: &str, settings: &Settings) -> String {
    format!("{}/{name}", settings.pools[pool.0 as usize].name)
}
