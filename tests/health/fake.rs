//! A backend that hangs, and a fake `systemctl` before the real one in PATH: it prints what the real one
//! prints about the backend's unit, except for what a test changes.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::json;

use crate::calls::{Counted, own_path};
use crate::run::Run;
use crate::scripted::{SILENT, Scripted};
use crate::systemd::Systemd;
use crate::test_env::TestEnv;

/// The program's time limit for one call of `systemctl`.
const CALL: Duration = Duration::from_secs(5);

/// What the real `systemctl` answers.
const REAL: &str = r#"systemctl "$@""#;

pub(crate) struct Fake<'a> {
    systemd: &'a Systemd,
    pub(crate) test_env: TestEnv,
    pub(crate) backend: Scripted<'a>,
    /// The main process that could be killed.
    pid: u32,
}

impl<'a> Fake<'a> {
    /// A backend that never answers and would be killed.
    pub(crate) fn new(systemd: &'a Systemd) -> Self {
        Self::with(systemd, "backend.service", &[SILENT])
    }

    pub(crate) fn with(systemd: &'a Systemd, unit: &str, answers: &[&str]) -> Self {
        let backend = Scripted::start(systemd, unit, answers, "Restart=always\nRestartSec=100ms");
        let pid = backend.pid();
        let test_env = backend.test_env(json!({}));
        let [env, path] = own_path(&test_env);
        let fake = Self {
            systemd,
            test_env: test_env.through([&env, &path]),
            backend,
            pid,
        };
        fake.script(r#"./answer "$@""#);
        fake.answer(REAL);
        fake
    }

    /// Sets what the fake does: a shell script, run in the test environment's folder, with the real tools in
    /// PATH; `./answer "$@"` in it prints the answer.
    pub(crate) fn script(&self, body: &str) {
        self.write("bin/systemctl", body);
    }

    /// Sets what `./answer` does from now on.
    pub(crate) fn answer(&self, body: &str) {
        self.write("answer", body);
    }

    fn write(&self, name: &str, body: &str) {
        let script = format!("#!/bin/sh\nPATH=/usr/bin:/bin\n{body}\n");
        // Renamed into place, because a file that is open for writing cannot be executed.
        let fresh = self.test_env.dir().join("fresh");
        fs::write(&fresh, script).unwrap();
        fs::set_permissions(&fresh, Permissions::from_mode(0o755)).unwrap();
        fs::rename(fresh, self.test_env.dir().join(name)).unwrap();
    }

    /// From now on the answer is the real one with one property changed or omitted.
    pub(crate) fn change(&self, property: &str, value: Option<&str>) {
        self.answer(&self.changed(property, value));
    }

    /// A run in which `answer` does this from the last observation on.
    pub(crate) fn run_changing(&self, answer: &str) -> Run {
        let counted = Counted::new(&self.test_env, &self.backend.unit, "./answer");
        let prepare = || {
            self.answer(REAL);
            self.write("changed", answer);
        };
        counted.run(prepare, "mv changed answer")
    }

    /// What the answer has to do to be the real one with one property changed or omitted.
    pub(crate) fn changed(&self, property: &str, value: Option<&str>) -> String {
        let real = self
            .systemd
            .try_systemctl(&["show", "-p", property, &self.backend.unit]);
        // systemctl prints a job only if there is one.
        let known = real.lines().count() == 1 || property == "Job";
        assert!(known, "{property}: {real:?}");
        let kept = format!(r#"systemctl "$@" | grep -v '^{property}='"#);
        let changed = value.map(|value| format!("echo '{property}={value}'"));
        format!("{kept}\n{}", changed.unwrap_or_default())
    }

    /// From now on the answer about the backend's unit is what the real `systemctl` prints now.
    pub(crate) fn record(&self) {
        let show = ["show", "--all", &self.backend.unit];
        let real = self.systemd.try_systemctl(&show);
        // Properties that the program never asks for, in a form of their own.
        let asked = real.lines().filter(|line| !line.contains("Ex={"));
        let asked: String = asked.map(|line| format!("{line}\n")).collect();
        fs::write(self.test_env.dir().join("recorded"), asked).unwrap();
        let unit = &self.backend.unit;
        self.answer(&format!(
            r#"case "$*" in *"-- {unit}") cat recorded ;; *) {REAL} ;; esac"#
        ));
    }

    pub(crate) fn run(&self) -> Run {
        self.test_env.run([])
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.systemd.is_alive(self.pid)
    }

    #[track_caller]
    pub(crate) fn not_signalled(&self, run: &Run) {
        assert!(self.is_alive(), "the process was killed: {run:?}");
        // At most two calls, the probes, and the start of many processes.
        run.within(CALL * 2 + Duration::from_secs(2));
    }

    /// The recovery fails with a message that contains `part`, and no process is signalled.
    #[track_caller]
    pub(crate) fn fails(&self, part: &str) {
        let run = self.run();
        run.failed(part);
        self.not_signalled(&run);
    }

    /// The guard refuses, and no process is signalled.
    #[track_caller]
    pub(crate) fn is_refused(&self, guard: &str) {
        let run = self.run();
        run.refused(guard);
        self.not_signalled(&run);
    }
}
