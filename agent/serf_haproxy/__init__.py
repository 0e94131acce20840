"""Serf membership events become a validated haproxy.cfg and a graceful HAProxy reload."""

__version__ = "0.1.0"
