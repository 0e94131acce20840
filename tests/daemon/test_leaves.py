"""Which members are asked whether they leave, and when."""

import math

from serf_haproxy.daemon.leaves import Leaves
from serf_haproxy.serf.client import Client
from serf_haproxy.serf.events import ALIVE, LEAVING, LEFT, Member
from serf_haproxy.serf.nodes import NodeFile
from serf_haproxy.serf.rpc import RpcAddress


class Asked(Client):
    """A connection to a Serf agent that notes about whom the cluster was asked."""

    def __init__(self) -> None:
        super().__init__(RpcAddress())
        self.names: list[str] = []
        self.has_serf = True

    def is_up(self) -> bool:
        """Return whether there is a Serf agent."""
        return self.has_serf

    def force_leave(self, name: str) -> bool:
        """Note it."""
        self.names.append(name)
        return True


def say(**statuses: str) -> dict[str, NodeFile]:
    """Return node files."""
    return {name: NodeFile(status, Member(name, "127.0.0.1", "", ()), 0) for name, status in statuses.items()}


def ask(leaves: Leaves, client: Asked, until_s: float, now_s: float = 0.0) -> list[float]:
    """Ask whenever that is due; return when that was."""
    asked = []
    while (now_s := max(now_s, leaves.due_s())) <= until_s:
        leaves.ask(client, now_s)
        asked.append(now_s)
    return asked


def test_a_leave_that_ends_is_no_reason_to_ask() -> None:
    """A member that leaves, and then has left or is back, is not asked."""
    leaves, client = Leaves(), Asked()
    leaves.follow(say(web1=LEAVING, web2=LEAVING, web3=ALIVE), 0.0)
    leaves.follow(say(web1=LEFT, web2=ALIVE, web3=ALIVE), 10.0)
    assert leaves.due_s() == math.inf
    leaves.follow(say(web1=LEFT, web2=LEAVING), 50.0)
    assert ask(leaves, client, 69.0) == []


def test_a_leave_without_end_is_asked_about_with_growing_pauses() -> None:
    """The first time after 20 s; what other passes find in between changes nothing."""
    leaves, client = Leaves(), Asked()
    for now_s in (0.0, 5.0, 19.0):
        leaves.follow(say(web1=LEAVING, web2=ALIVE), now_s)
    times = ask(leaves, client, 4000.0)
    assert times[:6] == [20.0, 30.0, 60.0, 120.0, 420.0, 1020.0]
    assert times[6:] == [1620.0, 2220.0, 2820.0, 3420.0]
    assert client.names == ["web1"] * len(times)


def test_many_are_asked_about_one_after_another() -> None:
    """A forged leave of every member, which any node can send, must not become a storm of ours."""
    leaves, client = Leaves(), Asked()
    leaves.follow(say(**{f"web{number}": LEAVING for number in range(100)}), 0.0)
    times = ask(leaves, client, 29.0)
    assert len(set(client.names)) == len(client.names) == 100
    assert times == [20.0 + number for number in range(7)]


def test_a_serf_agent_that_is_away_is_asked_later() -> None:
    """Without a connection nothing is asked, and the loop does not spin."""
    leaves, client = Leaves(), Asked()
    client.has_serf = False
    leaves.follow(say(web1=LEAVING), 0.0)
    assert leaves.ask(client, 20.0) is None
    assert ask(leaves, client, 100.0) == [30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 100.0]
    client.has_serf = True
    assert leaves.ask(client, 110.0) == 110.5
    assert client.names == ["web1"]
