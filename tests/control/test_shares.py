"""The file by which the loop of measured weights tells `status` what it found."""

from pathlib import Path

import pytest

from serf_haproxy.control.shares import read_shares, write_shares

SHARE = {"weight": 3, "limit": 100, "factor": 0.03, "wait_s": None, "failed_share": 0.5, "times": 9.0}
SHARE |= {"is_failing": True, "reason": "slow"}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Servers come back by service and node."""
    shares = {("nodes", "web1"): SHARE, ("api", "web1"): SHARE | {"weight": 4}}
    write_shares(str(tmp_path / "weights.json"), shares)
    assert read_shares(str(tmp_path / "weights.json")) == shares


@pytest.mark.parametrize("text", ["", "[]", "{", '{"web1": 3}', "null", "[" * 100000])
def test_a_damaged_file_says_nothing(tmp_path: Path, text: str) -> None:
    """Whatever is in the file, `status` goes on without it."""
    (tmp_path / "weights.json").write_text(text)
    assert read_shares(str(tmp_path / "weights.json")) == {}


def test_a_file_that_cannot_be_written_does_no_harm(tmp_path: Path) -> None:
    """Without its directory nothing is written, and nothing is raised."""
    write_shares(str(tmp_path / "none" / "weights.json"), {("nodes", "web1"): SHARE})
    assert read_shares(str(tmp_path / "none" / "weights.json")) == {}
