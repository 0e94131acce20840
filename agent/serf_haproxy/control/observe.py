"""From the world to a snapshot: everything that a pass needs, read once. It changes nothing."""

import contextlib
import os
import time
from collections.abc import Mapping

from serf_haproxy.control.corrections import Heard
from serf_haproxy.control.edges import Edges
from serf_haproxy.control.faults import select_faults
from serf_haproxy.control.record import Record
from serf_haproxy.control.rendering import read_template
from serf_haproxy.control.view import read_view
from serf_haproxy.errors import SystemFault, TemplateError
from serf_haproxy.policy.address import Bind
from serf_haproxy.policy.admission import Policy, Rules
from serf_haproxy.policy.damping import FlapRules
from serf_haproxy.policy.guard import GuardRules
from serf_haproxy.policy.proof import Secret, normalise, read_secrets
from serf_haproxy.policy.server import read_running
from serf_haproxy.policy.snapshot import Known, Running, Snapshot, View
from serf_haproxy.serf import nodes
from serf_haproxy.services import Key, find_service
from serf_haproxy.settings import Settings
from serf_haproxy.system.files import read_text
from serf_haproxy.system.interfaces import list_local_addresses
from serf_haproxy.system.network import split_endpoint


def read_nodes(nodes_dir: str) -> Heard:
    """Return the node files as they are, without asking Serf; none when there is no node directory.

    Raises:
        SystemFault: The node directory cannot be read.
    """
    return Heard(*nodes.load(nodes_dir)) if os.path.isdir(nodes_dir) else Heard({}, [])


def observe(settings: Settings, edges: Edges, record: Record, heard: Heard) -> Snapshot:
    """Read all else that the decision depends on.

    Args:
        settings: The settings.
        edges: Where to read.
        record: What the pass before left behind.
        heard: The node files.

    Raises:
        SystemFault: A file cannot be read, or the file of secrets is wrong.
    """
    running = edges.runtime.read_running()
    known = edges.state.read_known()
    view = read_view(running, known, is_sticky=bool(settings.cookie))
    live = edges.config_file.read_live()
    try:
        template, template_fault = read_template(settings), ""
    except TemplateError as error:
        template, template_fault = None, str(error)
    self_name = heard.roster.self_name if heard.roster else record.self_name
    return Snapshot(
        at_ns=time.time_ns(),
        rules=read_rules(settings, self_name, edges.state.read_released_ns())._replace(
            self_address=_find_own_address(self_name, heard, record), local=list_local_addresses()
        ),
        files=heard.files,
        strays=heard.strays,
        roster=heard.roster,
        flaps=edges.state.read_flaps(),
        unfit=record.read_unfit(),
        checks=record.read_checks(),
        refused=select_faults(settings, template or "", record.read_faults()).servers,
        known=_complete_known(known, view, running, heard),
        view=view,
        running=running,
        live=live,
        template=template,
        template_fault=template_fault,
    )


def read_rules(settings: Settings, self_name: str, released_ns: int = 0) -> Rules:
    """Return the rules by which members become servers.

    Raises:
        SystemFault: The file of secrets is missing or wrong.
    """
    return Rules(
        settings.default_port,
        settings.roles,
        settings.balancer_roles,
        self_name,
        settings.drain_timeout_s,
        settings.failed_grace_s,
        Policy(settings.networks, settings.ports, read_secret_file(settings.proof_secret_file)),
        GuardRules(settings.guard_share, settings.guard_window_s, settings.guard_hold_s, released_ns),
        FlapRules(settings.flap_cutoff, settings.flap_half_life_s),
        is_sticky=bool(settings.cookie),
        check_rate=settings.checks_per_s,
        binds=(_read_bind(settings.frontend_bind), _read_bind(settings.stats_bind)),
    )


def _find_own_address(self_name: str, heard: Heard, record: Record) -> str:
    """Return the address of this balancer's node as it was last known, whether its Serf agent is there or has left."""
    if heard.roster and self_name in heard.roster.members:
        return heard.roster.members[self_name][1].address
    if self_name in heard.files:
        return heard.files[self_name].member.address
    return record.self_address if self_name == record.self_name else ""


def read_secret_file(path: str) -> tuple[Secret, ...]:
    """Return the secrets that members must prove to know; none when `path` is "".

    Raises:
        SystemFault: The file is missing or wrong. Without it any member could become a server, so nothing is changed.
    """
    if not path:
        return ()
    try:
        return read_secrets(read_text(path) or "")
    except ValueError as error:
        raise SystemFault(f"{path}: {error}; set SERF_HAPROXY_PROOF_SECRET_FILE to such a file") from error


def _read_bind(bind: str) -> Bind:
    host, port = split_endpoint(bind)
    address = normalise(host) if host not in ("", "*") else None
    return str(address) if address and not address.is_unspecified else "", int(port)


def _complete_known(
    known: Mapping[Key, Known], view: View, running: Running | None, heard: Heard
) -> Mapping[Key, Known]:
    """Return what is known of servers, with those that only HAProxy knows: the state directory is new, or was lost."""
    servers = (running and running.servers) or {}
    found = {}
    for (section, name), seen in servers.items():
        key = (find_service(section), name)
        if key not in known and name in heard.files and not seen.is_maintained:
            with contextlib.suppress(ValueError):
                server = read_running(key, seen.endpoint, seen.weight)
                found[key] = Known(server, was_up=key in (view.up or {}), is_served=True)
    return {**known, **found} if found else known
