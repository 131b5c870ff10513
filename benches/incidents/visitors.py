"""Other clients of the backend, whose connections live on while its handlers hang."""

import asyncio
import contextlib
import ssl
import threading


def unverified():
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


class Visitors:
    """Runs visits at the same time in a thread of its own, each again after its end, until `stop`."""

    def __init__(self, visit, number=1, pause=0.5, port=8000):
        self.visit, self.number, self.pause, self.port = visit, number, pause, port
        # How many visits got what they came for at least once.
        self.served = 0
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        async def all_of_them():
            self.tasks = [asyncio.create_task(self.again_and_again(n)) for n in range(self.number)]
            await asyncio.wait(self.tasks)
        self.loop.run_until_complete(all_of_them())

    async def again_and_again(self, number):
        await asyncio.sleep(number * self.pause)
        while True:
            writer = None
            with contextlib.suppress(OSError, EOFError, TimeoutError):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                try:
                    await self.visit(self, reader, writer)
                finally:
                    writer.close()
            await asyncio.sleep(self.pause)

    def stop(self):
        self.loop.call_soon_threadsafe(lambda: [task.cancel() for task in self.tasks])
        self.thread.join()


def get(path, *headers):
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode()


async def websocket(visitors, reader, writer):
    """Answers each ping of the server with a pong; the frames are short, and those of a client masked (RFC 6455)."""
    writer.write(get("/socket", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="))
    head = await reader.readuntil(b"\r\n\r\n")
    visitors.served += b" 101 " in head.split(b"\r\n")[0]
    while True:
        kind, length = await reader.readexactly(2)
        payload = await reader.readexactly(length & 0x7F)
        if kind & 0x0F == 0x9:
            writer.write(bytes([0x8A, 0x80 | len(payload), 0, 0, 0, 0]) + payload)


async def event_stream(visitors, reader, writer):
    writer.write(get("/events"))
    await reader.readuntil(b"still here")
    visitors.served += 1
    while await reader.read(4096):
        pass


async def scrape(visitors, reader, writer):
    """One scrape of a page that needs no thread of the pool."""
    writer.write(get("/metrics", "Connection: close"))
    visitors.served += b"up 1" in await reader.read(-1)


async def keep_idle(visitors, reader, writer):
    """One request, and then an idle connection until the server closes it."""
    writer.write(get("/metrics"))
    await reader.readuntil(b"up 1")
    visitors.served += 1
    await reader.read(-1)


def frame(kind, flags, stream, payload):
    """A frame of HTTP/2 (RFC 9113)."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


async def http2_pings(visitors, reader, writer):
    """One request over HTTP/2, then a PING every 0.3 s."""
    # RFC 7541: GET, http, / from the static table; :authority as a literal.
    request = bytes([0x82, 0x86, 0x84, 0x01, 9]) + b"localhost"
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"") + frame(1, 5, 1, request))

    async def ping():
        while True:
            writer.write(frame(6, 0, 0, b"pingping"))
            await asyncio.sleep(0.3)
    pings = asyncio.create_task(ping())
    try:
        while True:
            head = await reader.readexactly(9)
            await reader.readexactly(int.from_bytes(head[:3], "big"))
            if head[3] == 4 and not head[4]:
                writer.write(frame(4, 1, 0, b""))
            visitors.served += head[3] == 6
    finally:
        pings.cancel()
