"""The service `join` of the images, with real Serf agents on loopback."""

import contextlib
import importlib.util
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from conftest import ROOT, Serf, StartSerf, WaitUntil, accepts, choose_port

RunJoin = Callable[..., Path]
STEADY_S = 8.0  # more than one pause of a node that is alone, which is 5 s at most


@pytest.fixture(scope="module")
def join() -> ModuleType:
    """Return the service's module."""
    sys.path.append(str(ROOT / "s6" / "serf" / "data"))  # where it looks in an image
    spec = importlib.util.spec_from_file_location("join", ROOT / "images" / "services" / "join" / "join.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run_join(tmp_path: Path) -> Iterator[RunJoin]:
    """Yield a function that runs the service beside a Serf agent and returns the path of its log."""
    with contextlib.ExitStack() as stack:

        def run(serf: Serf, *entries: str, **environ: str) -> Path:
            home = tmp_path / serf.gossip.partition(":")[0]
            shutil.copytree(ROOT / "images" / "services" / "join", home / "join")
            (home / "serf" / "data").mkdir(parents=True)
            shutil.copy(ROOT / "s6" / "serf" / "data" / "rpc.py", home / "serf" / "data")
            log = stack.enter_context((home / "log").open("wb"))
            environ |= {"SERF_RPC_ADDR": "{}:{}".format(*serf.rpc), "SERF_JOIN": " ".join(entries)}
            argv = [sys.executable, "-IB", str(home / "join" / "join.py")]
            process = subprocess.Popen(argv, stdout=log, stderr=log, env=environ)
            stack.callback(process.wait)
            stack.callback(process.terminate)
            return home / "log"

        yield run


def alive(serf: Serf) -> set[str]:
    """Return the names of the members that are alive for a Serf agent."""
    argv = ["serf", "members", "-rpc-addr={}:{}".format(*serf.rpc), "-status=alive"]
    listing = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    return {line.split()[0] for line in listing.splitlines()}


def join_by_hand(serf: Serf, other: Serf) -> None:
    """Join two Serf agents."""
    subprocess.run(["serf", "join", "-rpc-addr={}:{}".format(*serf.rpc), other.gossip], check=True, capture_output=True)


def test_a_member_that_others_know_joins_a_newcomer_behind_its_name(
    start_serf: StartSerf, run_join: RunJoin, wait_until: WaitUntil
) -> None:
    """Two members that know each other join a third one that starts later, joins no one and is in one's list."""
    host = "127.0.0.1"
    port = choose_port(host)
    first = start_serf("j-first")
    second = start_serf("j-second", f"-join={first.gossip}")
    log = run_join(first, f"{host}:{port}")
    wait_until(lambda: "cannot be joined" in log.read_text(), "first look")
    newcomer = start_serf("j-newcomer", f"-bind={host}:{port}")
    wait_until(lambda: alive(second) == {"j-first", "j-second", "j-newcomer"}, "newcomer", 30)
    assert "was no member; joined it" in log.read_text()
    newcomer.leave()


def test_a_node_that_is_alone_looks_every_five_seconds_and_says_so_once(
    start_serf: StartSerf, run_join: RunJoin, wait_until: WaitUntil
) -> None:
    """A node alone for long finds a new one within its next pause, and its log has one line for each thing."""
    host = "127.0.0.1"
    port = choose_port(host)
    lonely = start_serf("l-lonely")
    log = run_join(lonely, f"{host}:{port}", lonely.gossip, "name.invalid")
    wait_until(lambda: "cannot be joined" in log.read_text(), "first look")
    time.sleep(STEADY_S)  # time for the looks at 1, 3 and 7 s; a doubled pause would be 8 s by now
    lines = log.read_text().splitlines()
    assert len(lines) == len(set(lines)) == 3, lines
    assert "name.invalid has no address" in lines
    started_s = time.monotonic()
    start_serf("l-late", f"-bind={host}:{port}")
    wait_until(lambda: alive(lonely) == {"l-lonely", "l-late"}, "late node", 30)
    print(f"found after {time.monotonic() - started_s:.1f} s")


def test_a_snapshot_leads_back_unless_it_names_only_the_node_itself(
    start_serf: StartSerf, run_join: RunJoin, wait_until: WaitUntil, tmp_path: Path
) -> None:
    """A node that is alone joins the members of its snapshot; its former self at its own address is none."""
    other = start_serf("s-other")
    node = start_serf("s-new-name")
    snapshot = tmp_path / "snapshot"
    snapshot.write_text(f"alive: s-old-name {node.gossip}\n")
    log = run_join(node, SERF_SNAPSHOT=str(snapshot))
    time.sleep(2)
    assert log.read_text() == ""
    second = start_serf("s-second")
    snapshot.write_text(f"alive: s-old-name {node.gossip}\nalive: s other {other.gossip}\nclock: 7\n")
    run_join(second, SERF_SNAPSHOT=str(snapshot))
    wait_until(lambda: "s-other" in alive(second), "member of the snapshot", 30)


def test_it_connects_again_after_serf_has_restarted(
    start_serf: StartSerf, run_join: RunJoin, wait_until: WaitUntil
) -> None:
    """A Serf agent that was killed and starts again without knowing any member is joined to those known before."""
    other = start_serf("r-other")
    node = start_serf("r-node")
    join_by_hand(node, other)
    wait_until(lambda: alive(node) == {"r-other", "r-node"}, "two members")
    log = run_join(node)
    time.sleep(2)  # it looks once a second at first
    node.process.kill()
    node.process.wait()
    again = subprocess.Popen(node.process.args, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: accepts(*node.rpc), "Serf agent")
        wait_until(lambda: alive(node) == {"r-other", "r-node"}, "former member", 30)
    finally:
        again.kill()
        again.wait()
    assert "r-node is alone" in log.read_text()


def test_entries_have_the_forms_of_serf(join: ModuleType) -> None:
    """A name, an address, each with or without a port, IPv6 too."""
    expected = {
        "lb1": ("lb1", 7946),
        "lb1:1": ("lb1", 1),
        "10.0.0.1:22": ("10.0.0.1", 22),
        "fd00::1": ("fd00::1", 7946),
        "[fd00::1]:5": ("fd00::1", 5),
        "[fd00::1]": ("fd00::1", 7946),
        "lb1:x": ("lb1", 7946),
    }
    assert {entry: join.split_entry(entry, 7946) for entry in expected} == expected


def test_a_damaged_snapshot_names_nobody(join: ModuleType, tmp_path: Path) -> None:
    """Lines that are no members, members that failed, and a missing file name no address."""
    path = tmp_path / "snapshot"
    assert join.read_snapshot(str(path)) == []
    path.write_bytes(
        b"alive: a 10.0.0.1:7946\nalive: b 10.0.0.2:7946\nnot-alive: a\n\xff\xfe\nalive\nalive: c d [fd00::1]:5\n"
    )
    assert join.read_snapshot(str(path)) == [("fd00::1", 5), ("10.0.0.2", 7946)]
