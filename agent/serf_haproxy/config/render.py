"""Servers and a template -> the text of haproxy.cfg and its digest: pure."""

import functools
import hashlib
import re
import traceback
from collections.abc import Mapping
from typing import Any, NamedTuple

import jinja2

from serf_haproxy.config.parse import Key, Layout, Line, read_layout
from serf_haproxy.errors import TemplateError
from serf_haproxy.policy.server import Server

_MARK_WORD = "serf-haproxy"
_MARK = """\

# The mark by which HAProxy confirms that it runs this configuration ("show info", line "description").
global
    description {description}
"""


class Rendered(NamedTuple):
    """A configuration.

    Attributes:
        text: All of haproxy.cfg, the mark at its end.
        digest: 16 hexadecimal digits of the SHA-256 of what the template printed.
        layout: The same taken apart.
    """

    text: str
    digest: str
    layout: Layout

    @property
    def description(self) -> str:
        """What HAProxy reports when it has loaded this configuration."""
        return f"{_MARK_WORD}-{self.digest}-{self.layout.rest}"


def rest_of(description: str) -> str:
    """Return the digest of everything but the servers from what HAProxy reports; "" when it carries none."""
    word, _, digests = description.rpartition(f"{_MARK_WORD}-")
    return "" if word else digests.partition("-")[2]


def render(template: str, template_name: str, servers: tuple[Server, ...], settings: Any) -> Rendered:
    """Fill in a template and append the mark; for arguments and errors see `fill_in`."""
    return append_mark(fill_in(template, template_name, servers, settings))


def fill_in(template: str, template_name: str, servers: tuple[Server, ...], settings: Any) -> str:
    """Return what a template prints.

    Args:
        template: Text of a Jinja2 template; it sees `servers` and `settings`.
        template_name: What errors call it.
        servers: Sorted by name.
        settings: The settings object.

    Raises:
        TemplateError: The template has an error or uses an undefined variable; the text names the line.
    """
    try:
        text = _compile(template, template_name).render(servers=servers, settings=settings)
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
        endless = isinstance(error, RecursionError)
        reason = "it calls itself without end" if endless else str(error) or type(error).__name__
        raise TemplateError(f"{template_name}:{_line_of(error, template_name)}: {reason}") from error
    if "\0" in text:
        raise TemplateError(f"{template_name}: the result contains a NUL byte")
    return text


def append_mark(text: str) -> Rendered:
    """Take a configuration apart and append the mark.

    The mark is a `global` section of its own: HAProxy merges them and the last description counts, so no template
    has to know about it.
    """
    text = text.rstrip("\n") + "\n"
    rendered = Rendered("", _digest(text), read_layout(text))
    return rendered._replace(text=text + _MARK.format(description=rendered.description))


def description_of(text: str) -> str:
    """Return the description that a rendered text carries; "" for a text that is not ours or was changed."""
    body, separator, mark = text.rpartition(_MARK.partition("{")[0])
    is_ours = separator and re.fullmatch(rf"{_MARK_WORD}-{_digest(body)}-[0-9a-f]{{16}}\n", mark)
    return mark.rstrip("\n") if is_ours else ""


def is_marked(text: str) -> bool:
    """Tell whether a text was made by us, be it that somebody has changed it since."""
    return _MARK.partition("{")[0] in text


def read_published(text: str) -> Layout:
    """Take apart a text that may end in a mark."""
    body, separator, _ = text.rpartition(_MARK.partition("{")[0])
    return read_layout(body if separator else text)


def digest_of(text: str) -> str:
    """Return the digest that a rendered text carries in its mark; "" for a text that is not ours or was changed."""
    return description_of(text).removeprefix(f"{_MARK_WORD}-").partition("-")[0]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def describe_change(old: Mapping[Key, Line], new: Mapping[Key, Line]) -> str:
    """Say in one sentence which servers there are now more, less or otherwise than before."""
    changed = sorted([*(key for key, line in new.items() if old.get(key) != line), *(old.keys() - new.keys())])
    changes = [("+" if key not in old else "-" if key not in new else "~") + key[1] for key in changed]
    shown = " ".join(changes[:10]) + (f" and {len(changes) - 10} more" if len(changes) > 10 else "")
    return f"servers changed: {shown}" if changes else "the configuration changed"


@functools.lru_cache(maxsize=1)
def _compile(template: str, template_name: str) -> jinja2.Template:
    environment = jinja2.Environment(  # noqa: S701 - this is no HTML
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        loader=jinja2.FunctionLoader(lambda name: (template, template_name, None) if name == "" else None),
    )
    return environment.get_template("")


def _line_of(error: Exception, template_name: str) -> int:
    """Find the template's line in a traceback: Jinja2 gives its frames the template's name and line numbers."""
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame.lineno or 0 for frame in reversed(frames) if frame.filename == template_name), 0)
