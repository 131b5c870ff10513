"""The servers that run the backend under test: the command line of each."""

import glob
import os
import shutil

SOCKET = "/run/scidex-api/scidex-api.sock"
DEBIAN_PYTHON = "/usr/bin/python3"
CERTIFICATE, KEY = "/etc/ssl/scidex-api.pem", "/etc/ssl/scidex-api.key"


class NotPossible(Exception):
    """This machine cannot make the incident."""


def from_debian(python):
    """Whether the servers are those of Debian, which are older."""
    return python == DEBIAN_PYTHON


def command(python, plan, folder="/srv/scidex-api", worker_check=3600):
    """The command that runs the plan's backend from this folder."""
    return globals()[plan.server](python, plan, folder, worker_check)


def uvicorn(python, plan, folder, worker_check):
    place = f"--uds {SOCKET}" if plan.unix_socket else f"--host 0.0.0.0 --port {plan.port}"
    # The check of the workers by uvicorn's parent is a separate contestant; Debian's uvicorn does not have it.
    check = "" if from_debian(python) else f" --timeout-worker-healthcheck {worker_check}"
    options = f" --workers {plan.workers}{check}" if plan.workers > 1 else ""
    if plan.backlog:
        options += f" --backlog {plan.backlog}"
    if plan.keep_alive:
        options += f" --timeout-keep-alive {plan.keep_alive}"
    if plan.tls:
        options += f" --ssl-certfile {CERTIFICATE} --ssl-keyfile {KEY}"
    if not from_debian(python):
        options += " --ws-ping-interval 0.5 --ws-ping-timeout 3600"
    return f"{python} -m uvicorn backend:app --app-dir {folder} --no-access-log {place}{options}"


def gunicorn(python, plan, folder, worker_check, timeout=30):
    place = f"unix:{SOCKET}" if plan.unix_socket else f"0.0.0.0:{plan.port}"
    kind = "uvicorn.workers.UvicornWorker" if from_debian(python) else "uvicorn_worker.UvicornWorker"
    app = "wsgi:app --worker-class sync" if plan.server == "wsgi" else f"backend:app --worker-class {kind}"
    options = f" --backlog {plan.backlog}" if plan.backlog else ""
    if plan.keep_alive:
        options += f" --keep-alive {plan.keep_alive}"
    if plan.tls:
        options += f" --certfile {CERTIFICATE} --keyfile {KEY}"
    if plan.reuse_port:
        options += " --reuse-port"
    return f"{python} -m gunicorn {app} --chdir {folder} --workers {plan.workers} --timeout {timeout} --bind {place}{options}"


wsgi = gunicorn


def hypercorn(python, plan, folder, worker_check):
    return f"{python} -m hypercorn --bind 0.0.0.0:{plan.port} --workers {plan.workers} {folder}/backend.py:app"


def granian(python, plan, folder, worker_check):
    return f"{python} -m granian --interface asgi --host 0.0.0.0 --port {plan.port} --workers {plan.workers} --working-dir {folder} backend:app"


def installed(program):
    """Debian's java is a link to /etc/alternatives, which is not in the tests' roots."""
    found = shutil.which(program) or next(glob.iglob(f"/usr/lib/jvm/*/bin/{program}"), None)
    if not found:
        raise NotPossible(f"{program} is not installed")
    return found


def node(python, plan, folder, worker_check):
    return f"{installed('node')} {folder}/backend.js {plan.port}"


def java(python, plan, folder, worker_check):
    if not os.path.exists("/mnt/scratch/java"):
        raise NotPossible("javac is not installed")
    return f"{installed('java')} -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp /mnt/scratch/java:{folder} Backend {plan.port}"
