//! Rules. Their order is that of the listing.

use super::{Keys, Object, keys, text};
use crate::balance::Prefixes;
use crate::config::settings::Settings;
use crate::policy::{Action, Limits, RuleSettings};

/// Lists one `[[rule]]`.
pub(super) fn rule(rule: &RuleSettings, settings: &Settings) -> Object {
    let RuleSettings {
        name,
        enabled,
        from,
        to,
        protocol,
        source_ports,
        ports,
        ingress,
        action,
        priority,
        limits: Limits { rate, flows, client_rate, client_flows },
        client: Prefixes { v4, v6 },
    } = rule;
    let mut keys = Keys::of(&keys::RULE);
    keys.put("enabled", enabled);
    keys.put_list("from", text::set(from, text::network));
    keys.put_list("to", text::set(to, text::network));
    keys.put_some("protocol", protocol.map(|protocol| text::quoted(protocol.name())));
    keys.put_list("ports", text::set(ports, text::range));
    keys.put_list("source-ports", text::set(source_ports, text::range));
    let interface = ingress.and_then(|number| settings.policy.interfaces.get(usize::from(number).checked_sub(1)?));
    keys.put_some("ingress", interface.map(|name| text::quoted(name)));
    keys.put("action", text::quoted(action.name()));
    let Action::Balance(service) = action else { return keys.named(name) };
    let service = service.map(|service| text::quoted(&settings.services[service.0 as usize].name));
    keys.put_some("service", service);
    keys.put_some("priority", priority.map(|priority| text::quoted(priority.name())));
    keys.put_some("rate", *rate);
    keys.put_some("flows", *flows);
    keys.put_some("client-rate", *client_rate);
    keys.put_some("client-flows", *client_flows);
    if client_rate.or(*client_flows).is_some() {
        keys.put("client-ipv4-prefix", v4);
        keys.put("client-ipv6-prefix", v6);
    }
    keys.named(name)
}
