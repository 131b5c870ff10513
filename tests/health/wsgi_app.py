"""A WSGI backend that needs SECONDS (an environment variable) for each request, and as many seconds for its import
as the file IMPORT says, if it exists. It never answers /stuck, and says its worker's PID at /pid.
"""

import os
import threading
import time

if os.path.exists(os.environ.get("IMPORT", "")):
    time.sleep(float(open(os.environ["IMPORT"]).read()))


def app(environ, start_response):
    if environ["PATH_INFO"] == "/stuck":
        threading.Event().wait()
    time.sleep(float(os.environ["SECONDS"]))
    body = str(os.getpid()).encode() if environ["PATH_INFO"] == "/pid" else b"ok"
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
