"""Harder incidents in which the backend must be left alone, and one in which nobody can tell."""

import os
import signal
import time
from pathlib import Path

from contestants import PERIOD, PROOF, TIMEOUT, run, write
from incident import Incident, Mode
from observer import Client
from servers import NotPossible


class Late(Mode):
    timeouts = 1.3

    @property
    def mode(self):
        return {"late": self.timeouts * TIMEOUT}


class LateByAThird(Late):
    name, title = "late-1.3", "every answer after 1.3 timeouts"


class VeryLate(Late):
    name, title, in_ci = "late-2.5", "every answer after 2.5 timeouts", True
    timeouts = 2.5


class Queue(Mode):
    """All requests wait in one queue, in the order of their arrival, inside the program or (`wsgi`) in the kernel.

    The number of users is such that a request waits this share of the proof time.
    """

    share = 0.5
    pace = 0.03
    patience = 30

    def begin(self, test):
        # Workers share the work.
        self.mode = {"pace": self.pace * len(test.workers())}
        super().begin(test)
        # Besides them, there are 4 users and about 3 probes a second.
        users = self.share * PROOF * (1 - 7 * self.pace) / self.pace
        self.users = Client(self.user_place(), rate=None, timeout=self.patience, users=round(users))
        return set()

    def end(self, test):
        self.users.stop()
        super().end(test)


class HalfQueue(Queue):
    name, title = "queue-half", "a queue of 0.5 proof times"


class HalfQueueUnix(Queue):
    name, title, unix_socket = "queue-half-unix", "a queue of 0.5 proof times, UNIX socket", True


class LongQueue(Queue):
    name, title, share = "queue-most", "a queue of 0.9 proof times", 0.9


class LongQueueUnix(Queue):
    name, title, share = "queue-most-unix", "a queue of 0.9 proof times, UNIX socket", 0.9
    unix_socket, in_ci = True, True


class KernelQueue(Queue):
    name, title, share = "kernel-queue", "one request at a time, the others in the kernel: 0.9 proof times", 0.9
    server = "wsgi"


class KernelQueueUnix(KernelQueue):
    name, title = "kernel-queue-unix", "one request at a time, the others in the kernel: 0.9 proof times, UNIX socket"
    unix_socket = True


class BeyondProof(Queue):
    """Within the proof time, nothing distinguishes it from a hang."""

    name, title, share = "queue-double", "a queue of 2 proof times", 2
    seconds, judged = 30, False


class SlowReload(Incident):
    """`systemctl reload`: the new workers load for 108 s at full scale, and the main process is an old one."""

    name, title, in_ci = "slow-reload", "a reload whose workers start slowly", True
    server, workers = "gunicorn", 2
    service_lines = "ExecReload=/bin/kill -HUP $MAINPID"
    delay = 9

    def begin(self, test):
        test.at_start({"delay": self.delay})
        test.operator("reload")
        return set()

    def end(self, test):
        test.at_start(None)


class Hung(Incident):
    """A hang in a unit whose end does harm."""

    heals, may_repair, only_units = False, True, True

    def begin(self, test):
        return test.order_all("block", how="sleep")


class RequiredFailed(Hung):
    name, title, in_ci = "required-failed", "a required unit has failed and cannot start", True
    unit_lines = "Requires=database.service\nAfter=database.service"

    def before(self, test):
        write("/etc/systemd/system/database.service",
              "[Service]\nExecStartPre=/usr/bin/test ! -e /run/incident/broken\nExecStart=/usr/bin/sleep infinity\n")

    def begin(self, test):
        write("/run/incident/broken", "")
        run("systemctl", "kill", "-s", "KILL", "database.service")
        return super().begin(test)


