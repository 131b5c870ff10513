//! What systemd says about a unit, made typed. Pure: it sees only the text that `systemctl show`
//! printed, and has no opinion on it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::Monotonic;
use crate::text::escape;

/// The properties asked for: org.freedesktop.systemd1(5) describes them. systemd leaves out
/// without a word those that it, or the unit's type, does not have.
pub(super) const PROPERTIES: &[&str] = &[
    "LoadState",
    "ActiveState",
    "SubState",
    "Result",
    "MainPID",
    "InvocationID",
    "ExecMainStartTimestampMonotonic",
    "Restart",
    "SuccessExitStatus",
    "RestartPreventExitStatus",
    "RestartForceExitStatus",
    "Job",
    "FreezerState",
    "TimeoutStopUSec",
    "RestartUSec",
    "RestartUSecNext",
    "NeedDaemonReload",
    "TriggeredBy",
];

/// A property that was not printed, or makes no sense; a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unreadable(pub(super) String);

/// A property, or why it cannot be known.
pub(super) type Property<T> = Result<T, Unreadable>;

/// One look at a unit. Each property stands for itself: one that is missing spoils only the
/// decisions that need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UnitState {
    /// `loaded`, `not-found`, `masked`, `bad-setting`, …
    pub(super) load: Property<String>,
    /// `active`, `inactive`, `failed`, `activating`, …
    pub(super) active: Property<String>,
    /// `running`, `auto-restart`, `stop-sigterm`, …
    pub(super) sub: Property<String>,
    /// `success`, `signal`, `start-limit-hit`, …
    pub(super) result: Property<String>,
    /// The main process, 0 where there is none.
    pub(super) main_pid: Property<u32>,
    /// One for each time that the unit is started, so it changes with every restart.
    pub(super) invocation: Property<String>,
    /// When the main process started.
    pub(super) started: Property<Monotonic>,
    /// `Restart=`
    pub(super) restart: Property<Restart>,
    /// `SuccessExitStatus=`
    pub(super) success: Property<Statuses>,
    /// `RestartPreventExitStatus=`
    pub(super) prevent: Property<Statuses>,
    /// `RestartForceExitStatus=`
    pub(super) force: Property<Statuses>,
    /// The number of the queued job, where there is one.
    pub(super) job: Property<Option<String>>,
    /// `running`, `frozen`, …; none from systemd before 246.
    pub(super) freezer: Option<String>,
    /// How long a restart may take to stop what is left, and then to wait; unknown where either
    /// is `infinity` or not understood.
    pub(super) restart_takes: Option<Duration>,
    /// The unit's file on disk is newer than what is loaded.
    pub(super) stale: Property<bool>,
    /// The units that start this one.
    pub(super) triggered_by: Vec<String>,
}

/// `Restart=`, systemd.service(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Restart {
    No,
    Always,
    OnSuccess,
    OnFailure,
    OnAbnormal,
    OnAbort,
    OnWatchdog,
}

impl Restart {
    /// As the unit file writes it.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Always => "always",
            Self::OnSuccess => "on-success",
            Self::OnFailure => "on-failure",
            Self::OnAbnormal => "on-abnormal",
            Self::OnAbort => "on-abort",
            Self::OnWatchdog => "on-watchdog",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [
            Self::No,
            Self::Always,
            Self::OnSuccess,
            Self::OnFailure,
            Self::OnAbnormal,
            Self::OnAbort,
            Self::OnWatchdog,
        ]
        .into_iter()
        .find(|restart| restart.as_str() == text)
    }
}

/// A list of exit statuses (numbers) and signals (names).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Statuses(Vec<String>);

impl Statuses {
    /// Whether the list names `signal`, given as `KILL`: systemd prints it so, the unit file may
    /// have had `SIGKILL`. A number is always an exit status.
    pub(super) fn names(&self, signal: &str) -> bool {
        self.0
            .iter()
            .any(|status| status.strip_prefix("SIG").unwrap_or(status) == signal)
    }
}

