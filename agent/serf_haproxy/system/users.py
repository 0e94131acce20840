"""The user of a command."""

import contextlib
import os
import pwd
from collections.abc import Mapping

IMAGE_USER = "serf-haproxy"


def leave_root(environ: Mapping[str, str]) -> None:
    """Become the daemon's user where root of a container runs a command.

    `docker exec` runs commands as root, and root without capabilities cannot read what the daemon owns; with them, it
    would leave files that the daemon cannot write. Nothing happens outside a container, and where the user does not
    exist or root lacks the capabilities SETGID and SETUID.

    Args:
        environ: The environment: IN_CONTAINER says that this is a container, DAEMON_USER or AGENT_USER names the user.
    """
    if os.geteuid() != 0 or not environ.get("IN_CONTAINER"):
        return
    with contextlib.suppress(KeyError, PermissionError):
        user = pwd.getpwnam(environ.get("DAEMON_USER") or environ.get("AGENT_USER") or IMAGE_USER)
        os.setgroups(os.getgrouplist(user.pw_name, user.pw_gid))
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
