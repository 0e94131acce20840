"""What HAProxy says in `show servers state` and `show servers conn` (its Management Guide, section 9.3)."""

import functools
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from serf_haproxy.policy.snapshot import Seen
from serf_haproxy.services import SUCCESSOR, Key
from serf_haproxy.system.network import format_endpoint

_FORCED_MAINTENANCE, _FORCED_DRAIN = 1, 8  # bits of srv_admin_state
_CHECK_CONFIGURED, _CHECK_ENABLED = 2, 4  # bits of srv_check_state
_COLUMNS = (  # of `show servers state`
    "be_name",
    "srv_name",
    "srv_addr",
    "srv_port",
    "srv_uweight",
    "srv_admin_state",
    "srv_check_state",
    "srv_op_state",
    "srv_time_since_last_change",
    "srv_id",
)
_CONNECTIONS_HEADER = "\n# bkname/svname "  # begins the answer to `show servers conn`
# The servers whose column used_cur, the seventh, is not zero. Neither a section nor a server has a slash in its name.
_CONNECTIONS = re.compile(r"^([^/ \n]+)/([^/ \n]+) (?:[^ \n]+ ){5}([1-9][0-9]*) ", re.MULTILINE)


def read_seen(answer: str, header: str, known: Mapping[Key, Seen]) -> dict[Key, Seen]:
    """Return every server by section and name.

    Args:
        answer: HAProxy's answer to both commands.
        header: The line that names the columns of the first one.
        known: Servers as they were; those whose line is unchanged are not read again.

    Raises:
        ValueError: A column is missing, or not a number.
    """
    names = tuple(header.removeprefix("# ").split())
    if not names:
        return {}
    find_servers, choose = _make_reader(names)
    seen = {}
    by_line = {server.line: (key, server) for key, server in known.items()}
    states, _, connections = answer.partition(_CONNECTIONS_HEADER)
    for found in find_servers(states):
        line, section, name, address, port, weight, admin, check, operation, unchanged_s, number = choose(found)
        if line in by_line:
            key, server = by_line[line]
            seen[key] = server
        elif section != SUCCESSOR:
            state, is_checked = _read_state(admin, check, operation)
            seen[section, name] = Seen(
                format_endpoint(address, port), int(weight), *state, int(unchanged_s), 0, line, int(number), is_checked
            )
    for section, name, count in _CONNECTIONS.findall(connections):
        if (section, name) in seen:
            seen[section, name] = seen[section, name]._replace(connection_count=int(count))
    return seen


@functools.lru_cache(maxsize=8)
def _make_reader(names: tuple[str, ...]) -> tuple[Callable[[str], list[Any]], Callable[[Any], Any]]:
    """Return what finds the lines of servers with their columns, and what brings these into our order.

    One regular expression takes all lines apart at once, twice as fast as each on its own.

    Raises:
        ValueError: A column is missing.
    """
    present = sorted(map(names.index, _COLUMNS))
    columns = [r"([^ \n]*)" if column in present else r"[^ \n]*" for column in range(len(names))]
    columns[0] = "[0-9]+"  # each line of a server begins with its section's number
    pattern = re.compile(rf"^({' '.join(columns)})$", re.MULTILINE)
    places = [1 + present.index(names.index(name)) for name in _COLUMNS]
    return pattern.findall, operator.itemgetter(0, *places)


@functools.lru_cache(maxsize=1024)  # there are few combinations
def _read_state(admin: str, check: str, operation: str) -> tuple[tuple[bool, bool, bool, int], bool]:
    """Return `is_maintained`, `is_drained`, `is_unwatched` and `operation` of `Seen`, and `is_checked`."""
    state = (
        bool(int(admin) & _FORCED_MAINTENANCE),
        bool(int(admin) & _FORCED_DRAIN),
        int(check) & (_CHECK_CONFIGURED | _CHECK_ENABLED) == _CHECK_CONFIGURED,
        int(operation),
    )
    return state, bool(int(check) & _CHECK_CONFIGURED)
