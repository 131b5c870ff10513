"""The contestants: each is set up in its usual way, with all time limits at the same scale.

Their configurations are the files in `configs/`. `not_applicable` says why an incident cannot be compared.
"""

import json
import math
import re
import shutil
import subprocess
import time
from pathlib import Path
from string import Template

import servers
from servers import SOCKET

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent.parent
SCRATCH = Path("/mnt/scratch")
BACKEND_LOG = "/run/scidex-api.log"

SCALE = 12


def scaled(seconds):
    """Seconds at the comparison's scale, rounded up: Monit, httpok, gunicorn and uvicorn accept only whole seconds."""
    return math.ceil(seconds / SCALE)


PERIOD = scaled(60)
TIMEOUT = scaled(10)
STOP = scaled(30)
# This program's grace period, and how long every core route must be silent before it kills.
GRACE = scaled(30)
PROOF = 3 * TIMEOUT + 3 * 0.5 / SCALE + GRACE
# A liveness probe's, of which Kubernetes checks three in a row. Its timeout of 1 s is not scaled down as much, so that
# answers of this backend, which is no faster at this scale, are in time.
LIVENESS_PERIOD, LIVENESS_TIMEOUT = 10 / SCALE, 0.25
# gunicorn's default --timeout; a usual WatchdogSec=.
WORKER_TIMEOUT = scaled(30)
# uvicorn's default --timeout-worker-healthcheck is 5 s. Not less than this, because the start of a worker, during
# which it does not answer, is not scaled down.
HEALTHCHECK = 2


def run(*command, check=True, timeout=30):
    result = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout)
    if check and result.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {result.stdout.strip()}")
    return result.stdout


def write(path, text):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)


def config(file, /, **values):
    return Template((HERE / "configs" / file).read_text()).substitute(values)


def backend_unit(name, command, plan, lines=()):
    return config("scidex-api.service", name=name, command=command, stop=STOP, restart=plan.restart, unit_lines=plan.unit_lines, lines="\n".join(lines))


def journal(unit, since, *more):
    """The journal's lines about a unit since a point in time."""
    run("journalctl", "--sync")
    return run("journalctl", "-q", "-o", "cat", "-u", unit, f"--since=@{since:.3f}", *more, check=False)


def texts(*paths):
    return [Path(path).read_text(errors="replace") if Path(path).exists() else "" for path in paths]


class Contestant:
    name = title = ""
    packages = ()  # Debian's
    python_packages = ()
    sid_package = None  # one of Debian sid's
    # Some check only workers, and need two of them.
    least_workers = 1
    healthcheck = 3600
    unit = "scidex-api.service"
    group = "scidex-api.service"
    # Matches log lines that say what it found or did.
    reason = r"."
    min_uptime = 0

    def __init__(self, python):
        self.python = python

    def not_applicable(self, incident):
        """Why there is nothing to compare in this incident, or None."""
        return None

    def server(self, plan):
        return servers.command(self.python, plan, worker_check=self.healthcheck)

    def extra(self, plan):
        """Its own lines of the backend's unit."""
        return ""

    def start_backend(self, plan):
        lines = [self.extra(plan), plan.service_lines, "RuntimeDirectory=scidex-api" if plan.unix_socket else ""]
        text = backend_unit("scidex-api", self.server(plan), plan, lines)
        write("/etc/systemd/system/scidex-api.service", text)
        run("systemctl", "daemon-reload")
        run("systemctl", "start", "scidex-api.service")

    def start(self, plan):
        """Starts the watchdog, unless it is a part of the backend."""

    def operator(self, verb):
        run("systemctl", verb, "scidex-api.service")

    def is_backend(self, command):
        # Nor a command of ExecReload= or ExecStopPost=; systemd's children are "(NAME)" until they call exec.
        return "resource_tracker" not in command and not re.match(r"\(|/bin/kill|/usr/bin/true", command)

    def position(self):
        """Seconds since a period began: periods begin when the contestant starts, unless it follows the clock."""
        return 0

    def watchers(self, processes):
        """The processes of the watchdog."""
        return []

    def logs(self, since):
        """The text of each of its logs."""
        return [""]

    def stop(self):
        """Ends everything at once, whatever its state."""
        units = ["scidex-route-health.timer", "scidex-route-health.service", "monit.service", "supervisor.service",
                 "sequential-watchdog.service", "liveness-probe.service", "scidex-api.service", "old-api.service",
                 "nginx.service", "database.service", "neighbour.service", "rebooted.service", "reboot.target"]
        for unit in units:
            run("systemctl", "kill", "--kill-whom=all", "-s", "KILL", unit, check=False)
        run("systemctl", "stop", *units, check=False)
        run("systemctl", "reset-failed", check=False)
        for path in Path("/etc/systemd/system").iterdir():
            if not path.is_symlink():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for log in Path("/run").glob("*.log"):
            log.unlink()

    def processes_of(self, unit):
        file = Path("/sys/fs/cgroup/system.slice") / unit / "cgroup.procs"
        try:
            return [int(pid) for pid in file.read_text().split()]
        except OSError:
            return []


