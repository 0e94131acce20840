"""HAProxy's old workers after reloads: handed over, and complained of where there are too many."""

import os

from serf_haproxy.errors import HaproxyFault
from serf_haproxy.haproxy import workers
from serf_haproxy.haproxy.master import Master
from serf_haproxy.settings import Settings


def look_after_old_workers(settings: Settings, master: Master, is_due: bool = True) -> tuple[str, ...]:
    """Hand over from the old workers to the newest, unless its socket was removed; return a complaint of too many.

    Args:
        settings: The settings.
        master: HAProxy's master.
        is_due: Whether to do so in this pass; it is not needed in every one.
    """
    if not is_due:
        return ()
    try:
        has_successor = os.path.exists(settings.successor_socket)
        account = master.hand_over() if has_successor else master.read_account()
        old = workers.measure(account.old_pids)
    except HaproxyFault:
        return ()
    complaint = workers.complain(old, settings.old_workers_max)
    return (complaint,) if complaint else ()
