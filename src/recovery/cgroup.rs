//! Control groups, cgroups(7): the processes of a unit, and the group with a given kernel id. Reads the
//! cgroup2 mount; the guards judge the result.

use std::collections::HashSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use crate::clock::Monotonic;

/// Where systemd mounts cgroup2: on a unified, and on a hybrid hierarchy.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
/// How many groups below one are visited; a unit with more than this is not a web backend.
const GROUPS_MAX: usize = 10_000;

/// The path of a control group, as systemd reports it in `ControlGroup=`; never the root group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ControlGroup(String);

impl ControlGroup {
    /// Reads an absolute path; none for the root group and for anything else.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let clean = path.starts_with('/')
            && path.len() > 1
            && !path.ends_with('/')
            && !path.split('/').any(|part| part == "..");
        clean.then(|| Self(path.to_owned()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `path` is this group or one below it.
    pub(super) fn contains(&self, path: &str) -> bool {
        path.strip_prefix(self.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// The cgroup2 path in `/proc/PID/cgroup`; none if there is no cgroup2.
pub(super) fn path_of(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::"))
}

/// A control group and all groups below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Contents {
    /// The ids of the groups, as sock_diag(7) reports them: the inode of each group's folder (`cgroup_id` of the
    /// kernel's include/linux/cgroup.h).
    pub(super) ids: HashSet<u64>,
    /// The processes, in order; 0 for one that this PID namespace does not show.
    pub(super) processes: Vec<u32>,
    /// The path of a group that is frozen, if one is.
    pub(super) frozen: Option<String>,
}

/// The cgroup2 hierarchy of this machine.
#[derive(Clone, Debug)]
pub(super) struct Hierarchy(PathBuf);

impl Hierarchy {
    /// Finds the mount.
    ///
    /// # Errors
    ///
    /// A message, if there is none.
    pub(super) fn find() -> Result<Self, String> {
        MOUNTS
            .iter()
            .map(Path::new)
            .find(|mount| statfs(*mount).is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC))
            .map(|mount| Self(mount.to_owned()))
            .ok_or_else(|| {
                "cgroup2 is not mounted at /sys/fs/cgroup, so the owner of a socket is unknown: boot with systemd.unified_cgroup_hierarchy=1".to_owned()
            })
    }

    /// Everything about `group` and all groups below it.
    ///
    /// # Errors
    ///
    /// A message, if the group does not exist or cannot be read.
    pub(super) fn contents(&self, group: &ControlGroup) -> Result<Contents, String> {
        let mut contents = Contents::default();
        self.walk(group, |folder, id| {
            contents.ids.insert(id);
            match fs::read_to_string(folder.join("cgroup.procs")) {
                Ok(text) => {
                    let numbers = text.lines().map(|line| line.parse().unwrap_or(0));
                    contents.processes.extend(numbers);
                }
                // The processes of a threaded group are listed in a group above it, cgroups(7).
                Err(error) if error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => {}
                Err(error) => return Err(error),
            }
            // Kernels before 5.2 have no freezer here. While one process cannot be frozen (state D), the others are,
            // and the group does not count as frozen yet.
            let has = |file, wanted| {
                let text = fs::read_to_string(folder.join(file)).unwrap_or_default();
                text.lines().any(|line| line == wanted)
            };
            if has("cgroup.events", "frozen 1") || has("cgroup.freeze", "1") {
                let path = folder.strip_prefix(&self.0).unwrap_or(folder);
                let path = || format!("/{}", path.display());
                contents.frozen.get_or_insert_with(path);
            }
            Ok(())
        })?;
        contents.processes.sort_unstable();
        contents.processes.dedup();
        Ok(contents)
    }

    /// How long the processes of `group` and of all groups below it have had work while none had a CPU: the
    /// `full` total of `cpu.pressure` (the kernel's Documentation/accounting/psi.rst). None where the
    /// kernel does not count that: before Linux 5.13, or with `psi=0`.
    pub(super) fn waited_for_cpu(&self, group: &ControlGroup) -> Option<Duration> {
        let file = self.folder(group).join("cpu.pressure");
        total_of(&fs::read_to_string(file).ok()?)
    }

    /// How much CPU time the processes of `group` and of all groups below it have used.
    pub(super) fn used_cpu(&self, group: &ControlGroup) -> Option<Duration> {
        let text = fs::read_to_string(self.folder(group).join("cpu.stat")).ok()?;
        let used = text
            .lines()
            .find_map(|line| line.strip_prefix("usage_usec "))?;
        Some(Duration::from_micros(used.parse().ok()?))
    }

    fn folder(&self, group: &ControlGroup) -> PathBuf {
        self.0.join(group.as_str().trim_start_matches('/'))
    }

    /// The path of the group with this id, searched until `until`; none if no group has it.
    ///
    /// # Errors
    ///
    /// A message, if the search did not finish in time.
    pub(super) fn path_of_id(&self, id: u64, until: Monotonic) -> Result<Option<String>, String> {
        let mut pending = vec![self.0.clone()];
        while let Some(folder) = pending.pop() {
            if until.has_passed() {
                return Err("the control groups could not be searched in time".to_owned());
            }
            match fs::metadata(&folder) {
                Ok(facts) if facts.ino() == id => {
                    let path = folder.strip_prefix(&self.0).unwrap_or(&folder);
                    return Ok(Some(format!("/{}", path.display())));
                }
                Ok(_) => {}
                Err(_) => continue,
            }
            let Ok(entries) = fs::read_dir(&folder) else {
                continue;
            };
            let folders = entries.flatten().filter(is_folder);
            pending.extend(folders.map(|entry| entry.path()));
        }
        Ok(None)
    }

    /// Visits `group` and all groups below it. A group that vanishes meanwhile is skipped, except
    /// `group` itself.
    fn walk(
        &self,
        group: &ControlGroup,
        mut visit: impl FnMut(&Path, u64) -> io::Result<()>,
    ) -> Result<(), String> {
        let path = group.as_str();
        let failed =
            |error: io::Error| format!("control group {path} cannot be read: {}", error.kind());
        let top = self.folder(group);
        let mut pending = vec![top.clone()];
        let mut visited = 0;
        while let Some(folder) = pending.pop() {
            visited += 1;
            if visited > GROUPS_MAX {
                return Err(format!(
                    "control group {path} has more than {GROUPS_MAX} groups"
                ));
            }
            let mut enter = || {
                visit(&folder, fs::metadata(&folder)?.ino())?;
                fs::read_dir(&folder)
            };
            match enter() {
                Ok(entries) => {
                    let folders = entries.flatten().filter(is_folder);
                    pending.extend(folders.map(|entry| entry.path()));
                }
                Err(error) if folder != top && is_gone(&error) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(())
    }
}

/// The total in the `full` line of a pressure file.
fn total_of(text: &str) -> Option<Duration> {
    let full = text.lines().find_map(|line| line.strip_prefix("full "))?;
    let (_, micros) = full.rsplit_once("total=")?;
    Some(Duration::from_micros(micros.parse().ok()?))
}

fn is_folder(entry: &fs::DirEntry) -> bool {
    entry.file_type().is_ok_and(|kind| kind.is_dir())
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(Errno::ENODEV as i32)
}

#[cfg(test)]
pub(super) mod tests {
    use std::process::{Child, Command};
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::skip::skip;

    /// A group with sleeping processes; removed on drop.
    pub(in super::super) struct Sleepers {
        pub(in super::super) group: ControlGroup,
        pub(in super::super) processes: Vec<Child>,
        folder: PathBuf,
    }

    impl Sleepers {
        /// Starts `count` processes; `None` if this user may not create a group.
        pub(in super::super) fn start(count: usize) -> Option<Self> {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!(
                "scidex-route-health-sleepers-{}-{number}",
                std::process::id()
            );
            let hierarchy = Hierarchy::find().inspect_err(|why| skip(why)).ok()?;
            let folder = hierarchy.0.join(&name);
            if let Err(error) = fs::create_dir(&folder) {
                skip(&format!("no control group can be made: {}", error.kind()));
                return None;
            }
            let mut sleepers = Self {
                group: ControlGroup(format!("/{name}")),
                processes: Vec::new(),
                folder,
            };
            for _ in 0..count {
                let process = Command::new("sleep").arg("600").spawn().unwrap();
                let pid = process.id().to_string();
                sleepers.processes.push(process);
                fs::write(sleepers.folder.join("cgroup.procs"), pid).unwrap();
            }
            Some(sleepers)
        }
    }

    impl Drop for Sleepers {
        fn drop(&mut self) {
            for process in &mut self.processes {
                process.kill().unwrap();
                process.wait().unwrap();
            }
            // The kernel may take a moment to remove them.
            let until = Monotonic::now() + Duration::from_secs(10);
            while fs::remove_dir(&self.folder).is_err() && !until.has_passed() {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    #[test]
    fn the_hierarchy_knows_a_group_by_path_and_by_id() {
        let Some(sleepers) = Sleepers::start(2) else {
            return;
        };
        let hierarchy = Hierarchy::find().unwrap();
        let mut expected: Vec<u32> = sleepers.processes.iter().map(Child::id).collect();
        expected.sort_unstable();
        let contents = hierarchy.contents(&sleepers.group).unwrap();
        assert_eq!((contents.processes, contents.frozen), (expected, None));
        let ids: Vec<u64> = contents.ids.into_iter().collect();
        let [id] = ids[..] else { panic!("{ids:?}") };
        let soon = Monotonic::now() + Duration::from_secs(10);
        let path = sleepers.group.as_str().to_owned();
        assert_eq!(hierarchy.path_of_id(id, soon), Ok(Some(path)));
        assert!(hierarchy.used_cpu(&sleepers.group).is_some());
        drop(sleepers);
        assert_eq!(hierarchy.path_of_id(id, soon), Ok(None));
        let gone = ControlGroup("/scidex-route-health-nonexistent".to_owned());
        assert!(
            hierarchy
                .contents(&gone)
                .unwrap_err()
                .contains("cannot be read")
        );
    }

    #[test]
    fn a_group_that_is_still_freezing_is_frozen() {
        let folder = tempfile::TempDir::new().unwrap();
        let demo = folder.path().join("demo");
        fs::create_dir(&demo).unwrap();
        let write = |file, text| fs::write(demo.join(file), text).unwrap();
        write("cgroup.procs", "");
        for (events, freeze, frozen) in [
            ("populated 1\nfrozen 0\n", "0\n", None),
            ("populated 1\nfrozen 1\n", "0\n", Some("/demo")),
            ("populated 1\nfrozen 0\n", "1\n", Some("/demo")),
        ] {
            write("cgroup.events", events);
            write("cgroup.freeze", freeze);
            let group = ControlGroup::parse("/demo").unwrap();
            let hierarchy = Hierarchy(folder.path().to_owned());
            let contents = hierarchy.contents(&group).unwrap();
            assert_eq!(contents.frozen.as_deref(), frozen, "{events} {freeze}");
        }
    }

    #[test]
    fn parse_takes_no_root_group_and_no_relative_path() {
        for bad in ["", "/", "a", "/a/", "/a/../b", "//"] {
            assert_eq!(ControlGroup::parse(bad), None, "{bad:?}");
        }
        let group = ControlGroup::parse("/system.slice/a.service").unwrap();
        for (path, within) in [
            ("/system.slice/a.service", true),
            ("/system.slice/a.service/worker", true),
            ("/system.slice/a.service2", false),
            ("/system.slice", false),
            ("/", false),
        ] {
            assert_eq!(group.contains(path), within, "{path}");
        }
    }

    #[test]
    fn total_of_reads_the_full_line() {
        let some = "some avg10=1.00 avg60=0.00 avg300=0.00 total=7\n";
        let full = "full avg10=0.50 avg60=0.00 avg300=0.00 total=2500000\n";
        let total = Duration::from_millis(2_500);
        assert_eq!(total_of(&format!("{some}{full}")), Some(total));
        assert_eq!(total_of(some), None);
        assert_eq!(total_of("full avg10=0.50"), None);
    }

    #[test]
    fn path_of_finds_the_cgroup2_line() {
        assert_eq!(path_of("9:name=systemd:/x\n0::/a/b\n"), Some("/a/b"));
        assert_eq!(path_of("9:name=systemd:/x\n"), None);
    }
}
