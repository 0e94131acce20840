"""Which containers are announced, and as what. Pure.

Labels say it: `serf-haproxy.service=NAME` and `serf-haproxy.port=PORT`. Names, labels and addresses come from whoever
may start containers: each is checked, and what is wrong with one container keeps no other one from being announced.
"""

import ipaddress
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from serf_haproxy.policy.claim import ADDRESS_TAG, read_value, tag_of
from serf_haproxy.policy.proof import Offer, Secret, make_proof
from serf_haproxy.serf.events import name_fault
from serf_haproxy.serf.printing import printable, quoted
from serf_haproxy.services import DEFAULT_SERVICE, NAME

SERVICE_LABEL, PORT_LABEL, SLOT_LABEL = (f"serf-haproxy.{word}" for word in ("service", "port", "slot"))
HEALTHY, STARTING = "healthy", "starting"
_ROLE = "web"
_SHOWN = 80
_STOP_S = 10.0  # an engine gives a container so long where it says nothing
_STOP_MAX_S = 3600.0


class Seen(NamedTuple):
    """A running container, as the engine describes it.

    Attributes:
        id: Its number, 64 hexadecimal digits.
        name: Its name.
        started: When it was started, as text: another text is another start.
        labels: Its labels.
        is_paused: Whether its processes are frozen.
        health: The engine's word for its health; "" where it has no health check.
        networks: By name, its address in each network with the length of the network's prefix.
        stop_signal: What ends it, as its image has it, such as `SIGQUIT`; "" for SIGTERM.
        stop_s: How long the engine lets it end.
    """

    id: str
    name: str
    started: str
    labels: Mapping[str, str]
    is_paused: bool
    health: str
    networks: Mapping[str, tuple[str, int]]
    stop_signal: str = ""
    stop_s: float = _STOP_S


class Announcement(NamedTuple):
    """What a node says of a container.

    Attributes:
        node: The node's name.
        service: The service that it offers.
        port: 1 to 65535.
        address: Where the application is, a literal IP address.
        is_drained: Whether it is to get no new clients.
    """

    node: str
    service: str
    port: int
    address: str
    is_drained: bool = False

    def is_same(self, other: "Announcement") -> bool:
        """Return whether two announcements differ at most in whether they are drained, which needs no new node."""
        return self == other._replace(is_drained=self.is_drained)

    def list_tags(self, own_address: str, secret: Secret | None) -> dict[str, str]:
        """Return the tags of the node; with a secret the proof is one of them.

        Args:
            own_address: The address that its Serf agent advertises.
            secret: The cluster's secret.
        """
        tags = {"role": _ROLE, ADDRESS_TAG: self.address}
        if self.service == DEFAULT_SERVICE:
            signed = {**tags, "port": str(self.port)}
            proof = {"proof": make_proof(secret, self.node, own_address, signed)} if secret else {}
            return {**signed, **proof, **({"drain": "true"} if self.is_drained else {})}
        key = tag_of(self.service)
        offer = Offer(self.service, key, str(self.port))
        proof = {offer.proof_tag: make_proof(secret, self.node, own_address, tags, offer)} if secret else {}
        return {**tags, key: f"{self.port}{':drain' if self.is_drained else ''}", **proof}


def read_seen(content: Any) -> Seen | None:
    """Return what an answer of the engine describes; None where no container runs, or the answer has another form."""
    state, config = _map(content, "State"), _map(content, "Config")
    number, name = _text(content, "Id"), _text(content, "Name").removeprefix("/")
    if not number or state.get("Running") is not True or state.get("Restarting") is True:
        return None
    networks = {}
    for network in _map(_map(content, "NetworkSettings"), "Networks").items():
        if (address := _read_address(network[1])) is not None:
            networks[network[0]] = address
    stop_s = config.get("StopTimeout")
    return Seen(
        number,
        name,
        _text(state, "StartedAt"),
        {key: value for key, value in _map(config, "Labels").items() if isinstance(value, str)},
        state.get("Paused") is True,
        _text(_map(state, "Health"), "Status").replace("none", ""),
        networks,
        _text(config, "StopSignal"),
        float(min(stop_s, _STOP_MAX_S)) if isinstance(stop_s, int) and stop_s >= 0 else _STOP_S,
    )


def is_ours(seen: Seen) -> bool:
    """Return whether a container is to be announced; the autoscaler's copies of a node have a Serf agent themselves."""
    return SERVICE_LABEL in seen.labels and not (SLOT_LABEL in seen.labels and PORT_LABEL not in seen.labels)


