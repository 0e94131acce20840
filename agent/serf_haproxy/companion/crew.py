"""The nodes of a companion: they come and go as containers do, and come back where a Serf agent ends by itself."""

import itertools
import logging
import math
import time
from collections.abc import Mapping

from serf_haproxy.companion.law import Announcement, choose_port
from serf_haproxy.companion.serf_agent import Cluster, SerfAgent
from serf_haproxy.errors import SerfFault, SystemFault
from serf_haproxy.policy.proof import Secret

log = logging.getLogger("serf-haproxy")

_LEAVE_S = 8.0  # an engine gives a container 10 s to end
_PAUSES_S = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_STEADY_S = 60.0
_LOOK_S = 0.1  # while nodes leave
_JOIN_S = 30.0
_LOST_VOTE = "Serf shutdown detected"  # the cluster has told it to end, because of its name
_IN_USE = "address already in use"


class _Node:
    """A node: what it announces, and its Serf agent while there is one."""

    def __init__(self, container: str, announcement: Announcement) -> None:
        self.container = container
        self.announcement = announcement
        self.agent: SerfAgent | None = None
        self.started_s = 0.0
        self.leave_until_s = math.inf  # while it leaves: when its Serf agent is killed
        self.failure_count = 0
        self.retry_s = 0.0
        self.shift = 0

    @property
    def is_leaving(self) -> bool:
        return self.leave_until_s < math.inf


