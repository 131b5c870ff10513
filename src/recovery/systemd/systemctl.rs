//! Runs `systemctl show` with limits on time and memory. Leaves no process behind.

use std::ffi::OsString;
use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, geteuid};

use super::super::pidfd::{self, PidFd};
use super::dependencies::names_to_ask;
use super::properties::{NEIGHBOUR, of_service};
use super::unit::Unit;
use crate::clock::Monotonic;
use crate::escape::escape;
use crate::manifest::Scope;

/// The bound on one call.
const BOUND: Duration = Duration::from_secs(5);
/// How often the output of a running call is read. Its end is noticed at once.
const PAUSE: Duration = Duration::from_millis(20);
/// The largest number of bytes read from each output.
const OUTPUT: usize = 1 << 20;
/// How far the dependencies of a unit are followed.
const NEIGHBOUR_CALLS: usize = 4;

/// `systemctl`, for one manager.
#[derive(Clone, Debug)]
pub(crate) struct Systemctl {
    program: OsString,
    scope: Scope,
    bound: Duration,
    cancelled: Arc<AtomicBool>,
    /// What to add to the environment as `XDG_RUNTIME_DIR`, or why the manager cannot be found.
    runtime_folder: Result<Option<PathBuf>, String>,
}

impl Systemctl {
    /// The `systemctl` found in `PATH`. Once `cancelled` is set, a running call ends.
    pub(crate) fn new(scope: Scope, cancelled: Arc<AtomicBool>) -> Self {
        Self {
            program: "systemctl".into(),
            scope,
            bound: BOUND,
            cancelled,
            runtime_folder: match scope {
                Scope::System => Ok(None),
                Scope::User => user_runtime_folder(|name| std::env::var_os(name), Path::is_dir),
            },
        }
    }

    /// The manager's state of the service or timer `unit`. A message, if `systemctl` is missing, fails, prints garbage,
    /// or does not end in time.
    pub(crate) fn show(&self, unit: &str) -> Result<Unit, String> {
        Unit::parse(&self.ask(&[unit], &of_service())?)
    }

    /// The units that decide what a kill of `unit` sets off. Most units need one call, and each further call is
    /// about those that the answer before it named. Errors are those of [`Self::show`].
    pub(crate) fn neighbours(&self, unit: &Unit) -> Result<Vec<Unit>, String> {
        let mut neighbours = Vec::new();
        for _ in 0..NEIGHBOUR_CALLS {
            let names: Vec<_> = names_to_ask(unit, &neighbours).into_iter().collect();
            if names.is_empty() {
                break;
            }
            neighbours.extend(Unit::parse_all(&self.ask(&names, NEIGHBOUR)?)?);
        }
        Ok(neighbours)
    }

    fn ask(&self, units: &[&str], properties: &[&str]) -> Result<Vec<u8>, String> {
        let mut command = Command::new(&self.program);
        if self.scope == Scope::User {
            command.arg("--user");
        }
        if let Some(folder) = self.runtime_folder.clone()? {
            command.env(RUNTIME_FOLDER, folder);
        }
        command.args(["show", "--no-pager"]);
        command.args(properties.iter().flat_map(|property| ["-p", property]));
        command.arg("--").args(units);
        let first = units.first().unwrap_or(&"");
        let more = if units.len() > 1 { " …" } else { "" };
        let typed = format!("{} show {first}{more}", systemctl(self.scope));
        let mut child = start(&mut command).map_err(|error| match error.kind() {
            ErrorKind::NotFound => {
                "systemctl was not found in PATH: recovery requires systemd".to_owned()
            }
            _ => format!("systemctl could not be started: {error}"),
        })?;
        let (status, stdout, stderr) = self.collect(&mut child).map_err(|why| {
            end(&mut child);
            format!("\"{typed}\" {why:#}")
        })?;
        if status.success() {
            return Ok(stdout);
        }
        let complaint = String::from_utf8_lossy(&stderr);
        let mut lines = complaint.lines().map(str::trim);
        let first = lines.find(|line| !line.is_empty());
        let reason = escape(first.unwrap_or("it gave no reason"));
        Err(format!("\"{typed}\" failed ({status}): {reason}"))
    }

