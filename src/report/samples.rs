//! Reports for the formats' tests.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;

use super::Report;
use crate::cause::{Class, ResponseError, SkipReason, TransportError};
use crate::clock::Monotonic;
use crate::manifest::{Manifest, Method, Options, Route, Source, Variables};
use crate::recovery::evidence::{
    Cpu, Evidence, ParkedCounts, ProcessDetails, ProcessEvidence, SocketEvidence, ThreadGroup,
};
use crate::recovery::{self, Guard, MainPid, Recovery, Stacks, UnitReport};
use crate::sweep::Sweep;
use crate::verdict::{self, ProbeResult};

/// A route and its result.
pub(super) struct Case {
    route: Route,
    result: ProbeResult,
}

impl Case {
    pub(super) fn core(mut self) -> Self {
        self.route.core = true;
        self
    }

    pub(super) fn silent(mut self) -> Self {
        self.result.silent = true;
        self.core()
    }

    pub(super) fn attempts(mut self, attempts: u16) -> Self {
        self.result.attempts = attempts;
        self
    }

    pub(super) fn detail(mut self, detail: &str) -> Self {
        self.result.detail = Some(detail.into());
        self
    }
}

pub(super) fn case(path: &str, class: Class, status: Option<u16>, micros: u64) -> Case {
    let options = Options {
        method: if path.starts_with("/head") {
            Method::Head
        } else {
            Method::Get
        },
        expect: Vec::new(),
        timeout: Duration::from_secs(10),
        retries: 2,
        backoff: Duration::from_millis(500),
        max_redirects: 0,
        headers: vec![],
        max_body_bytes: 1 << 20,
    };
    Case {
        route: Route {
            path: path.to_owned(),
            core: false,
            options,
            checks: None,
        },
        result: ProbeResult {
            class,
            status,
            detail: None,
            attempts: u16::from(!matches!(class, Class::Skipped(_))),
            elapsed: Duration::from_micros(micros),
            silent: false,
            received_any: false,
            starved: None,
        },
    }
}

/// Passes the report of a sweep with these cases, and nothing to recover, to `test`.
pub(super) fn with_report<T>(cases: Vec<Case>, test: impl FnOnce(&mut Report) -> T) -> T {
    let (routes, results): (Vec<Route>, Vec<ProbeResult>) = cases
        .into_iter()
        .map(|case| (case.route, case.result))
        .unzip();
    let manifest = Manifest {
        unix_socket: None,
        routes,
        ..manifest()
    };
    let core = || manifest.routes.iter().map(|route| route.core);
    let of_core = core().zip(&results).filter(|(core, _)| *core);
    let backend = verdict::backend_state(of_core.map(|(_, result)| result));
    let verdict = verdict::judge(core().zip(&results), backend);
    test(&mut Report {
        started_at: started_at(),
        elapsed: Duration::from_micros(31_415),
        manifest: &manifest,
        core_only: false,
        sweep: Sweep {
            began: Monotonic::now(),
            results,
            verdict,
        },
        recovery: Recovery {
            outcome: recovery::Outcome::NotNeeded,
            unit: unit(),
            ..Recovery::default()
        },
        unit: None,
        warnings: vec![],
    })
}

/// A valid manifest; its routes do not matter.
fn manifest() -> Manifest {
    let text = br#"{
        "base_url": "http://127.0.0.1:8000",
        "routes": [{"path": "/", "core": true}],
        "recovery": {"unit": "scidex-api.service"}
    }"#;
    let source = Source::File {
        path: "/etc/scidex-route-health/routes.json".into(),
        owner: 0,
        mode: 0o100_644,
    };
    let variables = Variables::MayBeMissing;
    Manifest::parse(text, source, None, variables).unwrap()
}

fn unit() -> Option<String> {
    Some("scidex-api.service".to_owned())
}

fn started_at() -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(1_776_967_331_482)
}

/// Every route is OK.
pub(super) fn healthy() -> Vec<Case> {
    vec![
        case("/api/health", Class::Ok, Some(200), 4_123).core(),
        case("/", Class::Ok, Some(302), 980).core(),
        case("/papers", Class::Ok, Some(200), 1_204_000).attempts(2),
    ]
}

/// Healthy, with every soft result.
pub(super) fn soft() -> Vec<Case> {
    vec![
        case("/api/health", Class::RateLimited, Some(429), 1_200).core(),
        case("/", Class::Ok, Some(200), 12_400).core(),
        case("/exchange", Class::RateLimited, Some(429), 900),
        case(
            "/papers",
            Class::TimeoutUnreachable(TransportError::Timeout),
            None,
            10_000_400,
        )
        .attempts(3)
        .detail("no answer within 10 s"),
        case("/wiki", Class::Skipped(SkipReason::Deadline), None, 0),
    ]
}

