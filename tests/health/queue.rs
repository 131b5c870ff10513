//! Overloaded backends: their accept queue moves, so they are left alone however long the core waits. The same
//! queues at a backend that is stopped are a hang.

use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use serde_json::json;

use crate::crowd::{Client, Crowd};
use crate::network::{PrivateNetwork, RESTARTS, hang, start_systemd, start_systemd_for};
use crate::systemd::{Systemd, recovery};
use crate::test_env::TestEnv;
use crate::wait::wait_until;

const UNIT: &str = "own.service";
const ADDRESS: &str = "127.0.0.1:8000";
const URL: &str = "http://127.0.0.1:8000";

/// Longer than any run.
const LONG: Duration = Duration::from_secs(60);

/// How long an impatient client waits.
const IMPATIENCE: Duration = Duration::from_millis(700);

/// More requests than are answered within the proof time.
const CLIENTS: usize = 10;

/// A backend that answers one request after the other, and what the program says of it: first while it works,
/// then while it is stopped.
struct Overloaded<'a> {
    systemd: &'a Systemd,
    network: PrivateNetwork<'a>,
    test_env: TestEnv,
    address: String,
}

impl<'a> Overloaded<'a> {
    /// A backend with these options at a TCP port.
    fn tcp(systemd: &'a Systemd, options: &str) -> Self {
        let network = PrivateNetwork::new(systemd);
        let options = format!("--listen {ADDRESS} {options}");
        network.start(UNIT, &options, RESTARTS);
        Self {
            systemd,
            test_env: network.watch(UNIT, URL),
            network,
            address: ADDRESS.to_owned(),
        }
    }

    /// A backend that `start` starts at this path.
    fn unix(systemd: &'a Systemd, start: impl FnOnce(&PrivateNetwork<'_>, &Path)) -> Self {
        let network = PrivateNetwork::new(systemd);
        let test_env = network.watch(UNIT, "http://backend.invalid");
        let path = test_env.dir().join("backend.sock");
        start(&network, &path);
        let address = path.to_str().unwrap().to_owned();
        let connects = || Client::connect(&address).is_ok();
        assert!(wait_until(Duration::from_secs(10), connects));
        Self {
            systemd,
            network,
            test_env: test_env.top("unix_socket", address.clone()),
            address,
        }
    }

    fn clients(&self, act: impl Fn(&mut Client) + Clone + Send + 'static) -> Crowd {
        Crowd::start(&self.network, &self.address, CLIENTS, act)
    }

    /// Left alone while it works, and hung once it is stopped.
    #[track_caller]
    fn is_busy_until_it_is_stopped(&self, crowd: &Crowd) {
        let pid = self.systemd.main_pid(UNIT);
        let run = self.test_env.run([]);
        // Clients that give up may leave the core its turn in time. A request may not have found its way into a
        // queue that is full now and then.
        if run.report["hung"] == true && run.report["recovery"]["guard"] == "not_reached" {
            run.refused("not_reached");
        } else if run.report["hung"] == true {
            run.refused("busy");
        } else {
            run.outcome("not_needed");
        }
        assert!(self.systemd.is_alive(pid), "{UNIT} was killed: {run:?}");
        println!("{} answers", crowd.answered());
        hang(self.systemd, UNIT);
        let run = self.test_env.run(["--dry-run"]);
        run.exits(1).hung(true).outcome("would_kill");
    }
}

/// Over TCP with clients like this.
#[track_caller]
fn tcp_is_spared(options: &str, act: impl Fn(&mut Client) + Clone + Send + 'static) {
    let Some(systemd) = start_systemd() else {
        return;
    };
    let backend = Overloaded::tcp(&systemd, options);
    let crowd = backend.clients(act);
    backend.is_busy_until_it_is_stopped(&crowd);
}

/// Over a UNIX socket with clients like this.
#[track_caller]
fn unix_is_spared(options: &str, act: impl Fn(&mut Client) + Clone + Send + 'static) {
    let Some(systemd) = start_systemd() else {
        return;
    };
    let backend = Overloaded::unix(&systemd, |network, path| {
        let options = format!("--listen {} {options}", path.display());
        network.start(UNIT, &options, RESTARTS);
    });
    let crowd = backend.clients(act);
    backend.is_busy_until_it_is_stopped(&crowd);
}

