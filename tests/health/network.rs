//! A private network for a test's systemd units, the program and their clients: every port is free in it, and
//! a packet filter affects nothing else. And the Python backend that serves in it.

use std::fs::{self, File};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use serde_json::json;

use crate::run::{Run, has};
use crate::script::ok;
use crate::skip::skip_unless_ci;
use crate::systemd::{Systemd, recovery};
use crate::test_env::{HOSTS, TestEnv};
use crate::wait::wait_until;

/// A restart without the usual wait.
pub(crate) const RESTARTS: &str = "Restart=always\nRestartSec=1ms\nTimeoutStopSec=1";

/// How long a client waits for a byte of its answer, so that a test fails rather than hangs.
pub(crate) const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// A manager for a [`PrivateNetwork`]; `None` if this machine lacks what either needs, see
/// [`skip_unless_ci`].
pub(crate) fn start_systemd() -> Option<Systemd> {
    (has(PYTHON) && has("ip")).then(Systemd::start)?
}

/// As [`start_systemd`]; `None` also if Debian's Python lacks one of these modules.
pub(crate) fn start_systemd_for(modules: &str) -> Option<Systemd> {
    let import = format!("import {modules}");
    let imported = Command::new(PYTHON).args(["-c", &import]).output();
    if !imported.is_ok_and(|imported| imported.status.success()) {
        skip_unless_ci(&format!("no Python with {modules}"));
        return None;
    }
    start_systemd()
}

pub(crate) struct PrivateNetwork<'a> {
    pub(crate) systemd: &'a Systemd,
    /// The process that keeps the network alive; its PID in the manager's namespace.
    holder: u32,
}

impl<'a> PrivateNetwork<'a> {
    pub(crate) fn new(systemd: &'a Systemd) -> Self {
        systemd.write_unit(
            "network.service",
            "[Service]\nType=notify\nNotifyAccess=all\n\
             ExecStart=unshare --net sh -c 'ip link set lo up && systemd-notify --ready && exec sleep infinity'\n",
        );
        systemd.systemctl(&["start", "network.service"]);
        let holder = systemd.main_pid("network.service");
        Self { systemd, holder }
    }

    /// The command prefix that runs another command in this network.
    pub(crate) fn enter(&self) -> [String; 2] {
        let file = format!("--net=/proc/{}/ns/net", self.holder);
        ["nsenter".to_owned(), file]
    }

    /// The `[Service]` section of a backend with these options.
    pub(crate) fn backend(&self, options: &str, service: &str) -> String {
        let [nsenter, net] = self.enter();
        format!(
            "ExecStart={nsenter} {net} {} {options}\n{service}",
            python()
        )
    }

    /// Starts a unit with such a backend; it listens when this returns.
    pub(crate) fn start(&self, unit: &str, options: &str, service: &str) {
        let service = self.backend(options, &format!("{READY}\n{service}"));
        self.systemd.service(unit, &service);
    }

    /// Starts a unit with one gunicorn worker for `wsgi_app.py`, with these options and variables.
    pub(crate) fn start_gunicorn(&self, unit: &str, options: &str, variables: &str) {
        let [nsenter, net] = self.enter();
        let service = format!(
            "Environment=PYTHONDONTWRITEBYTECODE=1 {variables}\n{RESTARTS}\n\
             ExecReload=/bin/kill -HUP $MAINPID\n\
             ExecStart={nsenter} {net} {PYTHON} -m gunicorn --workers 1 --chdir {APPLICATIONS} {options} \
             wsgi_app:app"
        );
        self.systemd.service(unit, &service);
    }

    /// A test environment in this network, with one core route and permission to kill `unit`.
    pub(crate) fn watch(&self, unit: &str, base_url: &str) -> TestEnv {
        let [nsenter, net] = self.enter();
        watch(self.systemd, unit)
            .at(base_url)
            .through([&nsenter, &net])
    }

