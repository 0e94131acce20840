"""The addresses of this machine."""

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
        str(ipaddress.ip_address(found.address.partition("%")[0]))
        for addresses in interfaces.values()
        for found in addresses
        if found.family in (socket.AF_INET, socket.AF_INET6)
    )
