"""From the world to a snapshot: everything that a pass needs, read once. It changes nothing."""

import os
import time
from collections.abc import Mapping

from serf_haproxy.config.parse import Line, Parser
from serf_haproxy.control.corrections import Heard
from serf_haproxy.control.edges import Edges
from serf_haproxy.control.faults import select_faults
from serf_haproxy.control.record import Record
from serf_haproxy.control.rendering import read_template
from serf_haproxy.errors import SystemFault, TemplateError
from serf_haproxy.policy.address import Bind
from serf_haproxy.policy.admission import Policy, Rules
from serf_haproxy.policy.damping import FlapRules
from serf_haproxy.policy.guard import GuardRules
from serf_haproxy.policy.proof import Secret, normalise, read_secrets
from serf_haproxy.policy.snapshot import DOWN, Running, Snapshot, View
from serf_haproxy.serf import nodes
from serf_haproxy.services import DEFAULT_SERVICE, Key, find_service
from serf_haproxy.settings import Settings
from serf_haproxy.system.files import read_text
from serf_haproxy.system.network import split_endpoint


def read_nodes(nodes_dir: str) -> Heard:
    """Return the node files as they are, without asking Serf; none when there is no node directory.

    Raises:
        SystemFault: The node directory cannot be read.
    """
    return Heard(*nodes.load(nodes_dir)) if os.path.isdir(nodes_dir) else Heard({}, [])


def observe(settings: Settings, edges: Edges, record: Record, heard: Heard, parser: Parser) -> Snapshot:
    """Read all else that the decision depends on.

    Args:
        settings: The settings.
        edges: Where to read.
        record: What the pass before left behind.
        heard: The node files.
        parser: Reads the published configuration.

    Raises:
        SystemFault: A file cannot be read, or the file of secrets is wrong.
    """
    running = edges.runtime.read_running()
    live = edges.config_file.read_live()
    try:
        template, template_fault = read_template(settings), ""
    except TemplateError as error:
        template, template_fault = None, str(error)
    self_name = heard.roster.self_name if heard.roster else record.self_name
    return Snapshot(
        at_ns=time.time_ns(),
        rules=read_rules(settings, self_name, edges.state.read_released_ns()),
        files=heard.files,
        strays=heard.strays,
        roster=heard.roster,
        flaps=edges.state.read_flaps(),
        unfit=record.read_unfit(),
        refused=select_faults(settings, template or "", record.read_faults()).servers,
        published=_fold_published(parser.read_published(live).servers if live else {}),
        view=_read_view(running, is_sticky=bool(settings.cookie)),
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
        binds=(_read_bind(settings.frontend_bind), _read_bind(settings.stats_bind)),
    )


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


def _read_view(running: Running | None, is_sticky: bool) -> View:
    """Return HAProxy's view by services: a custom template may have a server in several sections."""
    if running is None or running.servers is None:
        return View()
    counts: dict[Key, int] = {}
    serving, down = set(), set()
    for key, seen in running.servers.items():
        if key[0] != DEFAULT_SERVICE:
            key = (find_service(key[0]), key[1])  # noqa: PLW2901 - the key by service instead of by section
        if seen.connection_count:
            counts[key] = counts.get(key, 0) + seen.connection_count
        if is_sticky and seen.is_serving:
            serving.add(key)
        if seen.operation == DOWN:
            down.add(key)
    return View(counts, frozenset(serving), frozenset(down))


def _fold_published(lines: Mapping[Key, Line]) -> Mapping[Key, Line]:
    if all(section == DEFAULT_SERVICE for section, _ in lines):
        return lines
    return {(find_service(section), name): line for (section, name), line in lines.items()}
