"""The programs and files that the lab starts, and the environment of its processes."""

import os
import shutil
import sys
from collections.abc import Mapping

from serf_haproxy.errors import EXIT_INPUT, SystemFault
from serf_haproxy.system.processes import run

ROOT_DIR = os.path.abspath(os.path.join(os.path.dirname(__file__), *[os.pardir] * 3))
S6_DIR = os.path.join(ROOT_DIR, "s6")
HANDLER = os.path.join(ROOT_DIR, "handlers", "member_event")
ORDER_HANDLER = os.path.join(ROOT_DIR, "handlers", "order_event")
WEBAPP = os.path.join(ROOT_DIR, "images", "webapp", "app.py")

_PREFIX = "SERF_HAPROXY_"
_SERF_OWN = ("SERF_PROFILE", "SERF_LOG_LEVEL")
_HANDLER_S = 20.0
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PROGRAMS = {
    "haproxy": "install the package haproxy",
    "serf": "install the package serf",
    "s6-svscan": "install the package s6",
    "s6-log": "install the package s6",
    "serf-haproxy": f"install this package into {sys.prefix}",
}


def choose_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that a user may set for the whole lab: settings, Serf's profile and log level."""
    return {name: value for name, value in environ.items() if name.startswith(_PREFIX) or name in _SERF_OWN}


def base_environ(chosen: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of all processes: this one without variables of Serf, plus the chosen ones.

    LOG_DIR, by which the processes of a balancer are known, is left out too: a balancer's autoscaler starts nodes.

    On its PATH the directory of this Python comes first. The system's directories come last, because the PATH of
    an ordinary user often lacks the one that has haproxy.
    """
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SERF_") and name != "LOG_DIR"}
    path = environ.get("PATH", "")
    environ["PATH"] = os.pathsep.join(part for part in (os.path.dirname(sys.executable), path, _SYSTEM_PATH) if part)
    return environ | dict(chosen)


def check_present() -> None:
    """Check that all programs and files that the lab needs are there.

    Raises:
        SystemFault: A program or file is missing; the message says how to get it.
    """
    path = base_environ({})["PATH"]
    for program, remedy in _PROGRAMS.items():
        if not shutil.which(program, path=path):
            raise SystemFault(f"the lab needs the program {program}, which is not on the PATH; {remedy}")
    for file, remedy in (
        (os.path.join(S6_DIR, "haproxy", "run"), "run the lab from a checkout: pip install -e CHECKOUT"),
        (WEBAPP, "run the lab from a checkout: pip install -e CHECKOUT"),
        *(
            (handler, f"make it with: {os.path.dirname(handler)}/install {sys.executable} {handler}")
            for handler in (HANDLER, ORDER_HANDLER)
        ),
    ):
        if not os.access(file, os.R_OK):
            raise SystemFault(f"the lab needs {file}, which is missing; {remedy}")
    status = run([HANDLER], _HANDLER_S, {}).status
    if status != EXIT_INPUT:  # what it returns to a call without an event
        raise SystemFault(f"{HANDLER} does not run (exit status {status}); {remedy}")
