//! The command line, parsed into our own types. This module does not decide what an option means.

#[cfg(test)]
mod generated;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use clap::ColorChoice as Color;
use clap::builder::{OsStringValueParser, StyledStr, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind as Kind};
use clap::{CommandFactory, Parser, ValueEnum};

use crate::cause::Severity;
use crate::escape::escape;
use crate::manifest::{BaseUrl, LONGEST_DEADLINE};
use crate::status::Status;
use crate::stderr::{is_journal, log, stdout_is_written};

const EXIT_STATUS: &str = "\
Exit status:
  0  every core route is OK or rate-limited, and no route gave an HTTP error
  1  the backend is unhealthy, even if this run recovered it
  2  the check itself failed: arguments, manifest, or a report that could not be written";

/// Probe the routes of a web backend and, when its core routes prove that it hangs, kill its main
/// process so that systemd restarts it.
#[derive(Clone, Debug, Parser)]
#[command(name = "scidex-route-health", version, after_help = EXIT_STATUS)]
pub struct Cli {
    /// Route manifest, `-` for standard input [default: routes.json, else
    /// /etc/scidex-route-health/routes.json]
    #[arg(short, long, value_name = "FILE")]
    pub manifest: Option<PathBuf>,

    /// Probe this address instead of the manifest's; turns recovery off
    #[arg(long, value_name = "URL")]
    pub base_url: Option<BaseUrl>,

    /// Probe and report only: do not run systemctl or send signals
    #[arg(long, conflicts_with = "dry_run")]
    pub no_recover: bool,

    /// Show what would be killed, but send no signal
    #[arg(long)]
    pub dry_run: bool,

    /// Probe and report the core routes only
    #[arg(long)]
    pub core: bool,

    /// Repeat the sweep until it is healthy or SECONDS have passed
    #[arg(
        long,
        value_name = "SECONDS",
        default_value = "0",
        hide_default_value = true,
        allow_negative_numbers = true,
        value_parser = seconds
    )]
    pub wait: Duration,

    /// Format of the report on standard output
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,

    /// Also write a JUnit XML report
    #[arg(long, value_name = "FILE", value_parser = OsStringValueParser::new().try_map(report_file))]
    pub junit: Option<PathBuf>,

    /// Also write Prometheus metrics, for node_exporter's textfile collector
    #[arg(long, value_name = "FILE", value_parser = OsStringValueParser::new().try_map(report_file))]
    pub metrics: Option<PathBuf>,

    /// Check the manifest and print a summary, but probe nothing
    #[arg(long, conflicts_with_all = ["junit", "metrics", "wait", "core"])]
    pub validate: bool,

    /// Print nothing if healthy, otherwise only what is not OK (human format)
    #[arg(short, long)]
    pub quiet: bool,

    /// When to use colour, never in the journal; `auto` honours NO_COLOR and CLICOLOR_FORCE
    #[arg(long, value_enum, value_name = "WHEN", default_value_t)]
    pub color: Color,
}

/// Format of the report on standard output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Text for people.
    #[default]
    Human,
    /// One JSON object.
    Json,
}

impl Cli {
    fn parse_arguments(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let parsed = Self::try_parse_from(arguments);
        let cli = parsed.map_err(|error| with_hint(without_user_info(error)))?;
        if cli.validate && cli.format == Format::Json {
            let message = "the argument '--validate' cannot be used with '--format json'";
            return Err(Self::command().error(Kind::ArgumentConflict, message));
        }
        Ok(cli)
    }

    /// Parses the program's name and its arguments.
    ///
    /// # Errors
    ///
    /// The exit status, after everything has been printed: the arguments ask for help or the version,
    /// or are invalid.
    pub fn from_arguments(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, Status> {
        Self::parse_arguments(arguments).map_err(|answer| {
            if answer.use_stderr() {
                // clap does not know the journal's prefixes.
                if is_journal(&io::stderr()) {
                    log(Severity::Hard, answer.render().to_string().trim_end());
                } else {
                    // A closed stderr cannot be reported anywhere.
                    let _ = answer.print();
                }
                return Status::Unusable;
            }
            Status::of(true, stdout_is_written(answer.print()))
        })
    }
}

/// What to write instead of an argument that does not exist: its beginning, and the advice.
const HINTS: [(&str, &str); 6] = [
    ("--json", "to print JSON, use '--format json'"),
    ("--timeout", "set \"timeout_seconds\" in the manifest"),
    ("--retries", "set \"retries\" in the manifest"),
    ("--config", "to name the manifest, use '--manifest FILE'"),
    ("--url", "to probe another address, use '--base-url URL'"),
    ("--check", "to check the manifest alone, use '--validate'"),
];

/// Adds advice to an error about an argument that does not exist.
fn with_hint(mut error: clap::Error) -> clap::Error {
    let Some(ContextValue::String(typed)) = error.get(ContextKind::InvalidArg) else {
        return error;
    };
    let hint = match HINTS.iter().find(|(start, _)| typed.starts_with(start)) {
        _ if error.kind() != Kind::UnknownArgument => return error,
        Some((_, hint)) => (*hint).to_owned(),
        None if Path::new(typed).extension() == Some("json".as_ref()) => {
            format!("to name the manifest, use '--manifest {}'", escape(typed))
        }
        None => return error,
    };
    // In the place of an option that is only spelled alike.
    error.remove(ContextKind::SuggestedArg);
    let hint = ContextValue::StyledStrs(vec![StyledStr::from(hint)]);
    error.insert(ContextKind::Suggested, hint);
    error
}

/// Hides arguments that may contain a password: clap shows invalid arguments.
fn without_user_info(mut error: clap::Error) -> clap::Error {
    for kind in [ContextKind::InvalidArg, ContextKind::InvalidValue] {
        let typed = error.get(kind).map(ToString::to_string);
        if typed.is_some_and(|typed| typed.contains('@')) {
            error.insert(kind, ContextValue::String("…@…".to_owned()));
        }
    }
    error
}

/// Parses a number of seconds, which may be fractional.
fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.parse().ok();
    let wait = number.and_then(|number| Duration::try_from_secs_f64(number).ok());
    let longest = LONGEST_DEADLINE.as_secs();
    wait.filter(|wait| *wait <= LONGEST_DEADLINE)
        .ok_or_else(|| format!("give seconds from 0 to {longest}, such as 30 or 0.5"))
}

