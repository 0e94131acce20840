"""Servers and a template become the text of haproxy.cfg. Pure."""

import traceback
from typing import Any, NamedTuple

import jinja2

from serf_haproxy.config import fingerprint
from serf_haproxy.config.parse import Layout, Parser
from serf_haproxy.errors import TemplateError
from serf_haproxy.policy.server import Server


class Config(NamedTuple):
    """A configuration.

    Attributes:
        text: All of haproxy.cfg, with the fingerprint at its end.
        digest: Digest of what the template printed.
        layout: The same, taken apart.
    """

    text: str
    digest: str
    layout: Layout

    @property
    def description(self) -> str:
        """What HAProxy reports when it has loaded this configuration."""
        return fingerprint.describe(self.digest, self.layout.rest)


class Compiler:
    """Compiles templates, and remembers the last one."""

    def __init__(self) -> None:
        self._key: tuple[str, str] | None = None
        self._template: jinja2.Template | None = None

    def compile(self, template: str, template_name: str) -> jinja2.Template:
        """Return a compiled template; raise jinja2.TemplateSyntaxError for a wrong one."""
        if self._template is None or self._key != (template, template_name):
            self._template = _compile(template, template_name)
            self._key = template, template_name
        return self._template


def render(
    template: str, template_name: str, servers: tuple[Server, ...], settings: Any, parser: Parser | None = None
) -> Config:
    """Fill in a template and append the fingerprint; arguments and errors are those of `fill_in`."""
    return finish(fill_in(template, template_name, servers, settings), parser or Parser())


def fill_in(
    template: str, template_name: str, servers: tuple[Server, ...], settings: Any, compiler: Compiler | None = None
) -> str:
    """Return what a template prints.

    Args:
        template: Text of a Jinja2 template; it sees `servers` and `settings`.
        template_name: Its name in errors.
        servers: Sorted by service and name.
        settings: The settings object.
        compiler: The owner's compiler.

    Raises:
        TemplateError: The template has an error or uses an undefined variable; the text names the line.
    """
    try:
        compiled = (compiler or Compiler()).compile(template, template_name)
        text = compiled.render(servers=servers, settings=settings)
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


def finish(text: str, parser: Parser) -> Config:
    """Take a text apart and append the fingerprint."""
    text = text.rstrip("\n") + "\n"
    config = Config("", fingerprint.digest(text), parser.read(text))
    return config._replace(text=fingerprint.append(text, config.description))


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
