//! The binary: the pipeline on one screen.

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use scidex_route_health::cli::Cli;
use scidex_route_health::manifest::{LoadOptions, Manifest, Variables};
use scidex_route_health::recovery::{self, Case, Permission, warnings};
use scidex_route_health::report::{self, Outputs, Progress, Report};
use scidex_route_health::status::Status;
use scidex_route_health::stderr::{Level, announce, say};
use scidex_route_health::sweep::{self, Prober, Wait};

/// How much longer than for the sweep a run waits for what systemd says of the units.
const PATIENCE: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let cli = match Cli::from_arguments(std::env::args_os()) {
        Ok(cli) => cli,
        Err(status) => return status.into(),
    };
    run(&cli)
        .unwrap_or_else(|error| {
            say(Level::Failure, &format!("{error:#}"));
            Status::Unusable
        })
        .into()
}

fn run(cli: &Cli) -> anyhow::Result<Status> {
    let (started_at, started) = (SystemTime::now(), Instant::now());
    let manifest = load(cli)?;
    if cli.validate {
        return Ok(Status::of(true, report::write_summary(&manifest)));
    }
    let outputs = Outputs::prepare(cli)?;
    let prober = Prober::new(&manifest)?;
    let permission = permission(cli);

    if permission == Permission::Rehearse
        && let Some(line) = report::dry_run(&manifest)
    {
        announce(Level::Info, &line);
    }
    let may_recover = !matches!(permission, Permission::Forbidden(_));
    let watch = may_recover.then(|| warnings::start(&manifest, prober.lookup()));

    let progress = Progress::new(manifest.routes.len());
    let mut sweeps = 0;
    let wait = Wait {
        limit: cli.wait,
        ends_at_hang: may_recover && manifest.recovery.is_some(),
    };
    let (sweep, verdict) = sweep::until_healthy(
        &prober,
        wait,
        &|done, total| progress.tell(done, total),
        &mut |sweep, verdict, left| {
            sweeps += 1;
            let line = report::unhealthy_sweep(sweeps, &manifest, &sweep.outcomes, verdict, left);
            progress.clear();
            announce(Level::Soft, &line);
        },
    );
    drop(progress);

    let case = Case {
        manifest: &manifest,
        verdict: &verdict,
        sweep_began: sweep.began,
        say: &|line| announce(Level::Info, line),
    };
    let recovery = recovery::attempt(&case, permission, &prober);
    let warnings = watch.map_or_else(Vec::new, |watch| watch.finish(PATIENCE));
    let report = Report {
        started_at,
        elapsed: started.elapsed(),
        manifest: &manifest,
        outcomes: sweep.outcomes,
        verdict,
        recovery,
        warnings,
    };
    let written = report::write_all(&report, outputs);
    Ok(Status::of(report.verdict.healthy, written))
}

fn load(cli: &Cli) -> anyhow::Result<Manifest> {
    let environment = |name: &str| std::env::var_os(name);
    let variables = match cli.validate {
        true => Variables::MayBeMissing,
        false => Variables::Required(&environment),
    };
    let options = LoadOptions {
        base_url: cli.base_url.clone(),
        variables,
    };
    let mut manifest = Manifest::load(cli.manifest.as_deref(), &options)?;
    if cli.core {
        manifest.routes.retain(|route| route.core);
    }
    Ok(manifest)
}

/// What the command line allows in a recovery.
fn permission(cli: &Cli) -> Permission {
    if cli.no_recover {
        Permission::Forbidden("--no-recover was given")
    } else if cli.base_url.is_some() {
        Permission::Forbidden(
            "--base-url was given, and the manifest's unit belongs to the manifest's own URL",
        )
    } else if cli.dry_run {
        Permission::Rehearse
    } else {
        Permission::Act
    }
}