impl UnitState {
    /// Reads what `systemctl show` printed for one unit.
    ///
    /// # Errors
    ///
    /// A sentence, where that is no list of `Key=value` lines for exactly one unit.
    pub(super) fn parse(printed: &[u8]) -> Result<Self, String> {
        let raw = Raw::parse(printed)?;
        let restart_takes = || {
            let delay = span(raw.optional("RestartUSec")?)?;
            // Since systemd 254, with RestartSteps=, the next delay may be the longer one.
            let next = raw.optional("RestartUSecNext").and_then(span);
            span(raw.optional("TimeoutStopUSec")?)?.checked_add(delay.max(next.unwrap_or_default()))
        };
        Ok(Self {
            load: raw.word("LoadState"),
            active: raw.word("ActiveState"),
            sub: raw.word("SubState"),
            result: raw.word("Result"),
            main_pid: raw.parsed("MainPID", |text| text.parse().ok()),
            invocation: raw.parsed("InvocationID", invocation),
            started: raw.parsed("ExecMainStartTimestampMonotonic", started),
            restart: raw.parsed("Restart", Restart::parse),
            success: raw.statuses("SuccessExitStatus"),
            prevent: raw.statuses("RestartPreventExitStatus"),
            force: raw.statuses("RestartForceExitStatus"),
            job: raw.parsed("Job", |text| {
                Some((!matches!(text, "" | "0")).then(|| text.to_owned()))
            }),
            freezer: raw.optional("FreezerState").map(str::to_owned),
            restart_takes: restart_takes(),
            stale: raw.parsed("NeedDaemonReload", yes_or_no),
            triggered_by: raw
                .optional("TriggeredBy")
                .unwrap_or_default()
                .split_whitespace()
                .map(str::to_owned)
                .collect(),
        })
    }
}

fn invocation(text: &str) -> Option<String> {
    let whole = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    whole.then(|| text.to_owned())
}

fn started(text: &str) -> Option<Monotonic> {
    let micros = text.parse().ok().filter(|&micros| micros > 0)?;
    Some(Monotonic::from_micros(micros))
}

fn yes_or_no(text: &str) -> Option<bool> {
    match text {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

/// A span of time as systemd.time(7) writes it, such as `1min 30s`, `1.500000s` or `0`; none for
/// `infinity` and whatever else is no finite span.
fn span(text: &str) -> Option<Duration> {
    const SECONDS: [(&str, f64); 10] = [
        ("us", 1e-6),
        ("ms", 1e-3),
        ("s", 1.0),
        ("min", 60.0),
        ("h", 3_600.0),
        ("d", 86_400.0),
        ("w", 604_800.0),
        ("month", 2_629_800.0),
        ("y", 31_557_600.0),
        ("", 1e-6), // only "0" is printed without a unit
    ];
    let mut total = Duration::ZERO;
    for word in text.split(' ') {
        let end = word
            .find(|character: char| !character.is_ascii_digit() && character != '.')
            .unwrap_or(word.len());
        let (number, unit) = word.split_at(end);
        let (_, seconds) = SECONDS.iter().find(|(name, _)| *name == unit)?;
        let length = number.parse::<f64>().ok()? * seconds;
        total = total.checked_add(Duration::try_from_secs_f64(length).ok()?)?;
    }
    Some(total)
}

/// `Key=value` lines. Kept apart from the types because the order is systemd's, not ours.
struct Raw<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Raw<'a> {
    fn parse(printed: &'a [u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(printed)
            .map_err(|_| "systemctl printed garbage: it is not UTF-8".to_owned())?;
        let mut properties = BTreeMap::new();
        for line in text.trim_end_matches('\n').split('\n') {
            let Some((key, value)) = line.split_once('=').filter(|_| !line.contains('\0')) else {
                return Err(match line {
                    "" if properties.is_empty() => "systemctl printed nothing".to_owned(),
                    "" => "systemctl printed more than one unit".to_owned(),
                    _ => format!("systemctl printed garbage: \"{}\"", shown(line)),
                });
            };
            if properties.insert(key, value).is_some() {
                return Err(format!("systemctl printed {}= twice", shown(key)));
            }
        }
        Ok(Self(properties))
    }

    fn optional(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).copied()
    }

    fn parsed<T>(&self, name: &str, parse: impl Fn(&str) -> Option<T>) -> Property<T> {
        let value = self
            .optional(name)
            .ok_or_else(|| Unreadable(format!("systemctl did not tell {name}=")))?;
        parse(value).ok_or_else(|| {
            Unreadable(format!(
                "systemctl told {name}=\"{}\", which makes no sense",
                shown(value)
            ))
        })
    }

    fn word(&self, name: &str) -> Property<String> {
        self.parsed(name, |text| (!text.is_empty()).then(|| text.to_owned()))
    }

    fn statuses(&self, name: &str) -> Property<Statuses> {
        // Whatever else a line holds, such as the "[unprintable]" of systemctl, it may stand for a
        // list that names our signal.
        let printed = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || "+-".contains(c);
        self.parsed(name, |text| {
            let words = text.split_whitespace();
            words
                .map(|word| word.chars().all(printed).then(|| word.to_owned()))
                .collect::<Option<_>>()
                .map(Statuses)
        })
    }
}

