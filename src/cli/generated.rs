//! Holds the man page and the shells' completions to the command line that they describe.
//! `UPDATE_GENERATED=1` writes them anew.

use std::fs;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::{Shell, generate};
use clap_mangen::Man;

use super::{Cli, EXIT_STATUS};

const NAME: &str = "scidex-route-health";

/// What follows the options in the man page, but for the exit status.
const MORE: &str = r#".SH FILES
.TP
.I routes.json
The manifest, looked for in the current directory first. A run as root or with CAP_KILL takes a file that
others may write only where
.B \-\-manifest
names it.
.TP
.I /etc/scidex\-route\-health/routes.json
The manifest otherwise.
.SH ENVIRONMENT
.TP
.BR NO_COLOR ", " CLICOLOR_FORCE
No colour, or colour also where standard output is no terminal, unless
.B \-\-color
says otherwise.
.TP
.BR SSL_CERT_FILE ", " SSL_CERT_DIR
The certificates to trust instead of the system's.
.TP
.B GITHUB_ACTIONS
Where it is
.IR true ,
the human report also has annotations for GitHub Actions.
.PP
A manifest may take header values and expected bodies from further variables, and proxies where its
.I proxy
key says so.
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
