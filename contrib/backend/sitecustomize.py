"""Imported by every Python process that finds it in PYTHONPATH (see stacks.conf)."""

import faulthandler
import signal

faulthandler.register(signal.SIGUSR1, all_threads=True)
