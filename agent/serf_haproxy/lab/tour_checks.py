"""One step of the tour, and what must be true after it."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from serf_haproxy.services import DEFAULT_SERVICE

TOLERANCE = 3.0  # percentage points between a server's share of the requests and the share that it should have


class Step(NamedTuple):
    """One step of the tour.

    Attributes:
        title: The change, in a few words.
        act: Makes the change.
        servers: The addresses of the servers afterwards, by name.
        remark: An explanation of the result.
        service: The service of these servers.
        percents: The share of the requests of new clients that each server gets, by name; empty: all the same.
        forbids_reload: Whether the change takes no reload.
        ask_sticky: Makes a request as a client that has a cookie; returns the address that answered, "" for a failure.
        home: The name of that client's server.
        explained: The name of the node that is explained, "" for none.
    """

    title: str
    act: Callable[[], None]
    servers: Mapping[str, str]
    remark: str
    service: str = DEFAULT_SERVICE
    percents: Mapping[str, float] = {}
    forbids_reload: bool = False
    ask_sticky: Callable[[], str] | None = None
    home: str = ""
    explained: str = ""

    def list_percents(self) -> dict[str, float]:
        """Return the share of each server, by name."""
        return dict(self.percents) or {name: 100 / len(self.servers) for name in self.servers}


class Finding(NamedTuple):
    """What is found after a step.

    Attributes:
        servers: The names of the servers that HAProxy has.
        shares: Requests of new clients by the address that answered, or "failed".
        sticky: Requests of a client with a cookie by the address that answered, "" for failures.
        lost_count: Requests that failed during the change.
        reload_count: Reloads during the change.
    """

    servers: frozenset[str]
    shares: Mapping[str, int]
    sticky: Mapping[str, int]
    lost_count: int = 0
    reload_count: int = 0


def judge(step: Step, finding: Finding) -> list[str]:
    """Return what is not as the step says, one line for each fault."""
    faults = []
    if finding.servers != step.servers.keys():
        faults.append(f"HAProxy has {sorted(finding.servers)} instead of {sorted(step.servers)}")
    percents = {step.servers[name]: percent for name, percent in step.list_percents().items() if percent}
    total = sum(finding.shares.values())
    if finding.shares.keys() != percents.keys():
        faults.append(f"requests were answered by {dict(finding.shares)} instead of {sorted(percents)}")
    elif any(abs(100 * finding.shares[address] / total - percent) > TOLERANCE for address, percent in percents.items()):
        faults.append(f"the shares of {total} requests are {dict(finding.shares)} instead of {percents} percent")
    if finding.lost_count:
        faults.append(f"{finding.lost_count} requests failed during the change")
    if step.forbids_reload and finding.reload_count:
        faults.append(f"HAProxy was reloaded {finding.reload_count} times")
    if step.ask_sticky and finding.sticky.keys() != {step.servers[step.home]}:
        faults.append(f"the client with the cookie of {step.home} was answered by {dict(finding.sticky)}")
    return faults


def has_weights(step: Step, weights: Mapping[str, int]) -> bool:
    """Return whether the weights of the servers, by name, give each its share, to half a percentage point."""
    total = sum(weights.values())
    percents = step.list_percents()
    return weights.keys() == percents.keys() and all(
        abs(weights[name] * 100 - percent * total) <= total / 2 for name, percent in percents.items()
    )
