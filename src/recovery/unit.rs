//! The state of a unit, parsed from the output of `systemctl show`. Pure.

use std::collections::BTreeMap;
use std::iter;
use std::time::Duration;

use super::cgroup::ControlGroup;
use super::restart::{KillMode, Restart, Statuses};
use crate::clock::Monotonic;
use crate::escape::escape;

/// The properties requested: org.freedesktop.systemd1(5) describes them. systemd silently omits those that
/// it, or the unit's type, does not have.
pub(super) const PROPERTIES: &[&str] = &[
    "LoadState",
    "ActiveState",
    "SubState",
    "Result",
    "MainPID",
    "ControlGroup",
    "InvocationID",
    "ExecMainStartTimestampMonotonic",
    "Restart",
    "RemainAfterExit",
    "ExitType",
    "ExecStart",
    "SuccessExitStatus",
    "RestartPreventExitStatus",
    "RestartForceExitStatus",
    "Job",
    "FreezerState",
    "KillMode",
    "SendSIGKILL",
    "TimeoutStopUSec",
    "RestartUSec",
    "RestartUSecNext",
    "NeedDaemonReload",
    "TriggeredBy",
];

/// A property that is missing or invalid; the message that says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unreadable(pub(super) String);

/// A property, or why it cannot be known.
pub(super) type Property<T> = Result<T, Unreadable>;

/// The state of a unit at one moment. A missing property affects only the decisions that need it.
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
    /// The main process, 0 if there is none.
    pub(super) main_pid: Property<u32>,
    /// Its control group, which is never the root one.
    pub(super) group: Property<ControlGroup>,
    /// Its InvocationID, which changes with every start.
    pub(super) invocation: Property<String>,
    /// When the main process started.
    pub(super) started: Property<Monotonic>,
    /// `Restart=`
    pub(super) restart: Property<Restart>,
    /// `RemainAfterExit=`
    pub(super) remains: Property<bool>,
    /// Whether `ExitType=` is `cgroup`; systemd before 250 has only `main`.
    pub(super) exits_as_group: Property<bool>,
    /// Whether `ExecStart=` begins with `-`.
    pub(super) ignores_failure: Property<bool>,
    /// `SuccessExitStatus=`
    pub(super) success: Property<Statuses>,
    /// `RestartPreventExitStatus=`
    pub(super) prevent: Property<Statuses>,
    /// `RestartForceExitStatus=`
    pub(super) force: Property<Statuses>,
    /// `KillMode=`
    pub(super) kill_mode: Property<KillMode>,
    /// `SendSIGKILL=`
    pub(super) send_sigkill: Property<bool>,
    /// Whether `TimeoutStopSec=` is `infinity`.
    pub(super) stops_forever: Property<bool>,
    /// The number of the queued job, where there is one.
    pub(super) job: Property<Option<String>>,
    /// `running`, `frozen`, …; none from systemd before 246.
    pub(super) freezer: Option<String>,
    /// Whether `RestartSec=` is `infinity`.
    pub(super) never_restarts: bool,
    /// How long a restart may take: to stop the remaining processes, and then to wait. Unknown if either
    /// is `infinity` or cannot be parsed.
    pub(super) restart_takes: Option<Duration>,
    /// Whether the unit's file on disk is newer than the loaded one.
    pub(super) stale: Property<bool>,
    /// The units that trigger this one.
    pub(super) triggered_by: Vec<String>,
}

