"""Servers and a template become the text of haproxy.cfg. Pure."""

import functools
import traceback
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jinja2
import jinja2.debug  # which Jinja2 loads with the first fault of a template; by then no file descriptor may be left

from serf_haproxy.config import fingerprint
from serf_haproxy.config.ids import assign_ids, choose_id
from serf_haproxy.config.parse import Layout, Parser
from serf_haproxy.errors import TemplateError
from serf_haproxy.policy.server import Server
from serf_haproxy.services.route import sort_routes
from serf_haproxy.services.service import KEYS, Service, make_default

# A byte-order mark in UTF-8, and those of UTF-16 in a text that was read as UTF-8.
_MARKS = ("\ufeff", "\udcff\udcfe", "\udcfe\udcff")
_SHOWN_COUNT = 3
_ID_COUNT = 16384  # a server keeps its id as long as it has its name
_DEFAULTS = {key: field.default for key, field in KEYS.items()}


class Config(NamedTuple):
    """A configuration.

    Attributes:
        text: All of haproxy.cfg, with the fingerprint at its end.
        digest: Digest of what the template printed.
        layout: The same, taken apart.
        problems: One sentence for each kind of server line that cannot follow its node.
    """

    text: str
    digest: str
    layout: Layout
    problems: tuple[str, ...] = ()

    @property
    def description(self) -> str:
        """What HAProxy reports when it has loaded this configuration."""
        return fingerprint.describe(self.digest, self.layout.rest)


class Row(NamedTuple):
    """A server as a template sees it: `policy.server.Server` with its id.

    Attributes:
        name: The node's name.
        address: An IP address in normal form.
        port: 1 to 65535.
        weight: 0 to 256, None for HAProxy's default.
        service: The service's name.
        endpoint: Address and port in HAProxy's notation.
        id: A number that follows from the name: the same on every balancer and after every reload.
        check_interval_s: How often it is checked while it is up; the same for all servers of a service.
        down_interval_ms: How often it is checked while it is down.
        version: The version of its application, "" for none.
        is_backup: Whether it serves only while no other server of the service is up.
    """

    name: str
    address: str
    port: int
    weight: int | None
    service: str
    endpoint: str
    id: int
    check_interval_s: int
    down_interval_ms: int
    version: str
    is_backup: bool


class Section(NamedTuple):
    """A service as a template sees it.

    Attributes:
        service: What the operator says of it.
        servers: Its servers, sorted by name.
    """

    service: Service
    servers: Sequence[Row]

    def __getattr__(self, key: str) -> Any:
        """Return a key of the service."""
        return getattr(self.service, key)


class Source(NamedTuple):
    """The text of a template, and its name in errors."""

    text: str
    name: str


class Compiler:
    """Compiles templates. It remembers the last one, and the ids of servers; a new one gives the same results."""

    def __init__(self) -> None:
        self.choose_id = functools.lru_cache(_ID_COUNT)(choose_id)
        self._key: tuple[str, str] | None = None
        self._template: jinja2.Template | None = None

    def compile(self, template: str, template_name: str) -> jinja2.Template:
        """Return a compiled template; raise jinja2.TemplateSyntaxError for a wrong one."""
        if self._template is None or self._key != (template, template_name):
            self._template = _compile(template, template_name)
            self._key = template, template_name
        return self._template


def render(
    template: str, template_name: str, servers: tuple[Server, ...], settings: Any, services: Sequence[Service] = ()
) -> Config:
    """Fill in a template and append the fingerprint; arguments and errors are those of `fill_in`."""
    return finish(fill_in(Source(template, template_name), servers, settings, services), servers, Parser())


