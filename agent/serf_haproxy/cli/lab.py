"""serf-haproxy lab: a cluster of real processes on loopback. The commands are in the room `lab`."""

from serf_haproxy.lab.command import add_parser

__all__ = ["add_parser"]
