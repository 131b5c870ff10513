//! Monitoring: the metrics of real runs, checked by promtool, served by a real node_exporter, scraped and
//! alerted on by a real Prometheus.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::address::own_address;
use crate::script::{ok, silent, status};
use crate::scripted::Scripted;
use crate::skip::skip_unless_ci;
use crate::systemd::{Systemd, recovery};
use crate::test_env::{TestEnv, healthy, unhealthy};
use crate::wait::wait_until;

/// How long a tool may take to start, or to notice a change; it scrapes once a second.
const LIMIT: Duration = Duration::from_secs(30);

fn rules() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/prometheus")
}

/// A finished run of promtool; `None` if it is not installed.
fn promtool(args: &[&str], stdin: Stdio) -> Option<Output> {
    Command::new("promtool")
        .args(args)
        .current_dir(rules())
        .stdin(stdin)
        .output()
        .inspect_err(|error| skip_unless_ci(&format!("no promtool: {error}")))
        .ok()
}

/// A tool that listens; ended on drop.
struct Daemon {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl Daemon {
    /// Starts the tool and waits until it serves `path`; `None` if it is not installed.
    fn start(dir: &Path, program: &str, args: &[&str], path: &str) -> Option<Self> {
        let log = dir.join(format!("{program}.log"));
        let address = own_address().unwrap();
        let file = File::create(&log).unwrap();
        let child = Command::new(program)
            .args(args)
            .arg(format!("--web.listen-address={address}"))
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .inspect_err(|error| skip_unless_ci(&format!("no {program}: {error}")))
            .ok()?;
        let mut daemon = Self {
            child,
            address,
            log,
        };
        let mut over = false;
        let up = wait_until(LIMIT, || {
            over = !matches!(daemon.child.try_wait(), Ok(None));
            over || daemon.get(path).is_ok()
        });
        assert!(up && !over, "{program} does not come up: {}", daemon.log());
        Some(daemon)
    }

    /// The body of a 200 answer. With HTTP/1.0, it is not chunked and ends with the connection.
    fn get(&self, path: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
        let answer = io::read_to_string(stream)?;
        match answer.split_once("\r\n\r\n") {
            Some((head, body)) if head.split(' ').nth(1) == Some("200") => Ok(body.to_owned()),
            _ => Err(io::Error::other(answer)),
        }
    }

    /// What Prometheus answers to this query: the value of each series, in order.
    fn query(&self, query: &str) -> Vec<String> {
        let path = format!("/api/v1/query?query={query}");
        let answer: Value = serde_json::from_str(&self.get(&path).unwrap()).unwrap();
        assert_eq!(answer["status"], "success", "{answer}");
        let series = answer["data"]["result"].as_array().unwrap();
        let values = series.iter().map(|one| one["value"][1].as_str());
        values.map(|value| value.unwrap().to_owned()).collect()
    }