class Nobody(Contestant):
    name = "nobody"
    title = "nobody (control)"
    reason = r"(?!)"


class ThisProgram(Contestant):
    name = "scidex-route-health"
    title = "scidex-route-health"
    reason = r"unhealthy|but \d+ |recovery:"
    min_uptime = scaled(120)

    def manifest(self, plan):
        """The shipped manifest, with its limits scaled down."""
        shipped = json.loads((CHECKOUT / "routes.json").read_text())
        shipped.pop("$schema")
        for options in (shipped["defaults"], *shipped["routes"]):
            if "timeout_seconds" in options:
                options["timeout_seconds"] = scaled(options["timeout_seconds"])
        shipped["defaults"]["retry_backoff_seconds"] /= SCALE
        shipped["deadline_seconds"] = scaled(shipped["deadline_seconds"])
        shipped["recovery"].update(min_uptime_seconds=self.min_uptime, verify_seconds=scaled(60), grace_seconds=GRACE)
        if plan.tls:
            shipped["base_url"] = "https://localhost:8000"
        if plan.unix_socket:
            shipped["unix_socket"] = SOCKET
        return shipped

    def start(self, plan):
        write("/etc/scidex-route-health/routes.json", json.dumps(self.manifest(plan), indent=2))
        units = Path("/etc/systemd/system")
        for name in ("scidex-route-health.service", "scidex-route-health.timer"):
            shutil.copy(CHECKOUT / name, units / name)
        write(units / "scidex-route-health.service.d/scale.conf", config("scidex-route-health.conf", wait=scaled(30), certificate=servers.CERTIFICATE))
        write(units / "scidex-route-health.timer.d/scale.conf", config("scidex-route-health.timer.conf", period=PERIOD))
        run("systemctl", "daemon-reload")
        run("systemctl", "start", "scidex-route-health.timer")

    def watchers(self, processes):
        return self.processes_of("scidex-route-health.service")

    def logs(self, since):
        return [journal("scidex-route-health.service", since, "_COMM=scidex-route-he")]


class Monit(Contestant):
    name = "monit"
    title = "Monit 5.33"
    packages = ("monit",)
    program = "/usr/bin/monit"
    reason = r"failed|not running|restart|exec|timed out|Connection"

    def start(self, plan):
        place = f"unixsocket {SOCKET}" if plan.unix_socket else "host 127.0.0.1 port 8000"
        protocol = "https" if plan.tls else "http"
        text = config("monitrc", period=PERIOD, pattern="/srv/scidex-api", start=scaled(60), place=place, protocol=protocol, timeout=TIMEOUT)
        write("/etc/monit/monitrc", text)
        Path("/etc/monit/monitrc").chmod(0o600)
        Path("/var/lib/monit").mkdir(parents=True, exist_ok=True)
        for leftover in ("/var/log/monit.log", "/var/lib/monit/state"):
            Path(leftover).unlink(missing_ok=True)
        write("/etc/systemd/system/monit.service", config("monit.service", monit=self.program))
        run("systemctl", "daemon-reload")
        run("systemctl", "start", "monit.service")

    def watchers(self, processes):
        return self.processes_of("monit.service")

    def logs(self, since):
        return texts("/var/log/monit.log")


class Monit6(Monit):
    """Debian sid's, with the libraries that it needs."""

    name = "monit6"
    title = "Monit 6"
    packages = ()
    sid_package = "monit"
    program = f"{SCRATCH}/sid/usr/lib64/ld-linux-x86-64.so.2 --library-path {SCRATCH}/sid/usr/lib/x86_64-linux-gnu {SCRATCH}/sid/usr/bin/monit"


class Supervisord(Contestant):
    name = "supervisord"
    title = "supervisord, superlance's httpok"
    python_packages = ("supervisor", "superlance")
    unit = "supervisor.service"
    group = "supervisor.service"
    reason = r"Restarting|restarted|exited|FATAL|not in RUNNING"

    def not_applicable(self, incident):
        if incident.unix_socket:
            return "httpok takes http and https URLs only"
        if incident.only_units:
            return "its backend is no systemd unit"
        return None

    def start_backend(self, plan):
        text = config(
            "supervisord.conf", command=self.server(plan), autorestart="false" if plan.restart == "no" else "true",
            stop=scaled(10), httpok=f"{self.python} -m superlance.httpok", timeout=TIMEOUT,
            url=f"{'https' if plan.tls else 'http'}://localhost:8000/api/health", certificate=servers.CERTIFICATE, tick=f"TICK_{PERIOD}")
        write("/etc/supervisor/supervisord.conf", text)
        log = Path("/var/log/supervisor")
        shutil.rmtree(log, ignore_errors=True)
        log.mkdir(parents=True)
        extra = self.extra(plan)
        write("/etc/systemd/system/supervisor.service", config("supervisor.service", supervisord=f"{self.python} -m supervisor.supervisord", extra=extra))
        run("systemctl", "daemon-reload")
        run("systemctl", "start", "supervisor.service")

    def start(self, plan):
        self.control("start", "httpok")

    def position(self):
        """TICK events occur when the clock's seconds are a multiple of the period."""
        return time.time() % PERIOD

    def operator(self, verb):
        self.control(*(("signal", "HUP") if verb == "reload" else (verb,)), "scidex-api")

    def control(self, *arguments):
        run(self.python, "-m", "supervisor.supervisorctl", "-c", "/etc/supervisor/supervisord.conf", *arguments)

    def is_backend(self, command):
        return super().is_backend(command) and "supervisor" not in command and "httpok" not in command

    def watchers(self, processes):
        return [p["pid"] for p in processes.living() if not self.is_backend(p["command"])]

    def logs(self, since):
        return texts("/var/log/supervisor/httpok.log", "/var/log/supervisor/supervisord.log")


