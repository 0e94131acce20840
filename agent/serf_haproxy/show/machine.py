"""What the doctor looks at on the machine: programs and their versions, disks, rights of files, limits, the clock."""

import ctypes
import os
import re
import shutil
import stat
from collections.abc import Iterator

from serf_haproxy.control.edges import make_edges
from serf_haproxy.errors import HaproxyFault
from serf_haproxy.haproxy.socket import Limits
from serf_haproxy.settings import Settings, variable
from serf_haproxy.show.check import Check, judge
from serf_haproxy.system.processes import run

_VERSION_S = 5.0
_OLDEST = (2, 6)  # of HAProxy
_PROTOCOL = 5  # of Serf's agents, from 0.8 on
_FREE_BYTES, _FREE_FILES, _FREE_SHARE = 16 * 2**20, 1000, 0.02
_FILE_COUNT = 4096  # fewer are a default, not a choice
_TIMEX_BYTES = 512  # more than the kernel's struct timex
_TIME_ERROR = 5
_SECRETS = ("proof_secret_file", "orders_secret_file", "cookie_secret_file", "web_token_file", "rpc_auth_file")


def look_at_disk(path: str) -> Check:
    """Look whether there is room for files in a directory: bytes and, where the file system counts them, inodes."""
    found = os.statvfs(path)
    free_bytes = found.f_bavail * found.f_frsize
    has_bytes = free_bytes > _FREE_BYTES and free_bytes > _FREE_SHARE * found.f_blocks * found.f_frsize
    has_files = not found.f_files or found.f_favail > max(_FREE_FILES, _FREE_SHARE * found.f_files)
    count = f" and {found.f_favail} inodes" if found.f_files else ""
    text = f"{path} can be written; {free_bytes / 2**20:.0f} MiB{count} are free"
    return judge(has_bytes and has_files, text, "make room on its disk" if has_files else "remove files from its disk")


def look_at_programs(settings: Settings) -> Iterator[Check]:
    """Look at the versions of the programs.

    Raises:
        SystemFault: HAProxy cannot be run.
    """
    said = run([settings.haproxy_bin, "-v"], _VERSION_S)
    first = (said.output.splitlines() or ["it says nothing"])[0]
    version = re.match(r"HAProxy version (\d+)\.(\d+)", first)
    if said.status or not version:
        yield Check(False, f"{settings.haproxy_bin}: {first}", f"change {variable('haproxy_bin')}")
    else:
        is_new = (int(version[1]), int(version[2])) >= _OLDEST
        yield judge(is_new, f"{settings.haproxy_bin}: {first}", "install HAProxy 2.6 or newer")
    if program := shutil.which("serf"):
        output = run([program, "version"], _VERSION_S).output
        protocol = re.search(r"Protocol: (\d+) \(Understands back to: (\d+)\)", output)
        is_known = protocol is not None and int(protocol[2]) <= _PROTOCOL <= int(protocol[1])
        yield judge(is_known, f"{program}: {' '.join(output.split())[:100]}", "install Serf 0.9 or newer")


def look_at_run(settings: Settings, running: str) -> Iterator[Check]:
    """Look whether the HAProxy that runs, whose version is given, is the one that is installed.

    Raises:
        SystemFault: HAProxy cannot be run.
    """
    installed = re.search(r"HAProxy version (\S+)", run([settings.haproxy_bin, "-v"], _VERSION_S).output)
    if installed and running and installed[1] != running:
        what = f"HAProxy {running} runs, and {settings.haproxy_bin} is {installed[1]}"
        yield Check(False, what, "restart HAProxy: a reload and the check of a configuration would differ")


def look_at_rights(settings: Settings, path: str) -> Iterator[Check]:
    """Look whether other users can change what the balancer obeys, or read what it keeps secret.

    Args:
        settings: The settings.
        path: The settings file, "" for none.
    """
    obeyed = [path, settings.services_file, settings.template_path, settings.state_dir, settings.nodes_dir]
    secret = [getattr(settings, name) for name in _SECRETS]
    bad = 0
    for name, is_secret in [*((name, False) for name in obeyed), *((name, True) for name in secret)]:
        try:
            mode = os.stat(name).st_mode if name else 0
        except OSError:
            continue  # what must be there is told by another line
        if is_secret and name and not os.access(name, os.R_OK):
            yield Check(False, f"{name} cannot be read by this user", "run the command as the daemon's user")
        elif is_secret and mode & (stat.S_IROTH | stat.S_IWOTH):
            yield Check(False, f"{name} is a secret that every user can read", f"`chmod o= {name}`")
        elif mode & stat.S_IWOTH and (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            yield Check(False, f"{name} can be changed by every user", f"`chmod o-w {name}`")
        else:
            continue
        bad += 1
    if not bad:
        yield Check(True, "no other user can change settings and state, or read secrets")


def look_at_limits(settings: Settings, limits: Limits) -> Iterator[Check]:
    """Look how many files HAProxy may open; nothing where it does not run, or this user may not look."""
    try:
        pid = make_edges(settings, limits).master.read_account().pid
        with open(f"/proc/{pid}/limits") as file:
            found = re.search(r"^Max open files +\w+ +(\w+)", file.read(), re.MULTILINE)
    except (HaproxyFault, OSError):
        return
    most = int(found[1]) if found and found[1].isdecimal() else settings.file_limit
    what = f"HAProxy may open {most} files: two for each connection, of which {variable('maxconn')} allows"
    remedy = "raise the limit of open files of HAProxy's service"
    yield judge(most >= min(_FILE_COUNT, settings.file_limit), f"{what} {settings.maxconn}", remedy)


def is_clock_kept() -> bool | None:
    """Return whether the kernel knows that its clock is kept right, as by NTP; None where it does not say."""
    try:
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))  # zeros: it is only read
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _TIME_ERROR