class FailureAction(Hung):
    """The reboot is only recorded."""

    name, title = "failure-action", "FailureAction=reboot"
    unit_lines = "FailureAction=reboot"

    def before(self, test):
        write("/etc/systemd/system/reboot.target", "[Unit]\nDefaultDependencies=no\nWants=rebooted.service\n")
        write("/etc/systemd/system/rebooted.service",
              "[Unit]\nDefaultDependencies=no\n[Service]\nExecStart=/bin/sh -c 'echo reboot 0 0 >> /run/incident/facts'\n")

    def harm(self, test):
        return "the machine was rebooted" if test.facts("reboot") else None


class BoundNeighbour(Hung):
    """The backend's end stops the neighbour, whose stop stops the backend before it is restarted."""

    name, title = "bound-neighbour", "a bound neighbour that the backend requires"
    unit_lines = "Requires=neighbour.service"
    service_lines = "ExecStopPost=/usr/bin/true"

    def before(self, test):
        write("/etc/systemd/system/neighbour.service",
              "[Unit]\nBindsTo=scidex-api.service\nAfter=scidex-api.service\n[Service]\nExecStart=/usr/bin/sleep infinity\n")


class FrozenVolume(Incident):
    """The backend writes to a volume that is frozen for a snapshot, and waits in state D."""

    name, title = "frozen-volume", "a frozen volume"
    volume, image = Path("/srv/volume"), Path("/run/volume.img")

    def before(self, test):
        for device, kind, major, minor in [("loop-control", "c", 10, 237), *((f"loop{n}", "b", 7, n) for n in range(32))]:
            if not Path("/dev", device).exists():
                run("mknod", f"/dev/{device}", kind, str(major), str(minor))
        with self.image.open("w") as image:
            image.truncate(16 << 20)
        try:
            run("mkfs.ext4", "-q", str(self.image))
            self.volume.mkdir(exist_ok=True)
            # The kernel removes this loop device with the mount, however the test ends.
            run("mount", "-o", "loop", str(self.image), str(self.volume))
        except (RuntimeError, FileNotFoundError) as error:
            raise NotPossible(f"no loop device: {error}") from None
        self.volume.chmod(0o777)

    def begin(self, test):
        run("fsfreeze", "--freeze", str(self.volume))
        test.order_all("write", file=str(self.volume / "log"))
        return set()

    def end(self, test):
        run("fsfreeze", "--unfreeze", str(self.volume), check=False)

    def after(self, test):
        run("umount", str(self.volume), check=False)
        self.image.unlink(missing_ok=True)


class LastMoment(Incident):
    """Stopped just before a check begins, and continued after 0.95 proof times."""

    name, title = "last-moment", "SIGSTOP, and SIGCONT at the last moment"
    before_check = 0.1
    phase = 1 - before_check / PERIOD

    def begin(self, test):
        self.pids = test.workers()
        self.signal(signal.SIGSTOP)
        return set()

    def during(self, test):
        time.sleep(self.before_check + 0.95 * PROOF)
        self.signal(signal.SIGCONT)
        time.sleep(6)

    def end(self, test):
        self.signal(signal.SIGCONT)

    def signal(self, number):
        for pid in self.pids:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass


class TwoVersions(Incident):
    """The old version hangs while it ends, and listens at the same port (SO_REUSEPORT) as the new one, which is fine."""

    name, title = "two-versions", "a deploy with two versions at one port"
    server, reuse_port = "gunicorn", True

    def before(self, test):
        test.start_old_instance()

    def begin(self, test):
        test.order(test.old_instance, "block", how="sleep")
        return set()

    def end(self, test):
        run("systemctl", "kill", "--kill-whom=all", "-s", "KILL", "old-api.service", check=False)
        run("systemctl", "stop", "old-api.service", check=False)


EDGE = [
    LateByAThird, VeryLate, HalfQueue, HalfQueueUnix, LongQueue, LongQueueUnix, KernelQueue, KernelQueueUnix, SlowReload,
    RequiredFailed, FailureAction, BoundNeighbour, FrozenVolume, LastMoment, TwoVersions, BeyondProof,
]
