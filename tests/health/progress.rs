//! What counts as progress with another client while the core is silent, and what does not: the kernel's own
//! work for a backend that hangs.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};

use crate::network::{ANSWER_LIMIT, PrivateNetwork, RESTARTS, hang, is_spared, start_systemd};
use crate::run::Run;
use crate::systemd::Systemd;
use crate::test_env::Running;
use crate::wait::wait_until;

const UNIT: &str = "own.service";
const ADDRESS: &str = "127.0.0.1:8000";
const LOCAL: &str = "http://127.0.0.1:8000";
const LISTEN: &str = "--listen 127.0.0.1:8000";

/// Drops every packet from the backend with more than a few bytes.
const NO_ANSWERS: &str = "add table ip test; \
    add chain ip test in { type filter hook input priority 0; }; \
    add rule ip test in tcp sport 8000 meta length > 90 drop";

/// More than any send buffer holds, so that the backend never finishes an answer.
const HUGE: &str = "--size 100000000";
const HUGE_BYTES: usize = 100_000_000;

/// The program probes a silent core while other clients are served, one after the other.
#[track_caller]
fn served_beside_the_sweep(options: &str, client: impl Fn(&mut TcpStream) + Sync) -> Option<()> {
    let systemd = start_systemd()?;
    let network = PrivateNetwork::new(&systemd);
    let options = format!("{LISTEN} --silent /up {options}");
    network.start(UNIT, &options, RESTARTS);
    let pid = systemd.main_pid(UNIT);
    let test_env = network.watch(UNIT, LOCAL);
    let mut running = test_env.start([]);
    let served = network.inside(|| {
        let mut served = 0;
        while !running.is_over() {
            // Refused if the backend was killed, which the checks below report.
            let Ok(mut stream) = TcpStream::connect(ADDRESS) else {
                break;
            };
            stream.set_read_timeout(Some(ANSWER_LIMIT)).unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
            client(&mut stream);
            drop(stream);
            served += 1;
            // So seldom that a dump of the socket table rarely shows one.
            thread::sleep(Duration::from_millis(100));
        }
        served
    });
    running.finish().refused("busy");
    assert!(systemd.is_alive(pid), "{UNIT} was killed");
    assert!(served > 3, "only {served} clients were served");
    Some(())
}

#[test]
fn short_exchanges_that_the_backend_ends_are_progress() {
    served_beside_the_sweep("", |stream| {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("ok"), "{answer}");
    });
}

#[test]
fn short_exchanges_that_the_client_ends_are_progress() {
    served_beside_the_sweep("--client-closes", |stream| {
        assert!(read_answer(stream), "the backend closed first");
    });
}

/// The program probes a core that waits behind slow exchanges; `end` ends each one after its answer.
#[track_caller]
fn served_one_after_the_other(end: impl Fn(TcpStream) + Sync) {
    let Some(systemd) = start_systemd() else {
        return;
    };
    let network = PrivateNetwork::new(&systemd);
    // The core waits longer than its timeout.
    let options = format!("{LISTEN} --slow 0.6 --client-closes");
    network.start(UNIT, &options, RESTARTS);
    let pid = systemd.main_pid(UNIT);
    let waiting = network.clients(6, ADDRESS);
    let test_env = network.watch(UNIT, LOCAL);
    let running = test_env.start([]);
    thread::scope(|scope| {
        for mut stream in waiting {
            let end = &end;
            scope.spawn(move || {
                // Cut off if the backend was killed, which the checks below report.
                read_answer(&mut stream);
                end(stream);
            });
        }
    });
    running.finish().refused("busy");
    assert!(systemd.is_alive(pid), "{UNIT} was killed");
}

#[test]
fn slow_exchanges_that_the_client_ends_are_progress() {
    served_one_after_the_other(drop);
}

#[test]
fn slow_exchanges_that_the_client_resets_are_progress() {
    served_one_after_the_other(|stream| {
        let at_once = libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        setsockopt(&stream, sockopt::Linger, &at_once).unwrap();
    });
}

/// Reads an answer whose connection stays open; returns whether it arrived.
fn read_answer(stream: &mut TcpStream) -> bool {
    let mut answer = Vec::new();
    while !answer.ends_with(b"ok") {
        let mut piece = [0; 512];
        match stream.read(&mut piece) {
            Ok(length @ 1..) => answer.extend_from_slice(&piece[..length]),
            Ok(0) | Err(_) => return false,
        }
    }
    true
}

