"""The services that clients want: each is one `backend` section of HAProxy's configuration.

There is always the default service. The operator's file (`services/file`) names the others.
"""

import re
from collections.abc import Collection

DEFAULT_SERVICE = "nodes"  # the section of the built-in template
SUCCESSOR = "successor"  # the section by which an old worker reaches the newest one; it has no server of a node
RESERVED = (SUCCESSOR, "web", "handover", "stats")  # further sections of the built-in template
NAME = re.compile(r"[a-z][a-z0-9-]{0,30}", re.ASCII)
VERSION = re.compile(r"v[a-z0-9][a-z0-9._-]{0,15}", re.ASCII)  # of an application, as members say it

Key = tuple[str, str]  # names of a service and of a node in it: of a `backend` section and of a `server` line


def find_service(section: str, names: Collection[str]) -> str:
    """Return the service whose servers stand in a section.

    A custom template may name the sections of the default service as it likes.

    Args:
        section: The name of a section.
        names: The services that the operator has named.
    """
    return section if section in names else DEFAULT_SERVICE


def format_key(key: Key) -> str:
    """Return how a server is named in texts: the node alone in the default service, else service/node."""
    return key[1] if key[0] == DEFAULT_SERVICE else "/".join(key)


def parse_key(text: str) -> Key:
    """Undo `format_key`."""
    service, slash, name = text.rpartition("/")
    return (service, name) if slash else (DEFAULT_SERVICE, name)
