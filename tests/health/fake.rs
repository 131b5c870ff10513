//! A scene whose `systemctl` is a script of the test's own, and a process that it could get killed.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use crate::play::{Play, silent};
use crate::run::Run;
use crate::scene::Scene;

/// Each call's own limit.
const CALL: Duration = Duration::from_secs(5);

/// A core that is silent for good, a process that would be killed for it, and a `systemctl` of the
/// test's own that says so.
pub(crate) struct Fake {
    pub(crate) scene: Scene,
    pub(crate) victim: Sleeper,
    /// When the victim started, in microseconds of systemd's clock.
    started: u128,
}

impl Fake {
    /// A `systemctl` that says what the real one says of a healthy unit with the victim in it.
    pub(crate) fn new() -> Self {
        Self::with(
            silent(),
            json!({ "unit": "backend.service", "min_uptime_seconds": 0 }),
        )
    }

    pub(crate) fn with(core: Play, recovery: Value) -> Self {
        let victim = Sleeper::start();
        let started = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap();
        let scene = Scene::new()
            .core("/up", core)
            .default("timeout_seconds", 0.2)
            .top("recovery", recovery);
        let bin = scene.dir().join("bin");
        fs::create_dir(&bin).unwrap();
        let fake = Self {
            scene: scene.env("PATH", bin),
            victim,
            started: Duration::from(started).as_micros(),
        };
        fake.script("cat answer");
        fake.say(&fake.answer());
        fake
    }

    /// What the fake does: a shell script, run in the scene's folder, with the real tools at hand.
    pub(crate) fn script(&self, body: &str) {
        let script = format!("#!/bin/sh\nPATH=/usr/bin:/bin\n{body}\n");
        let path = self.scene.dir().join("bin/systemctl");
        // Renamed into place, because a file open for writing cannot be executed.
        let fresh = self.scene.dir().join("fresh");
        fs::write(&fresh, script).unwrap();
        fs::set_permissions(&fresh, Permissions::from_mode(0o755)).unwrap();
        fs::rename(fresh, path).unwrap();
    }

    /// What `cat answer` says from now on.
    pub(crate) fn say(&self, answer: &str) {
        let fresh = self.scene.dir().join("fresh");
        fs::write(&fresh, answer).unwrap();
        fs::rename(fresh, self.scene.dir().join("answer")).unwrap();
    }

    /// The answer of systemd 252 for a running unit, as far as anybody might ask.
    pub(crate) fn answer(&self) -> String {
        self.answer_about(self.victim.pid())
    }

    pub(crate) fn answer_about(&self, pid: u32) -> String {
        let started = self.started;
        format!(
            "Type=simple\nExitType=main\nRestart=always\nRestartUSec=100ms\nTimeoutStopUSec=1min 30s\n\
             TimeoutAbortUSec=1min 30s\nMainPID={pid}\nControlPID=0\nResult=success\n\
             NRestarts=0\nRestartPreventExitStatus=\nRestartForceExitStatus=\n\
             RemainAfterExit=no\nSuccessExitStatus=\nExecMainStartTimestampMonotonic={started}\nExecMainPID={pid}\n\
             ExecStart={{ path=sleep ; argv[]=sleep 120 ; ignore_errors=no ; start_time=[n/a] ; \
             stop_time=[n/a] ; pid={pid} ; code=(null) ; status=0/0 }}\n\
             ControlGroup=/system.slice/backend.service\nKillMode=control-group\n\
             Id=backend.service\nNames=backend.service\nLoadState=loaded\nActiveState=active\n\
             FreezerState=running\nSubState=running\n\
             FragmentPath=/etc/systemd/system/backend.service\nUnitFileState=enabled\n\
             ActiveEnterTimestampMonotonic={started}\nNeedDaemonReload=no\nTriggeredBy=\nJob=\n\
             StartLimitIntervalUSec=10s\nStartLimitBurst=5\nTransient=no\n\
             InvocationID=23eab4dec2724e6784519da2e6da8590\n"
        )
    }

    /// The usual answer with one property changed, or left out.
    pub(crate) fn changed(&self, property: &str, value: Option<&str>) -> String {
        let start = format!("{property}=");
        let answer = self.answer();
        assert_eq!(
            answer
                .lines()
                .filter(|line| line.starts_with(&start))
                .count(),
            1,
            "{property}"
        );
        let lines = answer.lines().filter_map(|line| match value {
            _ if !line.starts_with(&start) => Some(line.to_owned()),
            Some(value) => Some(format!("{start}{value}")),
            None => None,
        });
        lines.collect::<Vec<_>>().join("\n") + "\n"
    }

    pub(crate) fn run(&self) -> Run {
        self.scene.run([])
    }

    pub(crate) fn pid(&self) -> u32 {
        self.victim.pid()
    }

    #[track_caller]
    pub(crate) fn spared(&mut self, run: &Run) {
        assert!(self.victim.is_alive(), "the process was killed: {run:?}");
        // Two calls at most, the probes, and what starting many processes takes.
        run.within(CALL * 2 + Duration::from_secs(2));
    }

    /// The recovery fails with a sentence that holds this, and nobody is signalled.
    #[track_caller]
    pub(crate) fn fails(&mut self, part: &str) {
        let run = self.run();
        run.failed(part);
        self.spared(&run);
    }

    /// The guard refuses, and nobody is signalled.
    #[track_caller]
    pub(crate) fn is_refused(&mut self, guard: &str) {
        let run = self.run();
        run.refused(guard);
        self.spared(&run);
    }
}

/// A process that somebody might get killed: it ends by itself soon after a test that was cut short.
pub(crate) struct Sleeper(Child);

impl Sleeper {
    pub(crate) fn start() -> Self {
        let mut command = Command::new("sleep");
        // Without the test's streams: who waits for their end must not wait for this.
        command
            .arg("120")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _over = self.0.kill();
        let _over = self.0.wait();
    }
}
