//! The file's tables as they are written: each value read and checked by itself, with its place.
//!
//! It must not compare the values of one table with those of another; that is `check.rs`.

mod answers;
mod gateway;
mod monitor;
pub(crate) mod nat;
pub(crate) mod pool;
mod probe;
pub(crate) mod rule;
pub(crate) mod service;
pub(crate) mod timeouts;

use self::gateway::RawGateway;
use self::nat::RawNatPool;
use self::pool::RawPool;
use self::rule::RawRule;
use self::service::RawService;
use crate::config::fields::{Fields, did_you_mean, list, quoted};
use crate::config::problem::Draft;
use crate::config::settings::AnswerSettings;
use crate::flow::{FragmentSettings, TableSettings};
use serde_spanned::Spanned;
use toml::de::DeTable;

/// The whole file.
pub(crate) struct Raw {
    pub(crate) seed: u64,
    pub(crate) table: TableSettings,
    /// New flows a second in all.
    pub(crate) rate: Option<u32>,
    pub(crate) gateway: RawGateway,
    pub(crate) answers: AnswerSettings,
    pub(crate) fragments: FragmentSettings,
    pub(crate) nat_pools: Vec<RawNatPool>,
    pub(crate) pools: Vec<RawPool>,
    pub(crate) services: Vec<RawService>,
    pub(crate) rules: Vec<RawRule>,
    /// Whether any service stands in the file, well written or not.
    pub(crate) has_services: bool,
    /// Whether the array of pools itself could be read.
    pub(crate) pools_are_whole: bool,
    /// Whether the array of services itself could be read.
    pub(crate) services_are_whole: bool,
}

/// Reads the top of the file and all below it.
pub(crate) fn read(root: &DeTable<'_>, drafts: &mut Vec<Draft>) -> Raw {
    let known = ["seed", "gateway", "flows", "timeouts", "fragments", "answers", "nat-pool", "pool", "service", "rule"];
    let mut fields = Fields::new(root, 0..0, "the top level", &known, drafts);
    let seed = fields.number("seed", 0..=u64::MAX).map_or(0, Spanned::into_inner);
    let gateway = gateway::gateway(&mut fields);
    let (answers, fragments) = (answers::answers(&mut fields), answers::fragments(&mut fields));
    let (max_flows, rate) = gateway::flows(&mut fields);
    let max_flows = max_flows.unwrap_or(TableSettings::default().max_flows);
    let table = TableSettings { max_flows, timeouts: timeouts::timeouts(&mut fields), profiles: Vec::new() };
    let tables = fields.tables("nat-pool", "[[nat-pool]]");
    let nat_pools = tables.into_iter().map(|(table, span)| nat::nat_pool(table, span, fields.drafts)).collect();
    let errors = fields.drafts.len();
    let tables = fields.tables("pool", "[[pool]]");
    let pools_are_whole = fields.drafts.len() == errors;
    let pools = tables.into_iter().map(|(table, span)| pool::pool(table, span, fields.drafts)).collect();
    let has_services = fields.value("service").is_some();
    let errors = fields.drafts.len();
    let tables = fields.tables("service", "[[service]]");
    let services_are_whole = fields.drafts.len() == errors;
    let services = tables.into_iter().map(|(table, span)| service::service(table, span, fields.drafts)).collect();
    let tables = fields.tables("rule", "[[rule]]");
    let rules = tables.into_iter().map(|(table, span)| rule::rule(table, span, fields.drafts)).collect();
    Raw {
        seed,
        table,
        rate,
        gateway,
        answers,
        fragments,
        nat_pools,
        pools,
        services,
        rules,
        has_services,
        pools_are_whole,
        services_are_whole,
    }
}

/// The error for a name of a `kind` of thing that is not in the file.
pub(crate) fn unknown(kind: &str, name: &Spanned<String>, names: &[&str]) -> Draft {
    let help = match names {
        [] => format!("add a [[{kind}]] with that name"),
        _ => format!("{}{kind}s in this file: {}", did_you_mean(name.get_ref(), names.iter().copied()), list(names)),
    };
    Draft::error(name.span(), format!("there is no {kind} {}", quoted(name.get_ref()))).help(help)
}
