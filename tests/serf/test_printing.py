"""The function through which text from outside passes before a person reads it, and the places where it does."""

import io
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.proxy import make_environment
from serf_haproxy.control.directories import prepare_directories
from serf_haproxy.daemon.log import LineFormatter
from serf_haproxy.serf.events import Member
from serf_haproxy.serf.nodes import record
from serf_haproxy.serf.printing import printable
from serf_haproxy.settings import load_settings

HOSTILE = {
    "escape sequence": "\x1b[2J\x1b]0;pwned\x07",
    "C1 control": "\x9b31m",
    "bidirectional": "\u202egnp.\u2066x\u2069",
    "line feed": "x\nlevel=ERROR msg='forged'",
    "carriage return": "x\rforged",
    "line separator": "x\u2028forged\u2029\x85\x0b\x0c",
    "zero width": "a\u200bb\u200e\ufeff",
    "tag characters": "\U000e0041",
    "not UTF-8": "\udcff\udc9b",
    "homoglyph": "w\u0435b1",
}


def is_safe(text: str) -> bool:
    """Return whether a text is one line of printable ASCII."""
    return text.isascii() and text.isprintable()


@given(st.text(st.characters(exclude_categories=())), st.integers(0, 50))
def test_any_text_becomes_one_safe_line(text: str, length: int) -> None:
    """Whatever the text, the result is one line of printable ASCII of limited length; a safe text stays as it is."""
    shown = printable(text, length)
    assert is_safe(shown)
    assert len(shown) <= 10 * length + 3
    assert shown == text or not is_safe(text) or len(text) > length


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_no_log_line_is_forged(text: str) -> None:
    """Neither a message nor an exception's text can begin a line of the log, or change a terminal."""
    for layout in ("level=%(levelname)s msg=%(message)r", "serf-haproxy: %(message)s"):
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        handler.setFormatter(LineFormatter(layout))
        logger = logging.Logger("test")
        logger.addHandler(handler)
        try:
            raise ValueError(text)
        except ValueError:
            logger.exception("%s", f"node {text} is refused")
        first, *more = stream.getvalue().removesuffix("\n").split("\n")
        assert first.startswith(("level=ERROR msg=", "serf-haproxy: node"))
        assert all(line.startswith("    ") for line in more)
        assert all(map(is_safe, (first, *more)))


def test_every_command_prints_safe_lines(tmp_path: Path) -> None:
    """Hostile roles, addresses, tags and file names reach no terminal by `status` or `once`."""
    environment = make_environment(tmp_path)
    settings = load_settings(environment)
    prepare_directories(settings)
    for number, text in enumerate(HOSTILE.values()):
        # What no handler escapes, and what another program may have written.
        word = text.replace("\n", "").replace("\t", "")
        record(settings.nodes_dir, "alive", Member(f"web{number}", "127.0.0.1", word, (f"role={word}", f"port={word}")))
        record(settings.nodes_dir, "alive", Member(f"bad{number}", word, "web", ("role=web",)))
        Path(os.fsdecode(os.path.join(os.fsencode(settings.nodes_dir), os.fsencode(text)))).write_text("x")
    for words in (["once"], ["status"], ["status", "--json"]):
        command = [sys.executable, "-m", "serf_haproxy", *words]
        ended = subprocess.run(command, env=os.environ | environment, capture_output=True, check=False)
        said = (ended.stdout + ended.stderr).decode("utf-8", "surrogateescape")
        assert len(said) > 1000, said
        assert all(map(is_safe, said.split("\n"))), said
