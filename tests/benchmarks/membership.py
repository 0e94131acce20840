"""A simulated Serf cluster: the roster and the hints of Serf's RPC, and events through the real handler.

The RPC is that of the tests, on a real socket. The handler runs as Serf runs it, `/bin/sh -c HANDLER`, with Serf's
environment and standard input.
"""

import contextlib
import os
import queue
import re
import socketserver
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from measure import REPO

from fakes import serf_rpc
from fakes.servers import serving_in_thread

HANDLER = str(REPO / "handlers" / "member_event")
_LOG_WORD = {"member-join": "MemberJoin", "member-leave": "MemberLeave", "member-failed": "MemberFailed"}
_COALESCE_S = 3.0
_QUIESCENT_S = 1.0
_WAITING_COUNT = 512
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
        self._monitors: list[queue.Queue[bytes]] = []
        self._is_packed = False

    def put(self, members: Iterable[Member], kind: str = "member-join") -> None:
        """Change the roster as an event of this kind would, without a hint or an event."""
        with self._lock:
            for member in members:
                self.members[member.name] = member._replace(status=_STATUS.get(kind, "alive"))
            self._is_packed = False

    def hint(self, kind: str, members: Iterable[Member]) -> None:
        """Send the log lines of a change to all connections that follow the log.

        As at a Serf agent, 512 lines wait for a connection that does not read, and more are lost to it.
        """
        word = _LOG_WORD.get(kind, "MemberUpdate")
        for member in members:
            line = f"[INFO] serf: Event{word}: {member.name} {member.address}"
            message = serf_rpc.say(serf_rpc.header(0), {"Log": line})
            for waiting in self._monitors:
                with contextlib.suppress(queue.Full):
                    waiting.put_nowait(message)

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

    def find_members(self, pattern: str) -> list[dict[str, object]]:
        """Return the members whose whole name matches a pattern, in the form of the command `members`."""
        matches = re.compile(pattern).fullmatch
        return [self._member(member) for name, member in list(self.members.items()) if matches(name)]

    def follow(self, connection: Any, seq: int) -> bytes:
        """Send log lines to a connection from now on; return the answer."""
        waiting: queue.Queue[bytes] = queue.Queue(_WAITING_COUNT)
        threading.Thread(target=self._pour, args=(connection, waiting), daemon=True).start()
        self._monitors.append(waiting)
        return serf_rpc.say(serf_rpc.header(seq))

    def _pour(self, connection: Any, waiting: "queue.Queue[bytes]") -> None:
        """Send what waits for a connection, until it is closed."""
        with contextlib.suppress(OSError):
            while True:
                connection.sendall(waiting.get())
        self._monitors.remove(waiting)

    @staticmethod
    def _member(member: Member) -> dict[str, object]:
        address = bytes(map(int, member.address.split(".")))
        return serf_rpc.member(member.name, address, member.status, **member.tags)


class Coalescer(threading.Thread):
    """Runs the handler as a Serf agent does: after a second without a change, after three at the latest."""

    def __init__(self, membership: Membership) -> None:
        super().__init__(daemon=True)
        self._membership = membership
        self._noted: queue.Queue[tuple[str, Member] | None] = queue.Queue()

    def note(self, kind: str, member: Member) -> None:
        """Note a change, of which the handler will be told."""
        self._noted.put((kind, member))

    def run(self) -> None:
        """Collect and hand over, until the block ends."""
        while (noted := self._noted.get()) is not None:
            kinds: dict[str, tuple[str, Member]] = {}
            end_s = time.monotonic() + _COALESCE_S
            while noted is not None:
                kinds[noted[1].name] = noted
                try:
                    noted = self._noted.get(timeout=max(0.0, min(_QUIESCENT_S, end_s - time.monotonic())))
                except queue.Empty:
                    break
            for kind in sorted({kind for kind, _ in kinds.values()}):
                self._membership.event(kind, [member for said, member in kinds.values() if said == kind])
            if noted is None:
                return

    def __enter__(self) -> "Coalescer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._noted.put(None)
        self.join()


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
                serf_rpc.speak(answers, find_members=membership.find_members)(self.request)

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

    with serving_in_thread(Server(address, Handler)):
        yield membership
