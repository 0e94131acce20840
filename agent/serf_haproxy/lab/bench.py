"""A lab for the tasks about load balancing: a balancer, two web applications s1 and s2, and users with browsers."""

import collections
import contextlib
import http.client
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from http.cookies import SimpleCookie
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from serf_haproxy.config.fingerprint import description_of, rest_of
from serf_haproxy.errors import SystemFault
from serf_haproxy.haproxy.runtime import Runtime
from serf_haproxy.lab import processes
from serf_haproxy.lab.balancer import DAEMON
from serf_haproxy.lab.cluster import Lab
from serf_haproxy.services import DEFAULT_SERVICE
from serf_haproxy.settings import load_settings
from serf_haproxy.system.files import write_durably
from serf_haproxy.system.processes import run

NAMES = ("s1", "s2")
_WAIT_S, _POLL_S, _ANSWER_S, _COMMAND_S = 30.0, 0.05, 15.0, 10.0


class Visit(NamedTuple):
    """One answer: who gave it, the views and the id of the session, its status, how long it took, seconds."""

    server: str
    views: int
    session: str
    status: int
    took_s: float


class Browser:
    """A user with a browser: it keeps its cookies and its connection.

    Attributes:
        cookies: The cookies by name.
        received: The headers Set-Cookie of the last answer.
    """

    def __init__(self, address: str, keeps_cookies: bool = True) -> None:
        self.cookies: dict[str, str] = {}
        self.received: list[str] = []
        self._keeps_cookies = keeps_cookies
        self._connection = http.client.HTTPConnection(address, timeout=_ANSWER_S)

    def visit(self) -> Visit:
        """Load the page.

        Raises:
            SystemFault: There is no answer.
        """
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}
        started_s = time.monotonic()
        try:
            self._connection.request("GET", "/", headers=headers if self.cookies else {})
            answer = self._connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise SystemFault(f"{self._connection.host} does not answer: {error}") from error
        took_s = time.monotonic() - started_s
        self.received = answer.headers.get_all("Set-Cookie") or []
        if self._keeps_cookies:
            for text in self.received:
                self.cookies |= {name: morsel.value for name, morsel in SimpleCookie(text).items()}
        said: dict[str, Any] = _read(body)
        return Visit(
            said.get("tag", "none"), said.get("sessionViews", 0), said.get("id", "")[:6], answer.status, took_s
        )

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class Bench:
    """The running lab of a task."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.browsers: list[Browser] = []
        self._settings = load_settings(lab.env())
        self.address = urlsplit(lab.status()["balancers"][0]["frontend_url"]).netloc

    def browser(self, keeps_cookies: bool = True) -> Browser:
        """Return a browser of a new user; `running_bench` closes it."""
        self.browsers.append(Browser(self.address, keeps_cookies))
        return self.browsers[-1]

    def count(self, user_count: int, visit_count: int, keeps_cookies: bool = True) -> dict[str, int]:
        """Have users load the page so many times, in turn; return the number of answers of each server."""
        users = [self.browser(keeps_cookies) for _ in range(user_count)]
        visits = [user.visit() for _ in range(visit_count) for user in users]
        counts = collections.Counter(visit.server for visit in visits)
        return dict.fromkeys(NAMES, 0) | dict(counts)

    def configure(self, **keys: str) -> None:
        """Give the default service these keys of the services file, and wait until HAProxy runs with them.

        Raises:
            SystemFault: It does not.
        """
        text = "\n".join([f"[{DEFAULT_SERVICE}]", *(f'{key} = "{value}"' for key, value in keys.items())])
        write_durably(self._settings.services_file, text + "\n")
        self._control(DAEMON, "-h")  # read it at once
        wanted = [f"    {key} {value}" for key, value in keys.items()]
        self._wait(lambda: self._is_confirmed(wanted), f"HAProxy does not run with {keys}")

    def set_state(self, name: str, state: str) -> None:
        """Set the state of a server at HAProxy's runtime socket: ready, drain or maint."""
        self._runtime().change([f"set server {DEFAULT_SERVICE}/{name} state {state}"])

    def wait_status(self, name: str, *statuses: str) -> None:
        """Wait until HAProxy reports one of these for a server."""

        def is_there() -> bool:
            row = (self._runtime().read_status() or {}).get((DEFAULT_SERVICE, name))
            return row is not None and row.status in statuses

        self._wait(is_there, f"HAProxy does not report {' or '.join(statuses)} for {name}")

    def explain_check(self, name: str) -> str:
        """Return what HAProxy says of the last health check of a server."""
        row = (self._runtime().read_status() or {}).get((DEFAULT_SERVICE, name))
        return f"{row.status}, {row.explain_check()}" if row else "not there"

    def wait_weights(self, weights: Mapping[str, int]) -> None:
        """Wait until HAProxy has these weights."""

        def is_there() -> bool:
            running = self._runtime().read_running()
            seen = {name: each.weight for (_, name), each in ((running and running.servers) or {}).items()}
            return all(seen.get(name) == weight for name, weight in weights.items())

        self._wait(is_there, f"HAProxy does not have the weights {dict(weights)}")

    @contextlib.contextmanager
    def without_daemon(self) -> Iterator[None]:
        """Stop the daemon for the length of the block: it would undo what is done by hand at the socket."""
        self._control(DAEMON, "-wD", "-d")
        try:
            yield
        finally:
            self._control(DAEMON, "-u")

    def _runtime(self) -> Runtime:
        return Runtime(self._settings.runtime_socket, self._settings.master_socket)

    def _is_confirmed(self, wanted: list[str]) -> bool:
        with open(self._settings.config_path, encoding="utf-8") as file:
            text = file.read()
        lines = text.splitlines()
        is_written = all(any(line.startswith(start) for line in lines) for start in wanted)
        running = self._runtime().read_description()
        # What was changed at run time is not in the running description, but in that of the file.
        return is_written and running is not None and rest_of(running) == rest_of(description_of(text))

    def _control(self, service: str, *flags: str) -> None:
        directory = os.path.join(self.lab.status()["balancers"][0]["service_dir"], service)
        run(["s6-svc", *flags, directory], _COMMAND_S)

    @staticmethod
    def _wait(is_there: Callable[[], bool], complaint: str) -> None:
        deadline = time.monotonic() + _WAIT_S
        while not is_there():
            if time.monotonic() > deadline:
                raise SystemFault(f"{complaint} after {_WAIT_S:g} s")
            time.sleep(_POLL_S)


@contextlib.contextmanager
def running_bench(lab: Lab, settings: Mapping[str, str] | None = None) -> Iterator[Bench]:
    """Run the lab of a task for the length of the block."""
    lab.settings = dict(settings or {})
    lab.up(nodes=0)
    try:
        for name in NAMES:
            lab.add(name)
        bench = Bench(lab)
        try:
            yield bench
        finally:
            for browser in bench.browsers:
                browser.close()
    finally:
        with processes.hold_signals():  # a second Ctrl-C would leave processes
            lab.down()


def _read(body: bytes) -> dict[str, Any]:
    try:
        said = json.loads(body)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
