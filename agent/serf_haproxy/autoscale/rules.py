"""From what the services file says to the rules of the law. Pure."""

from serf_haproxy.autoscale.scaling import Scaling
from serf_haproxy.services.service import Service

_STICKY_S, _STICKY_LIMIT_S = 300.0, 600.0  # for clients that have nothing in flight between two requests


def make_rules(service: Service) -> Scaling | None:
    """Return the rules by which a service scales; None where it does not."""
    scale = service.scale
    if scale is None or not service.server_maxconn:
        return None
    limit_s = scale.drain_limit_s or (_STICKY_LIMIT_S if service.is_sticky else 60.0)
    least_s = scale.sticky_s if scale.sticky_s is not None else _STICKY_S if service.is_sticky else 0.0
    return Scaling(
        min=scale.min,
        max=scale.max,
        server_maxconn=service.server_maxconn,
        target=scale.target,
        out_window_s=scale.out_window_s,
        in_window_s=scale.in_window_s,
        cooldown_s=scale.cooldown_s,
        start_limit_s=scale.start_limit_s,
        drain_least_s=min(least_s, limit_s),
        drain_limit_s=limit_s,
        zero_after_s=scale.zero_after_s,
        peaks=scale.peaks,
    )