    /// As [`Self::watch`], at port 8000 of `localhost`, which is ::1 and then 127.0.0.1.
    pub(crate) fn watch_localhost(&self, unit: &str) -> TestEnv {
        let script = format!(
            r#"printf '::1 localhost\n127.0.0.1 localhost\n' >hosts && {HOSTS} && exec "$@""#
        );
        self.watch(unit, "http://localhost:8000")
            .through(["unshare", "--mount", "sh", "-c", &script, "sh"])
    }

    /// As [`Self::watch`], in a transient unit with this setting.
    pub(crate) fn watch_sandboxed(&self, unit: &str, base_url: &str, setting: &str) -> TestEnv {
        let [nsenter, net] = self.enter();
        self.watch(unit, base_url)
            .through(["systemd-run", "--user", "--quiet", "--pipe", "--wait"])
            .through(["--collect", "--same-dir", "--property", setting])
            .through([&nsenter, &net])
    }

    /// As [`Self::watch`], but in this process's PID namespace instead of the manager's, as in a container
    /// with the host's bus: the manager's private socket is only for peers that it can see.
    pub(crate) fn watch_from_outside(&self, unit: &str, base_url: &str) -> TestEnv {
        let (_, runtime) = self.systemd.environment().remove(0);
        let bus = format!("unix:path={}/bus", runtime.to_str().unwrap());
        // The unit's name makes the manager connect to this bus.
        let daemon = format!(
            "Type=notify\nExecStart=dbus-daemon --session --address={bus} --nofork --nopidfile"
        );
        self.systemd.service("dbus.service", &daemon);
        let net = format!("--net=/proc/{}/ns/net", self.systemd.host_pid(self.holder));
        let test_env = watch_alone(unit)
            .env("DBUS_SESSION_BUS_ADDRESS", &bus)
            .at(base_url)
            .through(["nsenter", &net]);
        let answers = || {
            let mut systemctl = Command::new("systemctl");
            systemctl.args(["--user", "is-active", unit]);
            systemctl.env_remove("XDG_RUNTIME_DIR");
            systemctl.env("DBUS_SESSION_BUS_ADDRESS", &bus);
            systemctl.output().unwrap().status.success()
        };
        assert!(wait_until(Duration::from_secs(10), answers), "no bus");
        test_env
    }

    /// Runs `act` on a thread in this network.
    pub(crate) fn inside<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let holder = self.systemd.host_pid(self.holder);
        let network = File::open(format!("/proc/{holder}/ns/net")).unwrap();
        let enter = move || {
            setns(network, CloneFlags::CLONE_NEWNET).unwrap();
            act()
        };
        thread::scope(|scope| scope.spawn(enter).join().unwrap())
    }

    /// Clients that have sent a request and wait for an answer.
    pub(crate) fn clients(&self, count: usize, address: &str) -> Vec<TcpStream> {
        let address: SocketAddr = address.parse().unwrap();
        let client = move |_| {
            let mut client = TcpStream::connect(address).unwrap();
            client.set_read_timeout(Some(ANSWER_LIMIT)).unwrap();
            client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
            client
        };
        self.inside(move || (0..count).map(client).collect())
    }

    /// Connections that fill the accept queue.
    pub(crate) fn fill(&self, address: &str) -> Vec<TcpStream> {
        let address: SocketAddr = address.parse().unwrap();
        let max_wait = Duration::from_millis(500);
        let connect = move |_| TcpStream::connect_timeout(&address, max_wait).ok();
        let held: Vec<_> = self.inside(move || (0..64).map_while(connect).collect());
        assert!(held.len() < 64, "the queue has no end");
        held
    }

    /// How many ends of connections have this local port.
    pub(crate) fn connections(&self, port: u16) -> usize {
        let local = format!(":{port:04X}");
        self.inside(move || {
            let table = fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
            let at = |line: &&str| line.split_whitespace().nth(1).unwrap().ends_with(&local);
            let listening = |line: &&str| line.split_whitespace().nth(3) == Some("0A");
            table
                .lines()
                .filter(at)
                .filter(|line| !listening(line))
                .count()
        })
    }

    /// Adds packet filter rules in the syntax of nft(8); `None` if this machine has no nft.
    pub(crate) fn filter(&self, rules: &str) -> Option<()> {
        let [nsenter, net] = self.enter();
        let nft = self.shell(&format!(
            "command -v nft >/dev/null && {nsenter} {net} nft '{rules}'"
        ));
        nft.map(drop)
            .inspect_err(|why| skip_unless_ci(&format!("no packet filter: {why}")))
            .ok()
    }

    /// Runs a script beside the manager, and returns its output or its errors.
    pub(crate) fn shell(&self, script: &str) -> Result<String, String> {
        shell(self.systemd, script)
    }
}

