//! Checks of `[[rule]]`: what can never match, what would loop, what follows a rule that matches everything.
//!
//! It must not read TOML. Where a value could not be read, nothing is concluded from its absence.

use crate::config::problem::{Draft, grouped};
use crate::config::raw::Raw;
use crate::config::raw::rule::RawRule;
use crate::policy::Action;
use ipnet::IpNet;
use serde_spanned::Spanned;
use std::collections::BTreeSet;

/// Host bits up to which a network is compared with the service addresses one by one.
const MOST_BITS: u8 = 20;

/// Checks the rules by themselves, against each other and against the service addresses.
pub(crate) fn check(raw: &Raw, drafts: &mut Vec<Draft>) {
    let listens = raw.services.iter().flat_map(|service| &service.listen);
    let all = listens.map(|listen| listen.get_ref().network());
    let (services, networks): (BTreeSet<IpNet>, _) = all.partition(|net| net.prefix_len() == net.max_prefix_len());
    for rule in raw.rules.iter().filter(|rule| rule.is_whole) {
        if let Some(draft) = never_matches(rule) {
            drafts.push(draft);
        }
        let ours = |net: &Spanned<IpNet>| holds_only(&services, &networks, *net.get_ref());
        if rule.settings.action == Action::Pass && !rule.to.is_empty() && rule.to.iter().all(ours) {
            let draft = Draft::error(rule.to[0].span(), "packets to a service address cannot be passed on");
            let draft = draft.also(rule.place(), "passes them on");
            drafts.push(draft.help("they would loop back to this gateway: balance, drop or reject them"));
        }
    }
    after_all(&raw.rules, drafts);
    ingress(&raw.rules, drafts);
}

/// Refuses a rule whose source and destination have no address family in common.
fn never_matches(rule: &RawRule) -> Option<Draft> {
    let families = |nets: &[Spanned<IpNet>]| {
        let any = |v4: bool| nets.is_empty() || nets.iter().any(|net| net.get_ref().addr().is_ipv4() == v4);
        (any(true), any(false))
    };
    let (from, to) = (families(&rule.from), families(&rule.to));
    if (from.0 && to.0) || (from.1 && to.1) {
        return None;
    }
    let family = |v4: bool| if v4 { "IPv4" } else { "IPv6" };
    let draft = Draft::error(rule.place(), "this rule can never match").also(rule.from[0].span(), family(from.0));
    let draft = draft.also(rule.to[0].span(), family(to.0));
    Some(draft.help("`from` and `to` must have an address family in common"))
}

/// Whether every address of a network is a service address: one of the single `services`, or in one of the `networks`.
fn holds_only(services: &BTreeSet<IpNet>, networks: &BTreeSet<IpNet>, net: IpNet) -> bool {
    let bits = net.max_prefix_len() - net.prefix_len();
    let inside = || services.range(IpNet::from(net.network())..=IpNet::from(net.broadcast()));
    networks.iter().any(|network| network.contains(&net)) || bits <= MOST_BITS && inside().count() == 1 << bits
}

/// Whether a rule matches every packet while it is enabled.
fn matches_all(rule: &RawRule) -> bool {
    let any = |nets: &[Spanned<IpNet>]| {
        let all =
            |v4: bool| nets.iter().any(|net| net.get_ref().prefix_len() == 0 && net.get_ref().addr().is_ipv4() == v4);
        nets.is_empty() || (all(true) && all(false))
    };
    let settings = &rule.settings;
    let ports = settings.ports.is_empty() && settings.source_ports.is_empty();
    let narrow = settings.protocol.is_some() || rule.ingress.is_some() || !ports;
    rule.is_whole && settings.enabled && !narrow && any(&rule.from) && any(&rule.to)
}

fn after_all(rules: &[RawRule], drafts: &mut Vec<Draft>) {
    let Some(at) = rules.iter().position(matches_all) else { return };
    let Some(next) = rules.get(at + 1) else { return };
    let title = match rules.len() - at - 1 {
        1 => "this rule is never reached".to_string(),
        more => format!("this rule and all after it are never reached, {} in total", grouped(more)),
    };
    let draft = Draft::warning(next.place(), title).also(rules[at].place(), "matches everything");
    drafts.push(draft.help("the first rule that matches decides: put the one that matches everything last"));
}

fn ingress(rules: &[RawRule], drafts: &mut Vec<Draft>) {
    let mut named = rules.iter().filter_map(|rule| rule.ingress.as_ref());
    let Some(first) = named.next() else { return };
    let draft = Draft::warning(first.span(), "the live gateway does not know on which interface a packet arrived");
    let more = match named.count() {
        0 => "this rule matches".to_string(),
        more => format!("this rule and {} more with `ingress` match", grouped(more)),
    };
    let help = format!("only captures name interfaces; on the live gateway {more} nothing");
    drafts.push(draft.help(help));
}
