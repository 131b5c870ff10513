"""The first watchdog's policy: sequential_watchdog.py PERIOD TIMEOUT UNIT ORIGIN-OR-SOCKET

Probes one core route after the other, with two attempts each. If none of them answers, it kills the unit's
main process, and systemd restarts it. Any HTTP status is an answer, and a refused connection is not a hang.
No other precautions.
"""

import http.client
import os
import signal
import socket
import ssl
import subprocess
import sys
import time

CORE = ["/api/health", "/", "/api/status"]


class UnixConnection(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.host)


def connect(place, timeout):
    if place.startswith("/"):
        return UnixConnection(place, timeout=timeout)
    scheme, host = place.split("://")
    if scheme == "https":
        return http.client.HTTPSConnection(host, timeout=timeout, context=ssl._create_unverified_context())
    return http.client.HTTPConnection(host, timeout=timeout)


def answers(place, path, timeout):
    for _ in range(2):
        try:
            connection = connect(place, timeout)
            connection.request("GET", path, headers={"Host": "localhost", "User-Agent": "sequential"})
            connection.getresponse().read()
            return True
        except TimeoutError:
            print(f"{path}: timed out")
        except (OSError, http.client.HTTPException) as error:
            print(f"{path}: {error}")
            return True
    return False


def main():
    period, timeout, unit, place = float(sys.argv[1]), float(sys.argv[2]), sys.argv[3], sys.argv[4]
    while True:
        began = time.monotonic()
        # Probes every route: one of them may be slow while the backend is alive.
        if not any([answers(place, path, timeout) for path in CORE]):
            show = ["systemctl", "show", "-p", "MainPID", "--value", unit]
            pid = int(subprocess.run(show, stdout=subprocess.PIPE, text=True).stdout or 0)
            if pid > 1:
                print(f"no core route answers: killing {pid}")
                os.kill(pid, signal.SIGKILL)
            else:
                print(f"no core route answers, and {unit} has no main process")
        time.sleep(max(0, began + period - time.monotonic()))


main()
