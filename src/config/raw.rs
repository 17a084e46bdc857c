//! The file's tables as they are written: each value read and checked by itself, with its place.
//!
//! It must not compare the values of one table with those of another; that is `check.rs`.

use super::fields::{Fields, did_you_mean, list, quoted};
use super::problem::Draft;
use super::raw_answers;
use super::raw_gateway::{self, RawGateway};
use super::raw_nat::{self, RawNatPool};
use super::raw_pool::{self, RawPool};
use super::raw_rule::{self, RawRule};
use super::raw_service::{self, RawService};
use super::raw_timeouts;
use super::settings::AnswerSettings;
use crate::flow::{FragmentSettings, TableSettings};
use serde_spanned::Spanned;
use toml::de::DeTable;

/// The whole file.
pub(super) struct Raw {
    pub(super) seed: u64,
    pub(super) table: TableSettings,
    /// New flows a second in all.
    pub(super) rate: Option<u32>,
    pub(super) gateway: RawGateway,
    pub(super) answers: AnswerSettings,
    pub(super) fragments: FragmentSettings,
    pub(super) nat_pools: Vec<RawNatPool>,
    pub(super) pools: Vec<RawPool>,
    pub(super) services: Vec<RawService>,
    pub(super) rules: Vec<RawRule>,
    /// Whether any service stands in the file, well written or not.
    pub(super) has_services: bool,
    /// Whether the array of pools itself could be read.
    pub(super) pools_are_whole: bool,
    /// Whether the array of services itself could be read.
    pub(super) services_are_whole: bool,
}

/// Reads the top of the file and all below it.
pub(super) fn read(root: &DeTable<'_>, drafts: &mut Vec<Draft>) -> Raw {
    let known = ["seed", "gateway", "flows", "timeouts", "fragments", "answers", "nat-pool", "pool", "service", "rule"];
    let mut fields = Fields::new(root, 0..0, "the top level", &known, drafts);
    let seed = fields.number("seed", 0..=u64::MAX).map_or(0, Spanned::into_inner);
    let gateway = raw_gateway::gateway(&mut fields);
    let (answers, fragments) = (raw_answers::answers(&mut fields), raw_answers::fragments(&mut fields));
    let (max_flows, rate) = raw_gateway::flows(&mut fields);
    let max_flows = max_flows.unwrap_or(TableSettings::default().max_flows);
    let table = TableSettings { max_flows, timeouts: raw_timeouts::timeouts(&mut fields), profiles: Vec::new() };
    let tables = fields.tables("nat-pool", "[[nat-pool]]");
    let nat_pools = tables.into_iter().map(|(table, span)| raw_nat::nat_pool(table, span, fields.drafts)).collect();
    let errors = fields.drafts.len();
    let tables = fields.tables("pool", "[[pool]]");
    let pools_are_whole = fields.drafts.len() == errors;
    let pools = tables.into_iter().map(|(table, span)| raw_pool::pool(table, span, fields.drafts)).collect();
    let has_services = fields.value("service").is_some();
    let errors = fields.drafts.len();
    let tables = fields.tables("service", "[[service]]");
    let services_are_whole = fields.drafts.len() == errors;
    let services = tables.into_iter().map(|(table, span)| raw_service::service(table, span, fields.drafts)).collect();
    let tables = fields.tables("rule", "[[rule]]");
    let rules = tables.into_iter().map(|(table, span)| raw_rule::rule(table, span, fields.drafts)).collect();
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
pub(super) fn unknown(kind: &str, name: &Spanned<String>, names: &[&str]) -> Draft {
    let help = match names {
        [] => format!("add a [[{kind}]] with that name"),
        _ => format!("{}{kind}s in this file: {}", did_you_mean(name.get_ref(), names.iter().copied()), list(names)),
    };
    Draft::error(name.span(), format!("there is no {kind} {}", quoted(name.get_ref()))).help(help)
}
