"""A liveness probe as the kubelet makes it: liveness_probe.py PERIOD TIMEOUT UNIT URL

Restarts the unit after three failures in a row; any status from 200 to 399 is a success.
"""

import ssl
import subprocess
import sys
import time
import urllib.request

period, timeout, unit, url = float(sys.argv[1]), float(sys.argv[2]), sys.argv[3], sys.argv[4]
failures = 0
while True:
    began = time.monotonic()
    try:
        urllib.request.urlopen(url, timeout=timeout, context=ssl._create_unverified_context()).close()
        failures = 0
    except OSError as error:
        failures += 1
        print(f"failed: {error}")
    if failures == 3:
        print(f"restarting {unit}")
        subprocess.run(["systemctl", "restart", unit])
        failures = 0
    time.sleep(max(0, began + period - time.monotonic()))
