"""lab.json and the lock of a lab."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from serf_haproxy.errors import InputError, SystemFault
from serf_haproxy.lab import records
from serf_haproxy.lab.node import work_dir
from serf_haproxy.lab.processes import Process
from serf_haproxy.lab.records import Balancer, Node, Record


def make_record(lab_dir: Path) -> Record:
    """Return a lab with one balancer that is up and one node that left."""
    record = Record(str(lab_dir), 20000, {"SERF_PROFILE": "local"}, 7)
    record.balancers["lb1"] = Balancer("lb1", "127.0.0.1", Process(17, 4.25))
    record.nodes["web1"] = Node("web1", "127.0.1.1", 20004, {"role": "web"}, records.LEFT)
    return record


def test_a_record_is_read_as_it_was_saved(tmp_path: Path) -> None:
    """Another command finds the same processes, by id and start time."""
    record = make_record(tmp_path)
    record.save()
    assert records.load(str(tmp_path)) == record
    assert records.load(str(tmp_path / "none")) is None


def test_a_record_of_the_previous_release_is_read(tmp_path: Path) -> None:
    """The previous release wrote the nodes under `backends`, and kept their files in a directory of that name."""
    record = make_record(tmp_path)
    record.save()
    path = tmp_path / "lab.json"
    table = json.loads(path.read_text())
    table["backends"] = table.pop("nodes")
    del table["node_dirs"]
    path.write_text(json.dumps(table))
    found = records.load(str(tmp_path))
    assert found
    assert found.nodes == record.nodes
    assert work_dir(found, found.nodes["web1"]) == str(tmp_path / "backends" / "web1")
    found.save()  # by a command that changes the lab
    assert records.load(str(tmp_path)) == found


@pytest.mark.parametrize("key", ["nodes", "backends"])
@pytest.mark.parametrize("text", ["", "{}", "[]", '{"balancers": {}, "KEY": {}, "more": 1}', '{"balancers": 5}'])
def test_a_damaged_record_is_not_guessed_at(tmp_path: Path, key: str, text: str) -> None:
    """A damaged record does not say which processes are the lab's, so a person has to stop them."""
    (tmp_path / "lab.json").write_text(text.replace("KEY", key))
    with pytest.raises(SystemFault, match="lab.json is damaged"):
        records.load(str(tmp_path))


def test_a_fresh_address_was_never_used(tmp_path: Path) -> None:
    """No address is given out twice, and none that was chosen by hand."""
    record = make_record(tmp_path)
    record.nodes["web2"] = Node("web2", "127.0.1.9", 20004, {})
    assert [record.take_address() for _ in range(3)] == ["127.0.1.8", "127.0.1.10", "127.0.1.11"]


def test_only_one_command_holds_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one command works on a lab, another waits for a limited time and then fails."""
    monkeypatch.setattr(records, "_LOCK_S", 0.2)
    with (
        records.locked(str(tmp_path)),
        pytest.raises(SystemFault, match="another lab command is at work"),
        records.locked(str(tmp_path)),
    ):
        pass
    with records.locked(str(tmp_path)):
        pass


def test_a_command_that_waited_for_a_removed_lab_finds_none(tmp_path: Path) -> None:
    """A lock on a directory that was removed meanwhile does not count."""
    lab_dir = tmp_path / "lab"
    lab_dir.mkdir()
    faults: list[InputError] = []

    def wait() -> None:
        try:
            with records.locked(str(lab_dir)):
                pass
        except InputError as error:
            faults.append(error)

    waiting = threading.Thread(target=wait)
    with records.locked(str(lab_dir)):
        waiting.start()
        lab_dir.rmdir()
    waiting.join(15)
    assert [str(fault) for fault in faults] == [records.describe_missing(str(lab_dir))]


def test_the_command_line_is_cheap_to_import() -> None:
    """`serf-haproxy` imports none of the lab's third-party packages for other commands."""
    code = (
        "import sys; import serf_haproxy.lab.command; print(sorted({'psutil', 'requests', 'jinja2'} & {*sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
