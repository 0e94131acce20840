"""One value of a table of the services file: read by the kind of its key, or named in a fault."""

import json
from typing import Any

from serf_haproxy.services.service import FORMS, KEYS, LIST


def name_wrong(key: str, value: Any) -> str:
    """Return a key and its wrong value; of a list of several values the first one that is wrong by itself."""
    if isinstance(value, list) and len(value) > 1 and KEYS[key].metadata["form"] == LIST:
        for word in value:
            try:
                read_value(key, [word])
            except (ValueError, KeyError):
                return f"{key} has {_show(word)}"
    return f"{key} = {_show(value)}"


def _show(value: Any) -> str:
    """Return a value in one printable line of ASCII: as JSON, which is close to TOML. Dates are shown as texts."""
    try:
        shown = json.dumps(value, default=str).replace("\x7f", "\\u007f")
    except (ValueError, RecursionError):  # a number of more than 4300 digits, or hundreds of tables in each other
        shown = "(too long)"
    return shown if len(shown) <= 60 else f"{shown[:60]}..."


def read_value(key: str, value: Any) -> Any:
    """Return the value of a key; raise ValueError or KeyError for a wrong one."""
    metadata = KEYS[key].metadata
    value = _as_whole(value)
    allowed = FORMS[metadata["form"]]
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        raise ValueError(value)
    if isinstance(value, dict):
        shares = {name: _as_whole(each) for name, each in value.items()}
        if not all(type(each) is int and {"=", ","}.isdisjoint(name) for name, each in shares.items()):
            raise ValueError(value)
        return metadata["kind"].read(",".join(f"{name}={each}" for name, each in shares.items()))
    if not isinstance(value, list):
        return metadata["kind"].read(str(value))
    words = [_as_whole(word) for word in value]
    types = (str, int) if key == "ports" else str
    if not all(isinstance(word, types) and not isinstance(word, bool) and word != "" for word in words):
        raise ValueError(value)
    return metadata["kind"].read(",".join(map(str, words)))


def _as_whole(value: Any) -> Any:
    """Return a float without a fraction as a whole number, which it is in JSON Schema too; all else as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
