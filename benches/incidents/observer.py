"""Observes a backend from outside: what its users get, and when its processes end."""

import asyncio
import contextlib
import os
import select
import statistics
import threading
import time
from pathlib import Path


class Client:
    """Users who send requests at a steady rate, each on a new connection, whatever the result of earlier ones.

    Without a rate it is one user, who sends the next request after each answer.
    """

    def __init__(self, place, rate=4, timeout=5):
        self.place, self.rate, self.timeout = place, rate, timeout
        self.request = b"GET /api/status HTTP/1.1\r\nHost: localhost\r\nX-User: 1\r\nConnection: close\r\n\r\n"
        self.requests = []
        self.asking = True
        self.thread = threading.Thread(target=lambda: asyncio.run(self.steadily()), daemon=True)
        self.thread.start()

    async def steadily(self):
        tasks = []
        while self.asking:
            tasks.append(asyncio.create_task(self.ask()))
            if self.rate:
                await asyncio.sleep(1 / self.rate)
            else:
                await asyncio.wait(tasks[-1:])
        await asyncio.wait(tasks, timeout=0.5)
        for task in tasks:
            task.cancel()

    async def ask(self):
        """One request: when it was sent, when it ended, and the status or the failure."""
        request = {"sent": time.monotonic(), "done": None, "result": "open"}
        self.requests.append(request)
        writer = None
        try:
            async with asyncio.timeout(self.timeout):
                if self.place.startswith("/"):
                    reader, writer = await asyncio.open_unix_connection(self.place)
                else:
                    host, port = self.place.split(":")
                    reader, writer = await asyncio.open_connection(host, int(port))
                writer.write(self.request)
                answer = await reader.read(-1)
                request["result"] = int(answer.split(b" ", 2)[1]) if answer else "closed"
        except TimeoutError:
            request["result"] = "timeout"
        except (OSError, IndexError, ValueError) as error:
            request["result"] = type(error).__name__
        finally:
            request["done"] = time.monotonic()
            if writer:
                writer.close()

    def first_healthy(self, since):
        """When the first request sent after `since` was answered with 200."""
        times = [r["done"] for r in list(self.requests) if r["sent"] > since and r["result"] == 200]
        return min(times, default=None)

    def usual_wait(self, since, until):
        """The median time in seconds that requests in this interval waited for an answer, or None."""
        waits = [r["done"] - r["sent"] for r in self.requests if since <= r["sent"] < until and isinstance(r["result"], int)]
        return round(statistics.median(waits), 3) if waits else None

    def failures(self, since):
        """Requests without any HTTP answer, except those still open at the end."""
        failed = [r for r in self.requests if r["sent"] >= since and isinstance(r["result"], str) and r["result"] != "open"]
        return len(failed)

    def stop(self):
        self.asking = False
        self.thread.join()


def command_line(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""


class Processes:
    """The processes of a control group, and when each of them ended."""

    def __init__(self, group):
        self.group = Path("/sys/fs/cgroup/system.slice") / group
        self.known = {}
        self.descriptors = {}
        self.watching = True
        self.poll = select.poll()
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()

    def watch(self):
        while self.watching:
            self.look()
            for descriptor, _ in self.poll.poll(40):
                pid = self.descriptors.pop(descriptor)
                self.known[pid]["died"] = time.monotonic()
                self.poll.unregister(descriptor)
                os.close(descriptor)

    def look(self):
        with contextlib.suppress(OSError):
            for pid in map(int, (self.group / "cgroup.procs").read_text().split()):
                seen = self.known.get(pid)
                if seen is None or seen["died"] is not None:
                    with contextlib.suppress(OSError):
                        descriptor = os.pidfd_open(pid)
                        self.descriptors[descriptor] = pid
                        self.known[pid] = {"pid": pid, "seen": time.monotonic(), "died": None, "command": ""}
                        self.poll.register(descriptor, select.POLLIN)
                # A child has its parent's command line until it calls exec.
                if pid in self.known:
                    self.known[pid]["command"] = command_line(pid) or self.known[pid]["command"]

    def living(self):
        return [p for p in list(self.known.values()) if p["died"] is None]

    def stop(self):
        self.watching = False
        self.thread.join()
        for descriptor in self.descriptors:
            os.close(descriptor)
