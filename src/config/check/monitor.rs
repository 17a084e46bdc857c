//! Checks of monitors against the rest: sources of probes, ports, floors, algorithms that need monitors.
//!
//! It must not read TOML. Where a value could not be read, nothing is concluded from its absence.

use super::unique;
use crate::balance::{Algorithm, Listen, Protocol};
use crate::config::links::Links;
use crate::config::outside;
use crate::config::problem::{Draft, grouped};
use crate::config::raw::Raw;
use crate::config::raw::pool::RawPool;
use crate::health::settings::Probe;

/// The port of HTTP over TLS.
const HTTPS: u16 = 443;

/// Checks all monitors.
pub(crate) fn check(raw: &Raw, links: &Links, drafts: &mut Vec<Draft>) {
    for (at, pool) in raw.pools.iter().enumerate() {
        unique("monitors of one pool", pool.monitors.iter().filter_map(|monitor| monitor.name.as_ref()), drafts);
        floor(pool, drafts);
        ports(raw, links, at, drafts);
    }
    sources(raw, links, drafts);
    for (service, at) in raw.services.iter().zip(&links.pools) {
        let Some(pool) = at.map(|at| &raw.pools[at]) else { continue };
        if let (Some(Algorithm::LeastLatency), Some(place), true) =
            (service.algorithm, &service.algorithm_place, pool.monitors.is_empty() && pool.monitors_are_whole)
        {
            let draft = Draft::warning(place.clone(), "no monitor measures the latency of this service's servers");
            let draft = draft.also(pool.place(), "has no monitor");
            drafts.push(draft.help("add a [[pool.monitor]]; without one, all servers count as equally fast"));
        }
    }
}

/// Warns of a floor that has no effect, or leaves the monitors none.
fn floor(pool: &RawPool, drafts: &mut Vec<Draft>) {
    let Some(floor) = &pool.floor else { return };
    let servers = pool.servers.len() as u32;
    let draft = if pool.monitors.is_empty() && pool.monitors_are_whole {
        let draft = Draft::warning(floor.span(), "`floor` has no effect: this pool has no monitor");
        draft.help("add a [[pool.monitor]], or remove `floor`")
    } else if pool.is_whole && servers > 0 && floor.get_ref().least(servers) == servers {
        let draft = Draft::warning(floor.span(), "with this `floor`, monitors never take a server out of service");
        draft.label(format!("{0} of {0} stay in service", grouped(servers as usize))).help("lower it, or remove it")
    } else {
        return;
    };
    drafts.push(draft);
}

/// Refuses monitors without ports of their own where the pool's services have none, and warns of those that can judge no
/// port, and of plain HTTP to the port of HTTPS.
fn ports(raw: &Raw, links: &Links, at: usize, drafts: &mut Vec<Draft>) {
    let pool = &raw.pools[at];
    let uses = |service: usize| links.pools[service] == Some(at) || links.last_resorts[service] == Some(at);
    let users = || (0..raw.services.len()).filter(|at| uses(*at)).map(|at| &raw.services[at]);
    let listens = || users().flat_map(|service| &service.listen).map(|listen| listen.get_ref());
    if listens().next().is_none() || !users().all(|service| service.is_whole) {
        return;
    }
    let has = |protocol| listens().any(|listen| listen.protocol == protocol);
    let (tcp, udp) = (has(Protocol::Tcp), has(Protocol::Udp));
    for monitor in &pool.monitors {
        let Some(settings) = monitor.settings.as_ref().filter(|settings| settings.ports.is_empty()) else { continue };
        if settings.probe == Probe::Icmp {
            continue;
        }
        let kind = settings.probe.name();
        if !tcp && !udp {
            let draft = Draft::error(monitor.place(), "this monitor has no port to probe");
            let help = "the services of this pool use neither TCP nor UDP: add `ports = [80]`, or use type \"icmp\"";
            drafts.push(draft.help(help));
        } else if !settings.probe.judges(tcp, udp) {
            let (protocol, types) =
                if tcp { ("TCP", "\"tcp\", \"http\" or \"icmp\"") } else { ("UDP", "\"udp\", \"dns\" or \"icmp\"") };
            let title = "this monitor judges none of the ports that services use, and has none of its own";
            let help = format!(
                "the services of this pool use {protocol}, which a \"{kind}\" probe cannot judge: add `ports`, or use type \
                 {types}"
            );
            drafts.push(Draft::warning(monitor.place(), title).help(help));
        }
        let own = || pool.servers.iter().filter_map(|server| server.settings.port);
        let keeps = pool.servers.iter().any(|server| server.settings.port.is_none());
        let secure = |listen: &Listen| {
            listen.protocol == Protocol::Tcp && (own().any(|port| port == HTTPS) || keeps && listen.first_port == HTTPS)
        };
        if matches!(settings.probe, Probe::Http(_)) && listens().any(secure) {
            let title = format!("this monitor speaks plain HTTP to port {HTTPS}, where servers expect TLS");
            let help = "add `ports = [80]` with a port that serves plain HTTP, or use type \"tcp\"; `ports = [443]` if \
                        plain HTTP is right there";
            drafts.push(Draft::warning(monitor.place(), title).help(help));
        }
    }
}

/// Refuses monitored servers of a family without a source address for probes; reported once per family.
fn sources(raw: &Raw, links: &Links, drafts: &mut Vec<Draft>) {
    if raw.gateway.probes_are_wrong {
        return;
    }
    for (family, v4, form) in [("IPv4", true, "192.0.2.1"), ("IPv6", false, "2001:db8::1")] {
        if raw.gateway.probes.iter().any(|probe| probe.get_ref().is_ipv4() == v4) {
            continue;
        }
        let monitored = raw.pools.iter().filter_map(|pool| Some((pool.monitors.first()?, pool)));
        let mut addresses = monitored.flat_map(|(monitor, pool)| {
            let addresses = pool.servers.iter().flat_map(|server| &server.addresses);
            addresses.filter(|address| address.get_ref().is_ipv4() == v4).map(move |address| (monitor, address))
        });
        let found = addresses.next().map(|(monitor, address)| (monitor, address.span(), format!("an {family} server")));
        let from_outside = || {
            let mut pools = raw.pools.iter().enumerate().filter_map(|(at, pool)| {
                let (monitor, source) = (pool.monitors.first()?, pool.source.as_ref()?);
                let is_wanted = links.used[at] && outside::families(raw, links, at)[usize::from(!v4)];
                is_wanted.then(|| (monitor, source.place.clone(), format!("its {family} servers come from here")))
            });
            pools.next()
        };
        if let Some((monitor, place, label)) = found.or_else(from_outside) {
            let draft =
                Draft::error(monitor.place(), format!("{family} probes of this monitor have no source address"));
            drafts.push(draft.also(place, label).help(format!(
                "add `probe-address = \"{form}\"` to [gateway]: an {family} address that is routed to this gateway and \
                 assigned to no interface"
            )));
        }
    }
}
