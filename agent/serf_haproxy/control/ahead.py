"""What HAProxy was given ahead of the published file: it does not tell the words of a server's line.

ahead.json, beside the wake FIFO, holds them for servers of which the published file says otherwise, or nothing. It is
written before HAProxy gets a command. So a pass that was cut short, a reload that is put off, a configuration that was
refused, and a server that waits for its last connection leave behind how their servers run. It counts as long as
HAProxy runs the configuration that it had then; a reload or a new start makes all servers as their file says.
"""

import contextlib
import json
import os
from collections.abc import Collection, Iterable

from serf_haproxy.config.parse import Layout
from serf_haproxy.control.record import DAMAGE
from serf_haproxy.errors import SystemFault
from serf_haproxy.policy.snapshot import Running
from serf_haproxy.services import Key
from serf_haproxy.system.files import read_text, write_quickly

_ADD = "add server "

Given = dict[Key, set[tuple[str, ...]]]  # servers, each with the words that its line may have at HAProxy


class Ahead:
    """The file. Where it cannot be written its content is kept in memory.

    Args:
        directory: That of the file.
    """

    def __init__(self, directory: str) -> None:
        self._path = os.path.join(directory, "ahead.json")
        self._unwritten: str | None = None

    def read(self, description: str) -> Given:
        """Return the servers of which the published file may not say all that HAProxy was given.

        Args:
            description: That of the configuration that HAProxy runs; under another one nothing of this counts.
        """
        given: Given = {}
        with contextlib.suppress(*DAMAGE, SystemFault):
            text = read_text(self._path) if self._unwritten is None else self._unwritten
            noted, entries = json.loads(text or "") if text else ("", [])
            for section, name, *lines in entries if noted == description else ():
                given[str(section), str(name)] = {tuple(map(str, words)) for words in lines}
        return given

    def note(
        self,
        description: str,
        commands: Iterable[str],
        goal: Layout,
        published: Layout,
        seen: Collection[Key] | None = None,
    ) -> None:
        """Note what HAProxy is about to get, for the servers of commands that add.

        HAProxy does not remove a server that has a connection, and then does not add it: it keeps the words of before.

        Args:
            description: That of the configuration that HAProxy runs.
            commands: What HAProxy is about to get.
            goal: By which they were made.
            published: What the published file says.
            seen: The servers that run; None where that is not known.
        """
        given = self.read(description)
        for key in _list_added(commands):
            before = {published.servers[key].words} if key in published.servers else set()
            may_stay = seen is None or key in seen
            words = (given.get(key, before) if may_stay else set()) | {goal.servers[key].words}
            given.pop(key, None)
            if words != before:
                given[key] = words
        self._write(description, given)

    def keep(self, running: Running | None, goal: Layout, published: Layout) -> None:
        """Keep only servers that have to go: the new published file says of all others how they run.

        Args:
            running: What ran before.
            goal: What runs now, but for servers that wait for their last connection.
            published: What the published file said before.
        """
        if running is None or running.servers is None:
            return
        gone = running.servers.keys() - goal.servers.keys()
        given = {key: {published.servers[key].words} for key in gone if key in published.servers}
        given |= {key: words for key, words in self.read(running.description).items() if key in gone}
        self._write(running.description, given)

    def forget(self) -> None:
        """Forget all: HAProxy runs what the published file says."""
        self._unwritten = None
        with contextlib.suppress(OSError):
            os.unlink(self._path)

    def _write(self, description: str, given: Given) -> None:
        if given == self.read(description):
            return
        if not given:
            self.forget()
            return
        entries = [[*key, *sorted(words)] for key, words in sorted(given.items())]
        text = json.dumps([description, entries]) + "\n"
        try:
            write_quickly(self._path, text)
            self._unwritten = None
        except SystemFault:
            self._unwritten = text


def _list_added(commands: Iterable[str]) -> Iterable[Key]:
    for command in commands:
        if command.startswith(_ADD):
            section, _, name = command.removeprefix(_ADD).partition(" ")[0].partition("/")
            yield section, name
