"""Observes a backend from outside: what its users get, and when its processes end."""

import asyncio
import contextlib
import os
import select
import statistics
import threading
import time
from pathlib import Path

from visitors import unverified


class Client:
    """Users who send requests at a steady rate, each on a new connection, whatever the result of earlier ones.

    Without a rate, each of the users sends the next request after each answer.
    """

    def __init__(self, place, rate=4, timeout=5, users=1, tls=False):
        self.place, self.rate, self.timeout, self.users = place, rate, timeout, users
        self.tls = unverified() if tls else None
        self.request = b"GET /api/status HTTP/1.1\r\nHost: localhost\r\nX-User: 1\r\nConnection: close\r\n\r\n"
        self.requests = []
        self.asking = True
        self.thread = threading.Thread(target=lambda: asyncio.run(self.steadily()), daemon=True)
        self.thread.start()

    async def steadily(self):
        tasks = []
        while self.asking:
            if self.rate:
                tasks.append(asyncio.create_task(self.ask()))
                await asyncio.sleep(1 / self.rate)
            else:
                tasks = tasks or [asyncio.create_task(self.ask_again_and_again()) for _ in range(self.users)]
                await asyncio.sleep(0.1)
        await asyncio.wait(tasks, timeout=0.5)
        for task in tasks:
            task.cancel()

    async def ask_again_and_again(self):
        while self.asking:
            request = await self.ask()
            # A backend that is down does not keep them busy.
            await asyncio.sleep(0 if isinstance(request["result"], int) else 0.2)

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
                    reader, writer = await asyncio.open_connection(host, int(port), ssl=self.tls)
                writer.write(self.request)
                answer = await reader.read(-1)
                request["result"] = int(answer.split(b" ", 2)[1]) if answer else "closed"
        except TimeoutError:
            request["result"] = "timeout"
        except (OSError, IndexError, ValueError) as error:
            request["result"] = repr(error)[:100]
        finally:
            request["done"] = time.monotonic()
            if writer:
                writer.close()
        return request

    def first_healthy(self, since):
        """When the first request sent after `since` was answered with 200."""
        times = [r["done"] for r in list(self.requests) if r["sent"] > since and r["result"] == 200]
        return min(times, default=None)

    def usual_wait(self, since, until):
        """The median time in seconds that requests in this interval waited for an answer, or None."""
        waits = [r["done"] - r["sent"] for r in self.requests if since <= r["sent"] < until and isinstance(r["result"], int)]
        return round(statistics.median(waits), 3) if waits else None

    def lost(self, since, with_open):
        """Requests without an answer of the backend; those still open at the end count if it never answers again."""
        return sum(r["sent"] >= since and not answered(r) and (with_open or r["result"] != "open") for r in self.requests)

    def without_service(self, since, until):
        """Seconds in the pauses of more than a second in which no request was answered."""
        moments = sorted(r["done"] for r in self.requests if answered(r) and since < r["done"] < until)
        pauses = [after - before for before, after in zip([since, *moments], [*moments, until])]
        return round(sum(pause for pause in pauses if pause > 1), 1)

    def stop(self):
        self.asking = False
        self.thread.join()


def answered(request):
    """Whether the backend answered, whatever its status; 502 and 504 are a proxy's."""
    return isinstance(request["result"], int) and request["result"] not in (502, 504)


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
