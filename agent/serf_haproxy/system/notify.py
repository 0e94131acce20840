"""What a service tells systemd: datagrams to the socket that NOTIFY_SOCKET names (sd_notify(3), systemd.service(5))."""

import os
import socket
import time
from collections.abc import MutableMapping

_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
_EXTEND_S, _EXTEND_EVERY_S = 180.0, 10.0  # a start may last as long as its loop lives


class Notifier:
    """Tells systemd how a service is. Without an address it does nothing; it never waits, and never raises.

    What the socket does not take, for example while systemd executes itself anew, is told again with the next beat.

    Args:
        address: The socket's path, or @ and the name of an abstract socket; "" for none.
        watchdog_s: systemd restarts the service when it hears no beat for so long; None where it does not.
    """

    def __init__(self, address: str = "", watchdog_s: float | None = None) -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._watchdog_s = watchdog_s
        self._facts: dict[str, str] = {}
        self._told: dict[str, str] = {}
        self._beat_at_s = 0.0

    def tell_ready(self) -> None:
        """Tell that the service does its work; once is enough."""
        self._tell(READY="1")

    def tell_status(self, text: str) -> None:
        """Tell in one line how the service is; the same line twice is told once."""
        self._tell(STATUS=" ".join(text.split()))

    def tell_stopping(self) -> None:
        """Tell that the service ends by itself, or on a signal."""
        self._tell(STOPPING="1")

    def beat(self) -> None:
        """Tell that the loop is alive, where that is due; before the service is ready, systemd then waits on."""
        now_s = time.monotonic()
        if not self._address or now_s < self._beat_at_s:
            return
        if "READY" not in self._told:
            self._beat_at_s = now_s + _EXTEND_EVERY_S
            self._send({f"EXTEND_TIMEOUT_USEC={_EXTEND_S * 1e6:.0f}"})
        elif self._watchdog_s is not None:
            self._beat_at_s = now_s + self._watchdog_s / 2
            self._send({"WATCHDOG=1"})
        else:
            self._beat_at_s = now_s + _EXTEND_EVERY_S
        self._tell()

    def _tell(self, **facts: str) -> None:
        if not self._address:
            return
        self._facts |= facts
        news = {name: text for name, text in self._facts.items() if self._told.get(name) != text}
        if news and self._send({f"{name}={text}" for name, text in news.items()}):
            self._told |= news
            if "READY" in news:
                self._beat_at_s = 0.0

    def _send(self, lines: set[str]) -> bool:
        data = "\n".join(sorted(lines)).encode("utf-8", "replace")
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
                sender.sendto(data, self._address)
        except (OSError, ValueError):  # it is full, missing, or its name is none; or no descriptor is left
            return False
        return True


def take_notifier(environ: MutableMapping[str, str]) -> Notifier:
    """Return the notifier that the environment describes, and take its variables away from children."""
    address, watchdog_us, watchdog_pid = (environ.pop(name, "") for name in _VARIABLES)
    is_watched = watchdog_us.isdecimal() and int(watchdog_us) > 0 and watchdog_pid in ("", str(os.getpid()))
    return Notifier(address, int(watchdog_us) / 1e6 if is_watched else None)
