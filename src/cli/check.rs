//! `equipoise check`: whether a configuration is valid, and where it is not; with `--live`, whether the system is ready.

use super::{Failed, load, read_config, with_files};
use crate::config;
use crate::gateway::preflight::{self, Problem};
use crate::sources::Found;
use serde_json::json;
use std::io::Write;
use std::path::Path;

/// Checks a configuration file, and with `live` the system, and prints a summary.
pub(super) fn check(path: &Path, json: bool, live: bool, out: &mut dyn Write) -> Result<(), Failed> {
    if !json {
        let parsed = load(path)?;
        writeln!(out, "{}: {}", path.display(), config::summary(&parsed.settings))?;
        let found = if live { preflight::check_live(&parsed.settings) } else { Vec::new() };
        for problem in &found {
            writeln!(out, "  - {problem}")?;
        }
        if live && found.is_empty() {
            writeln!(out, "this system: nothing found that keeps a gateway from working")?;
        }
        return if found.is_empty() { Ok(()) } else { Err(Failed::Shown) };
    }
    match read_config(path)?.and_then(|parsed| with_files(parsed, &Found::new())) {
        Ok(parsed) => {
            let settings = &parsed.settings;
            let found = if live { preflight::check_live(settings) } else { Vec::new() };
            let shown = |problem: &Problem| json!({"what": problem.what, "fix": problem.fix});
            let mut report = json!({
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
            if live {
                report["system"] = found.iter().map(shown).collect();
            }
            writeln!(out, "{report}")?;
            if found.is_empty() { Ok(()) } else { Err(Failed::Shown) }
        }
        Err(error) => {
            writeln!(out, "{}", json!({"valid": false, "origin": error.origin(), "problems": error.problems()}))?;
            Err(Failed::Shown)
        }
    }
}
