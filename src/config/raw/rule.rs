//! The tables `[[rule]]`: each value read and checked by itself, and which keys have an effect with the chosen action and
//! protocol.
//!
//! It must not know services.

use super::service::PRIORITIES;
use crate::config::fields::Fields;
use crate::config::keys;
use crate::config::problem::{Draft, Span};
use crate::config::values;
use crate::policy::{Action, Limits, RuleSettings};
use ipnet::IpNet;
use serde_spanned::Spanned;
use toml::de::DeTable;

/// One `[[rule]]`.
pub(crate) struct RawRule {
    pub(crate) span: Span,
    pub(crate) name: Option<Spanned<String>>,
    pub(crate) from: Vec<Spanned<IpNet>>,
    pub(crate) to: Vec<Spanned<IpNet>>,
    pub(crate) ingress: Option<Spanned<String>>,
    pub(crate) service: Option<Spanned<String>>,
    /// What depends on no other table.
    pub(crate) settings: RuleSettings,
    /// Whether every value of it could be read; if not, nothing is concluded from what it lacks.
    pub(crate) is_whole: bool,
}

impl RawRule {
    /// The place of its name, or of the table where it has none.
    pub(crate) fn place(&self) -> Span {
        self.name.as_ref().map_or(self.span.clone(), Spanned::span)
    }
}

/// Reads one `[[rule]]`.
pub(crate) fn rule(table: &DeTable<'_>, span: Span, drafts: &mut Vec<Draft>) -> RawRule {
    let mut fields = Fields::new(table, span.clone(), &keys::RULE, drafts);
    let name = values::name(&mut fields, "name = \"no-telnet\"");
    let (from, to) = (values::networks(&mut fields, "from"), values::networks(&mut fields, "to"));
    let protocol = values::protocol(&mut fields, "protocol");
    let has_ports = protocol.is_none_or(|protocol| protocol.is_some_and(values::has_ports));
    let with = match protocol.flatten() {
        Some(protocol) => format!("with protocol \"{}\"", protocol.name()),
        None => "without `protocol`".into(),
    };
    let mut ports = |key| {
        let help =
            "only TCP, UDP and SCTP have ports: add `protocol = \"tcp\"`, \"udp\" or \"sctp\", or remove the key";
        if fields.fits(key, has_ports, &with, help) { values::port_ranges(&mut fields, key) } else { Vec::new() }
    };
    let (ports, source_ports) = (ports("ports"), ports("source-ports"));
    let ingress = values::interface(&mut fields, "ingress", "ingress = \"eth0\"");
    let words = [Action::Balance(None), Action::Pass, Action::Drop, Action::Reject].map(|a| (a.name(), a));
    let action = fields.required("action", "action = \"drop\"").and_then(|_| fields.word("action", &words));
    let is_balance = action.is_none_or(|action| action == Action::Balance(None));
    let with = format!("with action \"{}\"", action.map_or("balance", Action::name));
    for key in keys::RULE.keys.iter().filter(|key| key.when.is_some()) {
        let help = "use the action \"balance\", or remove the key";
        fields.fits(key.name, is_balance, &with, help);
    }
    let default = RuleSettings::new("", action.unwrap_or(Action::Drop));
    let enabled = fields.flag_or_default("enabled");
    let mut settings = RuleSettings { enabled, protocol: protocol.flatten(), ports, source_ports, ..default };
    let mut service = None;
    if is_balance {
        service = values::text(&mut fields, "service", "service = \"web\"");
        settings.priority = fields.word("priority", &PRIORITIES);
        limits(&mut fields, &mut settings);
    }
    let is_whole = fields.is_clean();
    RawRule { span, name, from, to, ingress, service, settings, is_whole }
}

fn limits(fields: &mut Fields<'_, '_>, settings: &mut RuleSettings) {
    settings.limits = Limits {
        rate: fields.count("rate"),
        flows: fields.count("flows"),
        client_rate: fields.count("client-rate"),
        client_flows: fields.count("client-flows"),
    };
    let by_client = fields.key("client-rate").or(fields.key("client-flows")).is_some();
    let keys = ["client-ipv4-prefix", "client-ipv6-prefix"];
    let help = "it defines one client of `client-rate` and `client-flows`: add one of them, or remove the key";
    for key in keys {
        fields.fits(key, by_client, "without `client-rate` or `client-flows`", help);
    }
    if by_client {
        settings.client = values::prefixes(fields, keys);
    }
}
