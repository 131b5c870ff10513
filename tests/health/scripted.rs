//! A backend as a service of a test's own systemd, and ways to make it hang. Its unit runs this test program
//! itself, so that the socket is the unit's own. Each request gets the next answer of a list.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use serde_json::Value;
use tempfile::TempDir;

use crate::address::own_address;
use crate::script::ok;
use crate::systemd::{Systemd, recovery};
use crate::test_env::TestEnv;
use crate::wait::wait_until;

/// An entry in the list of answers: the request is read but not answered, and its connection stays open.
pub(crate) const SILENT: &str = "silent";

/// In `ExecStart=`, stands for the command that serves.
pub(crate) const SERVE: &str = "SERVE";

/// The path of a request that is answered, but no request after it.
const BLOCK: &str = "/block";

/// The timeout of routes at a backend that hangs. The guard `starved` allows a gap of half of it, which must
/// be enough on a busy machine.
const TIMEOUT: Duration = Duration::from_millis(1_500);

/// A service whose first request gets the first answer, and so on; the last one repeats. A new main
/// process begins with the first answer again.
pub(crate) struct Scripted<'a> {
    systemd: &'a Systemd,
    pub(crate) unit: String,
    address: SocketAddr,
    dir: TempDir,
}

impl<'a> Scripted<'a> {
    /// A service that answers every request.
    pub(crate) fn healthy(systemd: &'a Systemd, unit: &str, service: &str) -> Self {
        Self::start(systemd, unit, &["200"], service)
    }

    /// A service that reads every request and answers none.
    pub(crate) fn silent(systemd: &'a Systemd, unit: &str, service: &str) -> Self {
        Self::start(systemd, unit, &[SILENT], service)
    }

    /// A service that gives these answers ([`SILENT`] or an HTTP status) and is ready when this returns.
    pub(crate) fn start(systemd: &'a Systemd, unit: &str, answers: &[&str], service: &str) -> Self {
        let scripted = Self::write(systemd, unit, answers, service);
        systemd.systemctl(&["start", unit]);
        scripted.wait_until_it_listens();
        scripted
    }

    /// Only writes the unit. `service` is added to its `[Service]` section and may begin other sections; an
    /// `ExecStart=` in it contains [`SERVE`].
    pub(crate) fn write(systemd: &'a Systemd, unit: &str, answers: &[&str], service: &str) -> Self {
        let address = own_address().unwrap();
        let dir = TempDir::new().unwrap();
        let start = if service.contains("ExecStart=") {
            String::new()
        } else {
            format!("ExecStart={SERVE}\n")
        };
        let program = std::env::current_exe().unwrap();
        let serve = format!(
            "{} --exact {} --ignored --nocapture",
            program.display(),
            "scripted::serve"
        );
        let text = format!(
            "[Service]\nEnvironment=\"ADDRESS={address}\" \"ANSWERS={}\" \"REQUESTS={}\"\n{start}{service}\n",
            answers.join(" "),
            dir.path().join("requests").display(),
        );
        systemd.write_unit(unit, &text.replace(SERVE, &serve));
        Self {
            systemd,
            unit: unit.to_owned(),
            address,
            dir,
        }
    }

    #[track_caller]
    pub(crate) fn wait_until_it_listens(&self) {
        let limit = Duration::from_secs(10);
        let up = wait_until(limit, || {
            // Waits until the service has closed the connection: one that it accepts and closes during a
            // sweep would be progress.
            TcpStream::connect(self.address).is_ok_and(|mut stream| {
                stream.shutdown(Shutdown::Write).unwrap();
                stream.set_read_timeout(Some(limit)).unwrap();
                stream.read(&mut [0]).is_ok()
            })
        });
        assert!(up, "{} does not listen", self.unit);
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.systemd.main_pid(&self.unit)
    }

