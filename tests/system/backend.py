"""A FastAPI backend whose event loop can be blocked, as the real one's once was."""

import os
import time

from fastapi import FastAPI

app = FastAPI()


@app.get("/api/health")
async def health():
    return {"status": "healthy", "pid": os.getpid()}


@app.get("/block")
async def block(seconds: float = 86400):
    time.sleep(seconds)


@app.get("/{path:path}")
async def anything(path: str):
    return {"path": path}
