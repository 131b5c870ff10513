//! A stand-in for systemd, for machines that cannot run one: it runs the backend, restarts it when it dies,
//! and answers `systemctl show` truthfully about it. It is not a service manager: it handles one service
//! and no other command.
//!
//! The program under demonstration runs the `systemctl` that it finds in PATH. [`StandIn::start`] puts
//! one there that passes its arguments to this process and prints the answer ([`ask`]).

use std::fs;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use nix::time::{ClockId, clock_gettime};

/// How long the stand-in waits before it restarts the backend: `RestartUSec` of the settings.
const RESTART_PAUSE: Duration = Duration::from_millis(200);

/// What the service's unit would set. With `KillMode=mixed`, other processes of the group never delay a restart.
const SETTINGS: &str = "\
LoadState=loaded
Result=success
Restart=always
RestartUSec=200ms
RemainAfterExit=no
ExitType=main
SuccessExitStatus=
RestartPreventExitStatus=
RestartForceExitStatus=
KillMode=mixed
SendSIGKILL=yes
TimeoutStartUSec=1min 30s
TimeoutStopUSec=1s
StartLimitIntervalUSec=0
StartLimitBurst=5
StartLimitAction=none
FailureAction=none
SuccessAction=none
OnFailure=
OnFailureJobMode=replace
OnSuccess=
OnSuccessJobMode=fail
Requires=
Requisite=
BindsTo=
PartOf=
StopPropagatedFrom=
Wants=
Upholds=
After=
BoundBy=
PropagatesStopTo=
WorkingDirectory=
RootDirectory=
RootImage=
Job=
FreezerState=running
NeedDaemonReload=no
TriggeredBy=";

/// Both files that it uses are beside the script itself.
const SYSTEMCTL: &str = "#!/bin/sh\nexec \"${0%/*}/demo\" --systemctl \"${0%/*}/socket\" \"$@\"\n";

/// The supervisor; dropping it ends the backend and removes the control groups.
pub(crate) struct StandIn {
    shared: Arc<Mutex<Service>>,
    groups: Groups,
    folder: PathBuf,
}

struct Service {
    name: String,
    command: Vec<String>,
    group: Option<PathBuf>,
    /// The path of the control group, as in `/proc/PID/cgroup`.
    control_group: String,
    manager_group: String,
    running: Option<Running>,
    restarts: u64,
    stopping: bool,
}

struct Running {
    child: Child,
    /// Microseconds of CLOCK_MONOTONIC.
    started: i64,
    invocation: String,
}

impl StandIn {
    /// Runs `command` as the service `name`. Its files are created in `folder`, which also names the control
    /// groups.
    ///
    /// # Errors
    ///
    /// The process or its files cannot be created.
    pub(crate) fn start(name: &str, command: Vec<String>, folder: &Path) -> anyhow::Result<Self> {
        let script = folder.join("systemctl");
        fs::write(&script, SYSTEMCTL)?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        symlink(std::env::current_exe()?, folder.join("demo"))?;
        // The private socket of a user manager: the process that listens there is the manager.
        fs::create_dir_all(folder.join("systemd"))?;
        let private = UnixListener::bind(folder.join("systemd/private"))?;
        let questions = UnixListener::bind(folder.join("socket"))?;

        let groups = Groups::make(name, folder)?;
        let mut service = Service {
            name: name.to_owned(),
            command,
            group: groups.made.as_ref().map(|made| made.join(name)),
            control_group: groups.path_of(name),
            manager_group: groups.path.clone(),
            running: None,
            restarts: 0,
            stopping: false,
        };
        service.run()?;
        let shared = Arc::new(Mutex::new(service));
        let supervised = Arc::clone(&shared);
        thread::spawn(move || supervise(&supervised));
        let asked = Arc::clone(&shared);
        thread::spawn(move || {
            // Kept open as long as this thread answers.
            let _private = private;
            for stream in questions.incoming().flatten() {
                // A client that has closed needs no answer.
                let _gone = answer(&stream, &asked);
            }
        });
        Ok(Self {
            shared,
            groups,
            folder: folder.to_owned(),
        })
    }