class Crew:
    """All nodes of a companion.

    Args:
        cluster: What they have in common.
        secret: The cluster's secret; None where nodes need no proof.
        ports: The first and the last port that they use: the lower half for gossip, the upper half for their RPC.
    """

    def __init__(self, cluster: Cluster, secret: Secret | None, ports: tuple[int, int]) -> None:
        self._cluster, self._secret = cluster, secret
        self._low, self._count = ports[0], (ports[1] - ports[0] + 1) // 2
        self._nodes: dict[str, _Node] = {}
        self._wanted: dict[str, Announcement] = {}
        self._join_s = time.monotonic() + _JOIN_S
        self._turns = itertools.count()
        self._is_alone = False

    def list_announced(self) -> set[str]:
        """Return the numbers of the containers that are announced, or about to be."""
        return {node.container for node in self._nodes.values() if not node.is_leaving}

    def watched(self) -> list[SerfAgent]:
        """Return the Serf agents; call `look` when one turns readable."""
        return [node.agent for node in self._nodes.values() if node.agent]

    def want(self, wanted: Mapping[str, Announcement]) -> None:
        """Take which containers are to be announced, by number; call `look` then.

        A name belongs to one container: where another one wants it, that one waits until the first has left.
        """
        self._wanted = dict(wanted)
        self._compare()

    def _compare(self) -> None:
        by_name: dict[str, tuple[str, Announcement]] = {}
        for container, announcement in self._wanted.items():
            by_name.setdefault(announcement.node, (container, announcement))
        for name, node in self._nodes.items():
            found = by_name.pop(name, None)
            if node.is_leaving:
                continue
            if found is None or found[0] != node.container:
                self._leave(name, node, "its container has gone")
            elif not found[1].is_same(node.announcement):
                self._leave(name, node, "its container has another address, or other labels")
            elif found[1] != node.announcement:
                node.announcement = found[1]
                if node.agent:
                    node.agent.change_tags(self._list_tags(node))
                is_drained = node.announcement.is_drained
                log.info("%s", f"node {name} {'is drained: its container is unfit' if is_drained else 'serves again'}")
        for name, (container, announcement) in by_name.items():
            self._nodes[name] = _Node(container, announcement)

    def leave(self, container: str, why: str) -> None:
        """Have the node of a container leave, if there is one."""
        self._wanted.pop(container, None)
        for name, node in self._nodes.items():
            if node.container == container and not node.is_leaving:
                self._leave(name, node, why)

    def look(self, now_s: float) -> float:
        """Start what is to be started, and forget what has ended; return how long to wait at most, seconds."""
        for name, node in list(self._nodes.items()):
            if node.agent and (node.agent.read_status() is not None or now_s >= node.leave_until_s):
                self._bury(name, node, node.agent, now_s)
            if node.agent is None and node.is_leaving:
                del self._nodes[name]
                self._compare()  # a container may wait for the name
            elif node.agent is None and now_s >= node.retry_s:
                self._start(name, node, now_s)
        if now_s >= self._join_s:
            self._join_s = now_s + _JOIN_S
            self._join_again()
        if any(node.is_leaving for node in self._nodes.values()):
            return _LOOK_S
        retries_s = [node.retry_s for node in self._nodes.values() if node.agent is None]
        return max(0.0, min([self._join_s, *retries_s]) - now_s)

    def close(self) -> None:
        """Have all nodes leave at the same time; return when all have, or have been killed."""
        self._wanted = {}
        for name, node in self._nodes.items():
            if not node.is_leaving:
                self._leave(name, node, "the companion ends")
        while self._nodes:
            self.look(time.monotonic())
            time.sleep(_LOOK_S if self._nodes else 0.0)

    def _list_tags(self, node: _Node) -> dict[str, str]:
        return node.announcement.list_tags(self._cluster.advertised, self._secret)

    def _leave(self, name: str, node: _Node, why: str) -> None:
        log.info("%s", f"node {name} leaves: {why}")
        node.leave_until_s = time.monotonic() + _LEAVE_S
        if node.agent:
            node.agent.leave()

    def _bury(self, name: str, node: _Node, agent: SerfAgent, now_s: float) -> None:
        status = agent.read_status()
        agent.close()
        node.agent = None
        if node.is_leaving:
            if status is None:
                log.warning("%s", f"node {name} has not left in {_LEAVE_S:g} s: its Serf agent is killed")
            return
        node.failure_count = 1 if now_s - node.started_s > _STEADY_S else node.failure_count + 1
        node.shift += _IN_USE in agent.last_line
        why = f"its Serf agent has ended with {status}: {agent.last_line}"
        if _LOST_VOTE in agent.last_line:
            why = "the cluster has this name at another address; set --prefix, unless this companion was there before"
        self._postpone(name, node, now_s, why)

    def _start(self, name: str, node: _Node, now_s: float) -> None:
        taken = {other.agent.port for other in self._nodes.values() if other.agent}
        port = choose_port(node.announcement.address, self._low, self._count, taken, node.shift)
        try:
            if port is None:
                raise SystemFault("no port is free for its gossip; allow more with --ports")
            node.agent = SerfAgent(name, port, port + self._count, self._list_tags(node), self._cluster)
        except (SystemFault, ValueError) as fault:
            node.failure_count += 1
            self._postpone(name, node, now_s, str(fault))
            return
        node.started_s = now_s
        said = node.announcement
        log.info("%s", f"node {name} joins: {said.service} at {said.address}, port {said.port}; gossip at port {port}")

    def _postpone(self, name: str, node: _Node, now_s: float, why: str) -> None:
        pause_s = _PAUSES_S[min(node.failure_count, len(_PAUSES_S)) - 1]
        node.retry_s = now_s + pause_s
        log.warning("%s", f"node {name} is not announced: {why}; it is tried again in {pause_s:g} s")

    def _join_again(self) -> None:
        """Have a node join the cluster again where the balancers have gone and come back at other addresses."""
        agents = [node.agent for node in self._nodes.values() if node.agent and not node.is_leaving]
        if not agents:
            return
        agent = agents[next(self._turns) % len(agents)]
        try:
            is_joined = agent.join(self._cluster.join, frozenset(self._nodes))
        except SerfFault as fault:
            if not self._is_alone:
                log.warning("%s", f"no other member is alive, or Serf does not say: {fault}; it is tried again")
            self._is_alone = True
            return
        if is_joined:
            log.info("%s", "no other member was alive: a node has joined the cluster again")
        self._is_alone = False
