"""The fuzzer's corpus, replayed without the fuzzer: small seeds, and every finding as a regression test."""

from pathlib import Path

import pytest

from fuzz.checks import CHECKS

CORPUS_DIR = Path(__file__).parent / "corpus"
CORPUS_BYTES = 64 * 1024


@pytest.mark.parametrize("path", sorted(CORPUS_DIR.glob("*/*")), ids=lambda path: f"{path.parent.name}-{path.name}")
@pytest.mark.usefixtures("time_limit")
def test_promise_holds(path: Path) -> None:
    """What must hold for any input of this parser holds for this one."""
    CHECKS[path.parent.name](path.read_bytes())


def test_every_parser_has_a_corpus() -> None:
    """Every check has seeds, and they stay small enough for a repository."""
    sizes_bytes = {path: path.stat().st_size for path in CORPUS_DIR.glob("*/*")}
    assert {path.parent.name for path in sizes_bytes} == set(CHECKS)
    assert sum(sizes_bytes.values()) < CORPUS_BYTES