    /// The environment that the demonstrated program needs to use this stand-in.
    pub(crate) fn environment(&self) -> Vec<(&'static str, std::ffi::OsString)> {
        let mut path = self.folder.as_os_str().to_owned();
        if let Some(rest) = std::env::var_os("PATH") {
            path.push(":");
            path.push(rest);
        }
        let runtime = self.folder.as_os_str().to_owned();
        vec![("PATH", path), ("XDG_RUNTIME_DIR", runtime)]
    }

    /// The PID of the backend; 0 between its death and its restart.
    pub(crate) fn main_pid(&self) -> u32 {
        let service = lock(&self.shared);
        service.running.as_ref().map_or(0, |now| now.child.id())
    }

    /// Why the program's guards cannot pass here, if that is known in advance.
    pub(crate) fn obstacle(&self) -> Option<&str> {
        self.groups.obstacle.as_deref()
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        let mut service = lock(&self.shared);
        service.stopping = true;
        if let Some(mut now) = service.running.take() {
            // Fails only if it has ended already.
            let _ended = now.child.kill();
            let _ended = now.child.wait();
        }
        drop(service);
        self.groups.remove();
    }
}

fn lock(shared: &Mutex<Service>) -> MutexGuard<'_, Service> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Restarts the backend whenever it has ended: `Restart=always`.
fn supervise(shared: &Mutex<Service>) {
    loop {
        thread::sleep(Duration::from_millis(10));
        let mut service = lock(shared);
        if service.stopping {
            return;
        }
        if let Some(now) = &mut service.running {
            if !matches!(now.child.try_wait(), Ok(None)) {
                service.running = None;
            }
            continue;
        }
        drop(service);
        thread::sleep(RESTART_PAUSE);
        let mut service = lock(shared);
        if service.stopping {
            return;
        }
        service.restarts += 1;
        if let Err(error) = service.run() {
            eprintln!("demo: the stand-in cannot start the backend: {error:#}");
        }
    }
}