#[test]
fn a_connection_that_stays_open_and_gets_answers_is_progress() {
    let Some(systemd) = start_systemd() else {
        return;
    };
    let network = PrivateNetwork::new(&systemd);
    let options = format!("{LISTEN} --silent /up {HUGE}");
    network.start(UNIT, &options, RESTARTS);
    let mut client = network.clients(1, ADDRESS).remove(0);
    let test_env = network.watch(UNIT, LOCAL);
    let mut running = test_env.start([]);
    // The backend keeps writing while the client keeps reading.
    read_until_over(&mut client, &mut running);
    running.finish().refused("busy");
}

/// Reads slowly until the run is over, and returns the number of bytes.
fn read_until_over(client: &mut TcpStream, running: &mut Running) -> usize {
    let pause = Some(Duration::from_millis(100));
    client.set_read_timeout(pause).unwrap();
    let mut bytes = 0;
    while !running.is_over() {
        bytes += match client.read(&mut [0; 4096]) {
            // All buffers are empty; stop reading once the run is over.
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            length => length.unwrap(),
        };
        thread::sleep(Duration::from_millis(5));
    }
    bytes
}

/// The hung unit is killed and restarted.
#[track_caller]
fn is_killed(systemd: &Systemd, run: &Run, pid: u32) {
    run.exits(1).hung(true).outcome("recovered").pid("pid", pid);
    assert!(!systemd.is_alive(pid));
}

#[test]
fn a_send_buffer_that_drains_is_not_progress() {
    let Some(systemd) = start_systemd() else {
        return;
    };
    let network = PrivateNetwork::new(&systemd);
    network.start(UNIT, &format!("{LISTEN} {HUGE}"), RESTARTS);
    let pid = systemd.main_pid(UNIT);
    let mut client = network.clients(1, ADDRESS).remove(0);
    client.read_exact(&mut [0]).unwrap();
    hang(&systemd, UNIT);
    let received = client.peek(&mut vec![0; HUGE_BYTES]).unwrap();
    // A dry run, because the restarted backend would be healthy.
    let test_env = network.watch(UNIT, LOCAL);
    let mut running = test_env.start(["--dry-run"]);
    let bytes = read_until_over(&mut client, &mut running);
    running
        .finish()
        .exits(1)
        .outcome("would_kill")
        .pid("pid", pid);
    assert!(bytes > received, "no byte left the backend's buffer");
}

#[test]
fn retransmissions_are_not_progress() {
    let Some(systemd) = start_systemd() else {
        return;
    };
    let network = PrivateNetwork::new(&systemd);
    network.start(UNIT, &format!("{LISTEN} {HUGE}"), RESTARTS);
    if network.filter(NO_ANSWERS).is_none() {
        return;
    }
    let _client = network.clients(1, ADDRESS);
    let retransmits = || retransmissions(&network) > 0;
    assert!(wait_until(Duration::from_secs(10), retransmits));
    hang(&systemd, UNIT);
    let pid = systemd.main_pid(UNIT);
    let run = network.watch(UNIT, LOCAL).run(["--dry-run"]);
    run.exits(1).outcome("would_kill").pid("pid", pid);
    network.filter("delete table ip test").unwrap();
    is_killed(&systemd, &network.watch(UNIT, LOCAL).run([]), pid);
}

#[test]
fn an_answer_that_is_lost_on_its_way_counts() {
    let Some(systemd) = start_systemd() else {
        return;
    };
    let network = PrivateNetwork::new(&systemd);
    network.start(UNIT, LISTEN, RESTARTS);
    if network.filter(NO_ANSWERS).is_none() {
        return;
    }
    let pid = systemd.main_pid(UNIT);
    let run = network.watch(UNIT, LOCAL).run([]);
    // On a busy machine the final probe may get no answer in time. The guard is then `not_reached`, because the
    // backend answered every request of the sweep.
    let guard = match run.report["recovery"]["guard"] == "not_reached" {
        true => "not_reached",
        false => "answered",
    };
    run.refused(guard);
    assert!(systemd.is_alive(pid), "{UNIT} was killed");
}

#[test]
fn no_process_is_killed_once_the_listener_is_gone() {
    let Some(systemd) = start_systemd() else {
        return;
    };
    let network = PrivateNetwork::new(&systemd);
    network.start(UNIT, &format!("{LISTEN} --leave"), RESTARTS);
    is_spared(
        &systemd,
        UNIT,
        &network.watch(UNIT, LOCAL),
        "foreign_listener",
    );
}

/// How often the kernel has retransmitted data on the backend's connections: proc(5).
fn retransmissions(network: &PrivateNetwork<'_>) -> u64 {
    network.inside(|| {
        let table = fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
        let rows = table.lines().map(|line| line.split_whitespace().collect());
        let own = rows.filter(|row: &Vec<&str>| row[1].ends_with(":1F40"));
        own.map(|row| u64::from_str_radix(row[6], 16).unwrap())
            .sum()
    })
}
