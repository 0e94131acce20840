"""Setting this balancer aside: a file beside the wake FIFO, at which `haproxy.readiness` looks."""

import os
import time

from serf_haproxy.errors import HaproxyFault, HaproxySilence, SystemFault
from serf_haproxy.haproxy import readiness
from serf_haproxy.haproxy.arrivals import QUESTION, read_arrivals
from serf_haproxy.haproxy.socket import PROMPT, ask
from serf_haproxy.serf.printing import printable
from serf_haproxy.settings import Settings
from serf_haproxy.system.files import write_quickly

_LOOK_S = 0.2
_TEXT = 200


def set_aside(settings: Settings, reason: str) -> None:
    """Set the balancer aside.

    Raises:
        SystemFault: The file cannot be written.
    """
    write_quickly(_locate(settings), f"{printable(reason, _TEXT)}\n")


def end_standby(settings: Settings) -> bool:
    """Take the balancer back; return whether it was set aside.

    Raises:
        SystemFault: The file cannot be removed.
    """
    path = _locate(settings)
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise SystemFault(f"cannot remove {path}: {error.strerror}") from error
    return True


def wait_for_quiet(settings: Settings, quiet_s: float, limit_s: float) -> str:
    """Wait until clients have opened no connection for a while; return what is in the way at the limit, else "".

    A HAProxy that does not run gets none. Of one that is frozen it is not known.
    """
    end_s = time.monotonic() + limit_s
    counts, since_s, is_silent = None, time.monotonic(), False
    while (now_s := time.monotonic()) < end_s:
        latest, is_silent = None, False
        try:
            latest = read_arrivals(ask(settings.runtime_socket, QUESTION, PROMPT.ask_s))
        except HaproxySilence:
            is_silent = True
        except HaproxyFault:  # it does not run
            pass
        if latest != counts or is_silent:
            counts, since_s = latest, now_s
        elif now_s - since_s >= quiet_s:
            return ""
        time.sleep(_LOOK_S)
    return "HAProxy does not answer, so it is not known whether connections" if is_silent else "connections"


def _locate(settings: Settings) -> str:
    return os.path.join(os.path.dirname(settings.wake_fifo), readiness.STANDBY)
