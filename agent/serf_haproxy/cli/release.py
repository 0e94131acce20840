"""serf-haproxy release: end the hold of lost servers."""

import argparse
import os
from typing import TYPE_CHECKING, Any

from serf_haproxy.settings import load_settings

if TYPE_CHECKING:
    from serf_haproxy.control.preview import Preview
    from serf_haproxy.services import Key


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command `release`."""
    text = "Remove the servers that are held because too many were lost at once, or kept because no other is up."
    commands.add_parser("release", help=text, description=text).set_defaults(command=release)


def _is_drained(found: "Preview", key: "Key") -> bool:
    """Return whether a server only drains: its tag says so, and no order ends that."""
    file = found.snapshot.files.get(key[1])
    return file is not None and file.status == "alive" and key not in found.decision.unfit


def release(_args: argparse.Namespace) -> int:
    """Order the next pass to end every hold, and wake the daemon."""
    from serf_haproxy.control.preview import preview
    from serf_haproxy.policy.decision import State
    from serf_haproxy.serf.wake import wake
    from serf_haproxy.services import format_key

    settings = load_settings(os.environ)
    found = preview(settings)
    kept = found.decision.find(State.HELD) | {
        key: entry for key, entry in found.decision.find(State.LAST).items() if not _is_drained(found, key)
    }
    held = sorted(map(format_key, kept))
    found.edges.state.release()
    is_heard = wake(settings.wake_fifo)
    when = "" if is_heard else ", once the daemon runs"
    print(f"{len(held)} servers are released{when}: {' '.join(held)}".rstrip(": "))
    return 0
