//! Hung backends that still do something for others: their handlers are stuck, but an event loop, a timer or a
//! thread of the server lives. They are recovered, since every core request stays without an answer. And how a
//! late answer spares the same backends.

use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::crowd::{Client, Crowd};
use crate::network::{
    APPLICATIONS, PYTHON, PrivateNetwork, RESTARTS, start_systemd, start_systemd_for,
};
use crate::systemd::{Systemd, recovery};
use crate::test_env::TestEnv;
use crate::wait::wait_until;

const UNIT: &str = "own.service";
const ADDRESS: &str = "127.0.0.1:8000";
const URL: &str = "http://127.0.0.1:8000";
const LISTEN: &str = "--listen 127.0.0.1:8000";

/// Longer than any run.
const LONG: Duration = Duration::from_secs(60);

/// The number of threads in FastAPI's pool.
const POOL: usize = 40;

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// The ping frame of HTTP/2.
const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0pingpong";

/// The hung unit would be killed.
#[track_caller]
fn is_hung(systemd: &Systemd, test_env: &TestEnv) {
    let pid = systemd.main_pid(UNIT);
    let run = test_env.run(["--dry-run"]);
    run.exits(1)
        .hung(true)
        .outcome("would_kill")
        .pid("pid", pid);
}

/// A backend of this kind never answers its core route, whatever these clients get from it.
#[track_caller]
fn hangs_beside(options: &str, count: usize, act: impl Fn(&mut Client) + Clone + Send + 'static) {
    let Some(systemd) = start_systemd() else {
        return;
    };
    let network = PrivateNetwork::new(&systemd);
    network.start(UNIT, &format!("{LISTEN} --silent /up {options}"), RESTARTS);
    let _clients = Crowd::start(&network, ADDRESS, count, act);
    is_hung(&systemd, &network.watch(UNIT, URL));
}

#[test]
fn a_backend_whose_other_pages_are_answered_is_hung() {
    hangs_beside("", 2, |client| drop(client.get("/page").read_for(LONG)));
}

#[test]
fn a_download_that_goes_on_does_not_hide_a_hang() {
    hangs_beside("--heartbeat /file", 1, |client| {
        client.get("/file").read_for(LONG);
    });
}

#[test]
fn pings_that_a_thread_of_the_server_answers_do_not_hide_a_hang() {
    hangs_beside("", 1, |client| {
        for _ in 0..100 {
            client.send(PING).read_for(Duration::from_millis(100));
        }
    });
}

#[test]
fn idle_connections_that_the_server_closes_do_not_hide_a_hang() {
    hangs_beside("--idle-limit 0.5", 6, |client| drop(client.read_for(LONG)));
}

#[test]
fn idle_connections_that_the_clients_close_do_not_hide_a_hang() {
    hangs_beside("", 6, |client| {
        drop(client.read_for(Duration::from_millis(300)))
    });
}

/// A FastAPI backend whose pool of threads is used up while its event loop lives.
struct UsedUp<'a> {
    network: PrivateNetwork<'a>,
    _stuck: Crowd,
}

impl<'a> UsedUp<'a> {
    fn start(systemd: &'a Systemd) -> Self {
        let network = PrivateNetwork::new(systemd);
        let [nsenter, net] = network.enter();
        let service = format!(
            "Environment=PYTHONDONTWRITEBYTECODE=1\n{RESTARTS}\n\
             ExecStart={nsenter} {net} {PYTHON} -m uvicorn --app-dir {APPLICATIONS} --port 8000 fastapi_app:app"
        );
        systemd.service(UNIT, &service);
        wait_until_answer(&network, "/used", "0 taken");
        let stuck = Crowd::start(&network, ADDRESS, POOL, |client| {
            client.get("/stuck").read_for(LONG);
        });
        wait_until_answer(&network, "/used", &format!("{POOL} taken"));
        Self {
            network,
            _stuck: stuck,
        }
    }
}