def judge(seen: Seen, prefix: str, own: Collection[str]) -> Announcement:
    """Return what a node says of a container.

    Args:
        seen: The container.
        prefix: What the node's name has before that of the container.
        own: The addresses of this machine or container.

    Raises:
        ValueError: It cannot be announced; the text says which label or what else is wrong, and what is allowed.
    """
    service = seen.labels.get(SERVICE_LABEL, "")
    if not NAME.fullmatch(service):
        allowed = "allowed are up to 31 of a-z, 0-9 and dash, a letter first"
        raise ValueError(f"its label {SERVICE_LABEL}={quoted(service, _SHOWN)} names no service; {allowed}")
    port = seen.labels.get(PORT_LABEL)
    if port is None:
        raise ValueError(f"it has no label {PORT_LABEL}; give it one with the port of its application")
    if ":" in port:
        raise ValueError(f"its label {PORT_LABEL}={quoted(port, _SHOWN)} is no port; allowed is 1 to 65535")
    try:
        number = read_value(PORT_LABEL, port).port or 0
    except ValueError:
        raise ValueError(f"its label {PORT_LABEL}={quoted(port, _SHOWN)} is no port; allowed is 1 to 65535") from None
    node = prefix + seen.name
    if fault := name_fault(node):
        raise ValueError(f"its name cannot be that of a node: {fault}")
    is_fit = not seen.is_paused and seen.health in ("", HEALTHY)
    return Announcement(node, service, number, _choose_address(seen, own), not is_fit)


def choose_port(address: str, low: int, count: int, taken: Collection[int], shift: int = 0) -> int | None:
    """Return the gossip port of the node for a container; None where all are taken.

    It follows from the container's address. So a companion that starts again after a crash gives each node the port
    that it had: Serf refuses a name at another port until the former one has failed for long.

    Args:
        address: The container's address.
        low: The first port of the range.
        count: How many ports it has.
        taken: Those that other nodes have.
        shift: How many ports to pass over, because others listen there.
    """
    first = int(ipaddress.ip_address(address)) + shift
    return next((port for port in (low + (first + n) % count for n in range(count)) if port not in taken), None)


def choose(
    found: Iterable[tuple[Seen, Announcement]], announced: Collection[str], most: int
) -> tuple[dict[str, Announcement], int]:
    """Return what is announced, by the container's number, and how many containers are too many.

    Those that are announced stay, then the ones that were started first come first.
    """
    ordered = sorted(found, key=lambda one: (one[0].id not in announced, one[0].started, one[0].id))
    return {seen.id: announcement for seen, announcement in ordered[:most]}, max(0, len(ordered) - most)


def describe(seen: Seen) -> str:
    """Return a container's name for messages."""
    return f"container {printable(seen.name, _SHOWN)}"


def _choose_address(seen: Seen, own: Collection[str]) -> str:
    """Return the address in the first network, by name, that we are in too: its application can be reached there."""
    if not seen.networks:
        raise ValueError("it has no address in a network; a container in the network of its host cannot be announced")
    near = [name for name, (address, prefix) in seen.networks.items() if _is_near(address, prefix, own)]
    if not near:
        raise ValueError("the companion is in none of its networks; connect it with one of them")
    return seen.networks[min(near)][0]


def _is_near(address: str, prefix: int, own: Collection[str]) -> bool:
    network = ipaddress.ip_network(f"{address}/{prefix}", strict=False)
    return any(ipaddress.ip_address(one) in network for one in own)


def _read_address(endpoint: Any) -> tuple[str, int] | None:
    for key, length in (("IPAddress", "IPPrefixLen"), ("GlobalIPv6Address", "GlobalIPv6PrefixLen")):
        text = _text(endpoint, key)
        try:
            address = ipaddress.ip_address(text)
            prefix = int(_map({"": endpoint}, "").get(length, address.max_prefixlen))
            ipaddress.ip_network(f"{text}/{prefix}", strict=False)
        except (ValueError, TypeError):
            continue
        return str(address), prefix
    return None


def _map(content: Any, key: str) -> dict[str, Any]:
    value = content.get(key) if isinstance(content, dict) else None
    return value if isinstance(value, dict) else {}


def _text(content: Any, key: str) -> str:
    value = content.get(key) if isinstance(content, dict) else None
    return value if isinstance(value, str) else ""