/// The backend notifies systemd when it is ready; its children may do so, too.
pub(crate) const READY: &str = "Type=notify\nNotifyAccess=all";

/// Debian's Python, even if another one is first in PATH.
pub(crate) const PYTHON: &str = "/usr/bin/python3";

/// The folder of the Python applications.
pub(crate) const APPLICATIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/health");

/// The command of the Python backend.
pub(crate) fn python() -> String {
    format!("{PYTHON} {APPLICATIONS}/backend.py")
}

/// A test environment beside systemd, with one core route and permission to kill `unit`.
pub(crate) fn watch(systemd: &Systemd, unit: &str) -> TestEnv {
    watch_alone(unit).beside(systemd)
}

fn watch_alone(unit: &str) -> TestEnv {
    TestEnv::new()
        .core("/up", ok())
        // The guard `starved` allows a gap of half a timeout, which must be enough on a busy machine.
        .default("timeout_seconds", 2)
        .top("recovery", recovery(unit, json!({})))
}

/// Stops all processes of a unit: the kernel still accepts connections, but nothing answers.
pub(crate) fn hang(systemd: &Systemd, unit: &str) {
    systemd.systemctl(&["kill", "--signal=STOP", unit]);
    let group = systemd.property(unit, "ControlGroup");
    let stopped = || {
        let states = format!(
            "for root in /sys/fs/cgroup/unified /sys/fs/cgroup; do
                find $root'{group}' -name cgroup.procs -exec cat {{}} + 2>/dev/null
            done | while read -r pid; do grep ^State: /proc/$pid/status; done"
        );
        let states = shell(systemd, &states).unwrap();
        !states.is_empty() && states.lines().all(|state| state.contains("T (stopped)"))
    };
    assert!(
        wait_until(Duration::from_secs(10), stopped),
        "{unit} does not stop"
    );
}

/// Runs a script beside the manager, and returns its output or its errors.
pub(crate) fn shell(systemd: &Systemd, script: &str) -> Result<String, String> {
    let enter = systemd.enter("/".as_ref());
    let output = Command::new(&enter[0])
        .args(&enter[1..])
        .args(["sh", "-c", script])
        .envs(systemd.environment())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr))
    }
}

/// The program must refuse to kill its main process because of `guard`.
#[track_caller]
pub(crate) fn is_spared(systemd: &Systemd, unit: &str, test_env: &TestEnv, guard: &str) -> Run {
    let pid = systemd.main_pid(unit);
    let run = test_env.run([]);
    run.refused(guard);
    assert_eq!(
        systemd.main_pid(unit),
        pid,
        "{unit} has another main process"
    );
    assert!(systemd.is_alive(pid), "{unit} was killed");
    run
}

/// The hung unit is killed, restarted and healthy again.
#[track_caller]
pub(crate) fn is_recovered(systemd: &Systemd, unit: &str, test_env: &TestEnv) {
    let pid = systemd.main_pid(unit);
    let run = test_env.run([]);
    run.exits(1).hung(true).outcome("recovered").pid("pid", pid);
    run.pid("new_pid", systemd.main_pid(unit));
    assert!(!systemd.is_alive(pid));
    test_env.run([]).exits(0).outcome("not_needed");
}
