"""Every Python process imports this file if its folder is in PYTHONPATH (see stacks.conf)."""

import faulthandler
import signal

faulthandler.register(signal.SIGUSR1, all_threads=True)
