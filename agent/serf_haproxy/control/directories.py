"""The directories of a balancer, made where they are missing."""

import contextlib
import os
import stat

from serf_haproxy.control.state import State, parse_served
from serf_haproxy.errors import SystemFault
from serf_haproxy.serf import nodes
from serf_haproxy.settings import Settings


def prepare_directories(settings: Settings) -> None:
    """Make the directories that serf-haproxy writes to and, where this user may, those of HAProxy's sockets.

    A node directory in memory is missing after a reboot. It gets back the node files of HAProxy's servers, so that
    these stay until Serf says more. If the roster then lacks one, that node has failed, and grace and guard apply.

    Raises:
        SystemFault: A directory cannot be made.
    """
    is_new = not os.path.isdir(settings.nodes_dir)
    parents = (os.path.dirname(settings.wake_fifo), os.path.dirname(settings.config_path))
    for path in (settings.nodes_dir, settings.state_dir, *parents):
        try:
            os.makedirs(path, exist_ok=True)
        except OSError as error:
            raise SystemFault(f"cannot make {path}: {error.strerror}; make it and give it to this user") from error
    for path in (settings.inbox_dir, settings.answers_dir):
        with contextlib.suppress(OSError):  # without them there are only orders that are given here
            os.makedirs(path, exist_ok=True)
    with contextlib.suppress(OSError):  # whatever the umask: Serf's user may share only our group
        mode = stat.S_IMODE(os.stat(settings.inbox_dir).st_mode) | stat.S_IRWXG
        os.chmod(settings.inbox_dir, mode)
    for socket_path in (settings.master_socket, settings.runtime_socket):
        with contextlib.suppress(OSError):
            os.makedirs(os.path.dirname(socket_path), exist_ok=True)
    if is_new:
        State(settings.state_dir).set_aside()
        for status, member in parse_served(State(settings.state_dir).read_served()).values():
            nodes.record(settings.nodes_dir, status, member)
