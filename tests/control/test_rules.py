"""Rules from settings and services."""

from serf_haproxy.control.rules import read_rules
from serf_haproxy.settings import Settings


def test_every_listener_for_clients_counts() -> None:
    """A member may not name a place where the balancer listens, HTTPS included, or requests would go in a circle."""
    settings = Settings().replace(https_bind="192.0.2.1:8443")
    assert read_rules(settings, "")[0].binds == (("", 80), ("", 1936), ("192.0.2.1", 8443))
    assert len(read_rules(Settings(), "")[0].binds) == 2
