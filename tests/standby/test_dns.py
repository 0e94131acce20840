"""The example that keeps a record in the DNS, with an `nsupdate` and a resolver that are scripts."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import WaitUntil
from standby.site import ROOT

KEEPER = ROOT / "images" / "examples" / "dns" / "keep-record"
ADD, DELETE = "update add www.example.com 5 A 192.0.2.1", "update delete www.example.com A 192.0.2.1"


def write_script(path: Path, text: str) -> None:
    """Write an executable script."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def sent(tmp_path: Path) -> Iterator[Callable[[], list[str]]]:
    """Run the example; yield a function that returns what was sent. `code` has the check's exit code."""
    write_script(tmp_path / "nsupdate", f"[ ! -e '{tmp_path}/away' ] && cat >> '{tmp_path}/sent'")
    write_script(tmp_path / "getent", f"cat '{tmp_path}/records'")
    write_script(tmp_path / "check", f"exit $(cat '{tmp_path}/code')")
    (tmp_path / "code").write_text("0")
    (tmp_path / "records").write_text("192.0.2.1 STREAM www\n192.0.2.2 STREAM www\n")
    (tmp_path / "sent").write_text("")
    environ = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CHECK": str(tmp_path / "check"), "LOOK_S": "0.02"}
    argv = [str(KEEPER), "www.example.com", "192.0.2.1"]
    with subprocess.Popen(argv, env=environ, stdout=subprocess.DEVNULL) as keeper:
        try:
            yield lambda: [line for line in (tmp_path / "sent").read_text().splitlines() if line != "send"]
        finally:
            keeper.kill()


def test_the_record_follows_the_check(sent: Callable[[], list[str]], tmp_path: Path, wait_until: WaitUntil) -> None:
    """A balancer that is ready has a record; one that is not has none; an update that fails is repeated."""
    wait_until(lambda: sent() == [ADD], "a record")
    (tmp_path / "away").touch()
    (tmp_path / "code").write_text("111")
    (tmp_path / "away").unlink()
    wait_until(lambda: sent() == [ADD, DELETE], "no record")
    (tmp_path / "code").write_text("0")
    wait_until(lambda: sent() == [ADD, DELETE, ADD], "a record again")


def test_the_last_record_stays(sent: Callable[[], list[str]], tmp_path: Path, wait_until: WaitUntil) -> None:
    """The record of a balancer that is not ready stays while there is no other."""
    (tmp_path / "records").write_text("192.0.2.1 STREAM www\n")
    wait_until(lambda: sent() == [ADD], "a record")
    write_script(tmp_path / "check", f"echo >> '{tmp_path}/asked'; exit 111")
    wait_until(lambda: (tmp_path / "asked").exists() and (tmp_path / "asked").read_text().count("\n") > 5, "five looks")
    assert sent() == [ADD]
    (tmp_path / "records").write_text("192.0.2.1 STREAM www\n192.0.2.2 STREAM www\n")
    wait_until(lambda: sent() == [ADD, DELETE], "no record")
