//! Changes something at the program's last call of `systemctl` before it decides: too late for everything but the
//! last look at the parked requests.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use crate::run::Run;
use crate::test_env::{TestEnv, decided};

/// The command prefix with which the program finds the `systemctl` in the folder `bin` of its test environment.
pub(crate) fn own_path(test_env: &TestEnv) -> [String; 2] {
    let bin = test_env.dir().join("bin");
    fs::create_dir_all(&bin).unwrap();
    ["env".to_owned(), format!("PATH={}", bin.display())]
}

/// A `systemctl` in such a folder, which counts its calls about a unit and runs `answer` at each.
pub(crate) struct Counted<'a> {
    test_env: &'a TestEnv,
}

impl<'a> Counted<'a> {
    pub(crate) fn new(test_env: &'a TestEnv, unit: &str, answer: &str) -> Self {
        let script = format!(
            r#"#!/bin/sh
PATH=/usr/sbin:/usr/bin:/sbin:/bin
[ "${{*##* }}" != '{unit}' ] || echo call >>calls
[ ! -e last ] || [ -e done ] || [ "$(grep -c . calls)" -lt "$(cat last)" ] || {{
    touch done
    sh ./command
}}
exec {answer} "$@"
"#
        );
        let path = test_env.dir().join("bin/systemctl");
        fs::write(&path, script).unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
        Self { test_env }
    }

    /// The run in which this shell command is executed at the last call. `prepare` comes before every run, and
    /// a dry run finds out which call is the last one.
    #[track_caller]
    pub(crate) fn run(&self, prepare: impl Fn(), command: &str) -> Run {
        let file = |name: &str| self.test_env.dir().join(name);
        let _absent = fs::remove_file(file("last"));
        self.run_once(&prepare, &["--dry-run"]);
        let calls = fs::read_to_string(file("calls")).unwrap().lines().count();
        fs::write(file("last"), calls.to_string()).unwrap();
        fs::write(file("command"), command).unwrap();
        let run = self.run_once(&prepare, &[]);
        assert!(file("done").exists(), "the command did not run: {run:?}");
        run
    }

    /// A run after `prepare`.
    fn run_once(&self, prepare: &impl Fn(), args: &[&str]) -> Run {
        let run = || {
            for name in ["calls", "done"] {
                let _absent = fs::remove_file(self.test_env.dir().join(name));
            }
            prepare();
            let mut command = self.test_env.command(["--format", "json"]);
            command.args(args);
            self.test_env.spawn(command).finish()
        };
        decided(run)
    }
}
