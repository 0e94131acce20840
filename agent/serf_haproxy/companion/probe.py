"""Whether applications accept connections: all are asked at the same time."""

import errno
import select
import socket
import time
from collections.abc import Mapping

_PROBE_S = 0.25


def list_open(places: Mapping[str, tuple[str, int]]) -> set[str]:
    """Return the keys of the places that take a TCP connection within a quarter of a second.

    Args:
        places: By key, a literal IP address and a port.
    """
    tried: dict[int, tuple[str, socket.socket]] = {}
    found = set()
    poll = select.poll()
    try:
        for key, place in places.items():
            one = socket.socket(socket.AF_INET6 if ":" in place[0] else socket.AF_INET, socket.SOCK_STREAM)
            one.setblocking(False)
            tried[one.fileno()] = key, one
            if one.connect_ex(place) in (0, errno.EINPROGRESS):
                poll.register(one, select.POLLOUT)
            else:
                del tried[one.fileno()]
                one.close()
        left = set(tried)
        deadline = time.monotonic() + _PROBE_S
        while left and (left_s := deadline - time.monotonic()) > 0:
            for descriptor, _ in poll.poll(left_s * 1000):
                key, one = tried[descriptor]
                if not one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    found.add(key)
                poll.unregister(descriptor)
                left.discard(descriptor)
    finally:
        for _, one in tried.values():
            one.close()
    return found
