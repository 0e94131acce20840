"""The daemon's first line: what it is, where its settings come from, and what it found."""

import os

from serf_haproxy import __version__
from serf_haproxy.control.answers import ask_haproxy, ask_serf
from serf_haproxy.control.edges import make_edges
from serf_haproxy.haproxy.socket import PROMPT
from serf_haproxy.settings import Loaded


def describe_start(loaded: Loaded) -> str:
    """Return one line about the start. A program that does not answer costs a second at most."""
    settings = loaded.settings
    edges = make_edges(settings, PROMPT)
    haproxy, serf = ask_haproxy(edges, edges.runtime.read_running()), ask_serf(settings)
    origins = list(loaded.origins.values())
    from_file = sum(origin.endswith(f" in {loaded.path}") for origin in origins) if loaded.path else 0
    set_count = len(origins) - origins.count("default") - from_file
    file = f"{from_file} from {loaded.path}" if loaded.path else "no settings file"
    try:
        node_count = str(len(os.listdir(settings.nodes_dir)))
    except OSError:
        node_count = "no"
    services = settings.services_file if os.path.exists(settings.services_file) else "none"
    found = f"HAProxy {f'{haproxy.version} ' if haproxy.version else ''}{haproxy.state}, Serf {serf.state}"
    return (
        f"serf-haproxy {__version__} starts; settings: {set_count} variables, {file}; found: {found}, "
        f"{node_count} node files in {settings.nodes_dir}, services file {services}"
    )
