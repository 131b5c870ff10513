"""A backend with one peculiarity for each option; with --trace, a debugger instead.

It tells the service manager when it is ready (sd_notify(3)) and answers every request with "ok".
"""

import argparse
import array
import contextlib
import ctypes
import faulthandler
import os
import queue
import select
import signal
import socket
import ssl
import struct
import sys
import threading
import time

HEAD = "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n"
LISTEN_FDS_START = 3  # sd_listen_fds(3)
IPPROTO_MPTCP = 262  # linux/in.h; in Python's socket since 3.12
PTRACE_SEIZE = 0x4206  # linux/ptrace.h
ACCEPTED = queue.SimpleQueue()
CONTINUED = threading.Event()


def options():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", action="append", default=[], metavar="HOST:PORT|PATH")
    parser.add_argument("--backlog", type=int, default=128)
    parser.add_argument("--workers", type=int, default=0, help="processes that accept")
    parser.add_argument("--reuse-port", action="store_true", help="a listener for each worker")
    parser.add_argument("--mptcp", action="store_true", help="listen as Go programs do, mptcp(7)")
    parser.add_argument("--subgroup", action="store_true", help="first move to a control group below")
    parser.add_argument("--deaf-child", action="store_true", help="a child that ignores SIGTERM")
    parser.add_argument("--idle-thread", action="store_true")
    parser.add_argument("--compute", type=int, default=0, help="threads that compute without end")
    parser.add_argument("--supervised", action="store_true", help="serve in a child of a living parent")
    parser.add_argument("--pid-file", help="serve in a grandchild whose parent lives (Type=forking)")
    parser.add_argument("--store", action="store_true", help="keep the listener in the manager's store")
    parser.add_argument("--slow", type=float, help="one request at a time, with this many seconds each")
    parser.add_argument("--accept-all", action="store_true", help="with --slow: accept those that wait, too")
    parser.add_argument("--late", type=float, help="answer each request this many seconds after it came")
    parser.add_argument("--silent", action="append", default=[], metavar="PATH", help="never answered")
    parser.add_argument("--stacks", action="store_true", help="print the stacks of all threads at SIGUSR1")
    parser.add_argument("--continues", action="store_true", help="at SIGUSR1, answer --silent after all")
    parser.add_argument("--ends", metavar="PATH", help="not answered, but closed after --late")
    parser.add_argument("--reset", action="store_true", help="with --ends: reset instead")
    parser.add_argument("--last-byte", action="store_true", help="with --ends: send a byte before")
    parser.add_argument("--heartbeat", metavar="PATH", help="answer this path with bytes without end")
    parser.add_argument("--idle-limit", type=float, help="close a connection that is idle for so long")
    parser.add_argument("--tls", metavar="FILE", help="speak TLS with the certificate and key in this file")
    parser.add_argument("--client-closes", action="store_true", help="let the client close first")
    parser.add_argument("--leave", type=float, help="stop listening and end all so long after a request")
    parser.add_argument("--hang-once", metavar="FILE", help="hang after one answer, once in all")
    parser.add_argument("--disk-sleep", metavar="FIFO", help="wait in state D after the first answer, once in all")
    parser.add_argument("--trace", type=int, metavar="TID")
    return parser.parse_args()


def notify(text, *descriptors):
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.connect(address)
        manager.sendmsg([text.encode()], rights if descriptors else [])


def move_to_subgroup():
    path = next(line for line in open("/proc/self/cgroup") if line.startswith("0::"))[3:].strip()
    unified = "/sys/fs/cgroup/unified"
    group = (unified if os.path.exists(unified) else "/sys/fs/cgroup") + path + "/worker"
    os.makedirs(group, exist_ok=True)
    with open(group + "/cgroup.procs", "w") as procs:
        procs.write("0")


def listen(address, args):
    if address.startswith("/"):
        if os.path.exists(address):
            os.unlink(address)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(address)
    else:
        host, port = address.rsplit(":", 1)
        host = host.strip("[]")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            listener = socket.socket(family, proto=IPPROTO_MPTCP if args.mptcp else 0)
        except OSError:  # a kernel without it; Go falls back, too
            listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if args.reuse_port:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, int(port)))
    listener.listen(args.backlog)
    return listener


def listeners(args):
    inherited = int(os.environ.get("LISTEN_FDS", 0))
    if inherited:
        return [socket.socket(fileno=LISTEN_FDS_START + n) for n in range(inherited)]
    return [listen(address, args) for address in args.listen]


def read_request(connection, args):
    """The request and what came with it; closes the connection first if it stays idle."""
    connection.settimeout(args.idle_limit)
    request = connection.recv(65536)
    connection.settimeout(None)
    return request


