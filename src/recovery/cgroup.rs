//! Control groups, cgroups(7): the processes of a unit, and the group with a given kernel id. Reads the
//! cgroup2 mount; the guards judge the result.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use super::facts::{CpuTimes, Group};
use super::proc;
use crate::clock::Monotonic;

/// Where systemd mounts cgroup2: on a unified, and on a hybrid hierarchy.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
/// The time limit for reading a group with its processes, and for finding the group with a given id.
const LIMIT: Duration = Duration::from_secs(1);

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

/// The cgroup2 hierarchy of this machine.
#[derive(Clone, Debug)]
pub(super) struct Hierarchy(PathBuf);

impl Hierarchy {
    /// Finds the mount. A message, if there is none.
    pub(super) fn find() -> Result<Self, String> {
        let is_cgroup2 = |mount: &&&str| {
            statfs(**mount).is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC)
        };
        let mount = MOUNTS
            .iter()
            .find(is_cgroup2)
            .map(|mount| Self(mount.into()));
        mount.ok_or_else(|| {
            "cgroup2 is not mounted at /sys/fs/cgroup, so the owner of a socket is unknown: boot with systemd.unified_cgroup_hierarchy=1".to_owned()
        })
    }

    /// Everything about `group` and all groups below it. A group that vanishes meanwhile is skipped, except
    /// `group` itself. A message, if the group does not exist, or it or a process of it cannot be read in time.
    pub(super) fn group(&self, group: &ControlGroup) -> Result<Group, String> {
        let until = Monotonic::now() + LIMIT;
        let top = self.folder(group);
        let (mut pids, mut frozen) = (BTreeSet::new(), None);
        let mut pending = vec![top.clone()];
        while let Some(folder) = pending.pop() {
            check_time(until)?;
            match processes_in(&folder).and_then(|pids| Ok((pids, groups_below(&folder)?))) {
                Ok((found, below)) => {
                    pids.extend(found);
                    pending.extend(below);
                }
                Err(error) if folder != top && is_gone(&error) => continue,
                Err(error) => {
                    let (path, why) = (group.as_str(), error.kind());
                    return Err(format!("control group {path} cannot be read: {why}"));
                }
            }
            if is_frozen(&folder) {
                frozen.get_or_insert_with(|| self.path(&folder));
            }
        }
        Ok(Group {
            members: proc::members(pids, until)?,
            frozen,
            cpu: cpu_times(&top),
        })
    }

    /// The path of the group with this id, searched below `own` and then everywhere. The id, as sock_diag(7)
    /// reports it, is the inode of the group's folder (`cgroup_id` of the kernel's include/linux/cgroup.h).
    /// A message about a socket with this id, if no group has it, or the search did not finish in time.
    pub(super) fn path_of_id(&self, id: u64, own: &ControlGroup) -> Result<String, String> {
        let until = Monotonic::now() + LIMIT;
        // Breadth first: those of service managers and `.socket` units are not far below the root.
        let mut pending = VecDeque::from([self.folder(own), self.0.clone()]);
        while let Some(folder) = pending.pop_front() {
            check_time(until)?;
            if fs::metadata(&folder).is_ok_and(|facts| facts.ino() == id) {
                return Ok(self.path(&folder));
            }
            pending.extend(groups_below(&folder).into_iter().flatten());
        }
        Err("it was created by a control group that no longer exists (inherited, or kept in a file descriptor store)".to_owned())
    }

    fn folder(&self, group: &ControlGroup) -> PathBuf {
        self.0.join(group.as_str().trim_start_matches('/'))
    }

    fn path(&self, folder: &Path) -> String {
        let below = folder.strip_prefix(&self.0).unwrap_or(folder);
        format!("/{}", below.display())
    }
}

fn check_time(until: Monotonic) -> Result<(), String> {
    match until.has_passed() {
        true => Err("the control groups could not be read in time".to_owned()),
        false => Ok(()),
    }
}