fn stays(client: &mut Client) {
    client.get("/").read_for(LONG);
}

fn gives_up(client: &mut Client) {
    client.get("/").read_for(IMPATIENCE);
}

fn resets(client: &mut Client) {
    client.get("/").read_for(IMPATIENCE);
    client.end_by_reset();
}

#[test]
fn a_queue_of_clients_that_stay_is_no_hang() {
    tcp_is_spared("--slow 0.6", stays);
}

#[test]
fn a_queue_of_clients_that_close_first_is_no_hang() {
    tcp_is_spared("--slow 0.6 --client-closes", gives_up);
}

#[test]
fn a_queue_of_clients_that_give_up_is_no_hang() {
    tcp_is_spared("--slow 0.6", gives_up);
}

#[test]
fn a_queue_of_clients_that_reset_is_no_hang() {
    tcp_is_spared("--slow 0.6", resets);
}

#[test]
fn a_queue_of_clients_that_reset_is_no_hang_with_a_long_timeout() {
    let Some(systemd) = start_systemd() else {
        return;
    };
    // A place whose client comes and resets between two readings hides an accept.
    let mut backend = Overloaded::tcp(&systemd, "--slow 2 --backlog 1024");
    backend.test_env = backend.test_env.default("timeout_seconds", 8);
    let crowd = backend.clients(|client: &mut Client| {
        // Not all at the same moments.
        let some = std::time::SystemTime::UNIX_EPOCH
            .elapsed()
            .unwrap()
            .subsec_micros()
            % 300;
        client
            .get("/")
            .read_for(IMPATIENCE + Duration::from_millis(some.into()));
        client.end_by_reset();
    });
    backend.is_busy_until_it_is_stopped(&crowd);
}

#[test]
fn a_full_queue_that_moves_is_no_hang() {
    tcp_is_spared("--slow 0.6 --backlog 3", stays);
}

#[test]
fn a_queue_at_a_unix_socket_of_clients_that_stay_is_no_hang() {
    unix_is_spared("--slow 0.6", stays);
}

#[test]
fn a_queue_at_a_unix_socket_of_clients_that_give_up_is_no_hang() {
    unix_is_spared("--slow 0.6", gives_up);
}

#[test]
fn a_full_queue_at_a_unix_socket_that_moves_is_no_hang() {
    unix_is_spared("--slow 0.6 --backlog 3", stays);
}

#[test]
fn a_full_queue_that_begins_to_move_in_the_grace_period_is_no_hang() {
    let Some(systemd) = start_systemd() else {
        return;
    };
    let backend = Overloaded::tcp(&systemd, "--backlog 3 --slow 0.6");
    let network = &backend.network;
    let pid = systemd.main_pid(UNIT);
    let process = systemd.host_pid(pid);
    hang(&systemd, UNIT);
    let _waiting = network.fill(ADDRESS);
    let keys = recovery(UNIT, json!({ "grace_seconds": 3 }));
    let test_env = network.watch(UNIT, URL).top("recovery", keys);
    let running = test_env.start([]);
    // Half a second after the timeout.
    thread::sleep(Duration::from_millis(2500));
    kill(process, Signal::SIGCONT).unwrap();
    let run = running.finish();
    if run.report["hung"] == true {
        // The queue is no longer full, and the pending connect may not have been made yet.
        let guard = &run.report["recovery"]["guard"];
        assert!(guard == "busy" || guard == "not_reached", "{run:?}");
        run.outcome("refused");
    } else {
        run.outcome("not_needed");
    }
    assert!(systemd.is_alive(pid), "{UNIT} was killed: {run:?}");
}

#[test]
fn gunicorn_that_is_overloaded_at_a_unix_socket_is_no_hang() {
    let Some(systemd) = start_systemd_for("gunicorn") else {
        return;
    };
    let backend = Overloaded::unix(&systemd, |network, path| {
        let bind = format!("--bind unix:{}", path.display());
        network.start_gunicorn(UNIT, &bind, "SECONDS=0.6");
    });
    let crowd = backend.clients(stays);
    backend.is_busy_until_it_is_stopped(&crowd);
}
