//! Names in one table that refer to another: each looked up once, and reported where it refers to nothing.
//!
//! It must not judge whether what is named fits.

use super::problem::Draft;
use super::raw::Raw;
use super::words::{did_you_mean, list, quoted};
use serde_spanned::Spanned;
use std::collections::HashMap;

/// What each name refers to, as an index; `None` where there is no name, or it refers to nothing.
pub(super) struct Links {
    /// The pool of each service.
    pub(super) pools: Vec<Option<usize>>,
    /// The pool of the last resort of each service.
    pub(super) last_resorts: Vec<Option<usize>>,
    /// The NAT pool of each service.
    pub(super) nat_pools: Vec<Option<usize>>,
    /// The service of each rule.
    pub(super) services: Vec<Option<usize>>,
    /// For each pool, whether a service uses it; true for all where some service's pool is unknown.
    pub(super) used: Vec<bool>,
}

/// The entries of one kind by name.
struct Names<'n> {
    kind: &'static str,
    /// The first entry of each name.
    by_name: HashMap<&'n str, usize>,
    all: Vec<&'n str>,
    /// Whether every name could be read.
    are_whole: bool,
}

impl<'n> Names<'n> {
    fn new(kind: &'static str, are_whole: bool, names: impl Iterator<Item = &'n Option<Spanned<String>>>) -> Self {
        let mut this = Names { kind, by_name: HashMap::new(), all: Vec::new(), are_whole };
        for (at, name) in names.enumerate() {
            match name {
                None => this.are_whole = false,
                Some(name) => {
                    this.by_name.entry(name.get_ref()).or_insert(at);
                    this.all.push(name.get_ref());
                }
            }
        }
        this
    }

    fn find(&self, name: &Spanned<String>, drafts: &mut Vec<Draft>) -> Option<usize> {
        let found = self.by_name.get(name.get_ref().as_str()).copied();
        if found.is_none() && self.are_whole {
            drafts.push(unknown(self.kind, name, &self.all));
        }
        found
    }
}

impl Links {
    /// Looks up every name.
    pub(super) fn new(raw: &Raw, drafts: &mut Vec<Draft>) -> Self {
        let pools = Names::new("pool", raw.pools_are_whole, raw.pools.iter().map(|pool| &pool.name));
        let nat_pools = Names::new("nat-pool", true, raw.nat_pools.iter().map(|pool| &pool.name));
        let services = Names::new("service", raw.services_are_whole, raw.services.iter().map(|service| &service.name));
        let mut find = |names: &Names<'_>, name: Option<&Spanned<String>>| names.find(name?, drafts);
        let links = Links {
            pools: raw.services.iter().map(|service| find(&pools, service.pool.as_ref())).collect(),
            last_resorts: raw.services.iter().map(|s| find(&pools, s.last_resort_pool.as_ref())).collect(),
            nat_pools: raw.services.iter().map(|s| find(&nat_pools, s.nat_pool.as_ref())).collect(),
            services: raw.rules.iter().map(|rule| find(&services, rule.service.as_ref())).collect(),
            used: vec![false; raw.pools.len()],
        };
        let last_resorts = raw.services.iter().zip(&links.last_resorts);
        let unknown = links.pools.contains(&None)
            || last_resorts.clone().any(|(service, at)| service.last_resort_pool.is_some() && at.is_none());
        let mut used = vec![unknown || raw.services.is_empty(); raw.pools.len()];
        links.pools.iter().chain(&links.last_resorts).flatten().for_each(|at| used[*at] = true);
        for (at, pool) in raw.pools.iter().enumerate() {
            // The second of two equal names already has its error.
            used[at] |= pool.name.as_ref().is_some_and(|name| pools.by_name[name.get_ref().as_str()] != at);
        }
        Links { used, ..links }
    }
}

/// The error for a name that no entry of a `kind` has.
fn unknown(kind: &str, name: &Spanned<String>, names: &[&str]) -> Draft {
    let help = match names {
        [] => format!("add a [[{kind}]] with that name"),
        _ => format!("{}{kind}s in this file: {}", did_you_mean(name.get_ref(), names.iter().copied()), list(names)),
    };
    Draft::error(name.span(), format!("there is no {kind} {}", quoted(name.get_ref()))).help(help)
}
