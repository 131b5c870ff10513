//! A backend that listens on a UNIX socket (`unix_socket`): healthy, hung, missing, not permitted.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
};
use nix::unistd::Uid;

use crate::script::{ok, silent};
use crate::server::DeadPort;
use crate::skip::skip_unless_ci;
use crate::test_env::{TIMEOUT, TestEnv};

/// Forwards each connection to `path` to a server. The threads end with their connections; the one that
/// accepts ends with the test binary.
fn pass_on(path: &Path, server: SocketAddr) {
    fn copy(mut from: impl io::Read, mut to: impl io::Write, end: impl FnOnce()) {
        let _gone = io::copy(&mut from, &mut to);
        end();
    }
    let listener = UnixListener::bind(path).unwrap();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(server).unwrap();
            let (to, from) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || copy(from, &to, || drop(to.shutdown(Shutdown::Write))));
            thread::spawn(move || copy(server, &client, || drop(client.shutdown(Shutdown::Write))));
        }
    });
}

/// A test environment whose manifest names a socket in its own folder.
fn test_env() -> TestEnv {
    let test_env = TestEnv::new();
    let path = test_env.dir().join("backend.sock");
    test_env.top("unix_socket", path.to_str().unwrap())
}

#[test]
fn a_backend_behind_a_unix_socket_is_probed_there() {
    let test_env = test_env()
        .top("base_url", "http://backend.invalid/api/")
        .core("/up", ok())
        .also("/api/up", ok());
    pass_on(
        &test_env.dir().join("backend.sock"),
        test_env.server().address(),
    );
    test_env.run([]).exits(0).class("/up", "ok");
    let requests = test_env.server().requests();
    let [request] = requests.as_slice() else {
        panic!("{requests:?}");
    };
    assert_eq!(request.path, "/api/up");
    assert_eq!(request.header("host"), Some("backend.invalid"));
}

#[test]
fn a_base_url_on_the_command_line_leads_away_from_the_socket() {
    let test_env = test_env().core("/up", ok());
    let url = test_env.server().url();
    test_env
        .run(["--base-url", &url])
        .exits(0)
        .class("/up", "ok");
}

#[test]
fn a_missing_socket_is_a_refusal_with_a_remedy() {
    let dead = DeadPort::reserve();
    let test_env = test_env().at(dead.url()).core("/up", ok());
    let run = test_env.run([]);
    run.exits(1).hung(false).down(true).cause("/up", "refused");
    let detail = &run.route("/up")["detail"];
    assert!(
        detail.as_str().unwrap().contains("does not exist; "),
        "{detail}"
    );
    drop(UnixListener::bind(test_env.dir().join("backend.sock")).unwrap());
    let run = test_env.run([]);
    run.exits(1).down(true).cause("/up", "refused");
    let detail = &run.route("/up")["detail"];
    assert!(
        detail.as_str().unwrap().contains("no process listens"),
        "{detail}"
    );
}

#[test]
fn a_socket_without_permission_is_not_a_hang() {
    if !Uid::effective().is_root() {
        return skip_unless_ci("to become another user needs root");
    }
    let dead = DeadPort::reserve();
    let test_env = test_env().at(dead.url()).core("/up", ok()).through([
        "setpriv",
        "--reuid",
        "65534",
        "--regid",
        "65534",
        "--clear-groups",
    ]);
    let path = test_env.dir().join("backend.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(test_env.dir(), 0o755);
    mode(&path, 0o700);
    let run = test_env.run([]);
    run.exits(1).hung(false).cause("/up", "network");
    let detail = &run.route("/up")["detail"];
    assert!(
        detail.as_str().unwrap().contains("permission denied"),
        "{detail}"
    );
}

#[test]
fn a_backend_that_accepts_nothing_at_its_socket_is_hung() {
    let dead = DeadPort::reserve();
    let test_env = test_env()
        .at(dead.url())
        .default("retries", 1)
        .core("/up", silent())
        .aux("/page", silent());
    let path = test_env.dir().join("backend.sock");
    let fd = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .unwrap();
    bind(fd.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
    listen(&fd, Backlog::new(0).unwrap()).unwrap();
    // The first attempt takes the only place in the accept queue; all others find it full.
    for young in [true, false] {
        let run = test_env.run([]);
        run.exits(1)
            .hung(true)
            .cause("/up", "timeout")
            .attempts("/up", 2)
            .cause("/page", "backend_hung")
            .within(TIMEOUT * 2 + Duration::from_millis(1000));
        let full = run.route("/up")["detail"]
            .to_string()
            .contains("queue is full");
        assert!(full || young, "{run:?}");
    }
}
