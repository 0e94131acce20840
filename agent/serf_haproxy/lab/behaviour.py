"""Make the web application of a node slow or broken, and ordinary again."""

from typing import Any

from serf_haproxy.errors import InputError, SystemFault
from serf_haproxy.lab.records import Node, Record

_ASK_S = 5.0  # however long it delays its answers, it takes orders at once
ORDINARY = {"times": 1, "status": 200}


def delay(record: Record, node: Node, delay_ms: int, with_checks: bool = True) -> None:
    """Have a node delay its answers by so many milliseconds, those to health checks too."""
    _order(record, node, "delay", {"delay": delay_ms, "checks": with_checks})


def behave(record: Record, node: Node, **change: float) -> None:
    """Change the behaviour of a node: `times` for the length of all work, `status` for its answers."""
    _order(record, node, "behaviour", change)


def heal(record: Record, node: Node) -> None:
    """Have a node be ordinary again."""
    delay(record, node, 0)
    behave(record, node, **ORDINARY)


def _order(record: Record, node: Node, path: str, order: dict[str, Any]) -> None:
    """Send an order.

    Raises:
        InputError: The node has no web application, or the order is out of range.
        SystemFault: It does not answer.
    """
    import requests  # half of the time of a command of the lab, which an autoscaler runs every few seconds

    if record.is_tcp(node.service):
        raise InputError(f"{node.name} is of service {node.service} of mode tcp; name a node with a web application")
    try:
        with requests.Session() as session:
            session.trust_env = False  # a proxy of the environment cannot reach loopback
            answer = session.post(f"http://{node.address}:{node.port}/{path}", json=order, timeout=_ASK_S)
            said = answer.json()
    except (requests.RequestException, ValueError) as error:
        raise SystemFault(f"the application of {node.name} takes no order: {error}") from error
    if not answer.ok:
        raise InputError(f"{node.name}: {said.get('error', answer.status_code)}")
