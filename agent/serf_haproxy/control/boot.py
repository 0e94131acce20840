"""A configuration for HAProxy's start: it starts even where a pass would fail."""

import functools
from collections.abc import Callable

from serf_haproxy.config.render import Config
from serf_haproxy.control.edges import make_edges
from serf_haproxy.control.fallback import Wanted, list_rungs, want
from serf_haproxy.control.preview import preview, preview_vetted
from serf_haproxy.control.rendering import Renderer, read_template
from serf_haproxy.errors import InputError, SystemFault
from serf_haproxy.settings import Settings


def accepts_live(settings: Settings) -> bool:
    """Return whether HAProxy accepts the live configuration; False where it cannot be read or tried."""
    config_file = make_edges(settings).config_file
    try:
        return bool(config_file.read_live()) and config_file.accepts_live()
    except SystemFault:
        return False


def boot(settings: Settings) -> str:
    """Publish the best configuration that HAProxy accepts.

    The last one that HAProxy confirmed comes first, then the ladder. Each choice reads only what it needs, so that a
    missing file of secrets or a damaged state directory leaves the others.

    Returns:
        One sentence: which one that is, and why none before it was.

    Raises:
        SystemFault: HAProxy accepts none, or the live file cannot be written.
    """
    edges, renderer = make_edges(settings), Renderer()
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
