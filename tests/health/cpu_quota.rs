//! Limits the processes of a unit to one percent of a CPU.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::skip::skip_unless_ci;
use crate::systemd::Systemd;
use crate::wait::wait_until;

/// In microseconds: the shortest quota that the kernel accepts, and its period.
const QUOTA: u32 = 1_000;
const PERIOD: u32 = 100_000;

/// The quota; removed on drop.
pub(crate) enum CpuQuota {
    /// On a unified hierarchy: the unit's own group.
    Unified(PathBuf),
    /// On a hybrid one: a group of the separate cpu controller.
    Separate(PathBuf),
}

impl CpuQuota {
    /// Sets the quota; `None` if this machine has no cpu controller for the unit.
    pub(crate) fn set(systemd: &Systemd, unit: &str) -> Option<Self> {
        let group = systemd.property(unit, "ControlGroup");
        let below = |mount: &str| Path::new(mount).join(group.trim_start_matches('/'));
        let unified = below("/sys/fs/cgroup").join("cpu.max");
        if unified.exists() {
            fs::write(&unified, format!("{QUOTA} {PERIOD}")).unwrap();
            wait_until_used_up(&below("/sys/fs/cgroup"));
            return Some(Self::Unified(unified));
        }
        let separate = Path::new("/sys/fs/cgroup/cpu");
        if !separate.exists() {
            skip_unless_ci("no cpu controller for the unit's control group");
            return None;
        }
        let own = separate.join(format!(
            "scidex-route-health-test-{}-cpu",
            std::process::id()
        ));
        fs::create_dir(&own).unwrap();
        let quota = Self::Separate(own.clone());
        fs::write(own.join("cpu.cfs_period_us"), PERIOD.to_string()).unwrap();
        fs::write(own.join("cpu.cfs_quota_us"), QUOTA.to_string()).unwrap();
        move_all(&below("/sys/fs/cgroup/unified"), &own);
        wait_until_used_up(&own);
        Some(quota)
    }
}

/// At first the processes run for longer than the quota, until the kernel notices.
fn wait_until_used_up(group: &Path) {
    let throttled = || {
        let stat = fs::read_to_string(group.join("cpu.stat")).unwrap();
        let periods = stat
            .lines()
            .find_map(|line| line.strip_prefix("nr_throttled "));
        periods.is_some_and(|periods| periods.parse::<u32>().unwrap() >= 5)
    };
    assert!(
        wait_until(Duration::from_secs(20), throttled),
        "the quota has no effect"
    );
}

fn move_all(from: &Path, to: &Path) {
    for pid in fs::read_to_string(from.join("cgroup.procs"))
        .unwrap()
        .lines()
    {
        fs::write(to.join("cgroup.procs"), pid).unwrap();
    }
}

impl Drop for CpuQuota {
    fn drop(&mut self) {
        match self {
            Self::Unified(max) => fs::write(max, "max").unwrap(),
            Self::Separate(own) => {
                if let Some(above) = own.parent() {
                    move_all(own, above);
                }
                fs::remove_dir(own).unwrap();
            }
        }
    }
}
