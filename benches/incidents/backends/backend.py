"""The backend under test: a plain ASGI application that can fail in every way that the comparison needs.

Its handlers are synchronous and run in a pool of 40 threads, as in FastAPI and Starlette, and each of them
borrows one of 5 database connections. `/metrics`, `/events` (an event stream) and WebSockets are asynchronous, and so
need no thread of the pool. A separate thread receives commands (JSON datagrams at
STATE/PID.sock), so that the comparison can also reach a process whose event loop hangs. Events are
written to STATE/facts, one per line: "KIND PID MONOTONIC-SECONDS".
"""

import asyncio
import contextlib
import ctypes
import json
import os
import resource
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

STATE = os.environ.get("INCIDENT_STATE", "/run/incident")
CORE = {"/", "/api/health", "/api/status"}
FOREVER = 86400

threads = ThreadPoolExecutor(max_workers=40)
connections = threading.BoundedSemaphore(5)
# `slow`: delay in seconds of every page except two core routes; `all`: of every route; `status`: the status
# of answers, `status_for_users`: also to users; `serial`: seconds of event loop time for each request; `late`:
# delay that holds nothing; `pace`: seconds between the answers of a queue in which all requests wait.
mode = {"slow": 0, "all": 0, "status": 200, "status_for_users": False, "serial": 0, "late": 0, "pace": 0}
armed = False
turn = 0
# Kept open, because no descriptor may be left when there is something to write.
facts = None
heartbeat = None


def fact(kind):
    os.write(facts, f"{kind} {os.getpid()} {time.monotonic()}\n".encode())


def handle(path, slow):
    with connections:
        time.sleep(slow)
        return json.dumps({"status": "healthy", "path": path}).encode()


def next_turn():
    """Takes a place in the queue; returns the seconds until its turn."""
    global turn
    now = time.monotonic()
    turn = max(turn, now) + mode["pace"]
    return turn - now


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    if scope["type"] == "websocket":
        return await websocket(receive, send)
    if scope["path"] in ("/metrics", "/events"):
        return await asynchronous(scope["path"], send)
    headers = dict(scope["headers"])
    user = b"x-user" in headers
    if mode["serial"]:
        time.sleep(mode["serial"])
    if mode["late"]:
        await asyncio.sleep(mode["late"])
    if mode["pace"]:
        await asyncio.sleep(next_turn())
    path = scope["path"]
    slow = mode["all"] if path in CORE - {"/"} or user else max(mode["slow"], mode["all"])
    body = await asyncio.get_running_loop().run_in_executor(threads, handle, path, slow)
    status = 200 if user and not mode["status_for_users"] else mode["status"]
    kind = (b"content-type", b"application/json")
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [kind, length]})
    await send({"type": "http.response.body", "body": body})
    if armed and not user and path == "/api/health":
        asyncio.get_running_loop().call_later(0.005, block, "sleep", FOREVER)


async def asynchronous(path, send):
    """A page of the event loop alone; `/events` never ends."""
    kind = b"text/event-stream" if path == "/events" else b"text/plain"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    while path == "/events":
        await send({"type": "http.response.body", "body": b": still here\n\n", "more_body": True})
        await asyncio.sleep(0.25)
    await send({"type": "http.response.body", "body": b"up 1\n"})


async def websocket(receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def lifespan(receive, send):
    await receive()
    start(asyncio.get_running_loop())
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


def start(loop):
    """Begins to take commands; a synchronous server has no loop."""
    global facts
    facts = os.open(f"{STATE}/facts", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    orders = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    orders.bind(f"{STATE}/{os.getpid()}.sock")
    threading.Thread(target=obey, args=(orders, loop), daemon=True).start()
    fact("start")
    with contextlib.suppress(OSError), open(f"{STATE}/at-start") as file:
        at_start = json.load(file)
        mode.update(at_start.get("mode", {}))
        time.sleep(at_start.get("delay", 0))
        if "crash" in at_start:
            obey_one({"do": "crash", "seconds": at_start["crash"]}, loop)
    start_heartbeat(loop)
    fact("ready")


def obey(orders, loop):
    while True:
        obey_one(json.loads(orders.recv(4096)), loop)


def obey_one(order, loop):
    global armed
    what = order.pop("do")
    if what == "block":
        loop.call_soon_threadsafe(block, order["how"], order.get("seconds", FOREVER))
    elif what == "write":
        loop.call_soon_threadsafe(write, order["file"])
    elif what == "arm":
        armed = True
        # The hang begins at that time even without a request.
        loop.call_soon_threadsafe(loop.call_later, order["seconds"], block, "sleep", FOREVER)
    elif what == "mode":
        mode.update(order)
    elif what == "threads":
        for _ in range(200):
            threads.submit(threading.Event().wait)
        fact("onset")
    elif what == "connections":
        for _ in range(5):
            connections.acquire()
        fact("onset")
    elif what == "descriptors":
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        with contextlib.suppress(OSError):
            while True:
                os.open("/dev/null", os.O_RDONLY)
        fact("onset")
    elif what == "compute":
        for _ in range(order["threads"]):
            threading.Thread(target=compute, args=(order["seconds"],), daemon=True).start()
    elif what == "crash":
        threading.Timer(order["seconds"], crash).start()


def write(file):
    """Writes in the event loop's thread."""
    fact("onset")
    with open(file, "w") as opened:
        opened.write("a line of a log\n")


def crash():
    fact("crash")
    os._exit(1)


def compute(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(1000))


def block(how, seconds):
    """Blocks the event loop; called in its thread."""
    fact("onset")
    if how == "sleep":
        time.sleep(seconds)
    elif how == "lock":
        lock = threading.Lock()
        lock.acquire()
        lock.acquire()
    elif how == "busy":
        while True:
            pass
    elif how == "gil":
        # Unlike CDLL, PyDLL holds the GIL during the call, and no signal interrupts this call.
        c, mutex = ctypes.PyDLL(None), ctypes.create_string_buffer(64)
        c.pthread_mutex_lock(mutex)
        c.pthread_mutex_lock(mutex)


def start_heartbeat(loop):
    """Tells systemd that the service is ready and alive, over one socket that stays open, like sdnotify."""
    global heartbeat
    address = os.environ.get("NOTIFY_SOCKET")
    sender = os.environ.get("HEARTBEAT")
    if not address or not sender:
        return
    heartbeat = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    heartbeat.connect("\0" + address[1:] if address.startswith("@") else address)
    heartbeat.send(b"READY=1")
    pause = int(os.environ["WATCHDOG_USEC"]) / 2e6

    def beat():
        heartbeat.send(b"WATCHDOG=1")

    def from_loop():
        beat()
        loop.call_later(pause, from_loop)

    def from_thread():
        while True:
            beat()
            time.sleep(pause)

    if sender == "loop":
        from_loop()
    else:
        threading.Thread(target=from_thread, daemon=True).start()
