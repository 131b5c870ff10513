//! The demo's backend as a service of a test's own systemd, and the two ways to make it hang.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};

use crate::address::own_address;
use crate::build::build;
use crate::systemd::Systemd;
use crate::test_env::BINARY;
use crate::wait::wait_until;

/// A real backend, run by a unit.
pub(crate) struct Backend<'a> {
    systemd: &'a Systemd,
    pub(crate) unit: &'a str,
    address: SocketAddr,
}

impl<'a> Backend<'a> {
    /// A service that runs a real backend and is ready when this returns.
    pub(crate) fn start(systemd: &'a Systemd, unit: &'a str, service: &str) -> Self {
        let address = own_address().unwrap();
        let exe = backend_program();
        let start = format!("ExecStart={} --backend {address}", exe.display());
        systemd.service(unit, &format!("{start}\n{service}"));
        let backend = Self {
            systemd,
            unit,
            address,
        };
        backend.wait_until_it_listens();
        backend
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.systemd.main_pid(self.unit)
    }

    fn wait_until_it_listens(&self) {
        let up = wait_until(Duration::from_secs(10), || {
            TcpStream::connect(self.address).is_ok()
        });
        assert!(up, "{} does not listen", self.unit);
    }

    /// Stops the process: the kernel still accepts connections, but nothing answers.
    pub(crate) fn freeze(&self) {
        self.systemd.signal(self.unit, Signal::SIGSTOP);
    }

    /// Blocks the backend's only loop, as a deadlock in the application would.
    pub(crate) fn block(&self) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        let limit = Some(Duration::from_secs(20));
        stream.set_read_timeout(limit).unwrap();
        stream.write_all(b"GET /__hang HTTP/1.1\r\n\r\n").unwrap();
        let mut answer = String::new();
        std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

/// The example that has a backend in it. Where only some tests are asked for, cargo does not build it.
pub(crate) fn backend_program() -> &'static Path {
    static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
        let folder = Path::new(BINARY).parent().unwrap();
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        build(cargo, folder, ["--example", "demo"]).unwrap();
        folder.join("examples/demo")
    });
    &PROGRAM
}

#[test]
fn the_harness_itself_works() {
    let Some(systemd) = Systemd::start() else {
        return;
    };
    let backend = Backend::start(&systemd, "harness.service", "Restart=always");
    let answers = || {
        let mut stream = TcpStream::connect(backend.address).unwrap();
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
    assert!(wait_until(Duration::from_secs(5), || ![0, old]
        .contains(&backend.pid())));
    assert!(!systemd.is_alive(old));
    backend.wait_until_it_listens();
    assert!(answers());

    let last = systemd.host_pid(backend.pid());
    drop(systemd);
    assert!(kill(last, None).is_err(), "nothing is left behind");
}