    /// The exit status, the output and the error output of `child`, once it has ended.
    fn collect(&self, child: &mut Child) -> anyhow::Result<(ExitStatus, Vec<u8>, Vec<u8>)> {
        let until = Monotonic::now() + self.bound;
        let process = PidFd::open(child.id()).context("could not be watched")?;
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        loop {
            let ended = process.died_within(PAUSE.min(until.remaining()));
            drain(child.stdout.as_mut(), &mut stdout)?;
            drain(child.stderr.as_mut(), &mut stderr)?;
            // If this program was stopped meanwhile (Ctrl-Z), the answer may be as old as that pause.
            ensure!(
                !until.has_passed(),
                "did not end within {} s: the service manager or D-Bus is stuck",
                self.bound.as_secs_f64()
            );
            if ended {
                let status = child.wait().context("could not be watched")?;
                return Ok((status, stdout, stderr));
            }
            let cancelled = self.cancelled.load(Ordering::Relaxed);
            ensure!(!cancelled, "did not end in time");
        }
    }
}

/// Starts `command`, whose output will be in English and without color.
fn start(command: &mut Command) -> std::io::Result<Child> {
    pidfd::keep_exit_statuses();
    command
        .env("LC_ALL", "C")
        .env("SYSTEMD_COLORS", "0")
        // Its debug messages would precede the reason of a failure.
        .env_remove("SYSTEMD_LOG_LEVEL")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A separate process group, so that its children can be killed with it.
        .process_group(0)
        .spawn()
}

