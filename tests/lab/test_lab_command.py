"""The command line of the lab, and the names that it still takes from the previous release."""

import argparse
from pathlib import Path

import pytest

from serf_haproxy.lab import command, report
from serf_haproxy.lab.records import Node, Record
from serf_haproxy.lab.services import Wish


def parse(*words: str) -> argparse.Namespace:
    """Parse a command line of the lab."""
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    return parser.parse_args(["lab", *words])


def test_up_takes_the_number_of_nodes(capsys: pytest.CaptureFixture[str]) -> None:
    """`--nodes N` is the number of nodes, 3 without it, or 0 with `--services`. `--https` is for TLS."""
    wanted: list[tuple[int, list[str]]] = []

    class Noted:
        def up(self, nodes: int, _balancers: int, _wait_s: float, services: list[Wish], has_https: bool) -> None:
            wanted.append((nodes + 100 * has_https, [wish.name for wish in services]))

    for words in (["--nodes", "5"], [], ["--services", "pg=1"], ["--services", "pg=1", "--nodes", "1"], ["--https"]):
        args = parse("up", *words)
        args.verb(Noted(), args)
    assert wanted == [(5, []), (3, []), (0, ["pg"]), (1, ["pg"]), (103, [])]
    assert capsys.readouterr().err == ""


def test_up_still_takes_the_option_backends(capsys: pytest.CaptureFixture[str]) -> None:
    """`--backends N` does what `--nodes N` does, and prints on stderr that it is deprecated."""
    assert parse("up", "--backends", "5").nodes == 5
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "serf-haproxy: --backends is deprecated; use --nodes\n"


def test_the_deprecated_option_is_not_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    """The help shows the new name alone."""
    with pytest.raises(SystemExit):
        parse("up", "--help")
    said = capsys.readouterr().out
    assert "--nodes N" in said
    assert "--backends" not in said


def test_the_status_still_has_the_key_backends(tmp_path: Path) -> None:
    """`lab status --json` has the nodes under `nodes`, and the same list under `backends`."""
    record = Record(str(tmp_path), 20000)
    record.nodes["web1"] = Node("web1", "127.0.1.1", 20004, {"role": "web"})
    status = report.describe(record)
    assert [row["name"] for row in status["nodes"]] == ["web1"]
    assert status["backends"] == status["nodes"]
