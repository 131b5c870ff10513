"""The backend under test as a synchronous WSGI application: one request at a time, the others wait in the kernel."""

import json
import time

import backend

backend.start(None)


def app(environ, start_response):
    if backend.mode["pace"]:
        time.sleep(backend.next_turn())
    body = json.dumps({"status": "healthy", "path": environ["PATH_INFO"]}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