/// Reads everything that has arrived so far. A child of systemctl may keep the pipe open, so nothing waits for its end.
fn drain(pipe: Option<&mut (impl Read + AsFd)>, bytes: &mut Vec<u8>) -> anyhow::Result<()> {
    if let Some(pipe) = pipe {
        fcntl(&*pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        // It ends with `WouldBlock`, or beyond the limit.
        let _ = pipe.take(OUTPUT as u64 + 1).read_to_end(bytes);
    }
    ensure!(bytes.len() <= OUTPUT, "printed endless garbage");
    Ok(())
}

/// Kills a child that still runs, and its children.
fn end(child: &mut Child) {
    // Until it is reaped, its PID cannot be reused, so the number still means its group.
    if let (Ok(None), Ok(number)) = (child.try_wait(), i32::try_from(child.id())) {
        let _ = killpg(Pid::from_raw(number), Signal::SIGKILL);
        // If even SIGKILL does not end it soon, it is left to init.
        let dies = |process: PidFd| process.died_within(Duration::from_millis(200));
        if PidFd::open(child.id()).is_ok_and(dies) {
            let _ = child.try_wait();
        }
    }
}

const RUNTIME_FOLDER: &str = "XDG_RUNTIME_DIR";

/// The folder of the user manager, where the environment does not name it: cron and `su` set neither variable.
fn user_runtime_folder(
    variable: impl Fn(&str) -> Option<OsString>,
    exists: impl Fn(&Path) -> bool,
) -> Result<Option<PathBuf>, String> {
    let named = |name| variable(name).is_some_and(|value| !value.is_empty());
    if named(RUNTIME_FOLDER) || named("DBUS_SESSION_BUS_ADDRESS") {
        return Ok(None);
    }
    let folder = PathBuf::from(format!("/run/user/{}", geteuid()));
    if exists(&folder) {
        return Ok(Some(folder));
    }
    Err(format!(
        "the user manager was not found: {RUNTIME_FOLDER} is not set and {} does not exist; run as the backend's user, and start its manager with \"loginctl enable-linger\"",
        folder.display()
    ))
}

/// How a person types `systemctl` for this manager.
pub(crate) const fn systemctl(scope: Scope) -> &'static str {
    match scope {
        Scope::System => "systemctl",
        Scope::User => "systemctl --user",
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::*;
    use crate::recovery::systemd::samples::demo;

    /// A script in place of `systemctl`, in its own folder.
    struct Fake(TempDir);

    impl Fake {
        fn new(script: &str) -> Self {
            let folder = TempDir::new().unwrap();
            let path = folder.path().join("systemctl");
            fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            Self(folder)
        }

        fn systemctl(&self, scope: Scope, bound: Duration) -> Systemctl {
            Systemctl {
                program: self.0.path().join("systemctl").into(),
                scope,
                bound,
                cancelled: Arc::default(),
                runtime_folder: Ok(Some("/run/user/4711".into())),
            }
        }

        fn show(&self, scope: Scope, bound: Duration) -> Result<Unit, String> {
            let systemctl = self.systemctl(scope, bound);
            repeat(|| systemctl.show("demo.service"))
        }

        fn file(&self, name: &str) -> String {
            fs::read_to_string(self.0.path().join(name)).unwrap_or_default()
        }
    }

    /// Another test's fork may hold the script open for writing for a moment: ETXTBSY.
    fn repeat<T>(ask: impl Fn() -> Result<T, String>) -> Result<T, String> {
        loop {
            match ask() {
                Err(error) if error.contains("Text file busy") => std::thread::yield_now(),
                result => return result,
            }
        }
    }

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn show_queries_one_unit_in_plain_english() {
        let fake = Fake::new(
            "printf '%s\\n' \"$@\" >\"${0%/*}/args\"\n\
             echo \"$LC_ALL $SYSTEMD_COLORS $XDG_RUNTIME_DIR [$(cat)]\" >\"${0%/*}/env\"\n\
             echo MainPID=4711; echo noise >&2",
        );
        let unit = fake.show(Scope::User, LONG).unwrap();
        assert_eq!(unit.main_pid(), Ok(4_711));
        assert_eq!(fake.file("env"), "C 0 /run/user/4711 []\n");
        let args = fake.file("args");
        assert!(
            args.starts_with("--user\nshow\n--no-pager\n-p\nId\n"),
            "{args}"
        );
        assert!(args.ends_with("\n--\ndemo.service\n"), "{args}");
        fake.show(Scope::System, LONG).unwrap();
        assert!(fake.file("args").starts_with("show\n"));
    }

    #[test]
    fn show_reports_how_it_failed() {
        for (script, complaint) in [
            ("exit 1", "exit status: 1): it gave no reason"),
            (
                "echo; printf 'No \\033[1mbus\\n' >&2; echo more >&2; exit 4",
                "exit status: 4): No \\u{1b}[1mbus",
            ),
            ("kill -9 $$", "signal: 9"),
            ("echo rubbish", "garbage: \"rubbish\""),
            ("", "printed nothing"),
            ("yes", "endless garbage"),
            ("yes >&2", "endless garbage"),
        ] {
            let error = Fake::new(script).show(Scope::System, LONG).unwrap_err();
            assert!(error.contains(complaint), "{script}: {error}");
        }
        let nowhere = Systemctl {
            program: "/nonexistent/systemctl".into(),
            scope: Scope::System,
            bound: LONG,
            cancelled: Arc::default(),
            runtime_folder: Ok(None),
        };
        assert!(
            nowhere
                .show("demo.service")
                .unwrap_err()
                .contains("not found in PATH")
        );
    }

    /// Whether the process whose PID the script wrote still runs.
    fn runs(number: &str) -> bool {
        PidFd::open(number.trim().parse().unwrap())
            .is_ok_and(|process| !process.died_within(Duration::from_secs(5)))
    }

    #[test]
    fn show_ends_a_hanging_call_and_its_children() {
        for script in [
            "sleep 600 & echo $! >\"${0%/*}/pid\"; echo MainPID=1; wait",
            "sleep 600 & echo $! >\"${0%/*}/pid\"; exec >&- 2>&-; wait",
            "trap '' TERM; sleep 600 & echo $! >\"${0%/*}/pid\"; while :; do echo A=1; sleep 1; done",
        ] {
            let fake = Fake::new(script);
            let before = Monotonic::now();
            let error = fake
                .show(Scope::System, Duration::from_millis(500))
                .unwrap_err();
            let took = Monotonic::now().since(before);
            assert!(error.contains("did not end within 0.5 s"), "{error}");
            assert!(took < Duration::from_secs(5), "{took:?}");
            assert!(!runs(&fake.file("pid")), "{script}");
        }
    }

    #[test]
    fn show_can_be_cancelled() {
        let fake = Fake::new("echo $$ >\"${0%/*}/pid\"; exec sleep 600");
        let cancelled = Arc::new(AtomicBool::new(false));
        let systemctl = Systemctl {
            program: fake.0.path().join("systemctl").into(),
            ..Systemctl::new(Scope::System, Arc::clone(&cancelled))
        };
        std::thread::scope(|scope| {
            let call = scope.spawn(|| systemctl.show("demo.service"));
            while fake.file("pid").is_empty() {
                std::thread::yield_now();
            }
            cancelled.store(true, Ordering::Relaxed);
            let error = call.join().unwrap().unwrap_err();
            assert!(error.contains("did not end in time"), "{error}");
        });
        assert!(!runs(&fake.file("pid")));
    }

    #[test]
    fn an_answer_that_is_read_too_late_is_discarded() {
        let mut child = start(Command::new("echo").arg("MainPID=4711")).unwrap();
        let process = PidFd::open(child.id()).unwrap();
        assert!(process.died_within(LONG));
        let systemctl = Systemctl {
            bound: Duration::ZERO,
            ..Systemctl::new(Scope::System, Arc::default())
        };
        let why = systemctl.collect(&mut child).unwrap_err().to_string();
        assert!(why.starts_with("did not end within 0 s"), "{why}");
        end(&mut child);
    }

    #[test]
    fn show_does_not_wait_for_a_grandchild_that_holds_the_pipe() {
        let fake = Fake::new("sleep 20 & echo $! >\"${0%/*}/pid\"; echo MainPID=4711");
        let before = Monotonic::now();
        assert_eq!(
            fake.show(Scope::System, LONG).unwrap().main_pid(),
            Ok(4_711)
        );
        assert!(Monotonic::now().since(before) < Duration::from_secs(10));
        let left = PidFd::open(fake.file("pid").trim().parse().unwrap()).unwrap();
        left.signal(Some(Signal::SIGKILL)).unwrap();
    }

    #[test]
    fn show_reads_an_answer_that_is_larger_than_the_pipe() {
        let fake = Fake::new(
            "i=0; while [ $i -lt 3000 ]; do echo \"Key$i=0123456789012345678901234567890123456789\"; \
             i=$((i+1)); done; echo MainPID=4711",
        );
        assert_eq!(
            fake.show(Scope::System, LONG).unwrap().main_pid(),
            Ok(4_711)
        );
    }

    #[test]
    fn neighbours_are_asked_for_in_as_few_calls_as_possible() {
        // Each name is a unit of that name; worker.service has a dependent.
        let fake = Fake::new(
            "echo call >>\"${0%/*}/calls\"; while [ \"$1\" != -- ]; do shift; done; shift; printf '%s ' \"$@\" >>\"${0%/*}/calls\"\n\
             for unit; do [ -z \"$more\" ] || echo; more=1; echo \"Id=$unit\"\n\
             [ \"$unit\" != worker.service ] || echo BoundBy=sub.service; done",
        );
        let systemctl = fake.systemctl(Scope::System, LONG);
        assert_eq!(systemctl.neighbours(&Unit::default()), Ok(Vec::new()));
        let ids = |unit: &Unit| {
            let units = repeat(|| systemctl.neighbours(unit)).unwrap();
            let ids = units.iter().filter_map(Unit::id).map(str::to_owned);
            ids.collect::<Vec<_>>().join(" ")
        };
        let lonely = demo(&["BoundBy=", "Requires=system.slice", "TriggeredBy="]);
        assert_eq!(
            (ids(&lonely), fake.file("calls")),
            (String::new(), String::new())
        );
        let needy = demo(&["BoundBy=", "Requires=a.service"]);
        assert_eq!(ids(&needy), "a.service demo.socket");
        assert_eq!(fake.file("calls"), "call\na.service demo.socket ");
        fs::remove_file(fake.0.path().join("calls")).unwrap();
        let bound = demo(&["Requires=", "TriggeredBy="]);
        assert_eq!(ids(&bound), "worker.service sub.service");
        assert_eq!(
            fake.file("calls"),
            "call\nworker.service call\nsub.service "
        );
    }

    #[test]
    fn the_folder_of_the_user_manager_is_found_without_a_session() {
        let folder = |set: Option<(&str, &str)>, exists| {
            let variable = |name: &str| set.filter(|it| it.0 == name).map(|it| it.1.into());
            user_runtime_folder(variable, |_| exists)
        };
        let own = PathBuf::from(format!("/run/user/{}", geteuid()));
        assert_eq!(folder(None, true), Ok(Some(own.clone())));
        assert_eq!(folder(Some((RUNTIME_FOLDER, "")), true), Ok(Some(own)));
        assert_eq!(folder(Some((RUNTIME_FOLDER, "/run/x")), true), Ok(None));
        let bus = Some(("DBUS_SESSION_BUS_ADDRESS", "unix:path=/run/bus"));
        assert_eq!(folder(bus, false), Ok(None));
        let error = folder(None, false).unwrap_err();
        assert!(
            error.contains("XDG_RUNTIME_DIR is not set and /run/user/"),
            "{error}"
        );
        let systemctl = Systemctl {
            runtime_folder: Err(error.clone()),
            ..Systemctl::new(Scope::User, Arc::default())
        };
        assert_eq!(systemctl.show("demo.service"), Err(error));
    }
}
