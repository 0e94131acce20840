"""A configuration for HAProxy's start: it starts even where a pass would fail."""

import contextlib
import functools
from collections.abc import Callable, Iterator

from serf_haproxy.config.render import Config
from serf_haproxy.control.edges import Edges, make_edges
from serf_haproxy.control.fallback import Wanted, list_rungs, want
from serf_haproxy.control.preview import preview, preview_vetted
from serf_haproxy.control.rendering import Renderer, read_template
from serf_haproxy.errors import InputError, SystemFault
from serf_haproxy.settings import Settings
from serf_haproxy.system.locks import locked

_LOCK_S = 5.0  # a check of HAProxy takes less, and a pass may wait for HAProxy itself


def boot(settings: Settings, *, is_if_broken: bool = False) -> str:
    """Publish the best configuration that HAProxy accepts.

    The last one that HAProxy confirmed comes first, then the ladder. Each choice reads only what it needs, so that a
    missing file of secrets or a damaged state directory leaves the others.

    Args:
        settings: The settings.
        is_if_broken: Whether a live configuration that HAProxy accepts stays as it is.

    Returns:
        One sentence: which one that is, and why none before it was.

    Raises:
        SystemFault: HAProxy accepts none, or the live file cannot be written.
    """
    edges = make_edges(settings)
    with _no_pass(edges):
        if is_if_broken and _accepts_live(edges):
            return "HAProxy accepts the configuration that is there"
        return _publish_best(settings, edges)


@contextlib.contextmanager
def _no_pass(edges: Edges) -> Iterator[None]:
    """Keep passes of a daemon away, which write the same files; where that is impossible, go on without."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(SystemFault):  # no state directory, or a pass that waits for HAProxy itself
            stack.enter_context(locked(edges.state.pass_lock_path, _LOCK_S, "a pass"))
            edges.set_aside()
        yield


def _accepts_live(edges: Edges) -> bool:
    """Return whether HAProxy accepts the live configuration; False where it cannot be read or tried."""
    try:
        return bool(edges.config_file.read_live()) and edges.config_file.accepts_live()
    except SystemFault:
        return False


def _publish_best(settings: Settings, edges: Edges) -> str:
    """Publish the best configuration that HAProxy accepts; return the sentence about it."""
    renderer = Renderer()
    # HAProxy refuses a configuration for one wrong certificate, and it may be another HAProxy than before.
    certificate_faults = edges.certificates.refresh(None, trusts_copies=False)
    bare = Wanted(settings, (), lambda: read_template(settings))

    @functools.cache  # a fault is not kept: each choice meets it anew
    def find_wanted() -> Wanted:
        found = preview(settings, are_copies_written=True)
        found = preview_vetted(settings, found, is_listening_tried=True)
        return want(settings, found.snapshot, found.decision)

    def render(number: int) -> Config | None:
        wanted = find_wanted()
        return list_rungs(wanted, edges, renderer)[number].render(wanted.servers)

    choices: list[tuple[str, Callable[[], Config | str | None]]] = [
        ("the last one that HAProxy confirmed", edges.config_file.read_good),
        *(
            (f"one made with {rung.name}", functools.partial(render, number))
            for number, rung in enumerate(list_rungs(bare, edges, renderer))
        ),
        ("one without servers", lambda: list_rungs(bare, edges, renderer)[-1].render(())),
    ]
    faults: list[str] = []
    for name, make in choices:
        try:
            made = make()
            if made is None:
                continue
            words = edges.config_file.check(made if isinstance(made, str) else made.text)
        except (InputError, SystemFault) as error:
            words = str(error)
        if words is None:
            edges.config_file.publish(is_live_confirmed=False)
            said = "".join(f"; not with {fault}" for fault in faults)
            return f"HAProxy starts with {name}{said}" + "".join(f"; {fault}" for fault in certificate_faults)
        faults.append(f"{name}: {' '.join(words.split())[:300]}")
    raise SystemFault(f"HAProxy accepts no configuration: {'; '.join(faults)}")
