"""lab.json and the lock of a lab."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from serf_haproxy.errors import InputError, SystemFault
from serf_haproxy.lab import records
from serf_haproxy.lab.processes import Process
from serf_haproxy.lab.records import Backend, Balancer, Record


def make_record(lab_dir: Path) -> Record:
    """Return a lab with one balancer that is up and one backend that left."""
    record = Record(str(lab_dir), 20000, {"SERF_PROFILE": "local"}, 7)
    record.balancers["lb1"] = Balancer("lb1", "127.0.0.1", Process(17, 4.25))
    record.backends["web1"] = Backend("web1", "127.0.1.1", 20004, {"role": "web"}, records.LEFT)
    return record


def test_a_record_is_read_as_it_was_saved(tmp_path: Path) -> None:
    """Another command finds the same processes: id and start time alike."""
    record = make_record(tmp_path)
    record.save()
    assert records.load(str(tmp_path)) == record
    assert records.load(str(tmp_path / "none")) is None


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"balancers": {}, "backends": {}, "more": 1}', '{"balancers": 5}'])
def test_a_damaged_record_is_not_guessed_at(tmp_path: Path, text: str) -> None:
    """Nobody knows which processes are the lab's, so a person is asked."""
    (tmp_path / "lab.json").write_text(text)
    with pytest.raises(SystemFault, match="lab.json is damaged"):
        records.load(str(tmp_path))


def test_a_fresh_address_is_one_that_nobody_has_had(tmp_path: Path) -> None:
    """Addresses are not used twice, not even that of a backend which somebody put there by hand."""
    record = make_record(tmp_path)
    record.backends["web2"] = Backend("web2", "127.0.1.9", 20004, {})
    assert [record.take_address() for _ in range(3)] == ["127.0.1.8", "127.0.1.10", "127.0.1.11"]


def test_the_lock_keeps_others_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one command works on a lab another one waits, and gives up in the end."""
    monkeypatch.setattr(records, "_LOCK_S", 0.2)
    with (
        records.locked(str(tmp_path)),
        pytest.raises(SystemFault, match="another lab command is at work"),
        records.locked(str(tmp_path)),
    ):
        pass
    with records.locked(str(tmp_path)):
        pass


def test_whoever_waited_for_a_removed_lab_finds_none(tmp_path: Path) -> None:
    """The lock on a directory that is gone by then is no lock on the one that has its name now."""
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
    assert [str(fault) for fault in faults] == [records.missing(str(lab_dir))]


def test_the_command_line_is_cheap_to_import() -> None:
    """`serf-haproxy` without `lab` pays for no third-party package of the lab's."""
    code = (
        "import sys; import serf_haproxy.lab.command; print(sorted({'psutil', 'requests', 'jinja2'} & {*sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
