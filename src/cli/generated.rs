//! Checks that the man page and the completions match the command line.
//! `UPDATE_GENERATED=1` regenerates them.

use std::fs;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::{Shell, generate};
use clap_mangen::Man;

use super::{Cli, EXIT_STATUS};

const NAME: &str = "scidex-route-health";

/// The sections of the man page after the options and the exit status.
const MORE: &str = r#".SH FILES
.TP
.I routes.json
The manifest. The current directory is searched first; only a regular file counts there. If other users can write the
manifest, a run as root or with CAP_KILL loads it only if
.B \-\-manifest
names it. Even then, the run kills nothing.
.TP
.I /etc/scidex\-route\-health/routes.json
The manifest, if the current directory contains none.
.SH ENVIRONMENT
.TP
.BR NO_COLOR ", " CLICOLOR=0 ", " CLICOLOR_FORCE
Turn colour off, or on even if standard output is not a terminal.
.B \-\-color
takes precedence.
.TP
.BR SSL_CERT_FILE ", " SSL_CERT_DIR
The root certificates to use instead of the system's.
.TP
.B GITHUB_ACTIONS
If this is
.IR true ,
the human report also contains annotations for GitHub Actions.
.TP
.B CREDENTIALS_DIRECTORY
Where systemd keeps the credentials of
.BR LoadCredential= .
.PP
A manifest can also use variables in header values and body checks. One that is not set is read from the file of its name in
.IR $CREDENTIALS_DIRECTORY .
The program uses proxy variables only if the manifest's key
.I proxy
is
.IR env .
.SH SIGNALS
SIGINT and SIGTERM end the program at once, without a report.
.SH SEE ALSO
.BR systemctl (1),
.BR systemd.service (5),
.BR journalctl (1)
"#;

fn assert_generated(path: &str, expected: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("contrib")
        .join(path);
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        fs::write(&path, expected).unwrap();
    }
    assert!(
        fs::read(&path).unwrap_or_default() == expected,
        "{path:?} is out of date; run UPDATE_GENERATED=1 cargo test generated"
    );
}

#[test]
fn the_man_page_describes_this_command_line() {
    let man = Man::new(Cli::command())
        .source(concat!("scidex-route-health ", env!("CARGO_PKG_VERSION")))
        .manual("System Administration");
    let mut page = vec![];
    man.render_title(&mut page).unwrap();
    man.render_name_section(&mut page).unwrap();
    man.render_synopsis_section(&mut page).unwrap();
    man.render_description_section(&mut page).unwrap();
    man.render_options_section(&mut page).unwrap();
    page.extend(b".SH \"EXIT STATUS\"\n");
    for line in EXIT_STATUS.lines().skip(1) {
        let (code, meaning) = line.trim().split_once("  ").unwrap();
        page.extend(format!(".TP\n.B {code}\n{meaning}\n").into_bytes());
    }
    page.extend(MORE.as_bytes());
    assert_generated("man/scidex-route-health.1", &page);
}

#[test]
fn the_completions_complete_this_command_line() {
    for (shell, path) in [
        (Shell::Bash, "completions/scidex-route-health.bash"),
        (Shell::Zsh, "completions/_scidex-route-health"),
        (Shell::Fish, "completions/scidex-route-health.fish"),
    ] {
        let mut script = vec![];
        generate(shell, &mut Cli::command(), NAME, &mut script);
        assert_generated(path, &script);
    }
}
