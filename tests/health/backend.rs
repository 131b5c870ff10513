//! The demo's backend as a service of a test's own systemd, and the two ways to make it hang.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};

use crate::patience::within;
use crate::scene::BINARY;
use crate::systemd::Systemd;

/// A real backend, run by a unit.
pub(crate) struct Backend<'a> {
    systemd: &'a Systemd,
    pub(crate) unit: &'a str,
    port: u16,
}

impl<'a> Backend<'a> {
    /// A service that runs a real backend and is ready when this returns.
    pub(crate) fn start(systemd: &'a Systemd, unit: &'a str, service: &str) -> Self {
        // Free when we looked; the service binds it a moment later.
        let probe = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = probe.local_addr().unwrap().port();
        drop(probe);
        let exe = backend_program();
        let start = format!("ExecStart={} --backend {port}", exe.display());
        systemd.service(unit, &format!("{start}\n{service}"));
        let backend = Self {
            systemd,
            unit,
            port,
        };
        backend.wait_until_it_listens();
        backend
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.systemd.main_pid(self.unit)
    }

    fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    fn wait_until_it_listens(&self) {
        let up = within(Duration::from_secs(10), || {
            TcpStream::connect(self.address()).is_ok()
        });
        assert!(up, "{} does not listen", self.unit);
    }

    /// Stops the process: the kernel goes on accepting, nobody answers.
    pub(crate) fn freeze(&self) {
        self.systemd.signal(self.unit, Signal::SIGSTOP);
    }

    /// Blocks the backend's only loop, as a deadlock in the application would.
    pub(crate) fn block(&self) {
        let mut stream = TcpStream::connect(self.address()).unwrap();
        stream.write_all(b"GET /__hang HTTP/1.1\r\n\r\n").unwrap();
        let mut answer = String::new();
        std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

/// The example that has a backend in it; built here where only this test was asked for.
pub(crate) fn backend_program() -> PathBuf {
    let path = Path::new(BINARY).with_file_name("examples").join("demo");
    if !path.exists() {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let build = Command::new(cargo)
            .args(["build", "--example", "demo"])
            .status();
        assert!(
            build.unwrap().success() && path.exists(),
            "no {}",
            path.display()
        );
    }
    path
}

#[test]
fn the_stage_itself_holds() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    let backend = Backend::start(&systemd, "stage.service", "Restart=always");
    let answers = || {
        let mut stream = TcpStream::connect(backend.address()).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        stream
            .write_all(b"GET /api/health HTTP/1.1\r\n\r\n")
            .unwrap();
        std::io::Read::read(&mut stream, &mut [0; 64]).is_ok_and(|length| length > 0)
    };
    assert!(answers());
    backend.freeze();
    assert!(!answers());
    systemd.signal(backend.unit, Signal::SIGCONT);
    assert!(answers());
    backend.block();
    assert!(!answers());

    let old = backend.pid();
    assert!(systemd.is_alive(old));
    systemd.signal(backend.unit, Signal::SIGKILL);
    assert!(within(Duration::from_secs(5), || ![0, old]
        .contains(&backend.pid())));
    assert!(!systemd.is_alive(old));
    backend.wait_until_it_listens();
    assert!(answers());

    let last = systemd.host_pid(backend.pid());
    drop(systemd);
    assert!(kill(last, None).is_err(), "nothing is left behind");
}
