"""A cluster that a benchmark makes up: the roster of Serf's RPC, its hints, and events through the real handler.

The RPC is the one of the tests, on a real socket; the handler runs as Serf runs it, `/bin/sh -c HANDLER`, with Serf's
environment and standard input.
"""

import contextlib
import os
import socketserver
import subprocess
import threading
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from measure import REPO

from fakes import serf_rpc

HANDLER = str(REPO / "handlers" / "member_event")
_LOG_WORD = {"member-join": "MemberJoin", "member-leave": "MemberLeave", "member-failed": "MemberFailed"}
_STATUS = {"member-leave": "left", "member-failed": "failed"}


class Node(NamedTuple):
    """A member as Serf knows it."""

    name: str
    address: str
    tags: dict[str, str]
    status: str = "alive"

    def line(self) -> str:
        """Return its line on a handler's standard input."""
        tags = ",".join(f"{key}={value}" for key, value in self.tags.items())
        return f"{self.name}\t{self.address}\t{self.tags.get('role', '')}\t{tags}\n"


class Membership:
    """The members that a Serf agent of our own making knows.

    Args:
        environment: SERF_HAPROXY_* variables that the handler needs.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        self.nodes: dict[str, Node] = {}
        self._environ = os.environ | environment
        self._lock = threading.Lock()
        self._packed = b""
        self._monitors: list[Any] = []
        self._is_packed = False

    def put(self, nodes: Iterable[Node], kind: str = "member-join") -> None:
        """Let an event of some kind be true of members; nobody is told."""
        with self._lock:
            for node in nodes:
                self.nodes[node.name] = node._replace(status=_STATUS.get(kind, "alive"))
            self._is_packed = False

    def hint(self, kind: str, nodes: Iterable[Node]) -> None:
        """Log a change at once, as Serf's agent does, for whoever follows its log."""
        word = _LOG_WORD.get(kind, "MemberUpdate")
        lines = [f"[INFO] serf: Event{word}: {node.name} {node.address}" for node in nodes]
        message = b"".join(serf_rpc.say(serf_rpc.header(0), {"Log": line}) for line in lines)
        for connection in list(self._monitors):
            try:
                connection.sendall(message)
            except OSError:
                self._monitors.remove(connection)

    def event(self, kind: str, nodes: Iterable[Node]) -> None:
        """Run the handler with an event about some members and wait for it."""
        subprocess.run(
            ["/bin/sh", "-c", HANDLER],
            env=self._environ | {"SERF_EVENT": kind, "SERF_SELF_NAME": "lb"},
            input="".join(node.line() for node in nodes).encode(),
            check=True,
            timeout=60,
        )

    def answer(self, seq: int) -> bytes:
        """Return the answer to `members`; a long list is packed once."""
        with self._lock:
            if not self._is_packed:
                members = [self._member(node) for node in self.nodes.values()]
                self._packed = serf_rpc.say({"Members": members})
                self._is_packed = True
            return serf_rpc.say(serf_rpc.header(seq)) + self._packed

    def follow(self, connection: Any, seq: int) -> bytes:
        """Note a connection that wants the log."""
        self._monitors.append(connection)
        return serf_rpc.say(serf_rpc.header(seq))

    @staticmethod
    def _member(node: Node) -> dict[str, object]:
        address = bytes(map(int, node.address.split(".")))
        return serf_rpc.member(node.name, address, node.status, **node.tags)


@contextlib.contextmanager
def serving(membership: Membership, address: tuple[str, int]) -> Iterator[Membership]:
    """Serve a membership's RPC for the length of a block."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            answers = {
                "members": membership.answer,
                "monitor": lambda seq: membership.follow(self.request, seq),
            }
            with contextlib.suppress(OSError):
                serf_rpc.speak(answers)(self.request)

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

    with Server(address, Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield membership
        finally:
            server.shutdown()
            thread.join()
