//! One unit as `systemctl show` printed it. Pure.

use std::collections::BTreeMap;
use std::mem;
use std::time::Duration;

use super::super::cgroup::ControlGroup;
use super::properties::UNITS;
use crate::clock::Monotonic;
use crate::escape::escape;

/// A property, or the message that says why it cannot be known.
pub(crate) type Property<T> = Result<T, String>;

/// The one property, besides commands, that systemd prints in several lines.
const REPEATED: &str = "Listen";

/// One unit at one moment: its properties as printed. A missing or invalid property affects only the decisions
/// that need it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unit {
    properties: BTreeMap<String, Vec<String>>,
}

impl Unit {
    /// Reads what `systemctl show` printed: `Key=value` lines for exactly one unit. Errors are messages.
    pub(crate) fn parse(printed: &[u8]) -> Result<Self, String> {
        let unit: Result<[Self; 1], _> = blocks(printed)?.try_into();
        unit.map(|[unit]| unit)
            .map_err(|_| "systemctl printed more than one unit".to_owned())
    }

    /// As [`Self::parse`], for several units, each of which says which one it is.
    pub(crate) fn parse_all(printed: &[u8]) -> Result<Vec<Self>, String> {
        let units = blocks(printed)?;
        for unit in &units {
            unit.text("Id")?;
        }
        Ok(units)
    }

    /// `Id=`: the name of the unit, where the asked one is an alias.
    pub(crate) fn id(&self) -> Option<&str> {
        self.value("Id").filter(|id| !id.is_empty())
    }

    /// The main process, 0 if there is none.
    pub(crate) fn main_pid(&self) -> Property<u32> {
        self.parsed("MainPID", |text| text.parse().ok())
    }

    /// The control group, which is never the root one.
    pub(crate) fn control_group(&self) -> Property<ControlGroup> {
        let unit = || escape(self.id().unwrap_or("the unit"));
        match self.value("ControlGroup") {
            Some("") => Err(format!("{} has no control group: it does not run", unit())),
            Some("/") => Err(format!(
                "{} runs in the root control group, so its processes cannot be told from all others: its service manager has no control group of its own",
                unit()
            )),
            _ => self.parsed("ControlGroup", ControlGroup::parse),
        }
    }

    /// `InvocationID=`, which changes with every start.
    pub(crate) fn invocation(&self) -> Property<&str> {
        self.parsed("InvocationID", |text| {
            let whole = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            whole.then_some(text)
        })
    }

    /// The number of the queued job, where there is one.
    pub(crate) fn job(&self) -> Property<Option<&str>> {
        let job = self.parsed("Job", Some)?;
        Ok(Some(job).filter(|job| !matches!(*job, "" | "0")))
    }

    /// The units of a kind, `.socket` or `.timer`, that trigger the unit.
    pub(crate) fn triggered_by(&self, kind: &'static str) -> impl Iterator<Item = &str> {
        self.list("TriggeredBy")
            .filter(move |name| name.ends_with(kind))
    }

    /// The addresses and paths of a `.socket`, as in `Listen=[::]:8000 (Stream)`, but without the kind.
    pub(crate) fn listens(&self) -> Vec<&str> {
        let address = |line| str::rsplit_once(line, " (").map_or(line, |(address, _)| address);
        let lines = self.values(REPEATED).iter();
        lines.map(|line| address(line)).collect()
    }

    /// The words of a list; none where systemd does not print it.
    pub(super) fn list(&self, name: &str) -> impl Iterator<Item = &str> {
        self.value(name).unwrap_or_default().split_whitespace()
    }

    /// A property that must have a value.
    pub(crate) fn text(&self, name: &str) -> Property<&str> {
        self.parsed(name, |text| (!text.is_empty()).then_some(text))
    }

    /// `yes` or `no`.
    pub(crate) fn flag(&self, name: &str) -> Property<bool> {
        self.parsed(name, yes_or_no)
    }

    /// A span of time; `infinity` is the longest `Duration`.
    pub(crate) fn span(&self, name: &str) -> Property<Duration> {
        self.parsed(name, span)
    }

    /// A point in time; `0` is none.
    pub(crate) fn moment(&self, name: &str) -> Property<Monotonic> {
        self.parsed(name, |text| {
            let micros = text.parse().ok().filter(|&micros| micros > 0)?;
            Some(Monotonic::from_micros(micros))
        })
    }

