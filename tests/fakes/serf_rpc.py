"""A fake RPC port of a Serf agent, whose answers the test chooses."""

import re
import socket
from collections.abc import Callable, Iterable, Mapping

import msgpack

from fakes.servers import Talk

Answer = Callable[[int], bytes]


def say(*messages: object) -> bytes:
    """Return the concatenated MessagePack messages."""
    return b"".join(msgpack.packb(message, unicode_errors="surrogateescape") for message in messages)


def header(seq: int, error: str = "") -> dict[str, object]:
    """Return the header of an answer."""
    return {"Seq": seq, "Error": error}


def member(name: str, address: bytes = b"\x7f\x00\x01\x01", status: str = "alive", **tags: str) -> dict[str, object]:
    """Return a member in the form of the command `members`."""
    return {"Name": name, "Addr": address, "Status": status, "Tags": tags}


def speak(
    answers: Mapping[str, Answer] | None = None,
    *members: Mapping[str, object],
    find_members: Callable[[str], Iterable[Mapping[str, object]]] | None = None,
) -> Talk:
    """Answer commands like Serf, with these members; `answers` replaces the answers of single commands.

    The command `members-filtered` gives those of these members whose whole name matches a pattern, or what
    `find_members` returns for it.
    """
    find_members = find_members or (lambda name: [one for one in members if re.fullmatch(name, str(one["Name"]))])
    proper: dict[str, Answer] = {
        "handshake": lambda seq: say(header(seq)),
        "auth": lambda seq: say(header(seq)),
        "stats": lambda seq: say(header(seq), {"agent": {"name": "lb"}}),
        "members": lambda seq: say(header(seq), {"Members": members}),
    }
    chosen = proper | dict(answers or {})

    def talk(connection: socket.socket) -> None:
        unpacker = msgpack.Unpacker()
        filtered_seq = 0
        while data := connection.recv(65536):
            unpacker.feed(data)
            for message in unpacker:
                if not isinstance(message, dict):
                    return  # another program has taken this port for that of its own server
                if message.get("Command") == "members-filtered":
                    filtered_seq = message["Seq"]  # its body says which
                elif "Command" in message:  # otherwise it is the body of a command
                    connection.sendall(chosen[message["Command"]](message["Seq"]))
                elif filtered_seq:
                    found = list(find_members(message["Name"]))
                    connection.sendall(say(header(filtered_seq), {"Members": found}))
                    filtered_seq = 0

    return talk


def pour_log(message: bytes, *members: Mapping[str, object]) -> Talk:
    """Answer like Serf, with these members, and repeat a message endlessly after the command `monitor`."""

    def talk(connection: socket.socket) -> None:
        def answer(seq: int) -> bytes:
            connection.sendall(say(header(seq)))
            while True:
                connection.sendall(message * 1000)

        speak({"monitor": answer}, *members)(connection)

    return talk


def speak_queries(
    answer: Callable[[list[str], str], Mapping[str, bytes]], has_end: Callable[[], bool] = lambda: True
) -> Talk:
    """Accept queries like Serf, with all that follows in one piece.

    Args:
        answer: Returns what each node answers, given the names of the nodes that are asked and the payload.
        has_end: Whether the end of the answers is said too.
    """

    def talk(connection: socket.socket) -> None:
        unpacker, query_seq = msgpack.Unpacker(), 0
        while data := connection.recv(65536):
            unpacker.feed(data)
            for message in unpacker:
                if message.get("Command") == "query":
                    query_seq = message["Seq"]
                elif "Command" in message:
                    connection.sendall(say(header(message["Seq"])))
                elif query_seq:
                    told = answer(message["FilterNodes"], message["Payload"].decode())
                    said = [{"Type": "response", "From": node, "Payload": text} for node, text in told.items()]
                    said += [{"Type": "done"}] if has_end() else []
                    connection.sendall(
                        say(header(query_seq), *(part for one in said for part in (header(query_seq), one)))
                    )
                    query_seq = 0

    return talk
