#!/opt/webapp/bin/python -I
"""Wait until this container's web application, whose node has left the cluster, may stop.

It serves for APP_GRACE_S in any case. Then it serves on while requests or health checks arrive from other machines: a
balancer that has other servers sends neither. APP_GRACE_MAX_S is the limit. With the argument `first` it stops after
APP_GRACE_S: other web applications serve on until this one's successor relieves them.

Exit code: 0 when it may stop, 1 when the application cannot be asked.
"""

import json
import os
import sys
import time
import urllib.request

QUIET_S = 2.5  # longer than two health checks
PAUSE_S = 0.25
ANSWER_S = 3.0

host, port = os.environ.get("APP_HOST") or "0.0.0.0", os.environ.get("APP_PORT") or "3000"  # noqa: S104 - the default
place = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104


def read_idle_s() -> float:
    """Return for how many seconds no request has arrived from another machine."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{place}:{port}/idle", timeout=ANSWER_S) as answer:
        return float(json.load(answer)["idle_s"])


def main() -> int:
    """Wait; return the exit code."""
    started_s = time.monotonic()
    grace_s = float(os.environ.get("APP_GRACE_S") or 3.5)
    limit_s = max(grace_s, float(os.environ.get("APP_GRACE_MAX_S") or 4.5))
    if "first" in sys.argv[1:]:
        limit_s = grace_s
    while (left_s := started_s + limit_s - time.monotonic()) > 0:
        waited_s = time.monotonic() - started_s
        if waited_s >= grace_s:
            try:
                if read_idle_s() >= QUIET_S:
                    break
            except (OSError, ValueError, KeyError, TypeError):
                return 1
        time.sleep(min(left_s, max(PAUSE_S, grace_s - waited_s)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
