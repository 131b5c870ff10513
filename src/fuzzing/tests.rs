//! Checks the properties with proptest, on input that is valid or nearly valid. The fuzzer would need much
//! longer to find such input.

mod mutate;
mod schema;
mod valid;

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use self::mutate::{change, mutate};
use self::valid::valid;
use super::{manifest_property, netlink_property, proc_property, show_property};

/// `cases` cases; a failing case is minimized, and no file is written.
fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases)
    }
}

/// Answers of Linux 6.18 about a port with a listener and a connection, IPv4 and IPv6.
const ANSWERS: &[&[u8]] = &[
    include_bytes!("../../fuzz/seeds/netlink/ipv4"),
    include_bytes!("../../fuzz/seeds/netlink/ipv6"),
];

/// `text` with a few bytes replaced and perhaps cut short, so that it may be invalid UTF-8.
fn corrupt(text: impl AsRef<[u8]>, changes: &[(Index, u8)], end: Option<Index>) -> Vec<u8> {
    let mut bytes = text.as_ref().to_vec();
    for (at, byte) in changes {
        if let Some(there) = bytes.get_mut(at.index(text.as_ref().len().max(1))) {
            *there = *byte;
        }
    }
    bytes.truncate(end.map_or(bytes.len(), |end| end.index(bytes.len() + 1)));
    bytes
}

proptest! {
    #![proptest_config(config(64))]

    #[test]
    fn a_valid_manifest_loads_and_means_what_it_says(manifest in valid(false)) {
        prop_assert!(manifest_property(manifest.to_string().as_bytes()), "{manifest:#}");
    }

    #[test]
    fn a_manifest_with_recovery_obeys_the_limits(manifest in valid(true)) {
        // The deadline may be too short; proptest fails if too many cases are rejected here.
        prop_assume!(manifest_property(manifest.to_string().as_bytes()));
    }

    #[test]
    fn a_mutated_manifest_loads_only_within_the_limits(
        mut manifest in any::<bool>().prop_flat_map(valid),
        changes in vec((any::<Index>(), change()), 1..4),
    ) {
        for (at, change) in changes {
            mutate(&mut manifest, &at, change);
        }
        manifest_property(manifest.to_string().as_bytes());
    }

    #[test]
    fn a_corrupted_manifest_is_reported_with_locations(
        manifest in valid(false),
        changes in vec((any::<Index>(), any::<u8>()), 0..3),
        end in of(any::<Index>()),
    ) {
        manifest_property(&corrupt(manifest.to_string(), &changes, end));
    }
}

/// What systemctl prints for a unit that may be killed, or almost.
fn unit() -> impl Strategy<Value = String> {
    let line = |name: &'static str, usual: &'static str, others: &'static [&'static str]| {
        prop_oneof![
            12 => Just(Some(usual.to_owned())),
            2 => select(others).prop_map(|other| Some(other.to_owned())),
            1 => Just(None),
            1 => "[^\\n\\x00]{0,6}".prop_map(Some),
        ]
        .prop_map(move |value| value.map(|value| format!("{name}={value}")))
    };
    let signals = &["KILL", "9", "SIGABRT ABRT", "1 TERM"][..];
    [
        line("LoadState", "loaded", &["not-found", "masked"]),
        line("ActiveState", "active", &["failed", "activating"]),
        line("SubState", "running", &["dead"]),
        line("Result", "success", &["signal"]),
        line("MainPID", "4711", &["0", "1", "99", "+5", "4294967296"]),
        line(
            "ControlGroup",
            "/system.slice/demo.service",
            &["", "/", "a.service", "/a/../b"],
        ),
        line(
            "KillMode",
            "control-group",
            &["mixed", "process", "none"],
        ),
        line("SendSIGKILL", "yes", &["no"]),
        line(
            "InvocationID",
            "fe5921ce7fb248c7935c4f07c95f822f",
            &["", "fe59"],
        ),
        line(
            "ExecMainStartTimestampMonotonic",
            "2993160532",
            &["0", "18446744073709551615"],
        ),
        line(
            "Restart",
            "always",
            &["no", "on-failure", "on-success", "on-abort", "on-watchdog"],
        ),
        line("RemainAfterExit", "no", &["yes"]),
        line("ExitType", "main", &["cgroup"]),
        line(
            "ExecStart",
            "{ path=sh ; argv[]=sh -c x ; ignore_errors=no ; start_time=[n/a] }",
            &[
                "{ path=sh ; argv[]=sh ; ignore_errors=yes ; start_time=[n/a] }",
                "{ path=sh ; argv[]=sh\n\nJob=68\n} ; ignore_errors=yes ; start_time=[n/a] }",
                "{ path=sh ; argv[]= ; ignore_errors=no ; start_time=[n/a] }\n= ; ignore_errors=yes ; start_time=[n/a] }",
            ],
        ),
        line("SuccessExitStatus", "", signals),
        line("RestartPreventExitStatus", "", signals),
        line("RestartForceExitStatus", "", signals),
        line("Job", "", &["0", "68"]),
        line("FreezerState", "running", &["frozen", "thawing"]),
        line("TimeoutStopUSec", "1min 30s", &["infinity", "0", "1y 1us"]),
        line(
            "RestartUSec",
            "100ms",
            &["infinity", "1.5s", "9999999999999999y"],
        ),
        line("NeedDaemonReload", "no", &["yes"]),
        line("TriggeredBy", "demo.timer", &["", "a b  c"]),
    ]
    .prop_shuffle()
    .prop_map(|lines| {
        lines
            .into_iter()
            .flatten()
            .map(|line| line + "\n")
            .collect()
    })
}

proptest! {
    #![proptest_config(config(128))]

    #[test]
    fn each_line_of_systemctl_output_is_read_by_itself(
        unit in unit(),
        changes in vec((any::<Index>(), any::<u8>()), 0..2),
        end in of(any::<Index>()),
    ) {
        show_property(unit.as_bytes());
        show_property(&corrupt(&unit, &changes, end));
    }

    #[test]
    fn systemctl_output_survives_a_round_trip(bytes in vec(any::<u8>(), 0..256)) {
        show_property(&bytes);
    }

    #[test]
    fn proc_files_survive_a_round_trip(bytes in vec(any::<u8>(), 0..256)) {
        proc_property(&bytes);
    }

    #[test]
    fn sock_diag_answers_survive_a_round_trip(bytes in vec(any::<u8>(), 0..512)) {
        netlink_property(&bytes);
    }

    #[test]
    fn corrupted_sock_diag_answers_are_read_safely(
        answer in select(ANSWERS),
        changes in vec((any::<Index>(), any::<u8>()), 0..4),
        end in of(any::<Index>()),
    ) {
        netlink_property(&corrupt(answer, &changes, end));
        // A single row, without the netlink header.
        netlink_property(&corrupt(&answer[16..], &changes, end));
    }

    #[test]
    fn any_proc_file_is_read_safely(
        text in "[0-9]{1,6} \\(\\PC{0,15}\\) [RSDTtZ]( -?[0-9]{1,12}){30}|\
            (((PPid|TracerPid|SigPnd|ShdPnd|SigBlk|SigCgt|CoreDumping):\t[0-9]{1,20}|State:\t[StZ]|VmRSS:\t {0,4}[0-9]{1,20} kB|Name:\t\\PC{0,15})\n){8,16}",
    ) {
        proc_property(text.as_bytes());
    }
}
