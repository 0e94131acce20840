"""Tells whether traffic should come to this balancer, for keepalived, ExaBGP and others that ask each second.

Usage: ready_for_traffic [--allow-stale] [--service NAME]...

`serf-haproxy ready --for traffic` says the same and costs several times as much. `handlers/install` makes the
executable of this file and the absolute path of an interpreter. It imports only cheap modules.
"""

import os
import sys

from serf_haproxy.haproxy import readiness


def main(words: list[str]) -> int:
    """Print what was found; return 0 for ready, 1 for stale, 111 for not ready, 100 for wrong usage."""
    services, is_lenient, rest = [], False, list(words)
    while rest:
        word = rest.pop(0)
        if word == "--allow-stale":
            is_lenient = True
        elif word == "--service" and rest:
            services.append(rest.pop(0))
        else:
            os.write(2, b"usage: ready_for_traffic [--allow-stale] [--service NAME]...\n")
            return 100
    home = os.path.dirname(os.environ.get("SERF_HAPROXY_WAKE_FIFO") or "/run/serf-haproxy/wake")
    sockets = (os.environ.get(f"SERF_HAPROXY_{name}_SOCKET", "") for name in ("RUNTIME", "MASTER"))
    code, text = readiness.look(readiness.Place(home, *sockets), tuple(services))
    os.write(1, f"{readiness.describe(code, text)}\n".encode("ascii", "replace"))
    return readiness.READY if is_lenient and code == readiness.STALE else code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