impl Service {
    fn run(&mut self) -> anyhow::Result<()> {
        let started = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
        let (program, rest) = self.command.split_first().context("no command")?;
        let mut command = if let Some(group) = &self.group {
            // Joins the group before the backend starts: a socket keeps the group in which it was created.
            let mut shell = Command::new("sh");
            shell
                .args(["-c", r#"echo 0 > "$0/cgroup.procs" && exec "$@""#])
                .arg(group)
                .arg(program);
            shell
        } else {
            Command::new(program)
        };
        command.args(rest);
        let child = command.stdin(Stdio::null()).spawn()?;
        let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
        self.running = Some(Running {
            child,
            started: started.tv_sec() * 1_000_000 + started.tv_nsec() / 1_000,
            invocation: uuid.trim().replace('-', ""),
        });
        Ok(())
    }

    /// What systemd's `systemctl show` would print in this state; org.freedesktop.systemd1(5) describes the
    /// names.
    fn show(&self, unit: Option<&str>) -> Vec<(&'static str, String)> {
        let text = |value: &str| value.to_owned();
        let Some(unit) = unit else {
            return vec![("ControlGroup", self.manager_group.clone())];
        };
        if unit != self.name {
            return vec![
                ("Id", text(unit)),
                ("LoadState", text("not-found")),
                ("ActiveState", text("inactive")),
                ("MainPID", text("0")),
            ];
        }
        let (active, sub) = match self.running {
            Some(_) => ("active", "running"),
            None => ("activating", "auto-restart"),
        };
        let now = self.running.as_ref();
        let argv = self.command.join(" ");
        let program = self.command.first().map_or("", String::as_str);
        let started = now.map_or(0, |now| now.started).to_string();
        let invocation = now.map(|now| now.invocation.clone());
        let mut properties = vec![
            ("Id", self.name.clone()),
            ("ActiveState", text(active)),
            ("SubState", text(sub)),
            ("MainPID", now.map_or(0, |now| now.child.id()).to_string()),
            ("ControlGroup", self.control_group.clone()),
            ("InvocationID", invocation.unwrap_or_default()),
            ("ExecMainStartTimestampMonotonic", started.clone()),
            ("StateChangeTimestampMonotonic", started),
            ("NRestarts", self.restarts.to_string()),
            (
                "ExecStart",
                format!(
                    "{{ path={program} ; argv[]={argv} ; ignore_errors=no ; start_time=[n/a] }}"
                ),
            ),
        ];
        let settings = SETTINGS.lines().filter_map(|line| line.split_once('='));
        properties.extend(settings.map(|(name, value)| (name, text(value))));
        properties
    }
}

/// Answers one question: its arguments, each followed by a zero byte.
fn answer(mut stream: &UnixStream, shared: &Mutex<Service>) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut question = String::new();
    stream.read_to_string(&mut question)?;
    let words: Vec<&str> = question.split_terminator('\0').collect();
    let mut properties = vec![];
    let mut units = vec![];
    let mut is_show = false;
    let mut rest = words.into_iter();
    while let Some(word) = rest.next() {
        match word {
            "show" => is_show = true,
            "-p" => properties.extend(rest.next()),
            "--" => units.extend(rest.by_ref()),
            _ => {}
        }
    }
    if !is_show {
        return Ok(());
    }
    let shown = lock(shared).show(units.first().copied());
    let wanted = shown
        .iter()
        .filter(|(name, _)| properties.is_empty() || properties.contains(name));
    for (name, value) in wanted {
        writeln!(stream, "{name}={value}")?;
    }
    Ok(())
}

/// The `systemctl` of the stand-in: passes its arguments on and returns the answer.
///
/// # Errors
///
/// The demo has ended, or the stand-in does not support the command.
pub(crate) fn ask(socket: &Path, args: &[&str]) -> anyhow::Result<String> {
    let mut stream = UnixStream::connect(socket).context("the demo has ended")?;
    for arg in args {
        write!(stream, "{arg}\0")?;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(
        !answer.is_empty(),
        "the demo's stand-in for systemd answers \"systemctl show\" only"
    );
    Ok(answer)
}

/// The control groups of the stand-in and its service: separate ones if this process may create them,
/// otherwise the one that both are in already.
struct Groups {
    /// The folder of the created groups.
    made: Option<PathBuf>,
    /// The path of their parent, or of the group that both processes are in.
    path: String,
    /// The original group of this process.
    home: Option<PathBuf>,
    obstacle: Option<String>,
}

impl Groups {
    fn make(name: &str, folder: &Path) -> anyhow::Result<Self> {
        let folder = folder.file_name().context("no folder")?.to_string_lossy();
        let text = fs::read_to_string("/proc/self/cgroup")?;
        let own = text
            .lines()
            .find_map(|line| line.strip_prefix("0::"))
            .unwrap_or("/");
        let mount = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
            .into_iter()
            .find(|path| statfs(*path).is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC));
        let mut groups = Self {
            made: None,
            path: own.to_owned(),
            home: None,
            obstacle: None,
        };
        let Some(mount) = mount else {
            groups.obstacle = Some("no cgroup2 file system is mounted".into());
            return Ok(groups);
        };
        let home = Path::new(mount).join(own.trim_start_matches('/'));
        let made = home.join(&*folder);
        let manager = made.join("init.scope");
        let tried = fs::create_dir(&made)
            .and_then(|()| fs::create_dir(&manager))
            .and_then(|()| fs::create_dir(made.join(name)))
            .and_then(|()| fs::write(manager.join("cgroup.procs"), "0"));
        groups.made = Some(made);
        groups.home = Some(home);
        if let Err(error) = tried {
            groups.remove();
            groups.made = None;
            groups.obstacle = Some(format!(
                "this user cannot create a control group ({})",
                error.kind()
            ));
        } else {
            groups.path = format!("{}/{folder}", own.trim_end_matches('/'));
        }
        Ok(groups)
    }

    /// The path of the service's group.
    fn path_of(&self, name: &str) -> String {
        match &self.made {
            Some(_) => format!("{}/{name}", self.path),
            None => self.path.clone(),
        }
    }

    /// Leaves the groups and removes them.
    fn remove(&self) {
        let (Some(made), Some(home)) = (&self.made, &self.home) else {
            return;
        };
        let _left = fs::write(home.join("cgroup.procs"), "0");
        for entry in fs::read_dir(made).into_iter().flatten().flatten() {
            let _absent = fs::remove_dir(entry.path());
        }
        let _absent = fs::remove_dir(made);
    }
}
