"""Incidents in which the backend must be left alone."""

import os
import shutil
import signal
import subprocess
import sys
import time

from contestants import HERE, TIMEOUT, run, scaled
from incident import FOREVER, Incident, Mode
from observer import Client
from servers import NotPossible


class SlowPages(Mode):
    name, title = "slow-pages", "slow pages"
    mode = {"slow": 1.5 * TIMEOUT}


class RateLimits(Mode):
    name, title = "rate-limits", "a storm of 429 for local probes"
    mode = {"status": 429, "status_for_users": False}


class Degraded(Mode):
    name, title, in_ci = "degraded", "degraded: 503 for everybody", True
    mode = {"status": 503, "status_for_users": True}


class Overload(Mode):
    """Each request blocks the event loop for 0.15 s, and five more users send requests continuously: about 2 s each."""

    name, title = "overload", "overload: everybody is served late"
    mode = {"serial": 0.15}

    def begin(self, test):
        super().begin(test)
        self.users = Client(self.user_place(), rate=None, timeout=FOREVER, users=5)
        return set()

    def end(self, test):
        self.users.stop()
        super().end(test)


class Stall(Incident):
    """Three stalls, because one may fall between two checks."""

    name, title, in_ci = "stall", "a stall of half the proof time that heals", True

    def during(self, test):
        for _ in range(3):
            for pid in test.workers():
                test.order(pid, "block", how="sleep", seconds=1.6 * TIMEOUT)
            time.sleep(4.3)
        time.sleep(2)


class SlowStart(Incident):
    """A deploy whose new workers load for 72 s at full scale, while the parent's socket accepts connections."""

    name, title, in_ci = "slow-start", "slow start", True
    workers = 2
    at_start = {"delay": scaled(72)}

    def begin(self, test):
        test.at_start(self.at_start)
        test.operator("restart")
        return set()

    def during(self, test):
        time.sleep(3)
        test.at_start(None)
        time.sleep(self.seconds - 3)


class Deploy(SlowStart):
    """A deploy restart: nobody listens for 36 s at full scale."""

    name, title, in_ci = "deploy", "a deploy restart under way", False
    workers = 1
    at_start = {"delay": scaled(36)}


class CrashLoop(Incident):
    name, title = "crash-loop", "a crash loop (systemd's job)"

    def begin(self, test):
        test.at_start({"crash": 1.3})
        for pid in test.workers():
            test.order(pid, "crash", seconds=0)
        return set()

    def end(self, test):
        test.at_start(None)
        time.sleep(2)


class PacketFilter(Incident):
    """Packets to 127.0.0.1 are dropped; users connect to another address and are served."""

    name, title = "packet-filter", "a packet filter on the probe's path"
    packages = ("nftables",)

    def user_place(self):
        return "127.0.0.9:8000"

    def begin(self, test):
        if not shutil.which("nft"):
            raise NotPossible("nftables is not installed")
        run("nft", "add table inet incident")
        run("nft", "add chain inet incident input { type filter hook input priority 0; }")
        run("nft", "add rule inet incident input ip daddr 127.0.0.1 tcp dport 8000 drop")
        return set()

    def end(self, test):
        run("nft", "delete table inet incident", check=False)


class ForeignListener(Incident):
    """The backend serves its users on port 8001; an older instance on port 8000 hangs."""

    name, title = "foreign-listener", "a foreign listener on the port"
    port = 8001

    def before(self, test):
        test.start_old_instance()

    def begin(self, test):
        test.order(test.old_instance, "block", how="sleep")
        return set()


class Debugger(Incident):
    """Both of two workers hang, and a debugger is attached to one of them."""

    name, title = "debugger", "a debugger on a worker"
    workers = 2
    heals = False

    def begin(self, test):
        first, second = sorted(test.workers())[:2]
        test.order_all("block", how="sleep")
        command = [sys.executable, str(HERE / "debugger.py"), str(second)]
        self.debugger = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        if "attached" not in self.debugger.stdout.readline():
            raise NotPossible("ptrace is not permitted")
        return {first}

    def end(self, test):
        self.debugger.kill()
        self.debugger.wait()


class OneWorker(Incident):
    name, title, in_ci = "one-worker", "one of two workers hung", True
    workers = 2

    def begin(self, test):
        pid = min(test.workers())
        test.order(pid, "block", how="sleep")
        return {pid}


class CpuQuota(Incident):
    """The backend computes, and its control group gets little CPU time: answers are late."""

    name, title = "cpu-quota", "CPU quota exhausted"
    percent = 8

    def begin(self, test):
        self.group = test.cpu_group()
        (self.group / "cpu.cfs_quota_us").write_text(str(1000 * self.percent))
        for pid in test.workers():
            test.order(pid, "compute", seconds=self.seconds, threads=4)
        return set()

    def during(self, test):
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            test.into_cpu_group(self.group)
            time.sleep(0.1)

    def end(self, test):
        test.leave_cpu_group(self.group)


class Starved(Mode):
    """The watchdog runs for 0.1 s in every 1.5 s, while each answer takes 0.3 s."""

    name, title = "starved", "the watchdog itself starved"
    mode = {"all": 0.3}

    def during(self, test):
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            go = time.monotonic() + 1.4 * TIMEOUT
            while time.monotonic() < go:
                # Repeatedly, because the watchdog may be started again.
                self.signal(test.watchers(), signal.SIGSTOP)
                time.sleep(0.03)
            self.signal(test.watchers(), signal.SIGCONT)
            time.sleep(0.1)

    @staticmethod
    def signal(pids, number):
        for pid in pids:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass


class RestartNo(Incident):
    """A hang in a unit that systemd would not restart after a kill."""

    name, title = "restart-no", "Restart=no"
    restart = "no"
    heals, may_repair = False, True

    def begin(self, test):
        return test.order_all("block", how="sleep")


class OperatorsStop(Incident):
    name, title = "operator-stop", "an operator's stop"
    heals = False

    def begin(self, test):
        test.operator("stop")
        return set()


INNOCENT = [
    SlowPages, RateLimits, Degraded, Overload, Stall, SlowStart, Deploy, CrashLoop, PacketFilter, ForeignListener,
    Debugger, OneWorker, CpuQuota, Starved, RestartNo, OperatorsStop,
]
