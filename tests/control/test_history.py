"""The history: bounded, readable after any damage, and followed across its files."""

import os
import stat
from pathlib import Path

import pytest

from serf_haproxy.control import history
from serf_haproxy.control.history import NODE, ORDER, Happening, History, Wanted
from serf_haproxy.errors import SystemFault

ONE = Happening(1_795_662_000.5, "lb1", NODE, "nodes", "web1", "serving -> draining", "an order drains it", "alice")


def read(kept: History, **wanted: object) -> list[Happening]:
    return list(kept.read(Wanted()._replace(**wanted)))


def test_lines_come_back_in_their_order(tmp_path: Path) -> None:
    """What is added is read, also by another process, and only the daemon's user may read the file."""
    kept = History(str(tmp_path))
    assert read(kept) == []
    kept.add([ONE, ONE._replace(node="web2")])
    kept.add([])
    kept.add([ONE._replace(node="web3", why="ä\n\x1b[2J")])
    assert [one.node for one in read(History(str(tmp_path)))] == ["web1", "web2", "web3"]
    assert stat.S_IMODE((tmp_path / "history.jsonl").stat().st_mode) == 0o600


def test_lines_are_chosen(tmp_path: Path) -> None:
    """Lines can be chosen by node, by service, where those about all services count, and by time."""
    kept = History(str(tmp_path))
    others = [
        ONE._replace(node="web2", at_s=ONE.at_s + 5),
        ONE._replace(service="api", at_s=ONE.at_s + 10),
        ONE._replace(kind=ORDER, service=""),
    ]
    kept.add([ONE, *others])
    assert read(kept, node="web1") == [ONE, *others[1:]]
    assert read(kept, service="api") == others[1:]
    assert read(kept, since_s=ONE.at_s + 5) == others[:2]


def test_a_line_is_safe_to_show() -> None:
    """No text from outside reaches a terminal as it is."""
    shown = str(ONE._replace(why="\x1b[2J\nforged"))
    assert shown == "2026-11-26T03:00:00Z lb1 node web1: serving -> draining; \\x1b[2J\\nforged (by alice)"
    assert str(ONE._replace(service="api", by="")).startswith("2026-11-26T03:00:00Z lb1 node api/web1: ")


def test_the_history_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At its size the file becomes the older one, and the one before is gone; one pass adds so many lines at most."""
    monkeypatch.setattr(history, "_MOST_BYTES", 2000)
    kept = History(str(tmp_path))
    for number in range(100):
        kept.add([ONE._replace(node=f"web{number}")])
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert sizes.keys() == {"history.jsonl", "history.jsonl.1"}
    assert all(size < 2500 for size in sizes.values())
    assert read(kept)[-1].node == "web99"
    kept.add(ONE._replace(node=f"web{number}") for number in range(3000))
    assert [one.what for one in read(kept)].count("1000 more") == 1
    assert read(kept)[-2].node == "web1999"


def test_damage_costs_a_line(tmp_path: Path) -> None:
    """After a torn line, and among nonsense, all other lines are read."""
    path = tmp_path / "history.jsonl"
    kept = History(str(tmp_path))
    kept.add([ONE])
    content = path.read_bytes()
    path.write_bytes(content + b'[1]\n{"at_s": "x"}\nnull\n\xff\xfe\n' + content[:40])
    kept.add([ONE._replace(node="web2")])
    assert [one.node for one in read(kept)] == ["web1", "web2"]


def test_a_history_that_cannot_be_written_or_read_is_a_system_fault(tmp_path: Path) -> None:
    """The error names the file and what follows."""
    (tmp_path / "history.jsonl").mkdir()
    kept = History(str(tmp_path))
    with pytest.raises(SystemFault, match="history.jsonl: Is a directory; the history has a gap"):
        kept.add([ONE])
    with pytest.raises(SystemFault, match="cannot read"):
        read(kept)


def test_a_fifo_in_its_place_is_not_waited_for(tmp_path: Path) -> None:
    """Reading and adding fail at once, and following shows nothing."""
    os.mkfifo(tmp_path / "history.jsonl")
    kept = History(str(tmp_path))
    for step in (lambda: read(kept), lambda: kept.read_last(100), lambda: kept.add([ONE] * 2000)):
        with pytest.raises(SystemFault, match="history.jsonl: it is not a regular file; replace it by one"):
            step()
    assert kept.follow(Wanted()).read() == []


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    """Nothing is added to a file that a link leads to."""
    (tmp_path / "other").write_text("")
    os.symlink(tmp_path / "other", tmp_path / "history.jsonl")
    with pytest.raises(SystemFault):
        History(str(tmp_path)).add([ONE])
    assert (tmp_path / "other").read_text() == ""


def test_the_tail_goes_on_in_the_next_file(tmp_path: Path) -> None:
    """Following shows only what is added, whole lines only, and no line twice when the file is replaced."""
    kept = History(str(tmp_path))
    kept.add([ONE])
    tail = kept.follow(Wanted(node="web2"))
    assert tail.read() == []
    kept.add([ONE._replace(node="web2", what="first"), ONE])
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write('{"torn": ')
    assert [one.what for one in tail.read()] == ["first"]
    os.replace(tmp_path / "history.jsonl", tmp_path / "history.jsonl.1")
    kept.add([ONE._replace(node="web2", what="second")])
    assert [one.what for one in tail.read()] == ["second"]
    assert tail.read() == []
    tail.close()


def test_following_may_begin_before_the_first_line(tmp_path: Path) -> None:
    """Without a history, following waits for it."""
    kept = History(str(tmp_path))
    tail = kept.follow(Wanted())
    assert tail.read() == []
    kept.add([ONE])
    assert tail.read() == [ONE]
    tail.close()


def test_the_last_lines_come_from_the_ends_of_both_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only so much is read; a line that is cut at its beginning is left out, and so is damage."""
    monkeypatch.setattr(history, "_MOST_BYTES", 2000)
    kept = History(str(tmp_path))
    assert kept.read_last(1000) == []
    for number in range(14):
        kept.add([ONE._replace(node=f"web{number}")])
    assert [one.node for one in kept.read_last(10_000)] == [one.node for one in read(kept)]
    lines = [path.read_text().splitlines() for path in (tmp_path / "history.jsonl.1", tmp_path / "history.jsonl")]
    length = len(lines[0][0]) + 1
    assert [one.node for one in kept.read_last(2 * length + 20)] == [
        one.node for one in read(kept) if any(f'"{one.node}"' in line for part in lines for line in part[-2:])
    ]
    (tmp_path / "history.jsonl").write_bytes(b"\xff\n{}\n")
    assert [one.node for one in kept.read_last(length + 5)] == [read(kept)[-1].node]
