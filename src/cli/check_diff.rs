//! `equipoise check --diff`: what a reload would do.

use super::{Failed, load};
use crate::config::{Settings, listing};
use crate::control::client::{Client, ClientError};
use crate::control::{Answer, ObjectRow, ReloadRow, Request, compare};
use crate::engine::{ObjectChange, PlanDiff};
use serde_json::json;
use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

/// Prints what a reload of `newer` would change of an older file, or of what is in force in the running gateway.
pub(super) fn check(
    newer: &Path,
    (config, against, live): (Option<&Path>, Option<&Path>, bool),
    json: bool,
    out: &mut dyn Write,
) -> Result<(), Failed> {
    let new = load(newer)?.settings;
    if live {
        let socket = match config {
            Some(config) => load(config)?.settings.gateway.control_socket,
            None => new.gateway.control_socket.clone(),
        };
        let message = |error: ClientError| Failed::Message(error.to_string());
        let mut client = Client::connect(&socket).map_err(message)?;
        let objects = rows(&mut client, &Request::Configuration, |answer| match answer {
            Answer::Object(row) => Some(*row),
            _ => None,
        })?;
        let mut diff = compare_live(&objects, &new)?;
        keep_servers_from_outside(&mut client, &new, &mut diff)?;
        keep_changes(&mut client, &new, &mut diff)?;
        let touched = Touched::find(&mut client, &diff)?;
        return print(&diff, Some(&touched), json, out);
    }
    let Some(older) = against.or(config) else {
        return Err(Failed::Usage("--diff needs something to compare with: --against OLD, or --live".into()));
    };
    let old = load(older)?.settings;
    print(&PlanDiff::between(&old, &new), None, json, out)
}

/// Compares without the seed, which a gateway draws where the file has none.
fn compare_live(objects: &[ObjectRow], new: &Settings) -> Result<PlanDiff, Failed> {
    let mut diff = compare(objects, new).ok_or_else(|| {
        Failed::Message("the gateway has keys that this version does not know: use the equipoise that it runs".into())
    })?;
    if new.seed == 0 {
        for object in diff.objects.iter_mut().filter(|object| object.table.is_empty()) {
            if let ObjectChange::Changed(keys) = &mut object.change {
                keys.retain(|key| key.key != "seed");
                if keys.is_empty() {
                    object.change = ObjectChange::Unchanged;
                }
            }
        }
    }
    Ok(diff)
}

/// Leaves out of a difference the removal of servers that the gateway has from outside and would keep.
fn keep_servers_from_outside(client: &mut Client, new: &Settings, diff: &mut PlanDiff) -> Result<(), Failed> {
    let sources = rows(client, &Request::Sources, |answer| match answer {
        Answer::Source(row) => Some(*row),
        _ => None,
    })?;
    let stays = |pool: &str| new.sources.iter().any(|source| source.pool == pool);
    let kept = sources.iter().filter(|row| stays(&row.pool));
    let kept: BTreeSet<String> =
        kept.flat_map(|row| row.names.iter().map(|name| format!("{}/{name}", row.pool))).collect();
    for object in diff.objects.iter_mut().filter(|object| object.table == "pool.server") {
        if matches!(object.change, ObjectChange::Removed) && kept.contains(&object.name) {
            object.change = ObjectChange::Unchanged;
        }
    }
    Ok(())
}

/// Leaves out of a difference what operators changed and a reload would keep: that for which the file says what it said.
fn keep_changes(client: &mut Client, new: &Settings, diff: &mut PlanDiff) -> Result<(), Failed> {
    let changes = rows(client, &Request::Changes, |answer| match answer {
        Answer::Differs(row) => Some(row),
        _ => None,
    })?;
    for row in &changes {
        let says = listing::find(new, &row.object);
        let found = diff
            .objects
            .iter_mut()
            .find(|object| object.table == row.object.kind.table() && object.name == row.object.name);
        let Some(object) = found else { continue };
        match (&row.key, &row.value, &mut object.change) {
            (None, Some(_), ObjectChange::Removed) if row.file.is_none() => object.change = ObjectChange::Unchanged,
            (None, None, ObjectChange::Added) => {
                let file = row.file.as_deref().unwrap_or_default();
                let is_there = |key: &str| {
                    let own = says.as_ref().and_then(|object| object.keys.iter().find(|own| own.key == key)?.written());
                    match own {
                        Some(value) => file.contains(&format!("{key} = {value}")),
                        None => !file.contains(&format!("{key} = ")),
                    }
                };
                if is_there("address") && is_there("port") {
                    object.change = ObjectChange::Unchanged;
                }
            }
            (Some(own), _, ObjectChange::Changed(keys)) => {
                let says = says.as_ref().and_then(|object| object.at(own));
                if says == row.file.as_deref() {
                    let (below, key) = own.rsplit_once('.').unwrap_or(("", own));
                    keys.retain(|changed| changed.key != key || !changed.table.ends_with(below));
                    if keys.is_empty() {
                        object.change = ObjectChange::Unchanged;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn rows<T>(client: &mut Client, request: &Request, pick: fn(Answer) -> Option<T>) -> Result<Vec<T>, Failed> {
    let (rows, _) = client.rows(request).map_err(|error| Failed::Message(error.to_string()))?;
    Ok(rows.into_iter().filter_map(pick).collect())
}

/// Live flows of what a reload removes.
struct Touched {
    /// By table and name of the object.
    flows: Vec<(&'static str, String, u64)>,
}

impl Touched {
    fn find(client: &mut Client, diff: &PlanDiff) -> Result<Touched, Failed> {
        let servers = rows(client, &Request::Servers, |answer| match answer {
            Answer::Server(row) => Some((format!("{}/{}", row.pool, row.server), row.flows)),
            _ => None,
        })?;
        let services = rows(client, &Request::Services, |answer| match answer {
            Answer::Service(row) => Some((row.service, row.flows)),
            _ => None,
        })?;
        let flows_of =
            |all: &[(String, u64)], name: &str| all.iter().find(|(own, _)| own == name).map(|(_, flows)| *flows);
        let flows = diff.removed().filter_map(|object| {
            let flows = match object.table {
                "pool.server" => flows_of(&servers, &object.name),
                "service" => flows_of(&services, &object.name),
                _ => None,
            };
            Some((object.table, object.name.clone(), flows?))
        });
        Ok(Touched { flows: flows.collect() })
    }

    fn of(&self, row: &ReloadRow) -> Option<u64> {
        let is = |(table, name, _): &&(&str, String, u64)| *table == row.table && *name == row.object;
        self.flows.iter().find(is).map(|(_, _, flows)| *flows)
    }
}

fn print(diff: &PlanDiff, touched: Option<&Touched>, json: bool, out: &mut dyn Write) -> Result<(), Failed> {
    let rows = ReloadRow::of(diff);
    let flows = |row: &ReloadRow| {
        let is_removal = row.kind == crate::control::ReloadKind::Removed;
        touched.filter(|_| is_removal).and_then(|touched| touched.of(row))
    };
    for row in &rows {
        let flows = flows(row);
        if json {
            let mut line = json!(row);
            if let Some(flows) = flows {
                line["flows"] = json!(flows);
            }
            writeln!(out, "{line}")?;
        } else {
            match flows {
                Some(flows) => {
                    writeln!(out, "{row}; {flows} live flows stay until they end, or end at once with --now")?
                }
                None => writeln!(out, "{row}")?,
            }
        }
    }
    if rows.is_empty() && !json {
        writeln!(out, "no changes")?;
    }
    Ok(())
}
