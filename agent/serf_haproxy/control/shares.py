"""What the loop of measured weights has found, as a file for `status`. Reading it trusts nothing in it."""

import contextlib
import json
import os
from collections.abc import Mapping
from typing import Any

from serf_haproxy.errors import SystemFault
from serf_haproxy.serf.printing import printable
from serf_haproxy.services import Key, format_key, parse_key
from serf_haproxy.settings import Settings
from serf_haproxy.system.files import read_text, write_quickly

_SHOWN = ("weight", "limit", "factor", "wait_s", "failed_share", "times", "is_failing", "reason")
_BYTES = 2**24


def locate_shares(settings: Settings) -> str:
    """Return the path of the file: beside the FIFO, in memory on most machines, since no restart needs it."""
    return os.path.join(os.path.dirname(settings.wake_fifo), "weights.json")


def write_shares(path: str, shares: Mapping[Key, Mapping[str, Any]]) -> None:
    """Write what was found; a file that cannot be written is missing for `status` alone."""
    with contextlib.suppress(SystemFault):
        write_quickly(path, json.dumps({format_key(key): share for key, share in shares.items()}) + "\n")


def read_shares(path: str) -> dict[Key, dict[str, Any]]:
    """Return what was found, by service and node; nothing where there is no such file, or a damaged one."""
    try:
        shares = json.loads(read_text(path, _BYTES) or "{}")
        return {parse_key(str(key)): _read_share(share) for key, share in shares.items()}
    except (SystemFault, ValueError, AttributeError, TypeError, RecursionError):
        return {}


def _read_share(share: Mapping[str, Any]) -> dict[str, Any]:
    values = {name: share.get(name) for name in _SHOWN}
    return {name: printable(value, 200) if isinstance(value, str) else value for name, value in values.items()}
