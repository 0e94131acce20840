"""The first half of a pass, which changes nothing: observe and decide."""

from typing import NamedTuple

from serf_haproxy.config.render import Config
from serf_haproxy.control.edges import Edges, make_edges
from serf_haproxy.control.fallback import want
from serf_haproxy.control.memory import Memory
from serf_haproxy.control.observe import Given, observe, read_nodes
from serf_haproxy.control.record import Record
from serf_haproxy.control.rendering import Renderer
from serf_haproxy.control.vetting import Vetting
from serf_haproxy.haproxy.socket import PROMPT, Limits
from serf_haproxy.policy.decide import decide
from serf_haproxy.policy.decision import Decision
from serf_haproxy.policy.snapshot import Snapshot
from serf_haproxy.settings import Settings


class Preview(NamedTuple):
    """What a pass without Serf's roster would decide now.

    Attributes:
        edges: Where it was read.
        record: What the last pass left behind.
        snapshot: What was read.
        decision: What follows from it.
        renderer: Renders it.
    """

    edges: Edges
    record: Record
    snapshot: Snapshot
    decision: Decision
    renderer: Renderer

    @property
    def silence(self) -> str:
        """Why this may not be what a pass decides: HAProxy is frozen; "" where it answers, or does not run."""
        is_silent = self.snapshot.running is None and self.edges.runtime.is_silent
        return "HAProxy is there and does not answer: this is decided without what it would say" if is_silent else ""


def preview(settings: Settings, are_copies_written: bool = False, limits: Limits = PROMPT) -> Preview:
    """Observe and decide as a pass does.

    Args:
        settings: The settings.
        are_copies_written: Whether HAProxy is to load the configuration, and so needs its copies of certificates.
        limits: How long to wait for an answer of HAProxy's.

    Raises:
        SystemFault: A file cannot be read.
    """
    edges = make_edges(settings, limits)
    if are_copies_written:
        edges.services_file.copy_authorities(edges.state.read_services(), edges.state.read_record().authorities)
    return look(settings, edges, Memory())


def look(settings: Settings, edges: Edges, memory: Memory, *, is_only_shown: bool = False) -> Preview:
    """Observe and decide as a pass does.

    Args:
        settings: The settings.
        edges: Where to read.
        memory: The caller's memory, which makes the next look cheaper.
        is_only_shown: Whether the decision is only shown: what a missing file of secrets concerns is then left out.

    Raises:
        SystemFault: A file cannot be read.
    """
    record = edges.state.read_record()
    heard = read_nodes(edges.nodes_dir, memory.files)
    memory.files = heard.files
    snapshot = observe(Given(settings, edges, record, heard, is_only_shown))
    return Preview(edges, record, snapshot, decide(snapshot, memory.memo), memory.renderer)


def preview_vetted(settings: Settings, found: Preview, *, is_listening_tried: bool) -> Preview:
    """Return a preview as a pass would come to it that has just tried new and changed tables of the services file.

    Args:
        settings: The settings.
        found: A preview; its edges say where HAProxy's checks are made.
        is_listening_tried: Whether to try the listeners too.

    Raises:
        SystemFault: A file cannot be read.
    """
    given = Given(settings, found.edges, found.record, read_nodes(found.edges.nodes_dir))
    record, snapshot = Vetting().vet(given, found.snapshot, found.renderer, is_listening_tried=is_listening_tried)
    return found._replace(record=record, snapshot=snapshot, decision=decide(snapshot, Memory().memo))


def find_config(settings: Settings, found: Preview) -> Config:
    """Return the configuration that follows from a preview.

    Raises:
        TemplateError: The template is wrong.
    """
    wanted = want(settings, found.snapshot, found.decision)
    return found.renderer.render(wanted.read_template(), wanted.servers, settings, wanted.services)
