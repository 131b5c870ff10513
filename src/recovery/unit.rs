//! What systemd says about a unit, made typed. Pure: it sees only the text that `systemctl show`
//! printed, and has no opinion on it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::restart::{Restart, Statuses};
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
        self.parsed(name, Statuses::parse)
    }
}

/// The beginning of foreign text, fit to be shown.
fn shown(text: &str) -> String {
    escape(&text.chars().take(120).collect::<String>()).into_owned()
}

#[cfg(test)]
pub(super) mod tests;
