"""What tests ask a balancer by its settings: its files, its HAProxy, its decision."""

from collections.abc import Sequence

from serf_haproxy.config.render import Config
from serf_haproxy.control import apply
from serf_haproxy.control.cookies import add_cookie_keys
from serf_haproxy.control.edges import make_edges
from serf_haproxy.control.outcome import HELD, Outcome, Verdict
from serf_haproxy.control.preview import preview
from serf_haproxy.control.record import Record
from serf_haproxy.control.rendering import Renderer, read_template
from serf_haproxy.control.secrets import leave_out
from serf_haproxy.haproxy.master import Account
from serf_haproxy.haproxy.stat import ServerStatus
from serf_haproxy.policy.decision import Decision
from serf_haproxy.policy.server import Server
from serf_haproxy.policy.snapshot import Running
from serf_haproxy.services import Key
from serf_haproxy.services.file import Services
from serf_haproxy.settings import Settings


def read_running(settings: Settings) -> Running | None:
    """Return what HAProxy runs."""
    return make_edges(settings).runtime.read_running()


def read_description(settings: Settings) -> str | None:
    """Return the description that HAProxy reports."""
    return make_edges(settings).runtime.read_description()


def read_servers(settings: Settings) -> dict[str, ServerStatus] | None:
    """Return HAProxy's status of each server by name; None when it does not answer."""
    status = make_edges(settings).runtime.read_status()
    return None if status is None else {name: row for (_, name), row in status.items()}


def read_status(settings: Settings) -> dict[Key, ServerStatus]:
    """Return HAProxy's status of each server by section and name; none when it does not answer."""
    return make_edges(settings).runtime.read_status() or {}


def read_services(settings: Settings) -> Services:
    """Return the services of the services file."""
    return make_edges(settings).services_file.read({})


def read_account(settings: Settings) -> Account:
    """Return what the master says about itself."""
    return make_edges(settings).master.read_account()


def change(settings: Settings, commands: Sequence[str]) -> list[str]:
    """Give commands to the runtime socket; return HAProxy's complaints."""
    return make_edges(settings).runtime.change(commands)


def read_live(settings: Settings) -> str | None:
    """Return the text of the published configuration."""
    return make_edges(settings).config_file.read_live()


def check(settings: Settings, text: str) -> str | None:
    """Return HAProxy's words about a configuration; None when it is valid."""
    return make_edges(settings).config_file.check(text)


def runs_published(settings: Settings) -> bool:
    """Return whether HAProxy runs the published configuration."""
    return apply.runs_published(make_edges(settings))


def decide(settings: Settings) -> Decision:
    """Return the decision for the present node files."""
    return preview(settings).decision


def render(settings: Settings, servers: tuple[Server, ...], template: str | None = None) -> Config:
    """Return the configuration for some servers."""
    text = read_template(settings) if template is None else template
    edges = make_edges(settings)
    edges.services_file.copy_authorities({}, {})
    services = add_cookie_keys(leave_out(edges.services_file.read({}), (), settings), settings)
    return Renderer().render(text, servers, settings, services.listed)


def read_record(settings: Settings) -> Record:
    """Return what the last pass left behind."""
    return make_edges(settings).state.read_record()


def sum_up(outcome: Outcome) -> str:
    """Return an outcome's verdict, or HELD when all went well and servers are held."""
    is_good = outcome.verdict in (Verdict.UNCHANGED, Verdict.APPLIED, Verdict.RELOADED)
    return HELD.upper() if is_good and outcome.has_condition(HELD) else outcome.verdict.value
