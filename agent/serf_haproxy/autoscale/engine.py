"""The API of a container engine, Docker's or Podman's, over its Unix socket (Docker Engine API; HTTP)."""

import http.client
import json
import math
import socket
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from serf_haproxy.autoscale.executor import ExecutorFault
from serf_haproxy.serf.printing import printable
from serf_haproxy.system.deadlines import time_left

_ANSWER_BYTES = 16 * 1024 * 1024
_SHOWN = 300
ABSENT, CONFLICT, UNCHANGED = 404, 409, 304
_TEXTS, _TABLES = ("Id", "Name", "Image", "Created"), ("State", "Config", "HostConfig", "NetworkSettings")


class Answer:
    """What the engine says.

    Attributes:
        status: The status of HTTP.
        content: The content as JSON has it; None without any, or where it is something else.
        is_null: Whether it is the null of JSON, which some engines say for an empty list.
    """

    def __init__(self, status: int, data: bytes) -> None:
        self.status = status
        self.is_null = data.strip() == b"null"
        try:
            self.content: Any = json.loads(data) if data else None
        except (ValueError, RecursionError):
            self.content = None

    def explain(self) -> str:
        """Return what the engine says of a failure."""
        message = self.content.get("message") if isinstance(self.content, dict) else None
        return printable(str(message or "no reason given"), _SHOWN)


class _Socket(socket.socket):
    """A socket of which all reading ends at a time, however little comes at once."""

    deadline = math.inf

    def recv_into(self, *args: Any) -> int:
        self.settimeout(time_left(self.deadline))
        return super().recv_into(*args)


class _Connection(http.client.HTTPConnection):
    """A connection of HTTP over a Unix socket, whose whole exchange ends at a time."""

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path
        self._deadline = time.monotonic() + timeout_s

    def connect(self) -> None:
        self.sock = _Socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.deadline = self._deadline
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Engine:
    """A container engine.

    Args:
        socket_path: Its Unix socket.
    """

    def __init__(self, socket_path: str) -> None:
        self._socket_path = socket_path

    def ask(
        self,
        verb: str,
        path: tuple[str, ...],
        timeout_s: float,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Answer:
        """Make one request, and return the answer whatever its status is.

        Args:
            verb: GET, POST or DELETE.
            path: The parts of the path, as they are.
            timeout_s: How long the whole exchange may take.
            query: The parameters.
            body: What is sent as JSON.

        Raises:
            ExecutorFault: The engine gives no answer, or one that is too long.
        """
        target = "/" + "/".join(quote(part, safe="") for part in path) + (f"?{urlencode(query)}" if query else "")
        data = None if body is None else json.dumps(body).encode("ascii")
        connection = _Connection(self._socket_path, timeout_s)
        try:
            connection.request(verb, target, data, {"Content-Type": "application/json"} if data else {})
            response = connection.getresponse()
            chunks: list[bytes] = []
            size_bytes = 0
            while chunk := response.read1(262144):
                chunks.append(chunk)
                size_bytes += len(chunk)
                if size_bytes > _ANSWER_BYTES:
                    raise ExecutorFault(f"the engine at {self._socket_path} sends more than {_ANSWER_BYTES} bytes")
            if response.length:  # as long as the engine has said, less what has come
                raise http.client.IncompleteRead(b"", response.length)
            return Answer(response.status, b"".join(chunks))
        except TimeoutError as error:
            raise ExecutorFault(f"the engine at {self._socket_path} gave no answer in {timeout_s:g} s") from error
        except (OSError, http.client.HTTPException) as error:
            said = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
            remedy = "does it run, and may this user open the socket?"
            raise ExecutorFault(f"no answer of the engine at {self._socket_path}: {said}; {remedy}") from error
        finally:
            connection.close()

    def expect(self, answer: Answer, what: str, *also: int) -> Answer:
        """Return an answer if its status is a good one, or one of `also`; raise ExecutorFault otherwise."""
        if not (200 <= answer.status < 300 or answer.status in also):
            raise ExecutorFault(f"the engine at {self._socket_path} cannot {what}: {answer.status}, {answer.explain()}")
        return answer

    def expect_list(self, answer: Answer, what: str) -> list[dict[str, Any]]:
        """Return the objects of a good answer that is a list of them; raise ExecutorFault otherwise."""
        content = self.expect(answer, what).content
        if answer.is_null:
            return []
        if not isinstance(content, list):
            raise ExecutorFault(f"the engine at {self._socket_path} cannot {what}: it answers with something else")
        return [one for one in content if isinstance(one, dict)]

    def expect_container(self, answer: Answer, name: str) -> dict[str, Any]:
        """Return a container that a good answer describes; raise ExecutorFault otherwise."""
        content = self.expect(answer, f"look at {name}").content
        found = content if isinstance(content, dict) else {}
        is_whole = all(isinstance(found.get(key), str) for key in _TEXTS)
        if not is_whole or not all(isinstance(found.get(key), dict) for key in _TABLES):
            raise ExecutorFault(f"the engine at {self._socket_path} does not say what {printable(name, 80)} is")
        return found
