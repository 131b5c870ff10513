"""Incidents that need a restart."""

import os
import signal
import time
from pathlib import Path

import servers
import visitors
from contestants import run, scaled, write
from incident import Needed
from observer import Client
from visitors import Visitors


class Blocked(Needed):
    how = "sleep"

    def begin(self, test):
        return test.order_all("block", how=self.how)


class LoopSleep(Blocked):
    name, title, in_ci = "loop-sleep", "event loop blocked by a sleep", True


class LoopLock(Blocked):
    name, title, how = "loop-lock", "event loop blocked by a lock", "lock"


class LoopBusy(Blocked):
    name, title, how = "loop-busy", "event loop blocked by a busy loop", "busy"


class Gil(Blocked):
    name, title, how = "gil", "a C call that holds the GIL", "gil"


class Stopped(Needed):
    name, title = "sigstop", "SIGSTOP"

    def begin(self, test):
        pids = test.workers()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        test.onset = time.monotonic()
        return set(pids)


class ThreadPool(Needed):
    name, title = "thread-pool", "thread pool exhausted"

    def begin(self, test):
        return test.order_all("threads")


class ConnectionPool(Needed):
    name, title, in_ci = "connection-pool", "connection pool exhausted", True

    def begin(self, test):
        return test.order_all("connections")


class AcceptQueue(Blocked):
    name, title, in_ci = "accept-queue", "accept queue full for long", True
    backlog = 4

    def begin(self, test):
        guilty = super().begin(test)
        # Users who give up: their connections stay in the accept queue.
        users = Client(self.user_place(), rate=50)
        time.sleep(0.3)
        users.asking = False
        return guilty


class TwoWorkers(Blocked):
    name, title, in_ci = "two-workers", "both of two workers hung", True
    workers = 2


class MidSweep(Needed):
    name, title = "mid-sweep", "a hang that begins in mid-sweep"

    def begin(self, test):
        return test.order_all("arm", seconds=scaled(60))


class UnixSocket(Blocked):
    name, title = "unix-socket", "a hang behind a UNIX socket"
    unix_socket = True


class Descriptors(Needed):
    name, title = "descriptors", "file descriptors exhausted"

    def begin(self, test):
        return test.order_all("descriptors")


class PoolWith(ThreadPool):
    """All threads of the pool hang, and the event loop serves somebody else."""

    visit, number, pause = None, 1, 0.5

    def before(self, test):
        self.visitors = None

    def begin(self, test):
        self.visitors = Visitors(self.visit, self.number, self.pause)
        test.wait_for("the visitors are served", lambda: self.visitors.served, 10)
        return self.hang(test)

    def hang(self, test):
        return super().begin(test)

    def end(self, test):
        if self.visitors:
            self.visitors.stop()


class PoolWebSocket(PoolWith):
    name, title = "pool-websocket", "thread pool exhausted, a WebSocket's pings"
    visit, python_packages = staticmethod(visitors.websocket), ("websockets",)


class PoolEvents(PoolWith):
    name, title, in_ci = "pool-events", "thread pool exhausted, an event stream (SSE)", True
    visit = staticmethod(visitors.event_stream)


class PoolMetrics(PoolWith):
    name, title = "pool-metrics", "thread pool exhausted, Prometheus scrapes /metrics"
    visit = staticmethod(visitors.scrape)


class PoolIdle(PoolWith):
    """Idle connections, of which one ends every half second."""

    name, title = "pool-idle", "thread pool exhausted, idle keep-alive connections expire"
    visit, number, keep_alive = staticmethod(visitors.keep_idle), 20, 10

    def hang(self, test):
        test.wait_for("all connections are idle", lambda: self.visitors.served >= self.number, 15)
        return super().hang(test)


class Http2Pings(PoolWith):
    name, title = "http2-pings", "granian: Python blocked, an HTTP/2 client's pings are answered"
    server, python_packages = "granian", ("granian",)
    visit = staticmethod(visitors.http2_pings)

    def hang(self, test):
        return test.order_all("block", how="sleep")


class Https(ThreadPool):
    name, title = "https", "https: thread pool exhausted"
    tls, packages = True, ("openssl",)

    def before(self, test):
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
            "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-addext", "basicConstraints=critical,CA:FALSE", "-out", servers.CERTIFICATE, "-keyout", servers.KEY)
        Path(servers.KEY).chmod(0o644)


class BehindNginx(ThreadPool):
    """Users come through nginx, which keeps its connections to the backend."""

    name, title = "nginx", "behind nginx with keep-alive: thread pool exhausted"
    packages = ("nginx",)

    def before(self, test):
        write("/etc/scidex-nginx.conf", test.config("nginx.conf"))
        write("/etc/systemd/system/nginx.service", "[Service]\nExecStart=/usr/sbin/nginx -c /etc/scidex-nginx.conf\n")
        run("mkdir", "-p", "/var/lib/nginx", "/var/log/nginx")
        run("systemctl", "daemon-reload")
        run("systemctl", "start", "nginx.service")

    def user_place(self):
        return "127.0.0.1:8080"


class GunicornWorkers(ThreadPool):
    """Each worker's event loop lives, so that gunicorn's --timeout finds nothing."""

    name, title, in_ci = "gunicorn-workers", "gunicorn with uvicorn workers, the handlers of all stuck", True
    server, workers = "gunicorn", 2


class Hypercorn(Blocked):
    name, title = "hypercorn", "hypercorn: event loop blocked"
    server, python_packages = "hypercorn", ("hypercorn",)


class Granian(Blocked):
    name, title = "granian", "granian: event loop blocked"
    server, python_packages = "granian", ("granian",)


class Node(Needed):
    name, title = "node", "Node: event loop blocked"
    server = "node"

    def begin(self, test):
        return test.ask_to_hang()


class Java(Node):
    name, title = "java", "Java: thread pool exhausted"
    server = "java"


HANGS = [
    LoopSleep, LoopLock, LoopBusy, Gil, Stopped, ThreadPool, ConnectionPool, AcceptQueue, TwoWorkers, MidSweep,
    UnixSocket, Descriptors, PoolWebSocket, PoolEvents, PoolMetrics, PoolIdle, Http2Pings, Https, BehindNginx,
    GunicornWorkers, Hypercorn, Granian, Node, Java,
]