/// Parses the path of a report. `-` is refused: in other programs it means standard output, and a
/// file of that name is rarely intended.
fn report_file(text: OsString) -> Result<PathBuf, &'static str> {
    match text.to_str() {
        Some("-") => Err("give /dev/stdout for standard output, ./- for a file of that name"),
        _ => Ok(text.into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Cli, String> {
        let arguments = ["scidex-route-health"].iter().chain(arguments);
        let arguments = arguments.map(OsString::from);
        Cli::parse_arguments(arguments).map_err(|error| error.to_string())
    }

    #[test]
    fn a_password_in_an_address_is_not_shown() {
        for url in [
            "http://me:secret@h",
            "http://me:sec/secret@h",
            "me:secret@h",
        ] {
            let error = parse(&["--base-url", url]).unwrap_err();
            assert!(
                error.contains("--base-url") && !error.contains("secret"),
                "{error}"
            );
        }
        for arguments in [
            &["http://me:secret@h"] as &[_],
            &["--quiet=http://me:secret@h"],
            &["--base-ulr=http://me:secret@h"],
            &["--http://me:secret@h"],
            &["-http://me:secret@h"],
            &["--format", "http://me:secret@h"],
            &["--wait", "http://me:secret@h"],
            &["--base-url", "http://h", "--base-url", "http://me:secret@h"],
            &["--base-url", "http://h", "http://me:secret@h"],
        ] {
            let error = parse(arguments).unwrap_err();
            assert!(!error.contains("secret"), "{arguments:?}: {error}");
        }
        let error = parse(&["stray"]).unwrap_err();
        assert!(error.contains("'stray'"), "{error}");
        let error = parse(&["--base-url", "h:8000"]).unwrap_err();
        assert!(error.contains("'h:8000'"), "{error}");
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn without_arguments_every_option_has_its_default() {
        let cli = parse(&[]).unwrap();
        assert_eq!(cli.manifest, None);
        assert_eq!(cli.wait, Duration::ZERO);
        assert_eq!((cli.format, cli.color), (Format::Human, Color::Auto));
        assert!(!(cli.no_recover || cli.dry_run || cli.validate || cli.quiet));
    }

    #[test]
    fn wait_takes_fractions_up_to_a_day() {
        let wait = |text| parse(&["--wait", text]).map(|cli| cli.wait);
        assert_eq!(wait("0.25"), Ok(Duration::from_millis(250)));
        assert_eq!(wait("86400"), Ok(Duration::from_secs(86_400)));
        for bad in ["-1", "86401", "1e300", "inf", "nan", "soon", ""] {
            let error = wait(bad).unwrap_err();
            assert!(
                error.contains("give seconds from 0 to 86400"),
                "{bad}: {error}"
            );
        }
    }

    #[test]
    fn dry_run_and_no_recover_exclude_each_other() {
        assert!(parse(&["--dry-run"]).unwrap().dry_run);
        let error = parse(&["--dry-run", "--no-recover"]).unwrap_err();
        assert!(error.contains("cannot be used with"), "{error}");
    }

    #[test]
    fn validate_excludes_what_has_no_effect_with_it() {
        assert!(parse(&["--validate", "--format", "human", "-m", "a.json"]).is_ok());
        for more in [
            &["--format", "json"] as &[_],
            &["--junit", "a"],
            &["--metrics", "a"],
            &["--wait", "0"],
            &["--core"],
        ] {
            let error = parse(&[&["--validate"], more].concat()).unwrap_err();
            assert!(error.contains("cannot be used with"), "{more:?}: {error}");
            assert!(error.contains(more[0]), "{more:?}: {error}");
        }
        assert!(parse(&["--core", "--wait", "1", "--format", "json"]).is_ok());
    }

    #[test]
    fn an_argument_that_other_programs_have_is_answered_with_ours() {
        for (typed, hint) in [
            ("--json", "tip: to print JSON, use '--format json'"),
            ("--json=x", "'--format json'"),
            ("--timeout", "tip: set \"timeout_seconds\" in the manifest"),
            ("--timeout=3", "\"timeout_seconds\""),
            ("--config", "'--manifest FILE'"),
            ("--url", "'--base-url URL'"),
            (
                "routes.json",
                "tip: to name the manifest, use '--manifest routes.json'",
            ),
            ("/etc/\u{1b}.json", "'--manifest /etc/\\u{1b}.json'"),
            ("--manifst", "a similar argument exists: '--manifest'"),
        ] {
            let error = parse(&[typed]).unwrap_err();
            assert!(error.contains(hint), "{typed}: {error}");
            assert_eq!(error.matches("tip: ").count(), 1, "{error}");
        }
        let error = parse(&["http://me:secret@h.json"]).unwrap_err();
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn a_report_is_never_written_to_a_file_named_dash() {
        let error = parse(&["--junit", "-"]).unwrap_err();
        assert!(error.contains("/dev/stdout"), "{error}");
        assert!(parse(&["--metrics", "./-"]).unwrap().metrics.is_some());
    }
}
