"""Whether this machine lets a program listen at an address."""

import errno
import os
import socket

from serf_haproxy.system.network import split_endpoint

# Another user may be allowed what this process is not, so no error but these says anything of HAProxy.
_TAKEN = errno.EADDRINUSE
_ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def find_listen_fault(bind: str, is_own: bool = False) -> str:
    """Listen for a moment; return why HAProxy could not, "" where nothing is known against it.

    Args:
        bind: Address and port; an empty address and `*` mean every IPv4 address.
        is_own: Whether HAProxy itself may already listen at this port.
    """
    host, port = split_endpoint(bind)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("" if host == "*" else host, int(port)))
            listener.listen(1)
    except OSError as error:
        if error.errno in _ABSENT or (error.errno == _TAKEN and not is_own):
            return os.strerror(error.errno)
    return ""
