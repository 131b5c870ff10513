"""A FastAPI backend whose thread pool can be used up while its event loop stays alive."""

import asyncio
import threading

import anyio.to_thread
from fastapi import FastAPI, WebSocket
from fastapi.responses import StreamingResponse

HEARTBEAT_SECONDS = 0.1

app = FastAPI()
released = threading.Event()


@app.get("/up")
def up():
    """The core route: needs a thread of the pool."""
    return {"status": "healthy"}


@app.get("/stuck")
def stuck():
    """Takes a thread of the pool until /release."""
    released.wait()
    return "free"


@app.get("/release")
async def release():
    released.set()
    return "released"


@app.get("/used")
async def used():
    """How many threads of the pool are taken, and how many requests wait for one."""
    pool = anyio.to_thread.current_default_thread_limiter().statistics()
    return f"{pool.borrowed_tokens} taken, {pool.tasks_waiting} waiting"


@app.get("/metrics")
async def metrics():
    return "requests_total 1"


@app.get("/events")
async def events():
    async def comments():
        while True:
            yield ": still here\n\n"
            await asyncio.sleep(HEARTBEAT_SECONDS)

    return StreamingResponse(comments(), media_type="text/event-stream")


@app.websocket("/ws")
async def heartbeats(websocket: WebSocket):
    await websocket.accept()
    while True:
        await websocket.send_text("ping")
        await asyncio.sleep(HEARTBEAT_SECONDS)
