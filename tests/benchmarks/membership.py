"""A simulated Serf cluster: the roster and the hints of Serf's RPC, and events through the real handler.

The RPC is that of the tests, on a real socket. The handler runs as Serf runs it, `/bin/sh -c HANDLER`, with Serf's
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
from fakes.servers import serving_in_thread

HANDLER = str(REPO / "handlers" / "member_event")
_LOG_WORD = {"member-join": "MemberJoin", "member-leave": "MemberLeave", "member-failed": "MemberFailed"}
_STATUS = {"member-leave": "left", "member-failed": "failed"}


class Member(NamedTuple):
    """Serf's record of a node."""

    name: str
    address: str
    tags: dict[str, str]
    status: str = "alive"

    def line(self) -> str:
        """Return its line in the standard input of a handler."""
        tags = ",".join(f"{key}={value}" for key, value in self.tags.items())
        return f"{self.name}\t{self.address}\t{self.tags.get('role', '')}\t{tags}\n"


class Membership:
    """The members that a simulated Serf agent knows.

    Args:
        environment: SERF_HAPROXY_* variables that the handler needs.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        self.members: dict[str, Member] = {}
        self._environ = os.environ | environment
        self._lock = threading.Lock()
        self._packed = b""
        self._monitors: list[Any] = []
        self._is_packed = False

    def put(self, members: Iterable[Member], kind: str = "member-join") -> None:
        """Change the roster as an event of this kind would, without a hint or an event."""
        with self._lock:
            for member in members:
                self.members[member.name] = member._replace(status=_STATUS.get(kind, "alive"))
            self._is_packed = False

    def hint(self, kind: str, members: Iterable[Member]) -> None:
        """Send the log lines of a change at once, as a Serf agent does, to all connections that follow its log."""
        word = _LOG_WORD.get(kind, "MemberUpdate")
        lines = [f"[INFO] serf: Event{word}: {member.name} {member.address}" for member in members]
        message = b"".join(serf_rpc.say(serf_rpc.header(0), {"Log": line}) for line in lines)
        for connection in list(self._monitors):
            try:
                connection.sendall(message)
            except OSError:
                self._monitors.remove(connection)

    def event(self, kind: str, members: Iterable[Member]) -> None:
        """Run the handler with an event and wait for its end."""
        subprocess.run(
            ["/bin/sh", "-c", HANDLER],
            env=self._environ | {"SERF_EVENT": kind, "SERF_SELF_NAME": "lb"},
            input="".join(member.line() for member in members).encode(),
            check=True,
            timeout=60,
        )

    def answer(self, seq: int) -> bytes:
        """Return the answer to `members`; the list is packed once for each change."""
        with self._lock:
            if not self._is_packed:
                members = [self._member(member) for member in self.members.values()]
                self._packed = serf_rpc.say({"Members": members})
                self._is_packed = True
            return serf_rpc.say(serf_rpc.header(seq)) + self._packed

    def list_members(self) -> list[dict[str, object]]:
        """Return all members in the form of the command `members`."""
        return [self._member(member) for member in list(self.members.values())]

    def follow(self, connection: Any, seq: int) -> bytes:
        """Register a connection that follows the log; return the answer."""
        self._monitors.append(connection)
        return serf_rpc.say(serf_rpc.header(seq))

    @staticmethod
    def _member(member: Member) -> dict[str, object]:
        address = bytes(map(int, member.address.split(".")))
        return serf_rpc.member(member.name, address, member.status, **member.tags)


@contextlib.contextmanager
def serving(membership: Membership, address: tuple[str, int]) -> Iterator[Membership]:
    """Serve the RPC for the length of the block."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            answers = {
                "members": membership.answer,
                "monitor": lambda seq: membership.follow(self.request, seq),
            }
            with contextlib.suppress(OSError):
                serf_rpc.speak(answers, list_members=membership.list_members)(self.request)

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

    with serving_in_thread(Server(address, Handler)):
        yield membership