impl UnitState {
    /// Reads what `systemctl show` printed for one unit.
    ///
    /// # Errors
    ///
    /// A message, if that is not a list of `Key=value` lines for exactly one unit.
    pub(super) fn parse(printed: &[u8]) -> Result<Self, String> {
        let raw = Raw::parse(printed)?;
        let restart_takes = || {
            let delay = span(raw.optional("RestartUSec")?)?;
            // With RestartSteps=, since systemd 254, the next delay may be longer than RestartSec=.
            let next = raw.optional("RestartUSecNext").and_then(span);
            span(raw.optional("TimeoutStopUSec")?)?.checked_add(delay.max(next.unwrap_or_default()))
        };
        Ok(Self {
            load: raw.word("LoadState"),
            active: raw.word("ActiveState"),
            sub: raw.word("SubState"),
            result: raw.word("Result"),
            main_pid: raw.parsed("MainPID", |text| text.parse().ok()),
            group: raw.parsed("ControlGroup", ControlGroup::parse),
            invocation: raw.parsed("InvocationID", invocation),
            started: raw.parsed("ExecMainStartTimestampMonotonic", started),
            restart: raw.parsed("Restart", Restart::parse),
            remains: raw.parsed_or("RemainAfterExit", false, yes_or_no),
            exits_as_group: raw.parsed_or("ExitType", false, exits_as_group),
            ignores_failure: raw.ignores_failure(),
            success: raw.statuses("SuccessExitStatus"),
            prevent: raw.statuses("RestartPreventExitStatus"),
            force: raw.statuses("RestartForceExitStatus"),
            kill_mode: raw.parsed("KillMode", KillMode::parse),
            send_sigkill: raw.parsed("SendSIGKILL", yes_or_no),
            stops_forever: raw.parsed("TimeoutStopUSec", |text| match text {
                "infinity" => Some(true),
                text => span(text).map(|_| false),
            }),
            job: raw.parsed("Job", |text| {
                Some((!matches!(text, "" | "0")).then(|| text.to_owned()))
            }),
            freezer: raw.optional("FreezerState").map(str::to_owned),
            never_restarts: raw.optional("RestartUSec") == Some("infinity"),
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

fn exits_as_group(text: &str) -> Option<bool> {
    match text {
        "cgroup" => Some(true),
        "main" => Some(false),
        _ => None,
    }
}

/// Whether the failure of a command is ignored, if the line ends a command as systemctl prints it:
/// `{ path=… ; argv[]=… ; ignore_errors=no ; start_time=[…] ; … }`. The arguments may contain anything, so
/// the last occurrence counts as systemd's own.
fn ignores_failure(line: &str) -> Option<bool> {
    let (_, words) = line.strip_suffix(" }")?.rsplit_once(" ; ignore_errors=")?;
    let (ignores, _) = words.split_once(" ; start_time=[")?;
    yes_or_no(ignores)
}

/// A span of time as systemd.time(7) writes it, such as `1min 30s`, `1.500000s` or `0`; none for
/// `infinity` and anything else that is not a finite span.
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

/// A `.socket` unit, as far as the owner of a listening socket needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SocketUnit {
    /// Its control group; none if it has none at the moment.
    pub(super) group: Option<ControlGroup>,
    /// The addresses and paths that it listens at, as in `Listen=`, but without the kind of socket.
    pub(super) listens: Vec<String>,
}

impl SocketUnit {
    /// The properties requested.
    pub(super) const PROPERTIES: &[&str] = &["ControlGroup", "Listen"];

    /// Reads what `systemctl show` printed. There is one `Listen=` line for each socket, such as
    /// `Listen=[::]:8000 (Stream)`.
    pub(super) fn parse(printed: &[u8]) -> Self {
        let mut unit = Self::default();
        for line in String::from_utf8_lossy(printed).lines() {
            match line.split_once('=') {
                Some(("ControlGroup", path)) => unit.group = ControlGroup::parse(path),
                Some(("Listen", listen)) => {
                    let address = listen
                        .rsplit_once(" (")
                        .map_or(listen, |(address, _)| address);
                    unit.listens.push(address.to_owned());
                }
                _ => {}
            }
        }
        unit
    }
}

/// `Key=value` lines. Separate from the types because systemd decides the order of the lines.
struct Raw<'a> {
    properties: BTreeMap<&'a str, &'a str>,
    /// For each line that ends a command of `ExecStart=`, or seems to, whether its failure is ignored.
    ignores_failure: Vec<bool>,
}

impl<'a> Raw<'a> {
    fn parse(printed: &'a [u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(printed)
            .map_err(|_| "systemctl printed garbage: it is not UTF-8".to_owned())?;
        let text = text.trim_end_matches('\n');
        let mut raw = Self {
            properties: BTreeMap::new(),
            ignores_failure: text.split('\n').filter_map(ignores_failure).collect(),
        };
        let mut lines = text.split('\n');
        while let Some(line) = lines.next() {
            // The arguments may contain newlines, and the text after one may look like another property.
            // If the text before even looks like the end of the command, that property appears twice.
            if line.starts_with("ExecStart={ ") {
                iter::once(line)
                    .chain(lines.by_ref())
                    .find_map(ignores_failure)
                    .ok_or("systemctl printed garbage: an ExecStart= without an end")?;
                continue;
            }
            let Some((key, value)) = line.split_once('=').filter(|_| !line.contains('\0')) else {
                return Err(match line {
                    "" if raw.properties.is_empty() => "systemctl printed nothing".to_owned(),
                    "" => "systemctl printed more than one unit".to_owned(),
                    _ => format!("systemctl printed garbage: \"{}\"", shown(line)),
                });
            };
            if raw.properties.insert(key, value).is_some() {
                return Err(format!("systemctl printed {}= twice", shown(key)));
            }
        }
        Ok(raw)
    }

    fn optional(&self, name: &str) -> Option<&'a str> {
        self.properties.get(name).copied()
    }

    fn parsed<T>(&self, name: &str, parse: impl Fn(&str) -> Option<T>) -> Property<T> {
        let value = self
            .optional(name)
            .ok_or_else(|| Unreadable(format!("systemctl did not report {name}=")))?;
        parse(value).ok_or_else(|| {
            Unreadable(format!(
                "systemctl reported an invalid {name}=\"{}\"",
                shown(value)
            ))
        })
    }

    /// A property that means `default` if it is missing: a systemd that knows it prints it, and one that
    /// does not behaves as `default` says.
    fn parsed_or<T>(
        &self,
        name: &str,
        default: T,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Property<T> {
        if self.properties.contains_key(name) {
            self.parsed(name, parse)
        } else {
            Ok(default)
        }
    }

    /// A service with a main process has a command, and systemd prints it. Only Type=oneshot can have
    /// several, and it has no main process once it is active.
    fn ignores_failure(&self) -> Property<bool> {
        let printed = &self.ignores_failure;
        match printed.first() {
            Some(first) if printed.iter().any(|other| other != first) => Err(Unreadable(
                "systemctl reported ExecStart= both with and without \"-\"".to_owned(),
            )),
            first => self.parsed_or("ExecStart", first.is_some_and(|first| *first), |_| None),
        }
    }

    fn word(&self, name: &str) -> Property<String> {
        self.parsed(name, |text| (!text.is_empty()).then(|| text.to_owned()))
    }

    fn statuses(&self, name: &str) -> Property<Statuses> {
        self.parsed(name, Statuses::parse)
    }
}

/// The beginning of foreign text, escaped.
fn shown(text: &str) -> String {
    escape(&text.chars().take(120).collect::<String>()).into_owned()
}

#[cfg(test)]
pub(super) mod tests;