    #[track_caller]
    fn wait_for(&self, query: &str, value: &str) {
        let reached = wait_until(LIMIT, || self.query(query) == [value]);
        let last = self.query(query);
        assert!(
            reached,
            "{query} stays {last:?}, not {value}: {}",
            self.log()
        );
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _over = self.child.kill();
        let _over = self.child.wait();
    }
}

#[test]
fn promtool_accepts_the_metrics() {
    if promtool(&["--version"], Stdio::null()).is_none() {
        return;
    }
    let hung = TestEnv::new().core("/up", silent()).aux("/page", ok());
    let odd = r#"/a"b\c?x={y}&ž=1"#;
    let odd = TestEnv::new().core("/up", status(429)).aux(odd, ok());
    for test_env in [healthy(), unhealthy(), hung, odd] {
        let run = test_env.run(["--metrics", "out.prom"]);
        let file = test_env.dir().join("out.prom");
        let file = File::open(file).unwrap();
        let output = promtool(&["check", "metrics"], file.into()).unwrap();
        let silent = output.stdout.is_empty() && output.stderr.is_empty();
        assert!(output.status.success() && silent, "{output:?}\n{run:?}");
    }
}

#[test]
fn the_alert_rules_pass_their_tests() {
    let args = ["test", "rules", "scidex-route-health.test.yml"];
    let Some(output) = promtool(&args, Stdio::null()) else {
        return;
    };
    assert!(output.status.success(), "{output:?}");
}

/// A node_exporter that serves the `*.prom` files in a folder, and a Prometheus that scrapes it and
/// evaluates the rules, both every second; `None` if one of them is not installed.
struct Monitoring {
    prometheus: Daemon,
    exporter: Daemon,
    dir: TempDir,
}

impl Monitoring {
    fn start() -> Option<Self> {
        let dir = TempDir::new().unwrap();
        fs::create_dir(dir.path().join("textfiles")).unwrap();
        let args = [
            "--collector.disable-defaults",
            "--collector.textfile",
            "--collector.textfile.directory=textfiles",
        ];
        let exporter = Daemon::start(dir.path(), "prometheus-node-exporter", &args, "/metrics")?;
        let config = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\n\
             rule_files: [{:?}]\n\
             scrape_configs:\n\
             - {{ job_name: node, static_configs: [{{ targets: [\"{}\"] }}] }}\n",
            rules().join("scidex-route-health.rules.yml"),
            exporter.address
        );
        fs::write(dir.path().join("prometheus.yml"), config).unwrap();
        let args = ["--config.file=prometheus.yml", "--storage.tsdb.path=tsdb"];
        let prometheus = Daemon::start(dir.path(), "prometheus", &args, "/-/ready")?;
        Some(Self {
            prometheus,
            exporter,
            dir,
        })
    }

    fn file(&self, name: &str) -> String {
        let path = self.dir.path().join("textfiles").join(name);
        path.to_str().unwrap().to_owned()
    }

    /// What node_exporter serves, without a complaint about the files.
    fn served(&self) -> String {
        let served = self.exporter.get("/metrics").unwrap();
        assert!(
            served.contains("\nnode_textfile_scrape_error 0\n"),
            "{served}"
        );
        let log = self.exporter.log();
        assert!(
            !log.contains("level=error") && !log.contains("level=ERROR"),
            "{log}"
        );
        served
    }

    fn wait_for_alert(&self, name: &str, labels: &str) {
        let query = format!("ALERTS{{alertname=\"{name}\",alertstate=\"firing\",{labels}}}");
        self.prometheus.wait_for(&query, "1");
    }
}

#[test]
fn a_real_prometheus_scrapes_a_real_node_exporter_and_alerts() {
    let Some(monitoring) = Monitoring::start() else {
        return;
    };
    let metrics = monitoring.file("scidex-route-health.prom");
    let healthy = healthy().top("name", "api");
    healthy.run(["--metrics", &metrics]).exits(0);
    let series = "\nscidex_route_health_healthy{backend=\"api\",run=\"all\"} 1\n";
    let served = monitoring.served();
    assert!(served.contains(series), "{served}");
    let prometheus = &monitoring.prometheus;
    prometheus.wait_for("scidex_route_health_healthy", "1");
    prometheus.wait_for("sum(scidex_route_health_routes)", "2");
    prometheus.wait_for("sum(scidex_route_health_route_up{core=\"true\"})", "1");
    prometheus.wait_for(
        "time()-scidex_route_health_last_run_timestamp_seconds<bool(60)",
        "1",
    );
    assert_eq!(prometheus.query("ALERTS"), [""; 0]);

    let unhealthy = unhealthy().top("name", "api");
    unhealthy.run(["--metrics", &metrics]).exits(1);
    prometheus.wait_for("scidex_route_health_healthy", "0");
    prometheus.wait_for("scidex_route_health_route_up{path=\"/page\"}", "0");
    monitoring.wait_for_alert("ScidexBackendUnhealthy", "backend=\"api\",run=\"all\"");
}

#[test]
fn a_kill_by_the_core_timer_raises_an_alert_beside_the_file_of_the_other_timer() {
    let (Some(systemd), Some(monitoring)) = (Systemd::start(), Monitoring::start()) else {
        return;
    };
    let settings = "Restart=always\nRestartSec=100ms";
    let backend = Scripted::healthy(&systemd, "monitored.service", settings);
    let test_env = TestEnv::new()
        .at(backend.url())
        .beside(&systemd)
        .default("timeout_seconds", 1.5)
        .core("/up", ok())
        .aux("/page", ok())
        .top("recovery", recovery(&backend.unit, json!({})));
    let (all, core) = (monitoring.file("all.prom"), monitoring.file("core.prom"));
    test_env.run(["--metrics", &all]).exits(0);
    test_env.run(["--core", "--metrics", &core]).exits(0);
    // A second backend.
    let web = healthy().top("name", "web");
    web.run(["--metrics", &monitoring.file("web.prom")])
        .exits(0);
    monitoring.served();
    let prometheus = &monitoring.prometheus;
    prometheus.wait_for("count(scidex_route_health_healthy==1)", "3");
    assert_eq!(prometheus.query("ALERTS"), [""; 0]);

    backend.freeze();
    let run = test_env.run(["--core", "--metrics", &core]);
    run.exits(1).outcome("recovered");
    monitoring.served();
    let labels = "backend=\"monitored\",run=\"core\"";
    monitoring.wait_for_alert("ScidexBackendRecovered", labels);
    monitoring.wait_for_alert("ScidexBackendHung", labels);

    // The next run overwrites the outcome. The alert stays.
    test_env.run(["--core", "--metrics", &core]).exits(0);
    prometheus.wait_for("count(scidex_route_health_healthy==1)", "3");
    let hung = "count(ALERTS{alertname=\"ScidexBackendHung\"})";
    assert!(wait_until(LIMIT, || prometheus.query(hung).is_empty()));
    monitoring.wait_for_alert("ScidexBackendRecovered", labels);
}
