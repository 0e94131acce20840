"""What a container engine says of its containers. Only GET, and only the three paths of this module, are ever asked."""

import contextlib
import json
import re
import signal
import socket
import time
from typing import NamedTuple
from urllib.parse import urlencode

from serf_haproxy.autoscale.engine import ABSENT, Engine
from serf_haproxy.autoscale.executor import ExecutorFault
from serf_haproxy.companion.law import SERVICE_LABEL, Seen, read_seen
from serf_haproxy.system.deadlines import time_left

_LIST, _EVENTS = ("containers", "json"), "/events"
_ASK_S = 3.0
_LOOKED_AT = 500  # containers in one look, at most
_LINE_BYTES = 1024 * 1024  # an event has all labels of its container
_HEAD_BYTES = 16384
_NUMBER = re.compile(r"[0-9a-f]{64}", re.ASCII)
_ACTIONS = ("start", "kill", "die", "health_status", "pause", "unpause", "rename", "destroy")


class Event(NamedTuple):
    """What an event says.

    Attributes:
        id: The container's number.
        is_kill: Whether a signal was sent to it, which is when `docker stop` begins.
        signal: That signal, 0 if it is none that this system has.
    """

    id: str
    is_kill: bool
    signal: int


class Docker:
    """A container engine, read only.

    Args:
        socket_path: Its Unix socket.
    """

    def __init__(self, socket_path: str) -> None:
        self._socket_path = socket_path
        self._engine = Engine(socket_path)

    def list_running(self) -> list[Seen]:
        """Return the running containers with the label, as far as the engine describes them; of very many, the first.

        Raises:
            ExecutorFault: The engine gives no answer.
        """
        filters = json.dumps({"label": [SERVICE_LABEL], "status": ["running", "paused"]})
        answer = self._engine.ask("GET", _LIST, _ASK_S, {"filters": filters})
        found = []
        for one in self._engine.expect_list(answer, "list containers")[:_LOOKED_AT]:
            number = one.get("Id")
            if isinstance(number, str) and _NUMBER.fullmatch(number) and (seen := self._inspect(number)):
                found.append(seen)
        return found

    def follow(self) -> "Events":
        """Return the events of these containers from now on.

        Raises:
            ExecutorFault: The engine gives no answer.
        """
        filters = json.dumps({"type": ["container"], "label": [SERVICE_LABEL], "event": list(_ACTIONS)})
        return Events(self._socket_path, f"{_EVENTS}?{urlencode({'filters': filters})}")

    def _inspect(self, number: str) -> Seen | None:
        answer = self._engine.ask("GET", ("containers", number, "json"), _ASK_S)
        return read_seen(self._engine.expect(answer, f"look at {number[:12]}", ABSENT).content)


class Events:
    """A stream of events, which the engine sends as lines of JSON behind an answer of HTTP/1.0.

    Args:
        socket_path: The engine's Unix socket.
        target: Path and parameters.

    Raises:
        ExecutorFault: The engine gives no answer.
    """

    def __init__(self, socket_path: str, target: str) -> None:
        self._name = f"the engine at {socket_path}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._rest = b""
        deadline = time.monotonic() + _ASK_S
        try:
            self._socket.settimeout(_ASK_S)
            self._socket.connect(socket_path)
            self._socket.sendall(f"GET {target} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode("ascii"))
            while b"\r\n\r\n" not in self._rest:
                self._socket.settimeout(time_left(deadline))
                if len(self._rest) > _HEAD_BYTES or not (chunk := self._socket.recv(4096)):
                    raise ExecutorFault(f"{self._name} sends no events")
                self._rest += chunk
            head, _, self._rest = self._rest.partition(b"\r\n\r\n")
            if not re.match(rb"HTTP/1\.[01] 200 ", head):
                raise ExecutorFault(f"{self._name} sends no events: {head[:40].decode('ascii', 'replace')}")
            self._socket.setblocking(False)
        except OSError as error:
            self.close()
            remedy = "does it run, and may this user open the socket?"
            raise ExecutorFault(f"no answer of {self._name}: {error.strerror or 'too late'}; {remedy}") from error
        except ExecutorFault:
            self.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor that turns readable when something has happened."""
        return self._socket.fileno()

    def read(self) -> list[Event]:
        """Return what has happened since the last time, without waiting.

        Raises:
            ExecutorFault: The engine has ended the stream.
        """
        try:
            chunk = self._socket.recv(262144)
        except BlockingIOError:
            return []
        except OSError:
            chunk = b""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if not chunk or len(self._rest) > _LINE_BYTES:
            raise ExecutorFault(f"{self._name} has ended its stream of events")
        return [event for line in lines if line.strip() and (event := read_event(line))]

    def close(self) -> None:
        """Close the connection; a second call does nothing."""
        with contextlib.suppress(OSError):
            self._socket.close()


def read_event(line: bytes) -> Event | None:
    """Return what a line says; None where it has another form."""
    try:
        content = json.loads(line)
        actor, action = content["Actor"], content["Action"]
        number = actor["ID"]
        said = actor["Attributes"].get("signal", "")
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return None
    if not (isinstance(number, str) and _NUMBER.fullmatch(number)):
        return None
    is_kill = action == "kill"
    return Event(number, is_kill, find_signal(said) if is_kill and isinstance(said, str) else 0)


def find_signal(text: str) -> int:
    """Return the number of a signal that is written as 15, TERM, SIGTERM or SIGRTMIN+3; 0 where there is none."""
    if re.fullmatch(r"[0-9]{1,2}", text, re.ASCII):
        return int(text)
    name, _, more = f"SIG{text.upper().removeprefix('SIG')}".partition("+")
    known = getattr(signal, name, None) if re.fullmatch(r"SIG[A-Z0-9]{1,8}", name, re.ASCII) else None
    if not isinstance(known, signal.Signals) or not re.fullmatch(r"[0-9]{0,2}", more, re.ASCII):
        return 0
    return int(known) + int(more or 0)
