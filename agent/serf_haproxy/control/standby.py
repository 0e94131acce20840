"""Setting this balancer aside: a file beside the wake FIFO, at which `haproxy.readiness` looks."""

import contextlib
import os
import time

from serf_haproxy.errors import HaproxyFault, SystemFault
from serf_haproxy.haproxy import readiness
from serf_haproxy.haproxy.arrivals import QUESTION, read_arrivals
from serf_haproxy.haproxy.socket import PATIENT, ask
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


def wait_for_quiet(settings: Settings, quiet_s: float, limit_s: float) -> bool:
    """Wait until clients have opened no connection for a while; return whether that came true within the limit.

    A HAProxy that does not answer gets none.
    """
    end_s = time.monotonic() + limit_s
    counts, since_s = None, time.monotonic()
    while (now_s := time.monotonic()) < end_s:
        latest = None
        with contextlib.suppress(HaproxyFault):
            latest = read_arrivals(ask(settings.runtime_socket, QUESTION, PATIENT.ask_s))
        if latest != counts:
            counts, since_s = latest, now_s
        elif now_s - since_s >= quiet_s:
            return True
        time.sleep(_LOOK_S)
    return False


def _locate(settings: Settings) -> str:
    return os.path.join(os.path.dirname(settings.wake_fifo), readiness.STANDBY)
