"""A query of Serf: a question to other nodes, whose answers come while the daemon does other things."""

from collections.abc import Sequence
from typing import Any

from serf_haproxy.errors import SerfFault
from serf_haproxy.serf.listing import decode
from serf_haproxy.serf.rpc import Connection, RpcAddress
from serf_haproxy.serf.wire import BROKEN

_ANSWER_COUNT = 64
_ANSWER_BYTES = 1024  # Serf's limit


class Query(Connection):
    """A connection on which the Serf agent sends the answers to one question.

    Args:
        address: Where the Serf agent's RPC is.
        name: The name of the query.
        payload: What is asked.
        nodes: The names of the nodes that are asked.
        timeout_s: After how many seconds the Serf agent takes no more answers.

    Raises:
        SerfFault: The Serf agent cannot be reached, refuses the query, or breaks its protocol.
    """

    def __init__(self, address: RpcAddress, name: str, payload: bytes, nodes: Sequence[str], timeout_s: float) -> None:
        super().__init__(address)
        question: dict[str, Any] = {"FilterNodes": list(nodes), "Timeout": int(timeout_s * 1e9)}
        self._exchange("query", question | {"Name": name, "Payload": payload})
        self._socket.setblocking(False)
        self._answer_count = 0

    def read_answers(self) -> tuple[list[tuple[str, bytes]], bool]:
        """Read once, without waiting; return the answers that came, and whether no more will come.

        Read once right after the question, too: what has come with its acceptance does not make the socket readable.

        Each answer has the name of its node, as the gossip says: only the content can prove anything.

        Raises:
            SerfFault: The Serf agent has gone or breaks its protocol; the connection is closed.
        """
        answers, is_done = [], False
        try:
            for message in self._wire.read_present():
                if not isinstance(message, dict):
                    raise TypeError(f"it has {type(message).__name__}, not a map")
                kind, node, payload = (message.get(key) for key in (b"Type", b"From", b"Payload"))
                is_done = is_done or kind == b"done"
                if kind == b"response" and isinstance(node, bytes) and isinstance(payload, bytes):
                    self._answer_count += 1
                    if len(payload) <= _ANSWER_BYTES and self._answer_count <= _ANSWER_COUNT:
                        answers.append((decode(node), payload))
        except (OSError, *BROKEN) as error:
            self.close()
            raise SerfFault(f"Serf's RPC at {self._name} broke off its answers: {error}") from error
        except SerfFault:
            self.close()
            raise
        return answers, is_done
