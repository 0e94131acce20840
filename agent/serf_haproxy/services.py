"""The services that clients want: each is one `backend` section of HAProxy's configuration.

There is one implicit service, which gets the servers of all admitted members.
"""

DEFAULT_SERVICE = "nodes"  # the section of the built-in template
SUCCESSOR = "successor"  # the section by which an old worker reaches the newest one; it has no server of a node

Key = tuple[str, str]  # names of a service and of a node in it: of a `backend` section and of a `server` line


def find_service(section: str) -> str:
    """Return the service whose servers stand in a section: a custom template may name its sections as it likes."""
    del section
    return DEFAULT_SERVICE