/// The processes in a group itself; 0 for one that this PID namespace does not show.
fn processes_in(folder: &Path) -> io::Result<Vec<u32>> {
    let text = match fs::read_to_string(folder.join("cgroup.procs")) {
        // The processes of a threaded group are listed in a group above it, cgroups(7).
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => String::new(),
        text => text?,
    };
    Ok(text.lines().map(|line| line.parse().unwrap_or(0)).collect())
}

fn groups_below(folder: &Path) -> io::Result<impl Iterator<Item = PathBuf> + use<>> {
    let entries = fs::read_dir(folder)?.flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    Ok(folders.map(|entry| entry.path()))
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

/// Whether a group is frozen or about to be: while one process cannot be frozen (state D), the others are, and
/// the group does not count as frozen yet. Kernels before 5.2 have no freezer here.
fn is_frozen(folder: &Path) -> bool {
    let has = |file, wanted| {
        let text = fs::read_to_string(folder.join(file)).unwrap_or_default();
        text.lines().any(|line| line == wanted)
    };
    has("cgroup.events", "frozen 1") || has("cgroup.freeze", "1")
}

/// None where the kernel does not count them: before Linux 5.13, or with `psi=0`.
fn cpu_times(folder: &Path) -> Option<CpuTimes> {
    let read = |file| fs::read_to_string(folder.join(file)).ok();
    let (pressure, stat) = read("cpu.pressure").zip(read("cpu.stat"))?;
    Some(CpuTimes {
        at: Monotonic::now(),
        waited: micros(&pressure, "full ", "total=")?,
        used: micros(&stat, "usage_usec", " ")?,
    })
}

/// The number after the last `separator` in the line that begins with `name`.
fn micros(text: &str, name: &str, separator: &str) -> Option<Duration> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    let (_, number) = line.rsplit_once(separator)?;
    Some(Duration::from_micros(number.parse().ok()?))
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
        let group = hierarchy.group(&sleepers.group).unwrap();
        let members = group.members.iter().map(|member| member.pid);
        assert_eq!((members.collect(), group.frozen), (expected, None));
        let id = fs::metadata(&sleepers.folder).unwrap().ino();
        let path = sleepers.group.as_str().to_owned();
        let other = ControlGroup("/scidex-route-health-nonexistent".to_owned());
        for own in [&sleepers.group, &other] {
            let found = hierarchy.path_of_id(id, own);
            assert_eq!(found.as_ref(), Ok(&path));
        }
        let group = sleepers.group.clone();
        drop(sleepers);
        let removed = hierarchy.path_of_id(id, &group).unwrap_err();
        assert!(removed.contains("no longer exists"), "{removed}");
        let gone = hierarchy.group(&other).unwrap_err();
        assert!(gone.contains("cannot be read"), "{gone}");
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
            let group = hierarchy.group(&group).unwrap();
            assert_eq!(group.frozen.as_deref(), frozen, "{events} {freeze}");
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
    fn cpu_times_needs_both_files() {
        let folder = tempfile::TempDir::new().unwrap();
        let write = |file, text: &str| fs::write(folder.path().join(file), text).unwrap();
        let some = "some avg10=1.00 avg60=0.00 avg300=0.00 total=7\n";
        let full = "full avg10=0.50 avg60=0.00 avg300=0.00 total=2500000\n";
        write("cpu.pressure", &format!("{some}{full}"));
        assert_eq!(cpu_times(folder.path()), None);
        write("cpu.stat", "usage_usec 1500\nuser_usec 900\n");
        let times = cpu_times(folder.path()).unwrap();
        let expected = (Duration::from_millis(2_500), Duration::from_micros(1_500));
        assert_eq!((times.waited, times.used), expected);
        for less in [some, "full avg10=0.50"] {
            write("cpu.pressure", less);
            assert_eq!(cpu_times(folder.path()), None);
        }
    }

    #[test]
    fn path_of_finds_the_cgroup2_line() {
        assert_eq!(path_of("9:name=systemd:/x\n0::/a/b\n"), Some("/a/b"));
        assert_eq!(path_of("9:name=systemd:/x\n"), None);
    }
}