    /// Stops the process: the kernel still accepts connections, but nothing answers.
    pub(crate) fn freeze(&self) {
        let tasks = format!("/proc/{}/task", self.systemd.host_pid(self.pid()));
        self.systemd.signal(&self.unit, Signal::SIGSTOP);
        // The serving thread continues until another thread has handled the signal.
        let stopped = wait_until(Duration::from_secs(5), || {
            let mut tasks = fs::read_dir(&tasks).unwrap().flatten();
            tasks.all(|task| {
                fs::read_to_string(task.path().join("stat")).is_ok_and(|stat| stat.contains(") T "))
            })
        });
        assert!(stopped, "{} does not stop", self.unit);
    }

    /// Blocks the service's only loop, as a deadlock in the application would.
    pub(crate) fn block(&self) {
        assert!(self.answers(BLOCK, Duration::from_secs(20)));
    }

    /// Whether it answers a request for `path` within `limit`.
    fn answers(&self, path: &str, limit: Duration) -> bool {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(limit)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).is_ok() && answer.starts_with(b"HTTP/1.1 200")
    }

    /// How many requests all main processes together have received so far.
    pub(crate) fn requests(&self) -> usize {
        let requests = fs::read_to_string(self.requests_file()).unwrap_or_default();
        requests.lines().count()
    }

    fn requests_file(&self) -> PathBuf {
        self.dir.path().join("requests")
    }

    /// Probes the service, and may recover it as these keys and the defaults of [`recovery`] say.
    pub(crate) fn test_env(&self, keys: Value) -> TestEnv {
        TestEnv::new()
            .at(self.url())
            .beside(self.systemd)
            .default("timeout_seconds", TIMEOUT.as_secs_f64())
            .core("/up", ok())
            .top("recovery", recovery(&self.unit, keys))
    }
}

/// Not a test: the backend itself. Passes at once if it is not run by a unit.
#[test]
#[ignore = "the main process of the units of Scripted"]
fn serve() {
    let Ok(address) = std::env::var("ADDRESS") else {
        return;
    };
    let answers = std::env::var("ANSWERS").unwrap();
    let mut answers = answers.split(' ');
    let mut answer = "";
    let mut requests = OpenOptions::new();
    let mut requests = requests
        .create(true)
        .append(true)
        .open(std::env::var("REQUESTS").unwrap())
        .unwrap();
    let listener = TcpListener::bind(address).unwrap();
    let mut unanswered = Vec::new();
    loop {
        let (mut stream, _) = listener.accept().unwrap();
        let head = BufReader::new(&stream).lines();
        let head: Vec<_> = head
            .map_while(Result::ok)
            .take_while(|line| !line.is_empty())
            .collect();
        let Some(first) = head.first() else {
            continue;
        };
        answer = answers.next().unwrap_or(answer);
        writeln!(requests, "{first}").unwrap();
        match answer {
            SILENT => unanswered.push(stream),
            status => {
                let head = format!("HTTP/1.1 {status} Whatever\r\nConnection: close");
                let _gone = write!(stream, "{head}\r\nContent-Length: 3\r\n\r\nhi\n");
            }
        }
        if first.split(' ').nth(1) == Some(BLOCK) {
            break;
        }
    }
    // The kernel keeps accepting connections for the listener.
    loop {
        thread::park();
    }
}

#[test]
fn the_harness_itself_works() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    let backend = Scripted::healthy(&systemd, "harness.service", "Restart=always");
    let answers = || backend.answers("/", Duration::from_millis(300));
    assert!(answers());
    backend.freeze();
    assert!(!answers());
    systemd.signal(&backend.unit, Signal::SIGCONT);
    assert!(wait_until(Duration::from_secs(5), answers));
    backend.block();
    assert!(!answers());

    let old = backend.pid();
    assert!(systemd.is_alive(old));
    systemd.signal(&backend.unit, Signal::SIGKILL);
    assert!(wait_until(Duration::from_secs(5), || ![0, old]
        .contains(&backend.pid())));
    assert!(!systemd.is_alive(old));
    backend.wait_until_it_listens();
    assert!(wait_until(Duration::from_secs(5), answers));

    let last = systemd.host_pid(backend.pid());
    drop(systemd);
    assert!(kill(last, None).is_err(), "nothing is left behind");
}