class WorkerCheck(Contestant):
    """A server that checks its own workers."""

    def not_applicable(self, incident):
        if incident.server not in ("uvicorn", self.name) and (incident.server, self.name) != ("wsgi", "gunicorn"):
            return "the incident has another server"
        return None

    def watchers(self, processes):
        return [int(run("systemctl", "show", "-p", "MainPID", "--value", self.unit))]

    def logs(self, since):
        return texts(BACKEND_LOG)


class Gunicorn(WorkerCheck):
    name = "gunicorn"
    title = "gunicorn's worker timeout"
    python_packages = ("gunicorn", "uvicorn-worker")
    reason = r"WORKER TIMEOUT|exited|was sent|terminated"

    def server(self, plan):
        return servers.gunicorn(self.python, plan, "/srv/scidex-api", None, WORKER_TIMEOUT)


class Uvicorn(WorkerCheck):
    name = "uvicorn"
    title = "uvicorn's worker check"
    least_workers = 2
    healthcheck = HEALTHCHECK
    reason = r"died|not ready|failed to start"


class SystemdLoop(Contestant):
    name = "systemd-loop"
    title = "systemd WatchdogSec=, from the event loop"
    heartbeat = "loop"
    reason = r"[Ww]atchdog|Main process exited|Failed with result"

    def not_applicable(self, incident):
        if incident.name == "starved":
            return "the watchdog is PID 1, which cannot be held up alone"
        if incident.server in ("node", "java", "wsgi"):
            return "the backend sends no WATCHDOG=1 there"
        return None

    def extra(self, plan):
        return f"Type=notify\nNotifyAccess=all\nWatchdogSec={WORKER_TIMEOUT}\nEnvironment=HEARTBEAT={self.heartbeat}"

    def logs(self, since):
        return [journal(self.unit, since, "_PID=1")]


class SystemdThread(SystemdLoop):
    name = "systemd-thread"
    title = "systemd WatchdogSec=, from a side thread"
    heartbeat = "thread"


class Sequential(Contestant):
    name = "sequential"
    title = "sequential script, the first watchdog's policy"
    reason = r"timed out|killing|no core route|refused"

    def start(self, plan):
        place = SOCKET if plan.unix_socket else f"{'https' if plan.tls else 'http'}://127.0.0.1:8000"
        write("/etc/systemd/system/sequential-watchdog.service", config("sequential-watchdog.service", period=PERIOD, timeout=TIMEOUT, place=place))
        run("systemctl", "daemon-reload")
        run("systemctl", "start", "sequential-watchdog.service")

    def watchers(self, processes):
        return self.processes_of("sequential-watchdog.service")

    def logs(self, since):
        return [journal("sequential-watchdog.service", since)]


class Liveness(Contestant):
    name = "liveness"
    title = "Kubernetes-style liveness probe"
    reason = r"restarting|failed"

    def not_applicable(self, incident):
        return "httpGet takes no UNIX sockets" if incident.unix_socket else None

    def start(self, plan):
        url = f"{'https' if plan.tls else 'http'}://127.0.0.1:8000/api/health"
        text = config("liveness-probe.service", period=f"{LIVENESS_PERIOD:.3f}", timeout=LIVENESS_TIMEOUT, url=url)
        write("/etc/systemd/system/liveness-probe.service", text)
        run("systemctl", "daemon-reload")
        run("systemctl", "start", "liveness-probe.service")

    def watchers(self, processes):
        return self.processes_of("liveness-probe.service")

    def logs(self, since):
        return [journal("liveness-probe.service", since)]


CONTESTANTS = [ThisProgram, Monit, Monit6, Supervisord, Gunicorn, Uvicorn, SystemdLoop, SystemdThread, Sequential, Liveness, Nobody]


def reason_lines(contestant, before, after):
    """A few relevant lines of its logs since they were `before`."""
    lines = [line.strip() for old, new in zip(before, after) for line in new[len(old):].splitlines()]
    return [line[:300] for line in lines if re.search(contestant.reason, line)][:12]
