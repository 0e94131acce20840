#!/usr/bin/python3 -IB
"""Keeps this node in its cluster: joins what stands behind the names in SERF_JOIN and is no living member.

Serf's own -retry-join ends with its first success, which may be this node itself or a part of the cluster. This program
looks at the names again and again, with pauses that grow from FIRST_S: to LONGEST_S while each name leads to a living
member, to MISSING_S while one does not, and to ALONE_S while this node knows no other one. A member that comes or goes
makes it look again after FIRST_S. A node that is alone also tries the members that it has known, and those of Serf's
snapshot, since an address of its own in there leads to nobody.
"""

import os
import socket
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "serf", "data"))
import rpc

FIRST_S, ALONE_S, MISSING_S, LONGEST_S = 1.0, 5.0, 15.0, 60.0
JOIN_S = 30.0  # Serf gives up on an address after ten seconds
TARGET_COUNT = 8  # addresses in one look
KNOWN_COUNT = 64  # addresses that are remembered
SNAPSHOT_BYTES = 1 << 20
EVENTS = "member-join,member-leave,member-failed,member-reap"

Address = tuple[str, int]


def split_entry(entry: str, default_port: int) -> Address:
    """Return host and port of a word in SERF_JOIN: host, host:port, IPv6 address or [IPv6 address]:port."""
    if entry.startswith("["):
        host, _, port = entry[1:].partition("]")
        port = port.removeprefix(":")
    elif entry.count(":") == 1:
        host, _, port = entry.partition(":")
    else:
        host, port = entry, ""
    return host, int(port) if port.isdecimal() else default_port


def resolve(host: str, port: int) -> list[Address]:
    """Return the addresses behind a name; none when there are none, or when the name has no valid form."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, OverflowError):
        return []
    return list(dict.fromkeys((str(place[0]), int(place[1])) for *_, place in found))


def read_snapshot(path: str) -> list[Address]:
    """Return the addresses of the members that Serf's snapshot names as alive, the last ones first."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - SNAPSHOT_BYTES))
            lines = file.read().decode("utf-8", "replace").split("\n")
    except OSError:
        return []
    alive: dict[str, str] = {}
    for line in lines:
        kind, _, rest = line.partition(": ")
        if kind == "alive":
            name, _, place = rest.rpartition(" ")
            alive.pop(name, None)
            alive[name] = place
        elif kind == "not-alive":
            alive.pop(rest, None)
    places = [split_entry(place, 0) for place in reversed(alive.values())]
    return [(host, port) for host, port in places if host and port][:KNOWN_COUNT]


class Joiner:
    """Looks at the names and joins.

    Args:
        entries: The words of SERF_JOIN.
        port: The port of an entry without one.
        known: Addresses of members of an earlier run.
    """

    def __init__(self, entries: list[str], port: int, known: list[Address]) -> None:
        self._entries = [(entry, *split_entry(entry, port)) for entry in entries]
        self._known = dict.fromkeys(known)
        self._told: dict[str, str] = {}
        self._turn = 0

    def look(self, connection: rpc.Connection) -> float:
        """Join what is missing; return the longest pause before the next look, seconds.

        Raises:
            rpc.Fault: Serf cannot be asked.
        """
        name = connection.read_name()
        members = [each for each in connection.list_members() if each.status in ("alive", "leaving")]
        if not any(each.name == name and each.status == "alive" for each in members):
            return ALONE_S  # this node is leaving the cluster
        alive = {(each.address, each.port) for each in members}
        others = {(each.address, each.port) for each in members if each.name != name}
        targets, is_missing = self._find(alive)
        if others:
            for place in others:
                self._known.pop(place, None)
                self._known[place] = None
            self._known = dict.fromkeys(list(self._known)[-KNOWN_COUNT:])
            self._told.pop("alone", None)
        else:
            targets += [place for place in reversed(self._known) if place not in alive and place not in targets]
            if self._entries or targets:
                where = " ".join(entry for entry, *_ in self._entries) or "the addresses of former members"
                self._say("alone", f"{rpc.show(name)} is alone; looking for others at {where}")
        for place in self._choose(targets):
            self._join(connection, place)
        return LONGEST_S if others and not is_missing else MISSING_S if others else ALONE_S

    def _find(self, alive: set[Address]) -> tuple[list[Address], bool]:
        """Return what stands behind the names and is no living member; and whether a name leads to no living member."""
        targets: list[Address] = []
        is_missing = False
        for entry, host, port in self._entries:
            places = resolve(host, port)
            targets += [place for place in places if place not in alive and place not in targets]
            is_missing = is_missing or alive.isdisjoint(places)
            if places:
                self._told.pop(f"name {entry}", None)
            else:
                self._say(f"name {entry}", f"{entry} has no address")
        return targets, is_missing

    def _choose(self, targets: list[Address]) -> list[Address]:
        """Return the targets of this look; where there are too many, the next look takes the others."""
        start = self._turn % len(targets) if targets else 0
        self._turn += TARGET_COUNT
        return (targets[start:] + targets[:start])[:TARGET_COUNT] if len(targets) > TARGET_COUNT else targets

    def _join(self, connection: rpc.Connection, place: Address) -> None:
        words = f"[{place[0]}]:{place[1]}" if ":" in place[0] else f"{place[0]}:{place[1]}"
        try:
            connection.call("join", {"Existing": [words], "Replay": False}, has_answer=True, timeout_s=JOIN_S)
        except rpc.Fault as fault:
            self._say(words, f"{words} is no member and cannot be joined: {fault.show()}")
            if not str(fault).startswith("join: "):
                raise  # Serf has gone, instead of refusing
        else:
            self._say(words, f"{words} was no member; joined it")

    def _say(self, what: str, message: str) -> None:
        """Print what is new about something."""
        if self._told.get(what) != message:
            self._told.pop(what, None)
            self._told[what] = message
            if len(self._told) > KNOWN_COUNT:
                del self._told[next(iter(self._told))]
            sys.stdout.write(f"{message}\n")
            sys.stdout.flush()


def follow(joiner: Joiner) -> None:
    """Look again and again while Serf answers; raise rpc.Fault when it does not."""
    connection = rpc.connect()
    try:
        events = rpc.connect()
        try:
            events.watch(EVENTS)
            pause_s = FIRST_S
            while True:
                longest_s = joiner.look(connection)
                pause_s = FIRST_S if wait(events, min(pause_s, longest_s)) else min(pause_s * 2, longest_s)
        finally:
            events.close()
    finally:
        connection.close()


def wait(events: rpc.Connection, pause_s: float) -> bool:
    """Wait for a pause; an event ends it, but not before FIRST_S. Return whether there was an event."""
    end_s = time.monotonic() + pause_s
    has_event = False
    while (left_s := end_s - time.monotonic()) > 0:
        if events.wait_event(left_s) and not has_event:
            has_event = True
            end_s = min(end_s, time.monotonic() + FIRST_S)
    return has_event


def main() -> None:
    """Run until a signal ends it. While Serf does not answer, try again with pauses of 1 to 5 s."""
    _, port = split_entry(os.environ.get("SERF_BIND") or "0.0.0.0:7946", 7946)
    known = read_snapshot(os.environ.get("SERF_SNAPSHOT", ""))
    joiner = Joiner(os.environ.get("SERF_JOIN", "").split(), port, known)
    pause_s = FIRST_S
    while True:
        started_s = time.monotonic()
        try:
            follow(joiner)
        except rpc.Fault:
            pause_s = FIRST_S if time.monotonic() - started_s > ALONE_S else min(pause_s * 2, ALONE_S)
        time.sleep(pause_s)


if __name__ == "__main__":
    main()
