"""What a lab's HAProxy, daemon and autoscaler say of requests that failed, for the output of a test that fails.

The logs of a lab go with it, so a test has to print them while the lab is there.
"""

import collections
import contextlib
import csv
import os
import re
from collections.abc import Mapping
from pathlib import Path

from serf_haproxy.errors import HaproxyFault
from serf_haproxy.haproxy.socket import ask

_REQUEST = re.compile(r" \S+:\d+ \[[^]]+\] \S+ (\S+) \S+ (\d{3}|-1) \d+ \S+ \S+ (\S{4}) ")  # `option httplog`
_SHOWN = 5  # failed requests, the first ones and the last ones
_LINES = 120  # of what happened meanwhile
_NOW = ("status", "weight", "scur", "qcur", "qmax")
_FAULTS = ("econ", "eresp", "wretr", "wredis", "dreq", "chkfail", "chkdown")


class Evidence:
    """The logs of all balancers of a lab from now on.

    Args:
        lab_dir: The directory of the lab.
    """

    def __init__(self, lab_dir: str) -> None:
        self._logs = sorted(Path(lab_dir).glob("*/log/*/current"))
        self._sockets = sorted(Path(lab_dir).glob("*/admin.sock"))
        self._sizes_bytes = {path: path.stat().st_size for path in self._logs}

    def tell(self, faults: Mapping[str, int]) -> str:
        """Return how requests failed, by HAProxy's words for it, what happened meanwhile, and the servers as they are.

        The four characters of a request are HAProxy's "session state at disconnection" (its Configuration Manual,
        section 8.5): `sQ` waited in the queue until `timeout queue`, `SC` could not connect, `SH` got no answer.
        """
        requests, happened = [], []
        for path in self._logs:
            for line in self._read_new(path):
                where = f"{path.parts[-4]} {path.parts[-2]}"
                if found := _REQUEST.search(line):
                    if (found[2], found[3]) != ("200", "----"):
                        requests.append((line, f"{found[2]} {found[3]} {found[1]} at {path.parts[-4]}"))
                elif line.strip():
                    happened.append(f"{line[:30]} {where:18}{line[30:]}")
        requests.sort()
        counts = collections.Counter(kind for _, kind in requests)
        lines = [line for line, _ in requests]
        shown = lines if len(lines) <= 2 * _SHOWN else [*lines[:_SHOWN], "...", *lines[-_SHOWN:]]
        load = " ".join(f"{number:.1f}" for number in os.getloadavg())
        return "\n".join(
            [
                f"clients saw {dict(faults)}; load average {load}; HAProxy's words for requests without 200:",
                *(f"    {count} x {kind}" for kind, count in sorted(counts.items())),
                *(f"    {line}" for line in shown),
                "what happened meanwhile:",
                *(f"    {line}" for line in sorted(happened)[-_LINES:]),
                "the servers now:",
                *(f"    {line}" for path in self._sockets for line in _describe_servers(path)),
            ]
        )

    def _read_new(self, path: Path) -> list[str]:
        """Return what a log has got; all of its newest file where s6-log has begun another one."""
        with contextlib.suppress(FileNotFoundError):
            data = path.read_bytes()
            size_bytes = self._sizes_bytes[path]
            return data[size_bytes if size_bytes <= len(data) else 0 :].decode(errors="replace").splitlines()
        return []


def _describe_servers(socket_path: Path) -> list[str]:
    try:
        rows = list(csv.DictReader(ask(str(socket_path), "show stat", 1.0).removeprefix("# ").splitlines()))
    except HaproxyFault as error:
        return [f"{socket_path.parts[-2]}: {error}"]
    return [
        f"{socket_path.parts[-2]} {row['pxname']}/{row['svname']}: "
        + " ".join(f"{name}={row[name]}" for name in (*_NOW, *_FAULTS) if row.get(name))
        for row in rows
        if row["type"] == "2" and row["pxname"] != "successor"
    ]
