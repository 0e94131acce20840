"""The addresses of this machine."""

import functools
import ipaddress
import socket


def list_local_addresses() -> frozenset[str]:
    """Return the IP addresses of all network interfaces in normal form; none where the kernel does not tell."""
    import psutil  # only passes and `status` need it

    try:
        interfaces = psutil.net_if_addrs()
    except OSError:
        return frozenset()
    return frozenset(
        _normalize(found.address.partition("%")[0])
        for addresses in interfaces.values()
        for found in addresses
        if found.family in (socket.AF_INET, socket.AF_INET6)
    )


@functools.lru_cache(maxsize=4096)  # every pass asks, and most addresses stay
def _normalize(address: str) -> str:
    return str(ipaddress.ip_address(address))
