"""Templates on disk, and rendering them: a custom template runs in a child process with limits."""

import codecs
import contextlib
import functools
import os

from serf_haproxy import config
from serf_haproxy.config.parse import Parser
from serf_haproxy.config.render import Compiler, Config, Source, fill_in, finish
from serf_haproxy.errors import SystemFault, TemplateError
from serf_haproxy.policy.server import Server
from serf_haproxy.services.service import Service
from serf_haproxy.settings import Settings
from serf_haproxy.system.files import WRITTEN_BYTES, read_text
from serf_haproxy.system.processes import run_apart

# Jinja2 loads it with the first string of a template. By then there may be no file descriptor left.
codecs.lookup("unicode-escape")

BUILT_IN_TEMPLATE = os.path.join(os.path.dirname(config.__file__), "templates", "haproxy.cfg.j2")

Servers = tuple[Server, ...]


def read_template(settings: Settings) -> str:
    """Return the text of the template that the settings name.

    Raises:
        TemplateError: It cannot be read.
    """
    path = settings.template_path or BUILT_IN_TEMPLATE
    try:
        template = read_text(path, WRITTEN_BYTES)
    except SystemFault as error:
        raise TemplateError(str(error)) from error
    if template is None:
        raise TemplateError(f"{path}: there is no such template; set SERF_HAPROXY_TEMPLATE_PATH to one")
    return template


class Renderer:
    """Renders configurations. It remembers the last ones to save time; a new one gives the same results."""

    def __init__(self) -> None:
        self.parser = Parser()
        self._compiler = Compiler()
        self.render = functools.lru_cache(maxsize=2)(self.make)  # most passes find nothing new

    def make(self, template: str, servers: Servers, settings: Settings, services: tuple[Service, ...] = ()) -> Config:
        """Return the configuration for some servers, and remember nothing.

        Args:
            template: The template's text. Without `settings.template_path` it is the built-in one.
            servers: Sorted by service and name.
            settings: The settings.
            services: The services, sorted by name; empty: the default one.

        Raises:
            TemplateError: The template is wrong, or exceeds its limits of time and memory.
        """
        path = settings.template_path
        if not path:
            text = fill_in(Source(template, BUILT_IN_TEMPLATE), servers, settings, services, self._compiler)
            return _mark_measured(finish(text, servers, self.parser), services)

        def work() -> bytes:
            try:
                compiler = Compiler()  # compiling takes most of the time
                text = fill_in(Source(template, path), servers, settings, services, compiler)
                with contextlib.suppress(TemplateError):
                    text += f"\0{fill_in(Source(template, path), (), settings, services, compiler)}"
                return f"+{text}".encode("utf-8", "surrogateescape")
            except TemplateError as error:
                return f"-{error}".encode("utf-8", "surrogateescape")

        try:
            result = run_apart(work, settings.template_timeout_s, settings.template_memory_mib * 2**20)
        except SystemFault as error:
            raise TemplateError(f"{path}: {error}") from error
        text, _, bare = result[1:].decode("utf-8", "surrogateescape").partition("\0")
        if result[:1] != b"+":
            raise TemplateError(text)
        return _mark_measured(finish(text, servers, self.parser, bare), services)


def _mark_measured(config: Config, services: tuple[Service, ...]) -> Config:
    """Return a configuration that says which of its sections have measured weights."""
    measured = {service.name: bool(service.split) for service in services if service.is_measured}
    return config._replace(layout=config.layout._replace(measured=measured)) if measured else config
