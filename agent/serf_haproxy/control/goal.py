"""What should be: from node files, settings and template to the text of haproxy.cfg. It reads and changes nothing."""

import functools
import os
import time
from collections.abc import Mapping

from serf_haproxy import config
from serf_haproxy.config import render
from serf_haproxy.config.parse import Key, Line
from serf_haproxy.control.state import read_flaps, read_record, read_released_ns, read_unfit
from serf_haproxy.errors import SystemFault, TemplateError
from serf_haproxy.policy import decide as pool
from serf_haproxy.policy.admission import Rules
from serf_haproxy.policy.damping import FlapRules
from serf_haproxy.policy.guard import GuardRules
from serf_haproxy.policy.proof import Policy, Secret, normalise, read_secrets
from serf_haproxy.policy.server import Server, read_line
from serf_haproxy.serf import nodes
from serf_haproxy.settings import Settings
from serf_haproxy.system.files import read_text
from serf_haproxy.system.processes import run_apart

BUILT_IN_TEMPLATE = os.path.join(os.path.dirname(config.__file__), "templates", "haproxy.cfg.j2")


def read_pool(settings: Settings) -> pool.Pool:
    """Return the servers that follow from the present node files alone; none when there is no node directory.

    Those that only drain are not among them, because that takes HAProxy's own count of their connections.

    Raises:
        SystemFault: The node directory cannot be read.
    """
    files = nodes.load(settings.nodes_dir)[0] if os.path.isdir(settings.nodes_dir) else {}
    record = read_record(settings)
    context = pool.Context(flaps=read_flaps(settings), unfit=read_unfit(record))
    return decide(settings, files, rules_of(settings, record.self_name), context)


def decide(settings: Settings, files: dict[str, nodes.NodeFile], rules: Rules, context: pool.Context) -> pool.Pool:
    """Return the servers that follow from node files; the published configuration tells what an unfit node was.

    Raises:
        SystemFault: The published configuration cannot be read.
    """
    now_ns = time.time_ns()
    decided = pool.build(files, rules, now_ns, context)
    if not decided.unknown:
        return decided
    published = render.read_published(read_text(settings.config_path) or "")
    return pool.build(files, rules, now_ns, context._replace(known=_known(published.servers)))


def _known(lines: Mapping[Key, Line]) -> dict[str, Server]:
    known = {}
    for (_, name), line in lines.items():
        try:
            known[name] = read_line(name, line.endpoint, line.weight)
        except ValueError:  # written by hand: no node's
            continue
    return known


def rules_of(settings: Settings, self_name: str) -> Rules:
    """Return the rules by which members become servers."""
    return Rules(
        settings.default_port,
        settings.roles,
        settings.balancer_roles,
        self_name,
        settings.drain_timeout_s,
        settings.failed_grace_s,
        Policy(settings.networks, settings.ports, read_secret_file(settings)),
        GuardRules(settings.guard_share, settings.guard_window_s, settings.guard_hold_s, read_released_ns(settings)),
        FlapRules(settings.flap_cutoff, settings.flap_half_life_s),
        is_sticky=bool(settings.cookie),
        binds=(_read_bind(settings.frontend_bind), _read_bind(settings.stats_bind)),
    )


def _read_bind(bind: str) -> tuple[str, int]:
    """Return address and port of a place where HAProxy listens; "" for all addresses."""
    host, _, port = bind.rpartition(":")
    address = normalise(host.strip("[]")) if host not in ("", "*") else None
    return str(address) if address and not address.is_unspecified else "", int(port)


def compute(settings: Settings, servers: tuple[Server, ...], template: str | None = None) -> render.Rendered:
    """Render the configuration for some servers.

    Args:
        settings: The settings.
        servers: Sorted by name.
        template: Text of a template instead of the one that the settings name.

    Raises:
        TemplateError: The template cannot be read or rendered, or does not come to an end.
    """
    return _render(read_template(settings) if template is None else template, servers, settings)


def read_template(settings: Settings) -> str:
    """Return the text of the template that the settings name.

    Raises:
        TemplateError: It cannot be read.
    """
    path = settings.template_path or BUILT_IN_TEMPLATE
    try:
        template = read_text(path)
    except SystemFault as error:
        raise TemplateError(str(error)) from error
    if template is None:
        raise TemplateError(f"{path}: there is no such template; set SERF_HAPROXY_TEMPLATE_PATH to one")
    return template


def read_secret_file(settings: Settings) -> tuple[Secret, ...]:
    """Return the secrets that members must prove to know; none when no file is set.

    Raises:
        SystemFault: The file is missing or wrong: without it anybody could be a server, so nothing is changed.
    """
    path = settings.proof_secret_file
    if not path:
        return ()
    try:
        return read_secrets(read_text(path) or "")
    except ValueError as error:
        raise SystemFault(f"{path}: {error}; set SERF_HAPROXY_PROOF_SECRET_FILE to such a file") from error


@functools.lru_cache(maxsize=2)  # most passes find nothing new
def _render(template: str, servers: tuple[Server, ...], settings: Settings) -> render.Rendered:
    path = settings.template_path
    if not path:
        return render.render(template, BUILT_IN_TEMPLATE, servers, settings)

    def work() -> bytes:
        try:
            return b"+" + render.fill_in(template, path, servers, settings).encode("utf-8", "surrogateescape")
        except TemplateError as error:
            return f"-{error}".encode("utf-8", "surrogateescape")

    try:
        result = run_apart(work, settings.template_timeout_s, settings.template_memory_mib * 2**20)
    except SystemFault as error:
        raise TemplateError(f"{path}: {error}") from error
    text = result[1:].decode("utf-8", "surrogateescape")
    if result[:1] != b"+":
        raise TemplateError(text)
    return render.append_mark(text)