def fill_in(
    source: Source,
    servers: tuple[Server, ...],
    settings: Any,
    services: Sequence[Service] = (),
    compiler: Compiler | None = None,
) -> str:
    """Return what a template prints.

    Args:
        source: A Jinja2 template; it sees `services`, `routes`, `sni_hosts`, `settings`, `defaults`, and `servers`,
            those of the default service.
        servers: Sorted by service and name.
        settings: The settings object.
        services: The services, sorted by name; empty: the default one, as the settings have it.
        compiler: The owner's compiler.

    Raises:
        TemplateError: The template has an error or uses an undefined variable; the text names the line.
    """
    template, template_name = source
    if template.startswith(_MARKS):
        remedy = "save it as UTF-8 without a byte-order mark"
        raise TemplateError(f"{template_name}:1: the template begins with a byte-order mark (U+FEFF); {remedy}")
    compiler = compiler or Compiler()
    names = _list_names(servers, settings, services, compiler)
    try:
        text = compiler.compile(template, template_name).render(names)
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(f"{template_name}:{error.lineno}: {error.message}") from error
    except (
        jinja2.TemplateError,
        ArithmeticError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
        RecursionError,
    ) as error:
        is_endless = isinstance(error, RecursionError)
        reason = "it calls itself without end" if is_endless else str(error) or type(error).__name__
        raise TemplateError(f"{template_name}:{_line_of(error, template_name)}: {reason}") from error
    if "\0" in text:
        raise TemplateError(f"{template_name}: the result contains a NUL byte")
    return text


def finish(text: str, servers: tuple[Server, ...], parser: Parser, bare: str = "") -> Config:
    """Take a text apart and append the fingerprint.

    Args:
        text: What a template has printed.
        servers: Those that it is made of.
        parser: Reads it.
        bare: What the template prints without servers.
    """
    text = text.rstrip("\n") + "\n"
    layout = parser.read_own(text, servers, bare)
    config = Config("", fingerprint.digest(text), layout, _list_strangers(layout, servers))
    return config._replace(text=fingerprint.append(text, config.description))


def _list_names(
    servers: Sequence[Server], settings: Any, services: Sequence[Service], compiler: Compiler
) -> dict[str, Any]:
    """Return what a template sees."""
    sections = _make_sections(servers, services or (make_default(settings),), compiler)
    default = next(section for section in sections if section.is_default)
    return {
        "services": sections,
        "routes": sort_routes((route, section.name) for section in sections for route in section.routes),
        "sni_hosts": sort_routes((host, section.name) for section in sections for host in section.sni)[::-1],
        "settings": settings,
        "defaults": _DEFAULTS,
        "servers": default.servers,
    }


def _make_sections(servers: Sequence[Server], services: Iterable[Service], compiler: Compiler) -> list[Section]:
    """Return the services, each with its servers."""
    ids = assign_ids([server.key for server in servers], compiler.choose_id)
    rows: dict[str, list[Row]] = {service.name: [] for service in services}
    for server in servers:
        if server.service in rows:
            rows[server.service].append(Row(*server[:5], server.endpoint, ids[server.key], *server[5:]))
    return [Section(service, rows[service.name]) for service in services]


def _list_strangers(layout: Layout, servers: tuple[Server, ...]) -> tuple[str, ...]:
    """Return a sentence about server lines with the endpoint of a node and another name."""
    if not layout.fixed:
        return ()
    nodes = {server.endpoint: server.name for server in servers}
    names = {server.name for server in servers}
    strangers = [
        f"{'/'.join(key)} for node {nodes[line.endpoint]}"
        for key, line in sorted(layout.fixed.items())
        if line and line.endpoint in nodes and key[1] not in names
    ]
    shown = ", ".join(strangers[:_SHOWN_COUNT]) + (" and more" if strangers[_SHOWN_COUNT:] else "")
    harm = "each change takes a reload, and their clients are not drained when the node leaves"
    remedy = "name the server {{ server.name }} in the template"
    return (f"servers are not named like their nodes ({shown}): {harm}; {remedy}",) if strangers else ()


def _compile(template: str, template_name: str) -> jinja2.Template:
    environment = jinja2.Environment(  # noqa: S701 - this is not HTML
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        loader=jinja2.FunctionLoader(lambda name: (template, template_name, None) if name == "" else None),
    )
    return environment.get_template("")


def _line_of(error: Exception, template_name: str) -> int:
    """Return the template's line in a traceback: Jinja2 gives its frames the template's name and line numbers."""
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame.lineno or 0 for frame in reversed(frames) if frame.filename == template_name), 0)
