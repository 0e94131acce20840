"""serf-haproxy install: units for systemd, and the first settings."""

import argparse
import json
import os
import re
import secrets
import shutil
import sys
from typing import Any

from serf_haproxy.errors import InputError, SystemFault

_UNITS_DIR, _SYSTEM_DIR = os.path.join(os.path.dirname(__file__), "systemd"), "/etc/systemd/system"
_SETTINGS_DIR = "/etc/serf-haproxy"
_PACKAGED_DIR = "/usr/libexec/serf-haproxy"  # where Debian's package has the handlers
_CONFIG_PATH = "/etc/haproxy/haproxy.cfg"
_UNIT = re.compile(r"[A-Za-z0-9:_.@-]{1,200}")
_HANDLERS_S = 60.0
_EVENTS = {
    "member_event": "member-join,member-leave,member-failed,member-update,member-reap",
    "order_event": "user:lb-order,query:lb-status,query:lb-ready,query:lb-explain,query:lb-orders,query:lb-demand",
}


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command `install`."""
    text = "Write units for systemd and the first settings; what you may have changed is kept."
    group = commands.add_parser("install", help=text, description=text).add_subparsers(required=True, metavar="WHAT")
    text = "The daemon, its Serf agent and the autoscaler beside Debian's HAProxy, whose user, chroot and sockets stay."
    balancer = group.add_parser("balancer", help=text, description=text)
    balancer.set_defaults(command=install_balancer)
    alone = "write only what is in /etc/serf-haproxy; units and handlers are Debian's package's"
    balancer.add_argument("--only-settings", action="store_true", help=alone)
    text = "A Serf agent beside an application, which joins after the application's start and leaves before its stop."
    node = group.add_parser("node", help=text, description=text)
    node.set_defaults(command=install_node)
    node.add_argument("--application", metavar="UNIT", help="the application's unit, such as nginx.service")
    node.add_argument("--tag", action="append", default=[], metavar="NAME=VALUE", help="a tag, such as port=8080")
    for parser in (balancer, node):
        join = "host or host:port of another member of the cluster; may come several times"
        parser.add_argument("--join", action="append", default=[], metavar="HOST", help=join)
        parser.add_argument("--root", default="", metavar="DIR", help="write below this directory, for a package")


def install_balancer(args: argparse.Namespace) -> int:
    """Write what a balancer needs."""
    handlers_dir = _PACKAGED_DIR if args.only_settings else _install_handlers()
    found = find_haproxy(args.root)
    key = _read(args.root, f"{_SETTINGS_DIR}/rpc-auth").strip() or secrets.token_urlsafe(32)
    _write(args.root, f"{_SETTINGS_DIR}/rpc-auth", f"{key}\n", 0o640, is_kept=True)
    found["rpc_auth_file"] = f"{_SETTINGS_DIR}/rpc-auth"
    settings = "".join(f"{name} = {json.dumps(value)}\n" for name, value in sorted(found.items()))
    comment = f"# Settings that differ from their defaults. The first ones are those of {_CONFIG_PATH}.\n"
    _write(args.root, f"{_SETTINGS_DIR}/settings.toml", comment + settings, is_kept=True)
    agent = _describe_agent({"role": "balancer"}, args.join, "serf-haproxy-agent") | {
        "rpc_auth": key,
        "event_handlers": [f"{events}={handlers_dir}/{name}" for name, events in _EVENTS.items()],
    }
    _write_agent(args.root, "serf", agent)
    if args.only_settings:
        return 0
    names = {
        "PROGRAM": os.path.join(os.path.dirname(sys.executable), "serf-haproxy"),
        "SERF": shutil.which("serf") or "/usr/bin/serf",
        "CONFIG_DIR": os.path.dirname(_CONFIG_PATH),
        "MASTER": found["master_socket"],
    }
    for unit in ("serf-haproxy", "serf-haproxy-boot", "serf-haproxy-agent", "serf-haproxy-autoscale"):
        _write(args.root, f"{_SYSTEM_DIR}/{unit}.service", _fill(f"{unit}.service", names))
    _write(args.root, f"{_SYSTEM_DIR}/haproxy.service.d/serf-haproxy.conf", _fill("haproxy.conf", names))
    for kind in ("sysusers", "tmpfiles"):
        _write(args.root, f"/etc/{kind}.d/serf-haproxy.conf", _fill(f"{kind}.conf", names))
    print("next: systemd-sysusers && systemd-tmpfiles --create serf-haproxy.conf && systemctl daemon-reload")
    print("then: systemctl restart haproxy && systemctl enable --now serf-haproxy serf-haproxy-agent")
    return 0


def install_node(args: argparse.Namespace) -> int:
    """Write what a node needs."""
    tags = {"role": "web"}
    for tag in args.tag:
        name, equals, value = tag.partition("=")
        if not name or not equals:
            raise InputError(f"--tag {tag}: must be NAME=VALUE, such as port=8080")
        tags[name] = value
    application = args.application or ""
    if application and not (_UNIT.fullmatch(application) and application.endswith(".service")):
        raise InputError(f"--application {application}: must be the name of a service's unit, such as nginx.service")
    _write_agent(args.root, "node", _describe_agent(tags, args.join, "serf-haproxy-node"))
    unit = _fill("serf-haproxy-node.service", {"SERF": shutil.which("serf") or "/usr/bin/serf"})
    _write(args.root, f"{_SYSTEM_DIR}/serf-haproxy-node.service", unit)
    if application:
        names = {"APPLICATION": application}
        _write(args.root, f"{_SYSTEM_DIR}/{application}.d/serf-haproxy.conf", _fill("application.conf", names))
        path = f"{_SYSTEM_DIR}/serf-haproxy-node.service.d/{application}.conf"
        _write(args.root, path, _fill("node.conf", names))
    print("next: systemctl daemon-reload && systemctl enable --now serf-haproxy-node")
    return 0


def find_haproxy(root: str = "") -> dict[str, str]:
    """Return the settings that keep what Debian's HAProxy has: user, group, chroot and sockets.

    Args:
        root: The directory that stands for /.
    """
    found = {"master_socket": "/run/haproxy/master.sock"}
    for path in ("/lib/systemd/system/haproxy.service", "/etc/default/haproxy"):  # the later one takes precedence
        for line in _read(root, path).splitlines():
            if not line.lstrip().startswith("#") and (match := re.search(r"EXTRAOPTS=.*-S\s+(/[^\s,\"']+)", line)):
                found["master_socket"] = match[1]
    for line in _read(root, _CONFIG_PATH).splitlines():
        words = line.split("#")[0].split()
        if words[:1] and words[0] in ("user", "group", "chroot") and len(words) == 2:
            found.setdefault(f"haproxy_{words[0]}", words[1])
        elif words[:2] == ["stats", "socket"] and len(words) > 2 and words[2].startswith("/") and "admin" in words:
            found.setdefault("runtime_socket", words[2])
        elif words[:1] and words[0] in ("defaults", "frontend", "listen", "backend"):
            break
    # HAProxy makes its sockets as root; the daemon is in the group of their directory.
    return found | {"runtime_socket_mode": "660"}


def _describe_agent(tags: dict[str, str], join: list[str], state: str) -> dict[str, Any]:
    snapshot = {"snapshot_path": f"/var/lib/{state}/snapshot", "rejoin_after_leave": True}
    return {"tags": tags, "retry_join": join, **snapshot}


def _write_agent(root: str, name: str, content: dict[str, Any]) -> None:
    _write(root, f"{_SETTINGS_DIR}/{name}.json", json.dumps(content, indent=2) + "\n", 0o600, is_kept=True)


def _install_handlers() -> str:
    """Make the handlers start with this interpreter; return their directory."""
    from serf_haproxy.system.processes import run

    here = os.path.dirname(os.path.abspath(__file__))
    sources = (os.path.join(sys.prefix, "share/serf-haproxy/handlers"), os.path.join(here, "../../../handlers"))
    source = next((one for one in sources if os.path.exists(os.path.join(one, "install"))), "")
    if not source:
        raise SystemFault(f"{sources[0]} is missing: install the package anew")
    for name in _EVENTS:
        done = run(["/bin/sh", os.path.join(source, "install"), sys.executable, f"{sys.prefix}/{name}"], _HANDLERS_S)
        if done.status:
            raise SystemFault(f"cannot write {sys.prefix}/{name}: {' '.join(done.output.split())}")
    return sys.prefix


def _fill(name: str, names: dict[str, str]) -> str:
    with open(os.path.join(_UNITS_DIR, name), encoding="utf-8") as file:
        text = file.read()
    for key, value in names.items():
        text = text.replace(f"@{key}@", value)
    return text


def _read(root: str, path: str) -> str:
    try:
        with open(f"{root}{path}", encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _write(root: str, path: str, text: str, mode: int = 0o644, *, is_kept: bool = False) -> None:
    """Write a file, and say so; one that an operator may have changed is kept."""
    from serf_haproxy.serf.printing import printable
    from serf_haproxy.system.files import write_durably

    whole = f"{root}{path}"
    if is_kept and os.path.lexists(whole):
        print(printable(f"kept {whole}"))
        return
    try:
        os.makedirs(os.path.dirname(whole), exist_ok=True)
        write_durably(whole, text, mode, is_exact=True)
    except OSError as error:
        raise SystemFault(f"cannot write {whole}: {error.strerror}; run the command as root") from error
    print(printable(f"wrote {whole}"))
