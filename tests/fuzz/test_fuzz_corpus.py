"""The fuzzer's corpus, replayed without the fuzzer: seeds, and each finding as a regression test."""

from pathlib import Path

import pytest

from fuzz.checks import CHECKS

CORPUS_DIR = Path(__file__).parent / "corpus"
CORPUS_BYTES = 64 * 1024


@pytest.mark.parametrize("path", sorted(CORPUS_DIR.glob("*/*")), ids=lambda path: f"{path.parent.name}-{path.name}")
@pytest.mark.usefixtures("time_limit")
def test_properties_hold(path: Path) -> None:
    """The parser's properties hold for this input."""
    CHECKS[path.parent.name](path.read_bytes())


def test_every_parser_has_a_corpus() -> None:
    """Every check has seeds, and the corpus is smaller than CORPUS_BYTES."""
    sizes_bytes = {path: path.stat().st_size for path in CORPUS_DIR.glob("*/*")}
    assert {path.parent.name for path in sizes_bytes} == set(CHECKS)
    assert sum(sizes_bytes.values()) < CORPUS_BYTES
