"""Runs tests one after the other, as root, beside a system manager in its own root (tests/system/boot).

    worker.py NAME PYTHON

Reads each task, a line of JSON, from the socket in the scratch folder, and answers with a line of JSON.
"""

import contextlib
import json
import shutil
import socket
import sys
import time
import traceback
from pathlib import Path

import servers
from contestants import BACKEND_LOG, CONTESTANTS, HERE, PERIOD, SCRATCH, backend_unit, config, reason_lines, run, scaled, texts, write
from incidents import INCIDENTS
from observer import Client, Processes
from servers import NotPossible

STATE = Path("/run/incident")
# The longest time in seconds from the onset of a hang to its end: four periods.
MAX_WAIT = 4 * PERIOD


def wait_until(condition, seconds):
    end = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > end:
            return None
        time.sleep(0.03)
    return found


class Test:
    """One contestant in one incident."""

    def __init__(self, task, worker):
        self.worker = worker
        self.contestant = next(c for c in CONTESTANTS if c.name == task["contestant"])(task["python"])
        self.incident = next(i for i in INCIDENTS if i.name == task["incident"])()
        self.incident.workers = max(self.incident.workers, self.contestant.least_workers)
        # The point in the contestant's period at which the incident begins; the same for all contestants.
        self.phase = self.incident.phase or task["phase"]
        self.onset = None
        self.operators = []
        self.old_instance = None

    # The operations that incidents use.

    def facts(self, kind):
        """The PID and time of each fact of this kind that the backend recorded."""
        lines = (STATE / "facts").read_text().splitlines() if (STATE / "facts").exists() else []
        facts = (line.split() for line in lines)
        return [(int(pid), float(moment)) for word, pid, moment in facts if word == kind]

    def workers(self):
        """The backend's serving processes."""
        ready = {pid for pid, _ in self.facts("ready")}
        return [p["pid"] for p in self.processes.living() if p["pid"] in ready]

    def order(self, pid, what, **details):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as orders, contextlib.suppress(OSError):
            orders.sendto(json.dumps({"do": what, **details}).encode(), str(STATE / f"{pid}.sock"))

    def order_all(self, what, **details):
        """Sends the command to every worker, and waits until the last one hangs."""
        pids = set(self.workers())
        for pid in pids:
            self.order(pid, what, **details)
        found = wait_until(lambda: pids <= {pid for pid, _ in self.facts("onset")}, 10)
        if not found:
            raise RuntimeError(f"{what} did not take effect")
        self.onset = max(moment for pid, moment in self.facts("onset") if pid in pids)
        return pids

    def ask_to_hang(self):
        """For servers that take no commands."""
        with socket.create_connection(("127.0.0.1", self.incident.port)) as connection:
            connection.sendall(b"GET /hang HTTP/1.1\r\nHost: localhost\r\n\r\n")
            self.wait_for("the backend hangs", lambda: self.facts("onset"), 10)
        self.onset = max(moment for _, moment in self.facts("onset"))
        return {pid for pid, _ in self.facts("onset")}

    @staticmethod
    def wait_for(what, condition, seconds):
        if not wait_until(condition, seconds):
            raise RuntimeError(f"not within {seconds} s: {what}")

    @staticmethod
    def config(file):
        return config(file, read=scaled(60))

    def operator(self, verb):
        """Records an operator's action, which ends the current processes; a reload only the workers."""
        self.operators += self.workers() if verb == "reload" else [p["pid"] for p in self.processes.living()]
        self.contestant.operator(verb)

    def at_start(self, behaviour):
        """Sets how the backend behaves at its next starts."""
        file = STATE / "at-start"
        if behaviour:
            write(file, json.dumps(behaviour))
        else:
            file.unlink(missing_ok=True)

    def watchers(self):
        return self.contestant.watchers(self.processes)

    @staticmethod
    def backend_log():
        """The end of the backend's log."""
        return texts(BACKEND_LOG)[0][-1000:]

    def start_old_instance(self):
        plan = type(self.incident)()
        plan.port = 8000
        command = servers.command(self.contestant.python, plan, "/srv/old-api")
        write("/etc/systemd/system/old-api.service", backend_unit("old-api", command, plan))
        run("systemctl", "daemon-reload")
        run("systemctl", "start", "old-api.service")
        self.old_instance = wait_until(lambda: next((pid for pid, _ in self.facts("ready")), None), 20)

    def cpu_group(self):
        """A control group that limits CPU time; a hybrid host has the controller in a separate hierarchy."""
        mount = Path("/run/cpu")
        mount.mkdir(exist_ok=True)
        if not (mount / "cgroup.procs").exists():
            try:
                run("mount", "-t", "cgroup", "-o", "cpu", "cgroup", str(mount))
            except RuntimeError:
                raise NotPossible("the cpu controller is not in a cgroup v1 hierarchy") from None
        group = mount / self.worker
        group.mkdir(exist_ok=True)
        return group

    def into_cpu_group(self, group):
        for process in self.processes.living():
            if self.contestant.is_backend(process["command"]):
                with contextlib.suppress(OSError):
                    (group / "cgroup.procs").write_text(str(process["pid"]))

    def leave_cpu_group(self, group):
        for pid in (group / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                (group.parent / "cgroup.procs").write_text(pid)
        wait_until(lambda: not (group / "cgroup.procs").read_text(), 5)
        group.rmdir()

    # The course of a test.

    def run(self):
        contestant, incident = self.contestant, self.incident
        shutil.rmtree(STATE, ignore_errors=True)
        STATE.mkdir()
        STATE.chmod(0o1777)
        clock = time.time()
        self.processes = Processes(contestant.group)
        self.client = None
        try:
            incident.before(self)
            contestant.start_backend(incident)
            if not wait_until(lambda: len(self.workers()) >= incident.workers, 30):
                raise RuntimeError(f"the backend did not start: {self.processes.living()} {self.backend_log()}")
            self.client = Client(incident.user_place(), timeout=incident.patience, tls=incident.tls)
            if not wait_until(lambda: self.client.first_healthy(0), 10):
                last = [r["result"] for r in self.client.requests[-3:]]
                raise RuntimeError(f"the backend is not healthy before the incident: {last} {self.backend_log()}")
            contestant.start(incident)
            self.steady = time.monotonic()
            # Whole periods, at least one, until the backend is old enough.
            warm_up = PERIOD * max(1, -(-contestant.min_uptime // PERIOD))
            time.sleep(warm_up + (self.phase * PERIOD - contestant.position()) % PERIOD)
            return self.observe(clock)
        finally:
            with contextlib.suppress(Exception):
                incident.end(self)
            contestant.stop()
            if self.client:
                self.client.stop()
            self.processes.stop()
            incident.after(self)

    def observe(self, clock):
        contestant, incident = self.contestant, self.incident
        logs = contestant.logs(clock)
        if early := self.ended(self.steady):
            return {"verdict": "error", "detail": f"ended before the incident: {early}", "log": reason_lines(contestant, [""] * len(logs), logs)}
        begin = time.monotonic()
        guilty = incident.begin(self)
        onset = self.onset or begin
        result = {}
        if incident.needs_restart:
            healthy = wait_until(lambda: self.client.first_healthy(onset), MAX_WAIT)
            # The old process may have answered just before its end.
            wait_until(lambda: self.ended(onset), 3 if healthy else 0.3)
            ended = self.ended(onset)
            if healthy:
                result["seconds_to_healthy"] = round(healthy - onset, 3)
                result["verdict"] = "restarted" if ended else "error"
                result["detail"] = None if ended else "healthy again without a restart"
            else:
                result["verdict"] = "not restarted"
            self.client.stop()
            result["lost"] = self.client.lost(onset, with_open=not healthy)
            result["without_service"] = self.client.without_service(onset, healthy or time.monotonic())
        else:
            incident.during(self)
            result["usual_wait"] = self.client.usual_wait(begin, time.monotonic() - 1)
            # What still hangs after the incident may be killed.
            ended = [] if incident.heals else self.ended(begin)
            incident.end(self)
            result["healthy_at_end"] = bool(wait_until(lambda: self.client.first_healthy(time.monotonic() - 0.5), 8 if incident.heals else 1))
            ended = self.ended(begin) if incident.heals else ended
            over = time.monotonic()
            result["verdict"] = self.judge(ended, guilty, result["healthy_at_end"])
            result["detail"] = incident.harm(self)
            self.client.stop()
            result["lost"] = self.client.lost(begin - self.client.timeout, with_open=not result["healthy_at_end"])
            result["without_service"] = self.client.without_service(begin, over)
        result["ended"] = ended
        result["log"] = reason_lines(contestant, logs, contestant.logs(clock))
        result["recorded"] = bool(result["log"])
        return result

    def ended(self, since):
        """The backend's processes that the contestant ended: neither by themselves nor by the operator."""
        crashed = {pid for pid, _ in self.facts("crash")}
        ready = {pid for pid, _ in self.facts("ready")}
        return [
            {"pid": p["pid"], "role": "worker" if p["pid"] in ready else "other", "seconds": round(p["died"] - since, 3),
             "command": p["command"][:200]}
            for p in self.processes.known.values()
            if p["died"] is not None and p["died"] > since and p["pid"] not in crashed and p["pid"] not in self.operators
            and self.contestant.is_backend(p["command"])
        ]

    def judge(self, ended, guilty, healthy):
        """The verdict on an incident that needs no restart."""
        name = self.incident.name
        if not self.incident.judged:
            return "unjudged"
        if self.incident.harm(self):
            return "innocent kill"
        if name == "operator-stop":
            return "innocent kill" if healthy or ended else "left alone"
        if any(p["pid"] not in guilty for p in ended) and not (self.incident.may_repair and healthy):
            return "innocent kill"
        if ended:
            return "repaired" if healthy or name == "debugger" else "innocent kill"
        return "left alone" if healthy or not self.incident.heals else "left down"


def prepare():
    """Prepares this root for all tests."""
    run("useradd", "--system", "scidex")
    run("systemd-sysusers", str(HERE.parent.parent / "contrib/sysusers.d/scidex-route-health.conf"))
    # systemd's own messages are evidence.
    run("systemctl", "log-target", "journal")
    for package in sorted((SCRATCH / "packages").glob("*.deb")):
        # dpkg-deb --extract would replace /bin and /lib, which are links.
        run("sh", "-c", 'dpkg-deb --fsys-tarfile "$0" | tar --extract --keep-directory-symlink --directory /', str(package))
    shutil.copy(SCRATCH / "scidex-route-health", "/usr/bin/scidex-route-health")
    for name in ("scidex-api", "old-api"):
        folder = Path("/srv") / name
        folder.mkdir(parents=True)
        for file in (HERE / "backends").iterdir():
            shutil.copy(file, folder)


def perform(task, worker):
    test = Test(task, worker)
    if reason := test.contestant.not_applicable(test.incident):
        return {"verdict": "n/a", "detail": reason}
    try:
        return test.run()
    except NotPossible as reason:
        return {"verdict": "n/a", "detail": str(reason)}
    except Exception:
        return {"verdict": "error", "detail": traceback.format_exc()}


def main():
    worker = sys.argv[1]
    prepare()
    queue = socket.socket(socket.AF_UNIX)
    queue.connect(str(SCRATCH / "queue.sock"))
    with queue.makefile("rw") as lines:
        lines.write(json.dumps({"worker": worker}) + "\n")
        lines.flush()
        for line in lines:
            lines.write(json.dumps(perform(json.loads(line), worker)) + "\n")
            lines.flush()


main()
