//! Judges units of a running manager, for tests/system/restart.

use super::*;
use crate::clock::Monotonic;
use crate::manifest::{KillSignal, Scope};
use crate::recovery::cgroup::Hierarchy;

#[test]
#[ignore = "needs a manager with the units of tests/system/restart"]
fn judge() {
    let systemctl = Systemctl::new(Scope::System);
    for name in std::env::var("ORACLE_UNITS").unwrap().split_whitespace() {
        let unit = systemctl.show(name).unwrap();
        let group = unit.control_group();
        let (neighbours, missing) = (systemctl.neighbours(&unit), missing_path(&unit));
        let verdict = group.and_then(|group| {
            let facts = RestartFacts {
                unit: &unit,
                name,
                scope: Scope::System,
                signal: KillSignal::Kill,
                others: Hierarchy::find()?.contents(&group)?.processes.len() - 1,
                neighbours: &neighbours?,
                now: Monotonic::now(),
                missing: missing.as_deref(),
            };
            Ok((facts.no_restart()?, facts.restart_warnings()))
        });
        let active = unit.active_state().unwrap() == "active";
        let (outcome, guard, detail, warnings) = match verdict {
            _ if !active => ("refused", "not_active", String::new(), Vec::new()),
            Ok((Some(why), warnings)) => ("refused", "no_restart", why, warnings),
            Ok((None, warnings)) => ("would_kill", "", String::new(), warnings),
            Err(why) => ("refused", "unreadable", why, Vec::new()),
        };
        let answer = serde_json::json!({
            "recovery": { "outcome": outcome, "guard": guard, "detail": detail },
            "warnings": warnings,
        });
        println!("\nORACLE {answer}");
    }
}
