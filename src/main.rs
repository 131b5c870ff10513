//! The binary: runs the pipeline.

use std::time::{Duration, Instant, SystemTime};

use scidex_route_health::cause::Severity;
use scidex_route_health::cli::Cli;
use scidex_route_health::manifest::{Manifest, Variables};
use scidex_route_health::recovery::warnings::{self, Findings};
use scidex_route_health::recovery::{self, Permission, QueueWatch, RecoveryRequest};
use scidex_route_health::report::{self, Outputs, Progress, Report};
use scidex_route_health::status::Status;
use scidex_route_health::stderr::{log, log_nonblocking};
use scidex_route_health::sweep::{self, Event, Prober};

/// How much longer than the sweep a run waits for the warnings about the units.
const MAX_WAIT: Duration = Duration::from_secs(1);

fn main() -> Status {
    match Cli::from_arguments(std::env::args_os()) {
        Ok(cli) => run(&cli).unwrap_or_else(|error| {
            log(Severity::Hard, &format!("{error:#}"));
            Status::Unusable
        }),
        Err(status) => status,
    }
}

fn run(cli: &Cli) -> anyhow::Result<Status> {
    let (started_at, started) = (SystemTime::now(), Instant::now());
    let outputs = Outputs::prepare(cli)?;
    let manifest = load(cli)?;
    if cli.validate {
        return Ok(Status::of(true, report::write_summary(&manifest)));
    }
    let permission = permission(cli);
    let may_recover = !matches!(permission, Permission::Forbidden(_));
    let prober = Prober::new(&manifest, may_recover)?;

    if permission == Permission::DryRun
        && let Some(line) = report::dry_run(&manifest)
    {
        log_nonblocking(Severity::Fine, &line);
    }
    let warnings = may_recover.then(|| warnings::start(&manifest, &prober));
    let queues = (may_recover && manifest.recovery.is_some())
        .then(|| QueueWatch::start(&manifest, prober.remotes()).ok())
        .flatten();

    let progress = Progress::new(&manifest);
    let sweep = sweep::until_healthy(&prober, cli.wait, &|event| {
        follow(&event, &manifest, &progress, queues.as_ref());
    });
    drop(progress);

    let request = RecoveryRequest {
        manifest: &manifest,
        sweep: &sweep,
        prober: &prober,
        queues,
        log: &|line| log_nonblocking(Severity::Soft, line),
    };
    let recovery = recovery::attempt(&request, permission);
    let findings = warnings.map_or_else(Findings::default, |warnings| warnings.finish(MAX_WAIT));
    let report = Report {
        started_at,
        elapsed: started.elapsed(),
        manifest: &manifest,
        core_only: cli.core,
        sweep,
        unit: recovery.unit_report.clone().or(findings.unit),
        recovery,
        warnings: findings.warnings,
    };
    let written = report::write_all(&report, cli, outputs);
    Ok(Status::of(report.sweep.verdict.healthy, written))
}

/// Shows the progress of the sweeps, and tells the watch of the queues when to read.
fn follow(event: &Event, manifest: &Manifest, progress: &Progress, queues: Option<&QueueWatch>) {
    match *event {
        Event::SweepBegins => queues.map_or((), QueueWatch::sweep_begins),
        Event::CoreEnds => queues.map_or((), QueueWatch::core_ends),
        Event::Progress(done, total) => progress.update(done, total),
        Event::GraceBegins(grace) => progress.show(&format!(
            "no core route answered; waiting up to {} s for a late answer...",
            grace.as_secs_f64()
        )),
        Event::Unhealthy(number, sweep, left) => {
            let line = report::unhealthy_sweep(number, manifest, sweep, left);
            progress.show("");
            log_nonblocking(Severity::Soft, &line);
        }
    }
}

fn load(cli: &Cli) -> anyhow::Result<Manifest> {
    let variables = if cli.validate {
        Variables::MayBeMissing
    } else {
        Variables::Required(&|name| std::env::var_os(name))
    };
    let file = cli.manifest.as_deref();
    let mut manifest = Manifest::load(file, cli.base_url.as_ref(), variables)?;
    if cli.core {
        manifest.routes.retain(|route| route.core);
    }
    Ok(manifest)
}

fn permission(cli: &Cli) -> Permission {
    if cli.no_recover {
        Permission::Forbidden("--no-recover was given")
    } else if cli.base_url.is_some() {
        Permission::Forbidden(
            "--base-url was given, but recovery.unit belongs to the manifest's own base_url",
        )
    } else if cli.dry_run {
        Permission::DryRun
    } else {
        Permission::Act
    }
}
