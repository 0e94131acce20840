"""Trying the configuration that follows now, in a directory of its own: HAProxy says whether it would load it."""

import os
import tempfile
from typing import NamedTuple

from serf_haproxy.control.certificates import Certificates
from serf_haproxy.control.edges import make_edges
from serf_haproxy.control.preview import find_config, preview, preview_vetted
from serf_haproxy.haproxy.config_file import ConfigFile
from serf_haproxy.haproxy.socket import BRIEF, PROMPT, Limits
from serf_haproxy.services.service import Service
from serf_haproxy.settings import Settings


class Trial(NamedTuple):
    """What trying came to.

    Attributes:
        text: The configuration.
        words: HAProxy's words where it refuses the configuration; None where it accepts it.
        faults: One line for each fault of the services file and of certificates.
        services: The services.
        silence: Why this may not be what a pass decides, as `Preview.silence` says.
    """

    text: str
    words: str | None
    faults: tuple[str, ...]
    services: tuple[Service, ...]
    silence: str = ""


def try_config(settings: Settings, limits: Limits = PROMPT) -> Trial:
    """Render and check the configuration that follows now; change nothing.

    Args:
        settings: The settings.
        limits: How long to wait for an answer of HAProxy's.

    Raises:
        SystemFault: A file cannot be read, or HAProxy cannot be run.
        TemplateError: The template is wrong.
    """
    with tempfile.TemporaryDirectory(prefix="serf-haproxy-check-") as directory:
        # The daemon's copies of certificates may not be there yet, and only the daemon writes them.
        settings = settings.replace(certificate_copies_dir=os.path.join(directory, "certificates"))
        path = os.path.join(directory, "haproxy.cfg")
        config_file = ConfigFile(path, settings.haproxy_bin, settings.check_timeout_s)
        found = preview(settings, are_copies_written=True, limits=limits)
        edges = found.edges._replace(config_file=config_file)
        if found.silence:  # it is asked once more below
            edges = edges._replace(runtime=make_edges(settings, BRIEF).runtime)
        silence, found = found.silence, found._replace(edges=edges)
        # The machine may be another one than the balancer, so its listeners say nothing.
        found = preview_vetted(settings, found, is_listening_tried=False)
        faults = found.snapshot.services.faults + tuple(map(str, Certificates(settings).refresh(None)))
        text = find_config(settings, found).text
        return Trial(text, config_file.check(text), faults, found.snapshot.services.listed, silence)
