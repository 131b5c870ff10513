"""A FastAPI backend whose event loop can be blocked, as happened to the real one.

With ON_SIGUSR1=stacks it prints the stacks of its threads on SIGUSR1, with ON_SIGUSR1=wake the signal
ends the block.
"""

import faulthandler
import os
import signal
import time

from fastapi import FastAPI, Header, HTTPException

app = FastAPI()


@app.get("/api/health")
async def health():
    return {"status": "healthy", "pid": os.getpid()}


def wake(signum, frame):
    raise InterruptedError


match os.environ.get("ON_SIGUSR1"):
    case "stacks":
        faulthandler.register(signal.SIGUSR1)
    case "wake":
        signal.signal(signal.SIGUSR1, wake)


def wait_for_a_lock_that_nobody_releases(seconds):
    time.sleep(seconds)


@app.get("/block")
async def block(seconds: float = 86400):
    wait_for_a_lock_that_nobody_releases(seconds)


@app.get("/token")
async def token(authorization: str = Header("")):
    if authorization != "Bearer s3cret":
        raise HTTPException(401)


@app.get("/{path:path}")
async def anything(path: str):
    return {"path": path}
