"""Holds a process as a debugger does, until it is ended itself: debugger.py PID"""

import ctypes
import sys
import time

SEIZE, INTERRUPT = 0x4206, 0x4207  # ptrace(2)

ptrace = ctypes.CDLL(None, use_errno=True).ptrace
ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
for request in (SEIZE, INTERRUPT):
    if ptrace(request, int(sys.argv[1]), None, None) != 0:
        sys.exit(f"ptrace: error {ctypes.get_errno()}")
print("attached", flush=True)
time.sleep(600)