/// Unhealthy in every way that leaves the backend up, with text that must be escaped.
pub(super) fn failing() -> Vec<Case> {
    vec![
        case("/api/health", Class::TimeoutUnreachable(TransportError::Reset), None, 3_000)
            .core()
            .attempts(3)
            .detail("connection reset by peer"),
        case("/", Class::Ok, Some(200), 12_400).core(),
        case("/head", Class::HttpError(ResponseError::Status), Some(503), 31_000).attempts(3),
        case("/api/status", Class::HttpError(ResponseError::Body), Some(200), 8_000).detail(
            "JSON /status is \"de\u{1b}[31mgraded\" <&> instead of \"healthy\", in a body that goes on at length",
        ),
        case(
            "/api/search?q=a-very-long-question-that-nobody-ever-asks-of-a-person&limit=1&\"\\",
            Class::HttpError(ResponseError::Protocol),
            None,
            500,
        )
        .detail("not HTTP"),
        case("/loop", Class::HttpError(ResponseError::Redirects), Some(302), 99_960)
            .detail("more than 3 redirects"),
        case("/gaps", Class::RateLimited, Some(429), 1_100),
    ]
}

/// A hung backend.
pub(super) fn hung() -> Vec<Case> {
    vec![
        case(
            "/api/health",
            Class::TimeoutUnreachable(TransportError::Timeout),
            None,
            10_001_000,
        )
        .silent()
        .attempts(3)
        .detail("connected, then silent for 10 s"),
        case(
            "/",
            Class::TimeoutUnreachable(TransportError::Timeout),
            None,
            10_003_000,
        )
        .silent()
        .attempts(3),
        case("/papers", Class::Skipped(SkipReason::BackendHung), None, 0),
        case("/wiki", Class::Skipped(SkipReason::BackendHung), None, 0),
    ]
}

fn process(pid: u32) -> ProcessEvidence {
    ProcessEvidence {
        pid,
        name: Ok("uvicorn".to_owned()),
        state: Ok('S'),
        cpu: Ok(Cpu {
            ticks: 0,
            interval_ms: 100,
        }),
        details: (pid == 4_242).then(|| ProcessDetails {
            threads: Ok(vec![ThreadGroup {
                state: 'S',
                wait_channel: Ok("futex_wait".to_owned()),
                count: 1,
            }]),
            resident_bytes: Ok(90_177_536),
            catches_dump_signal: Ok(true),
        }),
    }
}

/// A recovery that succeeded.
pub(super) fn recovered() -> Recovery {
    Recovery {
        outcome: recovery::Outcome::Recovered {
            new_pid: MainPid::new(4343, 0).unwrap(),
        },
        unit: unit(),
        pid: Some(4242),
        evidence: Some(Evidence {
            main: Some(process(4_242)),
            processes: vec![process(4_242), process(4_250)],
            listener: SocketEvidence {
                accept_queue: Some(129),
                accept_queue_limit: Some(128),
                listener_owner: Some("scidex-api.service".to_owned()),
            },
            parked: ParkedCounts {
                accepted: Some(6),
                unaccepted: Some(3),
                unconnected: 0,
            },
        }),
        stacks: Some(Stacks {
            signal: Signal::SIGUSR1,
            processes: vec![4_242, 4_250],
            since: started_at(),
            until: started_at() + Duration::from_millis(1_030),
            command:
                "journalctl -u scidex-api.service _PID=4711 --since=@1776967340 --until=@1776967343"
                    .to_owned(),
        }),
        unit_report: None,
        elapsed: Duration::from_millis(4_200),
    }
}

/// What systemd says of the unit of a backend that is active.
pub(super) fn active() -> UnitReport {
    UnitReport {
        name: "scidex-api.service".to_owned(),
        active_state: "active".to_owned(),
        sub_state: "running".to_owned(),
        since: Some(started_at() - Duration::from_secs(7_200)),
        restarts: Some(3),
    }
}

/// A recovery that was refused.
pub(super) fn refused() -> Recovery {
    Recovery {
        outcome: recovery::Outcome::Refused(
            Guard::all()
                .find(|guard| guard.name() == "too_young")
                .unwrap(),
            "the main process is 30 s old, less than min_uptime_seconds (120)".to_owned(),
        ),
        evidence: None,
        stacks: None,
        elapsed: Duration::from_millis(40),
        ..recovered()
    }
}

/// Compares with a file in `tests/golden/`, which `UPDATE_GOLDEN=1` regenerates.
pub(super) fn assert_golden(name: &str, text: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let path = folder.join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        text == expected,
        "{name} should be:\n{expected}\nbut is:\n{text}"
    );
}
