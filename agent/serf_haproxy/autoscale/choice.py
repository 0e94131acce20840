"""Which executor a service has."""

from serf_haproxy.autoscale.commands import Commands, Units
from serf_haproxy.autoscale.containers import Containers
from serf_haproxy.autoscale.executor import Executor
from serf_haproxy.services.scaling import COMMAND, SYSTEMD, Scale


def make_executor(service: str, scale: Scale) -> Executor:
    """Return what starts and stops the servers of a service."""
    if scale.executor == COMMAND:
        return Commands(scale)
    return Units(scale) if scale.executor == SYSTEMD else Containers(service, scale)
