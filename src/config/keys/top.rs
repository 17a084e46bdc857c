//! The keys of the top level.

use super::{DefaultValue, Key, Reload, Table, Takes};
use crate::policy::NO_RULE;
use DefaultValue::{Number, Required, Unset};

/// The top level of the file.
pub(crate) static TOP: Table = Table { name: "", header: "the top level", keys: KEYS, renamed: &[] };

const ITS_DEFAULTS: DefaultValue = Unset("the defaults of its keys");
const ANY: Takes = Takes::Tables { most: None };

const KEYS: &[Key] = &[
    Key::new(
        "seed",
        Takes::number(0, u64::MAX),
        Number(0),
        Reload::Restart,
        "Seed of all random choices: with the same seed, two runs make the same decisions for the same packets.",
    ),
    Key::new(
        "gateway",
        Takes::Table,
        ITS_DEFAULTS,
        Reload::ByKey,
        "What the gateway sets up in the system at the start and removes at the end.",
    ),
    Key::new("http", Takes::Table, ITS_DEFAULTS, Reload::ByKey, "Metrics, a page and an API for operators."),
    Key::new("flows", Takes::Table, ITS_DEFAULTS, Reload::ByKey, "The flow table."),
    Key::new("timeouts", Takes::Table, ITS_DEFAULTS, Reload::ByKey, "How long a flow lives without a packet."),
    Key::new("fragments", Takes::Table, ITS_DEFAULTS, Reload::ByKey, "Packets that arrive in fragments."),
    Key::new("dns", Takes::Table, ITS_DEFAULTS, Reload::ByKey, "How names under `servers-dns` are resolved."),
    Key::new("nat-pool", ANY, Unset("none"), Reload::ByKey, "Source addresses for services with `nat = \"full\"`."),
    Key::new(
        "answers",
        Takes::Table,
        ITS_DEFAULTS,
        Reload::ByKey,
        "What the gateway answers on behalf of its services.",
    ),
    Key::new("service", ANY, Required, Reload::ByKey, "A service is what clients connect to."),
    Key::new(
        "rule",
        // The last number means "no rule".
        Takes::Tables { most: Some(NO_RULE as u64 - 1) },
        Unset("none"),
        Reload::ByKey,
        "Rules for new flows: the first that matches decides, and a flow that matches none is balanced.",
    ),
    Key::new(
        "pool",
        ANY,
        Required,
        Reload::ByKey,
        "A pool is a set of servers that offer the same thing; several services may use one pool.",
    ),
];