    /// A property, read by `parse`, which returns none for a value that is not valid.
    pub(super) fn parsed<'a, T>(
        &'a self,
        name: &str,
        parse: impl FnOnce(&'a str) -> Option<T>,
    ) -> Property<T> {
        let value = self.value(name);
        let value = value.ok_or_else(|| format!("systemctl did not report {name}="))?;
        parse(value)
            .ok_or_else(|| format!("systemctl reported an invalid {name}=\"{}\"", shown(value)))
    }

    /// A property that means `default` if it is missing: a systemd that knows it prints it, and one that does
    /// not behaves as `default` says.
    pub(super) fn parsed_or<'a, T>(
        &'a self,
        name: &str,
        default: T,
        parse: impl FnOnce(&'a str) -> Option<T>,
    ) -> Property<T> {
        self.value(name)
            .map_or(Ok(default), |_| self.parsed(name, parse))
    }

    /// Whether the property is there and not empty.
    pub(super) fn is_set(&self, name: &str) -> bool {
        self.value(name).is_some_and(|value| !value.is_empty())
    }

    /// The property as printed; the first line of several.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.values(name).first().map(String::as_str)
    }

    /// All lines of the property; one for each command.
    pub(super) fn values(&self, name: &str) -> &[String] {
        self.properties.get(name).map_or(&[], Vec::as_slice)
    }
}

/// `Key=value` lines, one block for each unit, with an empty line between two.
fn blocks(printed: &[u8]) -> Result<Vec<Unit>, String> {
    let text = std::str::from_utf8(printed)
        .map_err(|_| "systemctl printed garbage: it is not UTF-8".to_owned())?;
    let mut units = Vec::new();
    let mut unit = Unit::default();
    let mut lines = text.trim_end_matches('\n').split('\n');
    while let Some(line) = lines.next() {
        if line.is_empty() {
            if unit.properties.is_empty() {
                return Err("systemctl printed nothing".to_owned());
            }
            units.push(mem::take(&mut unit));
            continue;
        }
        let garbage = || format!("systemctl printed garbage: \"{}\"", shown(line));
        let (key, value) = line.split_once('=').ok_or_else(garbage)?;
        let is_command = key.starts_with("Exec") && value.starts_with("{ ");
        // Another line that ends a command belongs to one whose arguments looked like its end before.
        if line.contains('\0') || !is_command && ignores_failure(line).is_some() {
            return Err(garbage());
        }
        let mut value = value.to_owned();
        if is_command {
            // The arguments may contain newlines, and the text after one may look like another property. If the
            // text before even looks like the end of the command, that property appears twice.
            while ignores_failure(&value).is_none() {
                let more = lines.next().ok_or_else(|| {
                    format!("systemctl printed garbage: {}= without an end", shown(key))
                })?;
                value.push('\n');
                value.push_str(more);
            }
        } else if UNITS.contains(&key) {
            value = value.replace('"', "").replace(r"\\", r"\");
        }
        let values = unit.properties.entry(key.to_owned()).or_default();
        if !values.is_empty() && !is_command && key != REPEATED {
            return Err(format!("systemctl printed {}= twice", shown(key)));
        }
        values.push(value);
    }
    units.push(unit);
    Ok(units)
}

/// Whether the failure of a command is ignored, if its last line ends as systemctl prints it:
/// `{ path=… ; argv[]=… ; ignore_errors=no ; start_time=[…] ; … }`. The arguments may contain anything, so
/// the last occurrence counts as systemd's own.
pub(super) fn ignores_failure(command: &str) -> Option<bool> {
    let line = command.rsplit('\n').next()?;
    let (_, words) = line.strip_suffix(" }")?.rsplit_once(" ; ignore_errors=")?;
    let (ignores, _) = words.split_once(" ; start_time=[")?;
    yes_or_no(ignores)
}

pub(super) fn yes_or_no(text: &str) -> Option<bool> {
    match text {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

/// A span of time such as `1min 30s`, `1.500000s` or `infinity`, the longest `Duration`. humantime's month is 216 s
/// longer than systemd's; of spans that long only the start limit matters, which then counts for that much longer.
pub(super) fn span(text: &str) -> Option<Duration> {
    if text == "infinity" {
        return Some(Duration::MAX);
    }
    humantime::parse_duration(text).ok()
}

/// The beginning of foreign text, escaped.
fn shown(text: &str) -> String {
    escape(&text.chars().take(120).collect::<String>()).into_owned()
}

#[cfg(test)]
mod tests;
