"""Durable files, locks between processes, and the record of the last pass."""

import contextlib
import json
import os
import re
import resource
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from serf_haproxy.control.record import Record
from serf_haproxy.control.state import State
from serf_haproxy.errors import SystemFault
from serf_haproxy.system.files import (
    read_mode,
    read_text,
    remove_temporaries,
    rename_durably,
    set_aside,
    write_durably,
)
from serf_haproxy.system.locks import is_locked, locked

pytestmark = pytest.mark.usefixtures("time_limit")


@pytest.mark.parametrize("text", ["", "a\n", "a\r\nb\r", "é\u2028", "\udcff\n", "x" * 1_000_000])
def test_text_is_read_back(tmp_path: Path, text: str) -> None:
    """A written text is read back unchanged, including line ends and bytes that are not UTF-8."""
    path = str(tmp_path / "file")
    write_durably(path, text)
    assert read_text(path) == text
    assert (tmp_path / "file").read_bytes() == text.encode("utf-8", "surrogateescape")
    assert os.listdir(tmp_path) == ["file"]


def test_only_what_is_no_file_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file, a link to one, and nothing stay; a directory gets a name that nothing has, and only as a directory."""
    path, target = tmp_path / "path", tmp_path / "target"
    assert not set_aside(str(path))
    target.write_text("x")
    path.symlink_to(target)
    assert not set_aside(str(path))
    for count in (1, 2):
        path.unlink(missing_ok=True)
        path.mkdir()
        assert set_aside(str(path))
        assert (tmp_path / f"path.aside-{count}").is_dir()
    assert not path.exists()
    # Another process has set the directory aside, and written the file, just before this one would.
    path.write_text("new")
    with monkeypatch.context() as patch:
        patch.setattr(os.path, "isdir", lambda _: True)
        assert not set_aside(str(path), is_right=stat.S_ISDIR)
    assert path.read_text() == "new"


def test_file_is_replaced_and_not_rewritten(tmp_path: Path) -> None:
    """A reader that has the old file open still reads all of the old text."""
    path = tmp_path / "file"
    write_durably(str(path), "old")
    with path.open() as reader:
        write_durably(str(path), "new")
        assert (reader.read(), path.read_text()) == ("old", "new")


def test_mode_is_that_of_a_new_file(tmp_path: Path) -> None:
    """A new file has the requested mode, reduced by the umask."""
    before = os.umask(0o027)
    try:
        write_durably(str(tmp_path / "public"), "")
        write_durably(str(tmp_path / "secret"), "", 0o600)
    finally:
        os.umask(before)
    modes = [(tmp_path / name).stat().st_mode & 0o777 for name in ("public", "secret")]
    assert modes == [0o640, 0o600]


WRITER = """
import sys
from serf_haproxy.system.files import write_durably
while True:
    write_durably(sys.argv[1], "a" * 100_000)
    write_durably(sys.argv[1], "b" * 50_000)
"""


def test_reader_and_killed_writer_leave_whole_files(tmp_path: Path) -> None:
    """While another process writes, and after it was killed, the file is one of its two complete texts."""
    path = tmp_path / "file"
    write_durably(str(path), "a" * 100_000)
    versions, seen = set(), set()
    with subprocess.Popen([sys.executable, "-c", WRITER, path]) as writer:
        try:
            end_s = time.monotonic() + 20
            while len(versions) < 50 and time.monotonic() < end_s:
                seen.add(read_text(str(path)))
                versions.add((path.stat().st_ino, path.stat().st_mtime_ns))
        finally:
            writer.kill()
    seen.add(read_text(str(path)))
    assert len(versions) >= 50, "the writer did not write"
    assert seen == {"a" * 100_000, "b" * 50_000}


def test_file_that_cannot_be_written_is_untouched(tmp_path: Path) -> None:
    """A failed write names the file, keeps the old file and leaves no temporary file."""
    path = tmp_path / "file"
    write_durably(str(path), "old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(SystemFault, match=f"cannot write {path}: File too large; the previous file is untouched"):
            write_durably(str(path), "x" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("name", ["missing/file", "directory"])
def test_path_that_cannot_be_written_is_an_error(tmp_path: Path, name: str) -> None:
    """A missing directory and a directory in the file's place are errors that name the path."""
    (tmp_path / "directory").mkdir()
    with pytest.raises(SystemFault, match=re.escape(f"cannot write {tmp_path / name}: ")):
        write_durably(str(tmp_path / name), "x")
    assert os.listdir(tmp_path) == ["directory"]


