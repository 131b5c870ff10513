"""Probes like the first watchdog: one route after the other, with only the standard library."""

import sys
import urllib.request

good = 0
for url in sys.argv[1:]:
    request = urllib.request.Request(url, headers={"User-Agent": "sequential"})
    with urllib.request.urlopen(request, timeout=10) as response:
        response.read()
        good += response.status == 200
print(good, "OK")
