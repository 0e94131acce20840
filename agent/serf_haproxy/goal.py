"""What should be: from node files, settings and template to the text of haproxy.cfg. It reads and changes nothing."""

import os
import time

from serf_haproxy import nodes, pool, render
from serf_haproxy.errors import SystemFault, TemplateError
from serf_haproxy.files import read_text
from serf_haproxy.settings import Settings
from serf_haproxy.state import read_record

BUILT_IN_TEMPLATE = os.path.join(os.path.dirname(__file__), "haproxy.cfg.j2")


def read_pool(settings: Settings) -> pool.Pool:
    """Return the servers that follow from the present node files alone; none when there is no node directory.

    Those that only drain are not among them, because that takes HAProxy's own count of their connections.

    Raises:
        SystemFault: The node directory cannot be read.
    """
    files = nodes.load(settings.nodes_dir)[0] if os.path.isdir(settings.nodes_dir) else {}
    return pool.build(files, rules_of(settings, read_record(settings).self_name), time.time_ns())


def rules_of(settings: Settings, self_name: str) -> pool.Rules:
    """Return the rules by which members become servers."""
    return pool.Rules(
        settings.default_port,
        settings.roles,
        settings.balancer_roles,
        self_name,
        settings.drain_timeout_s,
        settings.failed_grace_s,
    )


def compute(settings: Settings, servers: tuple[pool.Server, ...]) -> render.Rendered:
    """Render the configuration for some servers with the template of the settings.

    Raises:
        TemplateError: The template cannot be read or rendered.
    """
    path = settings.template_path or BUILT_IN_TEMPLATE
    try:
        template = read_text(path)
    except SystemFault as error:
        raise TemplateError(str(error)) from error
    if template is None:
        raise TemplateError(f"{path}: there is no such template; set SERF_HAPROXY_TEMPLATE_PATH to one")
    return render.render(template, path, servers, settings)
