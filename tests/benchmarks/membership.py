"""A simulated Serf cluster: the roster and the hints of Serf's RPC, and events through the real handler.

The RPC is that of the tests, on a real socket. The handler runs as Serf runs it, `/bin/sh -c HANDLER`, with Serf's
environment and standard input.
"""

import contextlib
import gc
import multiprocessing
import os
import queue
import re
import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection
from typing import NamedTuple

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
        self._agent: Connection | None = None

    def put(self, members: Iterable[Member], kind: str = "member-join") -> None:
        """Change the roster as an event of this kind would, without a hint or an event."""
        changed = [member._replace(status=_STATUS.get(kind, "alive")) for member in members]
        self.members |= {member.name: member for member in changed}
        self._tell("put", changed)

    def pack(self) -> None:
        """Have the answer to `members` made now, and not while something is measured."""
        self._tell("pack")

    def hint(self, kind: str, members: Iterable[Member]) -> None:
        """Send the log lines of a change to all connections that follow the log."""
        self._tell("hint", _LOG_WORD.get(kind, "MemberUpdate"), list(members))

    def event(self, kind: str, members: Iterable[Member]) -> None:
        """Run the handler with an event and wait for its end."""
        subprocess.run(
            ["/bin/sh", "-c", HANDLER],
            env=self._environ | {"SERF_EVENT": kind, "SERF_SELF_NAME": "lb"},
            input="".join(member.line() for member in members).encode(),
            check=True,
            timeout=60,
        )

    @contextlib.contextmanager
    def talking(self, agent: Connection) -> Iterator[None]:
        """Tell a simulated Serf agent all, now and for the length of the block."""
        self._agent = agent
        self._tell("put", list(self.members.values()))
        self.pack()
        try:
            yield
        finally:
            self._agent = None

    def _tell(self, command: str, *words: object) -> None:
        """Tell the agent, and wait until it has it."""
        with self._lock:
            if self._agent:
                self._agent.send((command, *words))
                self._agent.recv()


class _Agent:
    """The simulated Serf agent, which has a process of its own: what it does delays nothing that is measured."""

    def __init__(self) -> None:
        self._members: dict[str, dict[str, object]] = {}
        self._lock = threading.Lock()
        self._packed = b""
        self._monitors: list[queue.Queue[bytes]] = []

    def put(self, members: Iterable[Member]) -> None:
        """Change the roster."""
        with self._lock:
            self._members |= {member.name: _describe(member) for member in members}
            self._packed = b""

    def pack(self) -> bytes:
        """Return the list of members; it is packed once for each change."""
        with self._lock:
            self._packed = self._packed or serf_rpc.say({"Members": list(self._members.values())})
            return self._packed

    def hint(self, word: str, members: Iterable[Member]) -> None:
        """Send log lines to all connections that follow the log.

        As at a Serf agent, 512 lines wait for a connection that does not read, and more are lost to it.
        """
        for member in members:
            line = f"[INFO] serf: Event{word}: {member.name} {member.address}"
            message = serf_rpc.say(serf_rpc.header(0), {"Log": line})
            for waiting in self._monitors:
                with contextlib.suppress(queue.Full):
                    waiting.put_nowait(message)

    def answer(self, seq: int) -> bytes:
        """Return the answer to `members`."""
        return serf_rpc.say(serf_rpc.header(seq)) + self.pack()

    def find_members(self, pattern: str) -> list[dict[str, object]]:
        """Return the members whose whole name matches a pattern, in the form of the command `members`."""
        matches = re.compile(pattern).fullmatch
        return [member for name, member in list(self._members.items()) if matches(name)]

    def follow(self, connection: socket.socket, seq: int) -> bytes:
        """Send log lines to a connection from now on; return the answer."""
        waiting: queue.Queue[bytes] = queue.Queue(_WAITING_COUNT)
        threading.Thread(target=self._pour, args=(connection, waiting), daemon=True).start()
        self._monitors.append(waiting)
        return serf_rpc.say(serf_rpc.header(seq))

    def _pour(self, connection: socket.socket, waiting: "queue.Queue[bytes]") -> None:
        """Send what waits for a connection, until it is closed."""
        with contextlib.suppress(OSError):
            while True:
                connection.sendall(waiting.get())
        self._monitors.remove(waiting)


def _describe(member: Member) -> dict[str, object]:
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


def _run(address: tuple[str, int], commands: Connection) -> None:
    """Be a simulated Serf agent until the other end of its commands is closed."""
    agent = _Agent()
    gc.disable()  # a collection among ten thousand members takes 50 ms, and Serf has none like it

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            answers = {"members": agent.answer, "monitor": lambda seq: agent.follow(self.request, seq)}
            with contextlib.suppress(OSError):
                serf_rpc.speak(answers, find_members=agent.find_members)(self.request)

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

    obey: dict[str, Callable[..., object]] = {"put": agent.put, "pack": agent.pack, "hint": agent.hint}
    with serving_in_thread(Server(address, Handler)), contextlib.suppress(EOFError):
        while True:
            command, *words = commands.recv()
            obey[command](*words)
            commands.send(None)


@contextlib.contextmanager
def serving(membership: Membership, address: tuple[str, int]) -> Iterator[Membership]:
    """Serve the RPC for the length of the block, from a process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run, args=(address, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        with ours, membership.talking(ours):
            yield membership
    finally:
        process.join(10)
        process.kill()
        process.join()