/// The beginning of foreign text, fit to be shown.
fn shown(text: &str) -> String {
    escape(&text.chars().take(120).collect::<String>()).into_owned()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Captured from systemd 252.
    pub(in crate::recovery) const RUNNING: &str = "\
Restart=always
RestartUSec=300ms
TimeoutStopUSec=2min 5s
RestartPreventExitStatus=1 3 ABRT
RestartForceExitStatus=USR1
SuccessExitStatus=4 KILL TERM
MainPID=30
Result=success
ExecMainStartTimestampMonotonic=2993160532
TriggeredBy=demo.timer
LoadState=loaded
ActiveState=active
FreezerState=running
SubState=running
Job=
NeedDaemonReload=no
InvocationID=fe5921ce7fb248c7935c4f07c95f822f
";

    /// Captured from systemd 252.
    const NOT_FOUND: &str = "\
Restart=no
RestartUSec=100ms
TimeoutStopUSec=1min 30s
RestartPreventExitStatus=
RestartForceExitStatus=
SuccessExitStatus=
MainPID=0
Result=success
ExecMainStartTimestampMonotonic=0
TriggeredBy=
LoadState=not-found
ActiveState=inactive
FreezerState=running
SubState=dead
Job=
NeedDaemonReload=no
InvocationID=
";

    fn word<T>(text: &str) -> Property<T>
    where
        T: From<String>,
    {
        Ok(text.to_owned().into())
    }

    #[test]
    fn parse_reads_a_running_service() {
        let unit = UnitState::parse(RUNNING.as_bytes()).unwrap();
        assert_eq!(unit.load, word("loaded"));
        assert_eq!(unit.active, word("active"));
        assert_eq!(unit.sub, word("running"));
        assert_eq!(unit.result, word("success"));
        assert_eq!(unit.main_pid, Ok(30));
        assert_eq!(unit.invocation, word("fe5921ce7fb248c7935c4f07c95f822f"));
        assert_eq!(unit.started, Ok(Monotonic::from_micros(2_993_160_532)));
        assert_eq!(unit.restart, Ok(Restart::Always));
        assert!(unit.success.unwrap().names("KILL"));
        assert!(unit.prevent.as_ref().unwrap().names("ABRT"));
        assert!(!unit.prevent.unwrap().names("KILL"));
        assert!(unit.force.unwrap().names("USR1"));
        assert_eq!(unit.job, Ok(None));
        assert_eq!(unit.freezer.as_deref(), Some("running"));
        assert_eq!(unit.restart_takes, Some(Duration::from_millis(125_300)));
        assert_eq!(unit.stale, Ok(false));
        assert_eq!(unit.triggered_by, ["demo.timer"]);
    }

    #[test]
    fn parse_reads_a_unit_that_does_not_exist() {
        let unit = UnitState::parse(NOT_FOUND.as_bytes()).unwrap();
        assert_eq!(unit.load, word("not-found"));
        assert_eq!(unit.main_pid, Ok(0));
        assert_eq!(unit.restart, Ok(Restart::No));
        assert!(unit.started.is_err(), "0 is no point in time");
        assert!(unit.invocation.is_err());
        assert!(unit.triggered_by.is_empty());
    }

    #[test]
    fn parse_names_each_property_that_is_missing_or_makes_no_sense() {
        let empty = UnitState::parse(b"Foo=bar\n").unwrap();
        assert_eq!(
            empty.main_pid,
            Err(Unreadable("systemctl did not tell MainPID=".to_owned()))
        );
        assert_eq!(empty.freezer, None);
        assert_eq!(empty.restart_takes, None);
        for (line, name) in [
            ("MainPID=-1", "MainPID"),
            ("MainPID=", "MainPID"),
            ("MainPID=99999999999", "MainPID"),
            ("InvocationID=", "InvocationID"),
            ("InvocationID=fe5921", "InvocationID"),
            ("Restart=sometimes", "Restart"),
            ("ExecMainStartTimestampMonotonic=0", "ExecMainStart"),
            ("ExecMainStartTimestampMonotonic=[not set]", "ExecMainStart"),
            ("NeedDaemonReload=maybe", "NeedDaemonReload"),
            ("ActiveState=", "ActiveState"),
        ] {
            let unit = UnitState::parse(line.as_bytes()).unwrap();
            let complaints = [
                unit.main_pid.err(),
                unit.invocation.err(),
                unit.restart.err(),
                unit.started.err(),
                unit.stale.err(),
                unit.active.err(),
            ];
            assert!(
                complaints
                    .iter()
                    .flatten()
                    .any(|complaint| complaint.0.contains(name)
                        && complaint.0.contains("makes no sense")),
                "{line}: {complaints:?}"
            );
        }
    }

    #[test]
    fn parse_takes_no_restart_time_that_cannot_be_added_up() {
        let longest = "10000000000000000000s";
        let printed = format!("TimeoutStopUSec={longest}\nRestartUSec={longest}");
        let unit = UnitState::parse(printed.as_bytes()).unwrap();
        assert_eq!(unit.restart_takes, None);
    }

    #[test]
    fn parse_takes_no_garbage_for_a_list_without_our_signal() {
        for (list, readable) in [
            ("", true),
            ("4 KILL TERM", true),
            ("SIGKILL RTMIN+3", true),
            ("[unprintable]", false),
            ("kill", false),
            ("KILL,TERM", false),
            ("{ status=9 }", false),
        ] {
            for name in [
                "SuccessExitStatus",
                "RestartPreventExitStatus",
                "RestartForceExitStatus",
            ] {
                let unit = UnitState::parse(format!("{name}={list}").as_bytes()).unwrap();
                let lists = [unit.success, unit.prevent, unit.force];
                assert_eq!(
                    lists.iter().any(Result::is_ok),
                    readable,
                    "{name}={list}: {lists:?}"
                );
            }
        }
    }

    #[test]
    fn parse_takes_any_other_job_for_a_queued_one() {
        for (line, job) in [
            ("Job=", Ok(None)),
            ("Job=0", Ok(None)),
            ("Job=68", Ok(Some("68".to_owned()))),
            ("Job=68 restart", Ok(Some("68 restart".to_owned()))),
        ] {
            assert_eq!(
                UnitState::parse(line.as_bytes()).unwrap().job,
                job,
                "{line}"
            );
        }
        assert!(UnitState::parse(b"MainPID=1").unwrap().job.is_err());
    }

    #[test]
    fn parse_refuses_garbage() {
        let twice = format!("{RUNNING}MainPID=31\n");
        let two_units = format!("{RUNNING}\n{NOT_FOUND}");
        for (printed, complaint) in [
            (&b""[..], "nothing"),
            (b"\n\n", "nothing"),
            (b"\nMainPID=1\n", "nothing"),
            (b"hello world\n", "garbage: \"hello world\""),
            (
                b"MainPID=1\nhello\x1b[31m\n",
                "garbage: \"hello\\u{1b}[31m\"",
            ),
            (b"MainPID=1\0\n", "garbage"),
            (b"MainPID=\xff\n", "not UTF-8"),
            (twice.as_bytes(), "MainPID= twice"),
            (two_units.as_bytes(), "more than one unit"),
        ] {
            let error = UnitState::parse(printed).unwrap_err();
            assert!(error.contains(complaint), "{error}");
        }
    }

    #[test]
    fn span_reads_what_systemd_writes() {
        for (text, seconds) in [
            ("0", Some(0.0)),
            ("100ms", Some(0.1)),
            ("1.500000s", Some(1.5)),
            ("2min 5s", Some(125.0)),
            ("1min 30s", Some(90.0)),
            ("1h 1us", Some(3_600.000_001)),
            ("1w 2d", Some(777_600.0)),
            ("1y 1month", Some(34_187_400.0)),
            ("infinity", None),
            ("", None),
            ("5 parsecs", None),
            ("-1s", None),
            ("1.2.3s", None),
            ("99999999999999999999999999y", None),
        ] {
            assert_eq!(span(text).map(|span| span.as_secs_f64()), seconds, "{text}");
        }
    }
}
