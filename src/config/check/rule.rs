//! The rules of `[[rule]]`: what can never match, what would loop, what stands behind a rule for all.
//!
//! It must not read TOML. Where a value could not be read, nothing is concluded from its absence.

use crate::config::problem::{Draft, grouped};
use crate::config::raw::Raw;
use crate::config::raw::rule::RawRule;
use crate::policy::{Action, NO_RULE};
use ipnet::IpNet;
use serde_spanned::Spanned;
use std::collections::BTreeSet;

/// Bits of addresses up to which a network is held against the service addresses one by one.
const MOST_BITS: u8 = 20;

/// Checks the rules by themselves, against each other and against the service addresses.
pub(crate) fn check(raw: &Raw, drafts: &mut Vec<Draft>) {
    let most = usize::from(NO_RULE) - 1;
    if let Some(first) = raw.rules.get(most) {
        let title = format!("there are {} rules", grouped(raw.rules.len()));
        let help = format!("{} are allowed; networks and ports of one rule may be arrays", grouped(most));
        drafts.push(Draft::error(first.place(), title).label("the first one too many").help(help));
    }
    let listens = raw.services.iter().flat_map(|service| &service.listen);
    let all = listens.map(|listen| listen.get_ref().network());
    let (services, networks): (BTreeSet<IpNet>, _) = all.partition(|net| net.prefix_len() == net.max_prefix_len());
    for rule in raw.rules.iter().filter(|rule| rule.is_whole) {
        if let Some(draft) = never_matches(rule) {
            drafts.push(draft);
        }
        let ours = |net: &Spanned<IpNet>| holds_only(&services, &networks, *net.get_ref());
        if rule.settings.action == Action::Pass && !rule.to.is_empty() && rule.to.iter().all(ours) {
            let draft = Draft::error(rule.to[0].span(), "a packet to a service address cannot pass");
            let draft = draft.also(rule.place(), "passes it");
            drafts.push(draft.help("it would come back here in a loop: balance, drop or reject it"));
        }
    }
    behind_all(&raw.rules, drafts);
    ingress(&raw.rules, drafts);
}

/// A rule whose source and destination have no family in common.
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
    Some(draft.help("`from` and `to` must have a family in common"))
}

/// Whether each address of a network is a service's: of `services`, all single, or of the `networks` of services.
fn holds_only(services: &BTreeSet<IpNet>, networks: &BTreeSet<IpNet>, net: IpNet) -> bool {
    let bits = net.max_prefix_len() - net.prefix_len();
    let inside = || services.range(IpNet::from(net.network())..=IpNet::from(net.broadcast()));
    networks.iter().any(|network| network.contains(&net)) || bits <= MOST_BITS && inside().count() == 1 << bits
}

/// Whether a rule matches every packet as long as it is on.
fn is_for_all(rule: &RawRule) -> bool {
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

fn behind_all(rules: &[RawRule], drafts: &mut Vec<Draft>) {
    let Some(at) = rules.iter().position(is_for_all) else { return };
    let Some(next) = rules.get(at + 1) else { return };
    let title = match rules.len() - at - 1 {
        1 => "this rule is never reached".to_string(),
        more => format!("this rule and all behind it are never reached, {} in all", grouped(more)),
    };
    let draft = Draft::warning(next.place(), title).also(rules[at].place(), "matches everything");
    drafts.push(draft.help("the first rule that matches decides: put the one for everything last"));
}

fn ingress(rules: &[RawRule], drafts: &mut Vec<Draft>) {
    let mut named = rules.iter().filter_map(|rule| rule.ingress.as_ref());
    let Some(first) = named.next() else { return };
    let draft = Draft::warning(first.span(), "the live gateway cannot tell where a packet came in");
    let more = match named.count() {
        0 => "matches".to_string(),
        more => format!("and {} more with `ingress` match", grouped(more)),
    };
    let help = format!("only captures name interfaces: live, this rule {more} nothing");
    drafts.push(draft.help(help));
}
