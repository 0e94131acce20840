"""The tags that the run script of Serf gives a node of the images."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

S6_DIR = Path(__file__).parents[2] / "s6"


@pytest.fixture
def service(tmp_path: Path) -> Path:
    """Return Serf's service directory in a tree with an application, whose other programs do nothing."""
    shutil.copytree(S6_DIR, tmp_path / "s6", ignore=shutil.ignore_patterns("supervise", "rpc-key.random*"))
    (tmp_path / "s6" / "app").mkdir()
    (tmp_path / "bin").mkdir()
    for name in ("s6-svok", "s6-svwait"):
        (tmp_path / "bin" / name).symlink_to("/bin/true")
    starter = tmp_path / "bin" / "s6-notifyoncheck"
    starter.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    starter.chmod(0o755)
    return tmp_path / "s6" / "serf"


@pytest.mark.parametrize(
    ("said", "tags"),
    [
        ("role=web", ["port=3000", "role=web"]),
        ("", ["port=3000"]),
        ("role=api svc.api=3000", ["role=api", "svc.api=3000"]),
        ("svc.api=3000:w5", ["svc.api=3000:w5"]),
        ("svc.api=3000 port=3000", ["svc.api=3000", "port=3000"]),
        ("note=svc.x", ["port=3000", "note=svc.x"]),
    ],
)
def test_a_node_that_names_its_services_has_no_port_of_the_default_one(
    service: Path, said: str, tags: list[str]
) -> None:
    """The tag `port` follows APP_PORT, unless SERF_TAGS has a tag `svc.NAME`."""
    environ = {"PATH": f"{service.parents[1] / 'bin'}:{os.environ['PATH']}", "SERF_NODE": "n", "SERF_TAGS": said}
    ran = subprocess.run([service / "run"], cwd=service, env=environ, capture_output=True, text=True, check=True)
    words = ran.stdout.splitlines()
    assert [words[at + 1] for at, word in enumerate(words) if word == "-tag"] == tags