/// Waits until the answer for `path` contains `part`.
#[track_caller]
fn wait_until_answer(network: &PrivateNetwork<'_>, path: &str, part: &str) {
    let answer = || {
        let mut client = Client::connect(ADDRESS).ok()?;
        let answer = client.get(path).read_for(Duration::from_millis(200));
        Some(String::from_utf8_lossy(&answer).into_owned())
    };
    let has_part = || network.inside(|| answer().is_some_and(|answer| answer.contains(part)));
    let answered = wait_until(Duration::from_secs(20), has_part);
    assert!(answered, "{path} does not answer {part:?}");
}

/// FastAPI's pool is used up, and its event loop still serves these clients.
#[track_caller]
fn fastapi_hangs_beside(act: impl Fn(&mut Client) + Clone + Send + 'static) {
    let Some(systemd) = start_systemd_for("fastapi, uvicorn, wsproto") else {
        return;
    };
    let backend = UsedUp::start(&systemd);
    let clients = Crowd::start(&backend.network, ADDRESS, 2, act);
    is_hung(&systemd, &backend.network.watch(UNIT, URL));
    drop(clients);
}

#[test]
fn fastapi_with_a_used_up_pool_and_a_websocket_is_hung() {
    fastapi_hangs_beside(|client| {
        let frames = client.send(UPGRADE.as_bytes()).read_for(LONG);
        assert!(frames.starts_with(b"HTTP/1.1 101"), "no WebSocket");
    });
}

#[test]
fn fastapi_with_a_used_up_pool_and_an_event_stream_is_hung() {
    fastapi_hangs_beside(|client| drop(client.get("/events").read_for(LONG)));
}

#[test]
fn fastapi_with_a_used_up_pool_and_scraped_metrics_is_hung() {
    fastapi_hangs_beside(|client| {
        let a_moment = Duration::from_millis(50);
        client.get("/metrics").read_for(a_moment);
        client.get("/wp-login.php").read_for(a_moment);
    });
}

#[test]
fn fastapi_whose_pool_is_freed_in_the_grace_period_is_not_hung() {
    let Some(systemd) = start_systemd_for("fastapi, uvicorn, wsproto") else {
        return;
    };
    let backend = UsedUp::start(&systemd);
    let network = &backend.network;
    let _events = Crowd::start(network, ADDRESS, 1, |client| {
        client.get("/events").read_for(LONG);
    });
    let test_env = network
        .watch(UNIT, URL)
        .top("recovery", recovery(UNIT, json!({ "grace_seconds": 5 })));
    let running = test_env.start([]);
    wait_until_answer(network, "/used", "1 waiting");
    // Half a second longer than the timeout.
    thread::sleep(Duration::from_millis(2500));
    wait_until_answer(network, "/release", "released");
    let run = running.finish();
    run.exits(1).cause("/up", "timeout");
    // On a busy machine, the grace period may be over.
    if run.report["hung"] == true {
        run.refused("answered");
    } else {
        run.outcome("not_needed")
            .detail_has("/up", "answered after");
    }
}

#[test]
fn gunicorn_with_stuck_threads_that_closes_idle_connections_is_hung() {
    const THREADS: usize = 4;
    let Some(systemd) = start_systemd_for("gunicorn") else {
        return;
    };
    let network = PrivateNetwork::new(&systemd);
    let options =
        format!("--bind {ADDRESS} --worker-class gthread --threads {THREADS} --keep-alive 2");
    network.start_gunicorn(UNIT, &options, "SECONDS=0");
    wait_until_answer(&network, "/", "ok");
    // Each is closed two to three seconds after its answer: during the sweep.
    let _idle = Crowd::start(&network, ADDRESS, 5, |client| {
        client.get("/").read_for(LONG);
    });
    thread::sleep(Duration::from_millis(500));
    let _stuck = Crowd::start(&network, ADDRESS, THREADS, |client| {
        client.get("/stuck").read_for(LONG);
    });
    let test_env = network.watch(UNIT, URL).default("retries", 1);
    is_hung(&systemd, &test_env);
}
