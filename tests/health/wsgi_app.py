"""A WSGI backend that needs SECONDS (an environment variable) for each request."""

import os
import time


def app(environ, start_response):
    time.sleep(float(os.environ["SECONDS"]))
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
