//! The file's tables as they are written: each value read and checked by itself, with its place.
//!
//! It must not compare the values of one table with those of another; that is left to `check`.

pub(crate) mod answers;
mod dns;
mod gateway;
mod http;
pub(crate) mod monitor;
pub(crate) mod nat;
pub(crate) mod pool;
pub(crate) mod probe;
pub(crate) mod rule;
pub(crate) mod service;
pub(crate) mod timeouts;

use self::gateway::RawGateway;
use self::nat::RawNatPool;
use self::pool::RawPool;
use self::rule::RawRule;
use self::service::RawService;
use crate::config::fields::Fields;
use crate::config::keys;
use crate::config::problem::Draft;
use crate::config::settings::{AnswerSettings, HttpSettings};
use crate::flow::{FragmentSettings, TableSettings};
use crate::sources::DnsSettings;
use toml::de::DeTable;

/// The whole file.
pub(crate) struct Raw {
    pub(crate) seed: u64,
    pub(crate) table: TableSettings,
    /// New flows per second in total.
    pub(crate) rate: Option<u32>,
    pub(crate) gateway: RawGateway,
    pub(crate) http: HttpSettings,
    pub(crate) answers: AnswerSettings,
    pub(crate) fragments: FragmentSettings,
    pub(crate) dns: DnsSettings,
    pub(crate) nat_pools: Vec<RawNatPool>,
    pub(crate) pools: Vec<RawPool>,
    pub(crate) services: Vec<RawService>,
    pub(crate) rules: Vec<RawRule>,
    /// Whether the file has any service, valid or not.
    pub(crate) has_services: bool,
    /// Whether the array of pools itself could be read.
    pub(crate) pools_are_whole: bool,
    /// Whether the array of services itself could be read.
    pub(crate) services_are_whole: bool,
}

impl Raw {
    /// What an empty file says: the defaults.
    pub(crate) fn of_nothing() -> Self {
        read(&DeTable::new(), &mut Vec::new())
    }
}

/// Reads the top level of the file and everything below it.
pub(crate) fn read(root: &DeTable<'_>, drafts: &mut Vec<Draft>) -> Raw {
    let mut fields = Fields::new(root, 0..0, &keys::TOP, drafts);
    let seed = fields.count_or_default("seed");
    let gateway = gateway::gateway(&mut fields);
    let http = http::http(&mut fields);
    let (answers, fragments) = (answers::answers(&mut fields), answers::fragments(&mut fields));
    let dns = dns::dns(&mut fields);
    let ((max_flows, max_half_open), rate) = gateway::flows(&mut fields);
    let timeouts = timeouts::timeouts(&mut fields);
    let table = TableSettings { max_flows, max_half_open, timeouts, profiles: Vec::new() };
    let tables = fields.tables(&keys::NAT_POOL);
    let nat_pools = tables.into_iter().map(|(table, span)| nat::nat_pool(table, span, fields.drafts)).collect();
    let errors = fields.drafts.len();
    let tables = fields.tables(&keys::POOL);
    let pools_are_whole = fields.drafts.len() == errors;
    let pools = tables.into_iter().map(|(table, span)| pool::pool(table, span, fields.drafts)).collect();
    let has_services = fields.value("service").is_some();
    let errors = fields.drafts.len();
    let tables = fields.tables(&keys::SERVICE);
    let services_are_whole = fields.drafts.len() == errors;
    let services = tables.into_iter().map(|(table, span)| service::service(table, span, fields.drafts)).collect();
    let tables = fields.tables(&keys::RULE);
    let rules = tables.into_iter().map(|(table, span)| rule::rule(table, span, fields.drafts)).collect();
    Raw {
        seed,
        table,
        rate,
        gateway,
        http,
        answers,
        fragments,
        dns,
        nat_pools,
        pools,
        services,
        rules,
        has_services,
        pools_are_whole,
        services_are_whole,
    }
}
