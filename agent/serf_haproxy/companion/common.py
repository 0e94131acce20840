"""What all nodes of a companion have in common, from the variables that the images' Serf has too."""

import base64
import binascii
import ipaddress
import logging
import pwd
import re
import socket
import time
from collections.abc import Mapping

from serf_haproxy.companion.serf_agent import Cluster
from serf_haproxy.errors import InputError, SystemFault
from serf_haproxy.serf.printing import quoted
from serf_haproxy.system.files import read_text
from serf_haproxy.system.network import format_endpoint, read_ports

log = logging.getLogger("serf-haproxy")

_GOSSIP_PORT = 7946
_KEY_FILE_BYTES = 65536
_PAUSES_S = (0.25, 0.5, 1.0, 2.0, 5.0)
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def make_cluster(join: str, environ: Mapping[str, str]) -> Cluster:
    """Return what all nodes have in common; wait until a name of the cluster has an address.

    Args:
        join: Gossip addresses, with blanks between them.
        environ: SERF_ADVERTISE, SERF_BIND, SERF_ENCRYPT_KEY_FILE, SERF_PROFILE, SERF_USER and PATH count.

    Raises:
        InputError: A value is wrong.
        SystemFault: A file cannot be read.
    """
    places = [read_place(word) for word in join.split()]
    if not places:
        raise InputError("no address of the cluster is named: use --join or SERF_JOIN")
    keys = _read_keys(environ.get("SERF_ENCRYPT_KEY_FILE", ""))
    user = _find_user(environ.get("SERF_USER", ""))
    bind = environ.get("SERF_BIND") or _find_own_address(places)
    return Cluster(
        bind,
        environ.get("SERF_ADVERTISE") or bind,
        tuple(format_endpoint(*place) for place in places),
        environ.get("SERF_PROFILE") or "lan",
        keys,
        user,
        environ.get("PATH", _DEFAULT_PATH),
    )


def read_place(word: str) -> tuple[str, int]:
    """Return host and port of a gossip address: `lb1`, `lb1:7946`, `10.1.0.5`, `[fd00::5]:7946` or `fd00::5`.

    Raises:
        InputError: It is none of these.
    """
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::([0-9]{1,5}))?", word, re.ASCII)
    if found:
        host, port = found[1] or found[2], int(found[3] or _GOSSIP_PORT)
    elif _is_address(word):
        host, port = word, _GOSSIP_PORT
    else:
        host, port = "", 0
    if not host or not 1 <= port <= 65535:
        raise InputError(f"{quoted(word, 80)} is no gossip address: allowed is HOST or HOST:PORT")
    return host, port


def _is_address(text: str) -> bool:
    try:
        return bool(re.fullmatch(r"[0-9A-Fa-f:.]+", text, re.ASCII) and ipaddress.ip_address(text))
    except ValueError:
        return False


def read_range(text: str) -> tuple[int, int]:
    """Return the first and the last port of a range.

    Raises:
        InputError: It is no single range.
    """
    try:
        ranges = read_ports(text)
    except ValueError as error:
        raise InputError(f"--ports: {error}") from error
    if len(ranges) != 1:
        raise InputError(f"--ports {quoted(text, 80)}: allowed is one range, such as 20000-20999")
    return ranges[0]


def _find_own_address(places: list[tuple[str, int]]) -> str:
    """Return the address that this machine has towards the cluster, once one of its names has an address."""
    count = 0
    while True:
        for place in places:
            try:
                family, kind, protocol, _, where = socket.getaddrinfo(*place, type=socket.SOCK_DGRAM)[0]
                with socket.socket(family, kind, protocol) as one:
                    one.connect(where)  # sends nothing
                    return str(one.getsockname()[0])
            except (OSError, UnicodeError):
                continue
        if count == len(_PAUSES_S):
            names = " ".join(host for host, _ in places)
            log.warning("%s", f"{names}: no address is known for any of these; nodes join when there is one")
        time.sleep(_PAUSES_S[min(count, len(_PAUSES_S) - 1)])
        count += 1


def _read_keys(path: str) -> tuple[str, ...]:
    """Return the gossip's keys: one on each line, the first one is used."""
    if not path:
        return ()
    text = read_text(path, _KEY_FILE_BYTES)
    if text is None:
        raise SystemFault(f"{path}: there is no such file; correct SERF_ENCRYPT_KEY_FILE")
    keys = tuple(line.strip() for line in text.split("\n") if line.strip())
    if not keys or not all(map(_is_key, keys)):
        allowed = "must have in each line a key as `serf keygen` prints it: base64 of 16, 24 or 32 bytes"
        raise InputError(f"{path}: {allowed}")
    return keys


def _is_key(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) in (16, 24, 32)
    except (binascii.Error, ValueError):
        return False


def _find_user(name: str) -> str:
    """Return a user as `UID:GID`; "" for ours."""
    if not name or re.fullmatch(r"[0-9]+:[0-9]+", name, re.ASCII):
        return name
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        raise InputError(f"SERF_USER={quoted(name, 80)}: there is no such user") from None
    return f"{user.pw_uid}:{user.pw_gid}"
