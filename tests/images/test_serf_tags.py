"""The tags that the entry point of the node bundle gives a node."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import ROOT


@pytest.fixture
def init(tmp_path: Path) -> Path:
    """Return the entry point with all paths below a directory, and an s6-svscan that prints the tags."""
    services, command = tmp_path / "etc" / "services", tmp_path / "command"
    shutil.copytree(ROOT / "images" / "node" / "services", services)
    shutil.copytree(ROOT / "s6" / ".common", services / ".common", ignore=shutil.ignore_patterns("rpc-key.random*"))
    command.mkdir()
    (command / "s6-svscan").write_text('#!/bin/sh\necho "$SERF_TAGS"\ncat check/data/services\n')
    (command / "s6-svscan").chmod(0o755)
    text = (ROOT / "images" / "node" / "init").read_text()
    for name, here in (
        ("PATH=/command", f"PATH={command}:$PATH"),
        ("/etc/serf-haproxy", str(tmp_path / "etc")),
        ("place=/run", f"place={tmp_path}/run"),
        ("/var/lib/serf-haproxy", f"{tmp_path}/var"),
        ("/run/service", f"{tmp_path}/run/service"),
    ):
        assert name in text
        text = text.replace(name, here)
    (tmp_path / "init").write_text(text)
    return tmp_path / "init"


@pytest.mark.parametrize(
    ("said", "tags", "watched"),
    [
        ("role=web", ["port=3000", "role=web"], ["port"]),
        ("", ["port=3000", "role=web"], ["port"]),
        ("role=api svc.api=3000", ["role=api", "svc.api=3000"], ["svc.api"]),
        ("svc.api=3000:w5", ["svc.api=3000:w5"], ["svc.api"]),
        ("svc.api=3000 port=3000", ["svc.api=3000", "port=3000"], ["svc.api", "port"]),
        ("note=svc.x", ["port=3000", "note=svc.x"], ["port"]),
    ],
)
def test_a_node_that_names_its_services_has_no_port_of_the_default_one(
    init: Path, said: str, tags: list[str], watched: list[str]
) -> None:
    """The tag `port` follows APP_PORT, unless SERF_TAGS has a tag `svc.NAME`; each tag with a port is watched."""
    environ = {"PATH": os.environ["PATH"], "SERF_NODE": "n", "SERF_TAGS": said, "APP_PORT": "3000"}
    argv = ["sh", str(init), "true"]
    ran = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    shown, *rows = ran.stdout.splitlines()
    assert shown.split() == tags
    assert [row.split()[0] for row in rows] == watched
