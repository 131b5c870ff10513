"""What the incidents have in common.

`begin` starts the incident and returns the PIDs of the hung processes, which may be killed without harm. An
incident that needs a restart lasts until the backend is healthy again or the comparison gives up; the others
end by themselves.
"""

import time

from servers import SOCKET

FOREVER = 86400


class Incident:
    name = title = ""
    needs_restart = False
    # Whether it is in the small part that CI runs.
    in_ci = False
    workers = 1
    port = 8000
    unix_socket = False
    backlog = None
    restart = "always"
    # The server, see servers.py, and how it is started.
    server = "uvicorn"
    keep_alive = None
    tls = reuse_port = False
    # Lines of the unit's sections [Unit] and [Service].
    unit_lines = service_lines = ""
    # What must be downloaded for it, from Debian and PyPI.
    packages = python_packages = ()
    # supervisord's programs are no units.
    only_units = False
    # The point in the contestant's period at which it begins, if it matters.
    phase = None
    # How long users wait for an answer.
    patience = 5
    # Three periods, so that every contestant checks at least twice.
    seconds = 15
    # Whether the backend is expected to be healthy when the incident is over.
    heals = True
    # Whether a kill does no harm if the backend is healthy afterwards.
    may_repair = False
    # Whether it has a verdict; without one, the tables only say what happened.
    judged = True

    def user_place(self):
        return SOCKET if self.unix_socket else f"127.0.0.1:{self.port}"

    def before(self, test):
        """Prepares what must exist before the contestant starts."""

    def begin(self, test):
        return set()

    def during(self, test):
        time.sleep(self.seconds)

    def end(self, test):
        """Ends the incident and cleans up."""

    def after(self, test):
        """Removes what `before` prepared, once everything has ended."""

    def harm(self, test):
        """What else was harmed, if anything."""
        return None


class Needed(Incident):
    needs_restart = True


class Mode(Incident):
    mode = {}

    def begin(self, test):
        # A restart does not change it.
        test.at_start({"mode": self.mode})
        for pid in test.workers():
            test.order(pid, "mode", **self.mode)
        return set()

    def end(self, test):
        test.at_start(None)
        for pid in test.workers():
            test.order(pid, "mode", slow=0, all=0, status=200, serial=0, late=0, pace=0)