def answer(connection, args):
    with contextlib.suppress(OSError):
        if args.tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(args.tls)
            connection = context.wrap_socket(connection, server_side=True)
        with connection:
            serve_one(connection, args)


def serve_one(connection, args):
    request = read_request(connection, args)
    path = request.split(b" ")[1].decode() if request.startswith(b"GET ") else ""
    if path in args.silent:
        CONTINUED.wait()
    if path and path == args.ends:
        end_silently(connection, args)
    elif path and path == args.heartbeat:
        connection.sendall(HEAD.format(1_000_000_000).encode())
        while True:
            connection.sendall(b".")
            time.sleep(0.1)
    elif path:
        time.sleep(args.slow or args.late or 0)
        connection.sendall(HEAD.format(2).encode() + b"ok")
        while args.client_closes and connection.recv(65536):
            pass
    else:
        # A ping of HTTP/2 or the like, which no handler sees.
        while request:
            connection.sendall(request)
            request = connection.recv(65536)


def end_silently(connection, args):
    """Gives no answer; the connection ends as the options say."""
    time.sleep(args.late)
    if args.last_byte:
        connection.sendall(b"H")
    if args.reset:
        linger = struct.pack("ii", 1, 0)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


def serve(sockets, args):
    while True:
        for listener in select.select(sockets, [], [])[0]:
            try:
                connection = listener.accept()[0]
            except BlockingIOError:
                continue  # another worker was faster
            connection.setblocking(True)
            if args.accept_all:
                ACCEPTED.put(connection)
            elif args.slow:
                answer(connection, args)
            elif args.leave:
                time.sleep(args.leave)
                connection.close()
                for each in sockets:
                    each.close()
                threading.Event().wait()
            elif args.hang_once and not os.path.exists(args.hang_once):
                open(args.hang_once, "w").close()
                answer(connection, args)
                signal.pause()
            elif args.disk_sleep:
                answer(connection, args)
                if not os.path.exists(args.disk_sleep):
                    sleep_uninterruptibly(args.disk_sleep)
            else:
                threading.Thread(target=answer, args=(connection, args), daemon=True).start()


def serve_accepted(args):
    """Answers one after the other, in the order of their arrival."""
    while True:
        answer(ACCEPTED.get(), args)


def sleep_uninterruptibly(fifo):
    """The parent of a vfork(2) waits in state D until the child runs its program, here until a writer comes."""
    os.mkfifo(fifo)
    wait = (os.POSIX_SPAWN_OPEN, 0, fifo, os.O_RDONLY, 0)
    os.posix_spawn("/bin/true", ["true"], {}, file_actions=[wait])


def fork(child):
    pid = os.fork()
    if pid == 0:
        try:
            child()
        finally:
            os._exit(1)
    return pid


def serve_with_workers(args, sockets):
    for listener in sockets:
        listener.setblocking(False)
    started, tell = os.pipe()

    def worker():
        own = listeners(args) if args.reuse_port else sockets
        os.write(tell, b".")
        serve(own, args)

    for _ in range(args.workers):
        fork(worker)
        os.read(started, 1)
    notify("READY=1")
    while True:
        signal.pause()


def compute():
    while True:
        pass


def run(args):
    if args.subgroup:
        move_to_subgroup()
    if args.deaf_child:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        fork(lambda: [signal.pause() for _ in iter(int, 1)])
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if args.idle_thread:
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    if args.accept_all:
        threading.Thread(target=serve_accepted, args=(args,), daemon=True).start()
    for _ in range(args.compute):
        threading.Thread(target=compute, daemon=True).start()
    if args.stacks:
        faulthandler.register(signal.SIGUSR1)
    if args.continues:
        signal.signal(signal.SIGUSR1, lambda *_: CONTINUED.set())
    sockets = [] if args.reuse_port else listeners(args)
    if args.workers:
        serve_with_workers(args, sockets)
    if args.store:
        notify("FDSTORE=1", *(listener.fileno() for listener in sockets))
    if args.pid_file:
        with open(args.pid_file, "w") as file:
            file.write(f"{os.getpid()}\n")
    notify(f"MAINPID={os.getpid()}\nREADY=1")
    serve(sockets, args)


def main():
    args = options()
    if args.trace:
        if ctypes.CDLL(None, use_errno=True).ptrace(PTRACE_SEIZE, args.trace, 0, 0) != 0:
            sys.exit(os.strerror(ctypes.get_errno()))
        notify("READY=1")
        signal.pause()
    elif args.pid_file:
        # The manager's child exits once its grandchild serves; the process between them lives on.
        def supervisor():
            fork(lambda: run(args))
            signal.pause()

        fork(supervisor)
        while not os.path.exists(args.pid_file):
            time.sleep(0.01)
    elif args.supervised:
        fork(lambda: run(args))
        os.wait()
    else:
        run(args)


main()
