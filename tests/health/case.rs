//! Tables of misbehaving routes with their expected results: class, cause, status and attempts, and a bound
//! on the time of every attempt.

use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::run::Run;
use crate::script::{Script, ok, redirect, silent};
use crate::test_env::{TIMEOUT, TestEnv};

/// How much longer than its timeout an attempt may take.
const SLACK: Duration = Duration::from_millis(500);

/// The time for the start of the program, the healthy core route and the report, on a busy machine.
const REST: Duration = Duration::from_millis(1500);

pub(crate) const RETRIED: u32 = 2;
pub(crate) const ONCE: u32 = 1;

pub(crate) struct Case {
    name: &'static str,
    script: Script,
    keys: Value,
    class: &'static str,
    cause: Option<&'static str>,
    status: Option<u16>,
    attempts: u32,
}

/// A misbehaving route with one retry.
pub(crate) fn case(
    name: &'static str,
    script: Script,
    (class, cause, status, attempts): (&'static str, Option<&'static str>, Option<u16>, u32),
) -> Case {
    let keys = json!({});
    Case {
        name,
        script,
        keys,
        class,
        cause,
        status,
        attempts,
    }
}

impl Case {
    pub(crate) fn with(mut self, keys: Value) -> Self {
        self.keys = keys;
        self
    }

    /// One run of the program with this route beside a healthy core.
    fn run(&self) -> Run {
        let mut keys = self.keys.clone();
        keys["retries"] = 1.into();
        TestEnv::new()
            .core("/up", ok())
            .route("/it", self.script.clone(), keys)
            .also("/other", ok())
            .also("/silent-target", silent())
            .also("/back", redirect(302, "/it"))
            .run([])
    }

    /// The difference from the expected result, if there is one.
    fn complaint(&self) -> Option<String> {
        let run = self.run();
        let it = run.route("/it");
        let want = json!([self.class, self.cause, self.status, self.attempts]);
        let have = json!([it["class"], it["cause"], it["status"], it["attempts"]]);
        let last = it["elapsed_seconds"].as_f64().unwrap();
        let longest = (TIMEOUT + SLACK) * self.attempts + REST;
        println!(
            "{:45} {have} {last:.3} s, run {:.3?}",
            self.name, run.elapsed
        );
        let in_time = last <= (TIMEOUT + SLACK).as_secs_f64() && run.elapsed <= longest;
        let hard = i32::from(self.class == "http_error");
        let right = have == want && in_time && run.status.code() == Some(hard);
        let detail = &it["detail"];
        (!right).then(|| {
            format!(
                "{}: want {want} in time, have {have}, {detail}, {run:?}",
                self.name
            )
        })
    }
}

#[track_caller]
pub(crate) fn check(cases: Vec<Case>) {
    let count = cases.len();
    let waiting = Mutex::new(cases);
    let complaints = Mutex::new(Vec::new());
    thread::scope(|scope| {
        // The cases mostly wait, so more threads than processors are fine.
        for _ in 0..6 {
            scope.spawn(|| {
                loop {
                    let Some(case) = waiting.lock().unwrap().pop() else {
                        return;
                    };
                    let complaint = case.complaint();
                    complaints.lock().unwrap().extend(complaint);
                }
            });
        }
    });
    let complaints = complaints.into_inner().unwrap();
    let wrong = complaints.len();
    assert!(wrong == 0, "{wrong} of {count}:\n{}", complaints.join("\n"));
}

pub(crate) type Expected = (&'static str, Option<&'static str>, Option<u16>, u32);

pub(crate) const fn fine(status: u16) -> Expected {
    ("ok", None, Some(status), ONCE)
}

pub(crate) const fn lost(cause: &'static str, status: Option<u16>) -> Expected {
    ("timeout_unreachable", Some(cause), status, RETRIED)
}

pub(crate) const fn wrong(cause: &'static str, status: Option<u16>) -> Expected {
    ("http_error", Some(cause), status, ONCE)
}

pub(crate) const HEAD: &str = "HTTP/1.1 200 OK\r\n";
pub(crate) const TEN: &str = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n";
pub(crate) const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
pub(crate) const UNTIL_CLOSE: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