@pytest.mark.parametrize("kind", ["link", "fifo", "file"])
def test_what_is_in_place_of_the_temporary_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A link, a FIFO or a file with the name of the temporary file is neither followed nor opened nor overwritten."""
    monkeypatch.setattr(os, "urandom", bytes)
    precious, temporary = tmp_path / "precious", tmp_path / f"file.{'0' * 16}.tmp"
    precious.write_text("precious")
    if kind == "link":
        temporary.symlink_to(precious)
    elif kind == "fifo":
        os.mkfifo(temporary)
    else:
        temporary.write_text("theirs")
    with pytest.raises(SystemFault, match="File exists"):
        write_durably(str(tmp_path / "file"), "x")
    assert precious.read_text() == "precious"
    write_durably(str(tmp_path / "file"), "x")


def test_names_of_temporaries_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No two temporary files have the same name, and those that a crash has left are removed later, no others."""
    made = []

    def die(source: str, _target: str) -> None:
        made.append(source)
        raise KeyboardInterrupt

    monkeypatch.setattr("serf_haproxy.system.files.rename_durably", die)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            write_durably(str(tmp_path / "file"), "x")
    assert len(set(made)) == 3
    others = {"file.tmp", "file2.0011223344556677.tmp", "file.00112233445566778.tmp"}
    for name in others:
        (tmp_path / name).touch()
    remove_temporaries(str(tmp_path / "file"))
    assert set(os.listdir(tmp_path)) == others


def test_an_exact_mode_is_not_reduced(tmp_path: Path) -> None:
    """A file that keeps its mode has it whatever the umask."""
    before = os.umask(0o077)
    try:
        write_durably(str(tmp_path / "kept"), "", 0o664, is_exact=True)
    finally:
        os.umask(before)
    assert read_mode(str(tmp_path / "kept")) == 0o664


def test_only_the_owner_can_open_a_lock(tmp_path: Path) -> None:
    """A lock file has mode 0600, also one that the previous release made with 0644."""
    before = os.umask(0)
    try:
        (tmp_path / "old").touch(0o644)
        for name in ("new", "old"):
            with locked(str(tmp_path / name), 0, "a test"):
                assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)


def test_a_fifo_in_place_of_a_lock_does_not_hang(tmp_path: Path) -> None:
    """A FIFO at the path of a lock neither hangs the one who locks nor the one who looks."""
    os.mkfifo(tmp_path / "lock")
    assert is_locked(str(tmp_path / "lock")) in (True, False, None)
    with contextlib.suppress(SystemFault), locked(str(tmp_path / "lock"), 0, "a test"):
        pass


def test_rename_replaces(tmp_path: Path) -> None:
    """A rename replaces the target."""
    for name in ("source", "target"):
        (tmp_path / name).write_text(name)
    rename_durably(str(tmp_path / "source"), str(tmp_path / "target"))
    assert os.listdir(tmp_path) == ["target"]
    assert (tmp_path / "target").read_text() == "source"


def test_absent_file_is_none(tmp_path: Path) -> None:
    """A missing file is read as None, an empty one as an empty text."""
    assert read_text(str(tmp_path / "file")) is None


@pytest.mark.parametrize(
    "kind", ["a directory", "a FIFO", "a device", "a socket", "a link to itself", "an endless file"]
)
def test_unreadable_file_is_an_error(tmp_path: Path, kind: str) -> None:
    """What is no regular file, or too long, is an error that names it; it is not waited for and stays not open."""
    path = tmp_path / "file"
    if kind == "a directory":
        path.mkdir()
    elif kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    elif kind == "a socket":
        with contextlib.chdir(tmp_path), socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path.name)
    elif kind == "a link to itself":
        path.symlink_to(path)
    else:
        path.touch()
        os.truncate(path, 2**40)
    what = "it is longer than " if kind == "an endless file" else "it is not a regular file; replace it by one"
    open_files = os.listdir("/proc/self/fd")
    for _ in range(3):
        with pytest.raises(SystemFault, match=re.escape(f"cannot read {path}: {what}")):
            read_text(str(path))
    assert len(os.listdir("/proc/self/fd")) == len(open_files)


