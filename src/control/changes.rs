//! The difference between two configurations as rows, and configurations as rows.

use super::protocol::{ObjectRow, ReloadKind, ReloadRow};
use crate::config::keys;
use crate::config::listing::{KeyValue, Object};
use crate::engine::{ObjectChange, ObjectDiff, PlanDiff};
use std::fmt;

impl ReloadRow {
    /// Returns one row for each object that was added or removed, and for each key that changed.
    pub fn of(diff: &PlanDiff) -> Vec<ReloadRow> {
        diff.objects.iter().flat_map(ReloadRow::of_object).collect()
    }

    fn of_object(object: &ObjectDiff) -> Vec<ReloadRow> {
        let row = |kind, text| ReloadRow {
            table: object.table.into(),
            object: object.name.clone(),
            ..ReloadRow::new(kind, text)
        };
        match &object.change {
            ObjectChange::Unchanged => Vec::new(),
            ObjectChange::Added => vec![row(ReloadKind::Added, object.to_string())],
            ObjectChange::Removed => vec![row(ReloadKind::Removed, object.to_string())],
            ObjectChange::Changed(keys) => {
                let changed = keys.iter().map(|key| ReloadRow {
                    table: key.table.into(),
                    key: Some(key.key.into()),
                    from: key.from.clone(),
                    to: key.to.clone(),
                    ..row(ReloadKind::Changed, key.describe(object))
                });
                changed.collect()
            }
        }
    }

    fn new(kind: ReloadKind, text: String) -> ReloadRow {
        let (table, object) = (String::new(), String::new());
        ReloadRow { kind, text, table, object, key: None, from: None, to: None }
    }

    /// Makes the row of a change that takes effect at the next start only.
    pub fn left_out(text: String) -> ReloadRow {
        ReloadRow::new(ReloadKind::LeftOut, text)
    }

    /// Makes the row of a change at run time that no longer applies.
    pub fn dropped(text: String) -> ReloadRow {
        ReloadRow::new(ReloadKind::Dropped, text)
    }

    /// Makes the row of something that needs attention.
    pub fn problem(text: String) -> ReloadRow {
        ReloadRow::new(ReloadKind::Problem, text)
    }

    /// Returns whether it needs attention.
    pub fn is_problem(&self) -> bool {
        matches!(self.kind, ReloadKind::LeftOut | ReloadKind::Problem)
    }
}

/// One line.
impl fmt::Display for ReloadRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            ReloadKind::LeftOut => write!(f, "not applied: {}", self.text),
            _ => f.write_str(&self.text),
        }
    }
}

impl ObjectRow {
    pub(super) fn new(object: &Object) -> ObjectRow {
        let key = |key: &KeyValue| (key.table.into(), key.key.into(), key.value.clone());
        ObjectRow { table: object.table.into(), name: object.name.clone(), keys: object.keys.iter().map(key).collect() }
    }

    /// Returns the object; none of a table or key that this version does not have.
    fn object(&self) -> Option<Object> {
        let table = |name: &str| keys::TABLES.iter().find(|table| table.name == name).map(|table| table.name);
        let key = |(within, key, value): &(String, String, String)| {
            let found = keys::find(within, key)?;
            Some(KeyValue { table: table(within)?, key: found.name, value: value.clone() })
        };
        let keys = self.keys.iter().map(key).collect::<Option<Vec<_>>>()?;
        Some(Object { table: table(&self.table)?, name: self.name.clone(), keys })
    }
}

/// Compares the configuration of a running gateway with settings; none if the gateway is of another version, with other
/// keys.
pub fn compare(in_force: &[ObjectRow], settings: &crate::config::Settings) -> Option<PlanDiff> {
    let old = in_force.iter().map(ObjectRow::object).collect::<Option<Vec<_>>>()?;
    Some(PlanDiff::of_objects(&old, &crate::config::listing::objects(settings)))
}
