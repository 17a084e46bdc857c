//! `equipoise check`: whether a configuration is valid, and where it is not.

use super::{Failed, load, read_config};
use crate::config;
use serde_json::json;
use std::io::Write;
use std::path::Path;

/// Checks a configuration file and prints a summary of it.
pub(super) fn check(path: &Path, json: bool, out: &mut dyn Write) -> Result<(), Failed> {
    if !json {
        let parsed = load(path)?;
        return Ok(writeln!(out, "{}: {}", path.display(), config::summary(&parsed.settings))?);
    }
    match read_config(path)? {
        Ok(parsed) => {
            let settings = &parsed.settings;
            let report = json!({
                "valid": true,
                "origin": path.display().to_string(),
                "problems": parsed.warnings,
                "services": settings.services.len(),
                "pools": settings.pools.len(),
                "servers": settings.servers.len(),
                "monitors": settings.monitors(),
                "rules": settings.policy.rules.len(),
                "max_flows": settings.table.max_flows,
                "device": settings.gateway.device,
            });
            Ok(writeln!(out, "{report}")?)
        }
        Err(error) => {
            writeln!(out, "{}", json!({"valid": false, "origin": error.origin(), "problems": error.problems()}))?;
            Err(Failed::Shown)
        }
    }
}