HOLDER = """
import sys
from serf_haproxy.system.locks import is_locked, locked
with locked(sys.argv[1], 0, "the holder"):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def lock(tmp_path: Path) -> str:
    """Return the path of a lock file that does not exist yet."""
    return str(tmp_path / "lock")


@pytest.fixture
def holder(lock: str) -> Iterator[subprocess.Popen[str]]:
    """Yield another process that holds the lock until its standard input is closed."""
    argv = [sys.executable, "-c", HOLDER, lock]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


@pytest.mark.usefixtures("holder")
@pytest.mark.parametrize("timeout_s", [0, 0.1])
def test_lock_of_another_process_is_an_error(lock: str, timeout_s: float) -> None:
    """While another process holds the lock, acquiring it fails with an error that names the holder."""
    start_s = time.monotonic()
    with (
        pytest.raises(SystemFault, match=re.escape(f"{lock} is locked: another pass is running; try again later")),
        locked(lock, timeout_s, "another pass"),
    ):
        pytest.fail("two hold the lock")
    assert time.monotonic() - start_s >= timeout_s


def test_lock_is_waited_for(lock: str, holder: subprocess.Popen[str]) -> None:
    """A lock that is released within the time limit is acquired."""
    assert holder.stdin
    threading.Timer(0.1, holder.stdin.close).start()
    with locked(lock, 20, "the holder"):
        assert holder.wait(20) == 0


def test_killed_holder_frees_the_lock(lock: str, holder: subprocess.Popen[str]) -> None:
    """A killed process no longer holds its lock, although the lock file remains."""
    holder.kill()
    holder.wait()
    with locked(lock, 0, "a test"):
        assert os.path.exists(lock)


def test_lock_is_free_after_its_use(lock: str) -> None:
    """After the block, even after an exception, the lock can be acquired again."""
    with pytest.raises(KeyError), locked(lock, 0, "we"):
        raise KeyError
    with locked(lock, 0, "we"):
        pass


def test_child_does_not_inherit_the_lock(lock: str) -> None:
    """A program started while the lock is held does not keep it."""
    with locked(lock, 0, "we"):
        child = subprocess.Popen(["/bin/sleep", "1000"], close_fds=False)
    try:
        with locked(lock, 5, "the child"):  # shortly after its start, its descriptors are closed
            pass
    finally:
        child.kill()
        child.wait()


@pytest.mark.parametrize("kind", ["missing directory", "link"])
def test_lock_that_cannot_be_opened_is_an_error(tmp_path: Path, kind: str) -> None:
    """A missing directory and a symbolic link are errors that name the lock."""
    lock = tmp_path / "missing" / "lock" if kind != "link" else tmp_path / "lock"
    if kind == "link":
        lock.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SystemFault, match=re.escape(f"cannot open {lock}: ")), locked(str(lock), 0, "a test"):
        pytest.fail("locked nothing")
    assert not (tmp_path / "elsewhere").exists()


@pytest.fixture
def state(tmp_path: Path) -> State:
    """Return an empty state directory."""
    return State(str(tmp_path))


RECORD = Record("RELOADED", "a \udcff reason", [], "0123456789abcdef", 1.5, 0.25, 1.0, "lb", {"web1": 1}, {"..": "bad"})


def test_record_is_read_back(state: State) -> None:
    """The record of a pass is read back unchanged; before the first pass it is empty."""
    assert state.read_record() == Record()
    state.write_record(RECORD)
    assert state.read_record() == RECORD


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "\0\0\0",
        "{",
        "[]",
        "null",
        "1",
        '"x"',
        '{"foo": 1}',
        '{"foo": null}',
        '{"digest": null, "at_s": "x", "strays": []}',
    ],
)
def test_damaged_record_is_ignored(state: State, damage: str) -> None:
    """A record that is torn, foreign or of another version is read as an empty one."""
    Path(state.record_path).write_text(damage)
    assert state.read_record() == Record()


def test_record_keeps_valid_fields(state: State) -> None:
    """A record with one invalid field keeps the others, and a whole number is a valid time."""
    Path(state.record_path).write_text(json.dumps({"digest": 5, "self_name": "lb", "at_s": 3}))
    assert state.read_record() == Record(self_name="lb", at_s=3)


def test_a_file_of_the_kernel_is_read() -> None:
    """The kernel says 0 bytes of such a file, and refuses to fill large pieces: it is read all the same."""
    assert read_text("/proc/sys/kernel/random/boot_id") == Path("/proc/sys/kernel/random/boot_id").read_text()
    assert read_text("/proc/sys/kernel/random/boot_id", 8) == Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
