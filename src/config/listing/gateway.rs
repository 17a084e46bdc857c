//! The tables that exist once, and NAT pools.

use super::{Keys, Object, keys, text, timeouts};
use crate::config::raw::answers::{NO_ROOM, NO_SERVICE, OTHER_PROTOCOL};
use crate::config::raw::nat::POOLING;
use crate::config::raw::sync::{HEALTH, ROUTES};
use crate::config::settings::{AnswerSettings, GatewaySettings, HttpSettings, PairSettings, Settings};
use crate::flow::{FragmentSettings, NatPoolSettings, TableSettings};
use crate::sources::DnsSettings;
use std::path::PathBuf;

/// Lists the top level, `[gateway]`, `[http]`, `[flows]`, `[timeouts]` and `[fragments]`.
pub(super) fn tables(settings: &Settings) -> Vec<Object> {
    let mut top = Keys::of(&keys::TOP);
    top.put("seed", settings.seed);
    // The profiles belong to the services that use them.
    let TableSettings { max_flows, max_half_open, timeouts: base, profiles: _ } = &settings.table;
    let mut flows = Keys::of(&keys::FLOWS);
    flows.put("max", max_flows);
    flows.put("half-open", max_half_open);
    flows.put_some("rate", settings.policy.rate);
    let gateway = gateway(&settings.gateway);
    vec![
        top.single(),
        gateway,
        http(&settings.http),
        flows.single(),
        timeouts::base(base),
        fragments(&settings.fragments),
    ]
}

fn gateway(settings: &GatewaySettings) -> Object {
    let GatewaySettings {
        device,
        offload,
        shortcut,
        mtu,
        client_mtu,
        addresses,
        probe_v4,
        probe_v6,
        announce,
        keep_fallback,
        state_file,
        state_interval,
        control_socket,
        route_table,
        rule_priority,
    } = settings;
    let mut keys = Keys::of(&keys::GATEWAY);
    keys.put("device", text::quoted(device));
    keys.put("offload", offload);
    keys.put("shortcut", shortcut);
    keys.put("mtu", mtu);
    keys.put_some("client-mtu", *client_mtu);
    // The prefix length is that of the device's network, and the address may have bits after it.
    keys.put_list("addresses", text::set(addresses, |net| text::quoted(&net.to_string())));
    keys.put_list("probe-address", text::one_per_family(*probe_v4, *probe_v6));
    keys.put("announce", announce);
    keys.put("keep-fallback", keep_fallback);
    keys.put_some("state-file", state_file.as_ref().map(|path| text::quoted(&path.to_string_lossy())));
    keys.put("state-interval", text::span(*state_interval));
    keys.put("control-socket", text::quoted(&control_socket.to_string_lossy()));
    keys.put("route-table", route_table);
    keys.put("rule-priority", rule_priority);
    keys.single()
}

fn http(settings: &HttpSettings) -> Object {
    let HttpSettings { listen, remote, names } = settings;
    let mut keys = Keys::of(&keys::HTTP);
    keys.put_some("listen", listen.map(|listen| text::quoted(&listen.to_string())));
    keys.put("remote", remote);
    keys.put_list("names", text::set(names, |name| text::quoted(name)));
    keys.single()
}

fn fragments(settings: &FragmentSettings) -> Object {
    let FragmentSettings { timeout, max_packets, max_bytes } = settings;
    let mut keys = Keys::of(&keys::FRAGMENTS);
    keys.put("timeout", text::span(*timeout));
    keys.put("max-packets", max_packets);
    keys.put("max-bytes", max_bytes);
    keys.single()
}

/// Lists `[dns]`.
pub(super) fn dns(settings: &DnsSettings) -> Object {
    let DnsSettings { servers, min_ttl, max_ttl } = settings;
    let mut keys = Keys::of(&keys::DNS);
    // Their order counts.
    keys.put_list("servers", servers.iter().map(|server| text::quoted(&server.to_string())).collect());
    keys.put("min-ttl", text::span(*min_ttl));
    keys.put("max-ttl", text::span(*max_ttl));
    keys.single()
}

/// Lists `[sync]`.
pub(super) fn sync(settings: &PairSettings) -> Object {
    let PairSettings { node, peer, address, peer_address, key_file, interface, insecure, learning, .. } = settings;
    let PairSettings { track_file, routes, before_answer, health, .. } = settings;
    let path = |path: &PathBuf| text::quoted(&path.to_string_lossy());
    let mut keys = Keys::of(&keys::SYNC);
    keys.put("node", text::quoted(node));
    keys.put("peer", text::quoted(peer));
    keys.put("address", text::quoted(&address.to_string()));
    keys.put("peer-address", text::quoted(&peer_address.to_string()));
    keys.put("key-file", path(key_file));
    keys.put_some("interface", interface.as_deref().map(text::quoted));
    keys.put("insecure", insecure);
    keys.put("learning", text::span(*learning));
    keys.put_some("track-file", track_file.as_ref().map(path));
    keys.put_word("routes", &ROUTES, routes);
    keys.put("before-answer", before_answer);
    keys.put_word("health", &HEALTH, health);
    keys.single()
}

/// Lists `[answers]`.
pub(super) fn answers(settings: &AnswerSettings) -> Object {
    let AnswerSettings { no_service, other_protocol, no_room, per_second } = settings;
    let mut keys = Keys::of(&keys::ANSWERS);
    keys.put_word("no-service", &NO_SERVICE, no_service);
    keys.put_word("other-protocol", &OTHER_PROTOCOL, other_protocol);
    keys.put_word("no-room", &NO_ROOM, no_room);
    keys.put("per-second", per_second);
    keys.single()
}

/// Lists one `[[nat-pool]]`.
pub(super) fn nat_pool(settings: &NatPoolSettings) -> Object {
    let NatPoolSettings { name, v4, v6, first_port, last_port, hold, parity, range_class, pooling } = settings;
    let mut addresses = text::address_ranges(v4, |address| u128::from(address.to_bits()));
    addresses.extend(text::address_ranges(v6, |address| address.to_bits()));
    let ports = if first_port == last_port { first_port.to_string() } else { format!("{first_port}-{last_port}") };
    let mut keys = Keys::of(&keys::NAT_POOL);
    keys.put_list("addresses", addresses);
    keys.put("ports", text::quoted(&ports));
    keys.put("hold", text::span(*hold));
    keys.put("keep-parity", parity);
    keys.put("keep-range", range_class);
    keys.put_word("pooling", &POOLING, pooling);
    keys.named(name)
}
