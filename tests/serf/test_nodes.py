"""The node directory, with real files and a full disk."""

import contextlib
import errno
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.disks import Disk, private_mounts
from serf_haproxy.errors import SystemFault
from serf_haproxy.serf.events import ALIVE, FAILED, LEFT, LINE_BYTES, Member, format_line, make_member, parse_line
from serf_haproxy.serf.nodes import NodeFile, correct, forget, is_remnant, load, record

pytestmark = pytest.mark.usefixtures("time_limit")

WEB1 = make_member("web1", "127.0.1.1", {"role": "web", "port": "8080"})
WEB2 = make_member("web2", "127.0.1.2", {"role": "web"})


def read_identity(path: Path) -> tuple[int, int]:
    """Return inode and mtime, which change when a file is rewritten."""
    return path.stat().st_ino, path.stat().st_mtime_ns


def vars_of(file: NodeFile) -> tuple[object, ...]:
    """Return all that a node file says."""
    member = file.member
    said = member.name, member.address, member.role, member.tags
    return file.status, said, file.mtime_ns, file.stamp, file.line


def load_lines(nodes_dir: Path) -> list[str]:
    """Return the lines of all node files; assert that there is no stray."""
    files, strays = load(str(nodes_dir))
    assert [(stray.name, stray.reason) for stray in strays] == []
    return [format_line(file.status, file.member) for file in files.values()]


def load_reason(nodes_dir: Path, name: str) -> str:
    """Return the reason why a file is a stray; assert that a valid node file beside it is loaded."""
    record(str(nodes_dir), ALIVE, WEB1)
    files, strays = load(str(nodes_dir))
    assert list(files) == ["web1"]
    assert [stray.name for stray in strays] == [name]
    return strays[0].reason


def test_recorded_member_is_loaded(nodes_dir: Path) -> None:
    """A recorded member is one readable line, and is loaded with the time of its write."""
    assert record(str(nodes_dir), ALIVE, WEB1)
    path = nodes_dir / "web1"
    assert path.read_text() == "alive\tweb1\t127.0.1.1\tweb\tport=8080,role=web\n"
    files, _ = load(str(nodes_dir))
    assert files["web1"].mtime_ns == path.stat().st_mtime_ns
    assert load_lines(nodes_dir) == [path.read_text()]


def test_unchanged_member_is_not_rewritten(nodes_dir: Path) -> None:
    """Recording an unchanged member changes neither inode nor mtime."""
    record(str(nodes_dir), ALIVE, WEB1)
    before = read_identity(nodes_dir / "web1")
    assert not record(str(nodes_dir), ALIVE, WEB1)
    assert read_identity(nodes_dir / "web1") == before


@pytest.mark.parametrize(
    ("status", "member"),
    [
        (LEFT, WEB1),
        (FAILED, WEB1),
        (ALIVE, make_member("web1", "127.0.1.9", {"role": "web", "port": "8080"})),
        (ALIVE, make_member("web1", "127.0.1.1", {"role": "web", "port": "8081"})),
        (ALIVE, make_member("web1", "127.0.1.1", {"role": "web"})),
    ],
)
def test_changed_member_is_written(nodes_dir: Path, status: str, member: Member) -> None:
    """A changed status, address or tag replaces the file."""
    record(str(nodes_dir), ALIVE, WEB1)
    assert record(str(nodes_dir), status, member)
    assert load_lines(nodes_dir) == [format_line(status, member)]
    assert os.listdir(nodes_dir) == ["web1"]


def test_repeated_event_does_not_undo_the_roster(nodes_dir: Path) -> None:
    """An event, in which a comma is ambiguous, does not replace an equal line from the roster."""
    known = make_member("w-comma", "127.0.1.5", {"role": "web", "v": "1,role=lb,port=22"})
    _, heard = parse_line("alive\tw-comma\t127.0.1.5\tweb\tport=22,role=lb,role=web,v=1\n")
    assert correct(str(nodes_dir), ALIVE, known).line == format_line(ALIVE, known)
    assert not record(str(nodes_dir), ALIVE, heard)
    assert load_lines(nodes_dir) == [format_line(ALIVE, known)]
    assert record(str(nodes_dir), LEFT, heard)


def test_roster_corrects_an_event(nodes_dir: Path) -> None:
    """Recording with exact tags replaces an equal but less precise line."""
    known = make_member("w-comma", "127.0.1.5", {"role": "web", "v": "1,role=lb"})
    _, heard = parse_line("alive\tw-comma\t127.0.1.5\tweb\trole=lb,role=web,v=1\n")
    record(str(nodes_dir), ALIVE, heard)
    correct(str(nodes_dir), ALIVE, known)
    assert load_lines(nodes_dir) == [format_line(ALIVE, known)]


def test_what_a_correction_returns_is_what_the_file_says(nodes_dir: Path) -> None:
    """The node file that a correction returns is the one that is loaded, whether or not the file changed."""
    member = make_member("w-odd", "127.0.1.5", {"role": "web", "v": "1,role=lb", "a": "=\t\n"})
    for _ in range(2):
        corrected, loaded = correct(str(nodes_dir), FAILED, member), load(str(nodes_dir))[0]["w-odd"]
        assert vars_of(corrected) == vars_of(loaded)
        assert loaded.member.tags_are_certain()


def test_a_young_file_that_says_the_same_stays_the_same_object(nodes_dir: Path) -> None:
    """A file that is too young for its times to be trusted is read again; if it has not changed, nothing follows."""
    before = {"web1": correct(str(nodes_dir), ALIVE, WEB1)}
    assert load(str(nodes_dir), before)[0]["web1"] is before["web1"]
    record(str(nodes_dir), FAILED, WEB1)
    changed = load(str(nodes_dir), before)[0]["web1"]
    assert (changed.status, before["web1"].status) == (FAILED, ALIVE)
    time.sleep(1.1)
    settled = load(str(nodes_dir), {"web1": changed})[0]["web1"]
    assert settled is changed
    assert settled.stamp is not None


def test_forget_removes_once(nodes_dir: Path) -> None:
    """`forget` returns whether there was a file."""
    record(str(nodes_dir), ALIVE, WEB1)
    assert forget(str(nodes_dir), "web1")
    assert not forget(str(nodes_dir), "web1")
    assert load_lines(nodes_dir) == []


WRITER = """
import sys
from serf_haproxy.serf.events import make_member
from serf_haproxy.serf.nodes import record
while True:
    for tags in ({"k": "a" * 500}, {"k": "b" * 400}):
        record(sys.argv[1], "alive", make_member("web1", "127.0.1.1", tags))
"""


def test_reader_never_sees_a_torn_line(nodes_dir: Path) -> None:
    """While another process rewrites a node file, each read returns one of its two complete lines."""
    record(str(nodes_dir), ALIVE, make_member("web1", "127.0.1.1", {"k": "a" * 500}))
    versions, seen = set(), set()
    with subprocess.Popen([sys.executable, "-c", WRITER, nodes_dir]) as writer:
        try:
            end_s = time.monotonic() + 60
            while len(versions) < 500 and time.monotonic() < end_s:
                seen.update(load_lines(nodes_dir))
                versions.add(read_identity(nodes_dir / "web1"))
        finally:
            writer.kill()
    assert len(versions) == 500, "the writer did not write"
    assert {line.rpartition("=")[2] for line in seen} == {"a" * 500 + "\n", "b" * 400 + "\n"}


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("web2", "", "not one line"),
        ("web2", "alive\tweb2\t127.0.1.2\tw", "not one line"),
        ("web2", format_line(ALIVE, WEB2) * 2, "not one line"),
        ("web2", "127.0.1.2 web2\n", "not one line"),
        ("web2", "up\tweb2\t127.0.1.2\tweb\trole=web\n", "not one line"),
        ("web2", "alive\tweb2\t127.0.1.2\tweb\tk=" + "v" * LINE_BYTES + "\n", "not one line"),
        ("web2", "alive\tweb3\t127.0.1.2\tweb\trole=web\n", "it describes another node, 'web3'"),
        ("web2", "alive\t../x\t127.0.1.2\tweb\trole=web\n", "it describes another node, '../x'"),
        (".web2.swp", format_line(ALIVE, WEB2), "its name is not a node name"),
        ("web2~", format_line(ALIVE, WEB2), "its name is not a node name"),
        ("web 2", format_line(ALIVE, WEB2), "its name is not a node name"),
        ("w" * 129, format_line(ALIVE, WEB2), "its name is not a node name"),
    ],
)
def test_foreign_file_is_a_stray(nodes_dir: Path, name: str, content: str, reason: str) -> None:
    """A torn file, a foreign file and a file of another node are left out with a reason; the others are loaded."""
    (nodes_dir / name).write_text(content)
    assert reason in load_reason(nodes_dir, name)


def test_binary_file_is_a_stray(nodes_dir: Path) -> None:
    """A binary file is left out with a reason."""
    (nodes_dir / "web2").write_bytes(bytes(range(256)))
    assert "not one line" in load_reason(nodes_dir, "web2")


def test_name_of_any_bytes_is_a_stray(nodes_dir: Path) -> None:
    """A file whose name is not UTF-8 is left out, and reported under its name."""
    name = os.fsdecode(b"w\xff\n")
    (nodes_dir / name).write_text(format_line(ALIVE, WEB2))
    assert "its name is not a node name" in load_reason(nodes_dir, name)


def test_link_is_a_stray(nodes_dir: Path, tmp_path: Path) -> None:
    """A symbolic link is not followed, even to a valid node file."""
    (tmp_path / "outside").write_text(format_line(ALIVE, WEB2))
    (nodes_dir / "web2").symlink_to(tmp_path / "outside")
    assert os.strerror(errno.ELOOP) in load_reason(nodes_dir, "web2")


def test_fifo_is_a_stray(nodes_dir: Path) -> None:
    """A FIFO without a writer is left out and does not block."""
    os.mkfifo(nodes_dir / "web2")
    assert "not one line" in load_reason(nodes_dir, "web2")


def test_socket_is_a_stray(nodes_dir: Path) -> None:
    """A socket is left out with a reason."""
    with contextlib.chdir(nodes_dir), socket.socket(socket.AF_UNIX) as listener:
        listener.bind("web2")
    assert load_reason(nodes_dir, "web2")


def test_directory_is_a_stray(nodes_dir: Path) -> None:
    """A directory is left out with a reason."""
    (nodes_dir / "web2").mkdir()
    assert "not one line" in load_reason(nodes_dir, "web2")


def test_file_being_written_is_not_a_stray(nodes_dir: Path) -> None:
    """A recent temporary file of a handler is not reported; an old one, left by a dead handler, is."""
    temporary = nodes_dir / ".web2.4711"
    temporary.write_text("alive\tweb2")
    assert load_lines(nodes_dir) == []
    os.utime(temporary, (0, 0))
    assert "its name is not a node name" in load_reason(nodes_dir, temporary.name)


def test_link_in_place_of_a_node_file_is_replaced(nodes_dir: Path, tmp_path: Path) -> None:
    """Recording replaces a symbolic link and does not write to its target."""
    outside = tmp_path / "outside"
    outside.write_text("precious")
    (nodes_dir / "web1").symlink_to(outside)
    assert record(str(nodes_dir), ALIVE, WEB1)
    assert load_lines(nodes_dir) == [format_line(ALIVE, WEB1)]
    assert outside.read_text() == "precious"


def test_fifo_in_place_of_a_node_file_is_replaced(nodes_dir: Path) -> None:
    """Recording replaces a FIFO and does not block."""
    os.mkfifo(nodes_dir / "web1")
    assert record(str(nodes_dir), ALIVE, WEB1)
    assert load_lines(nodes_dir) == [format_line(ALIVE, WEB1)]


def put_in_place(path: Path, kind: str, precious: Path) -> None:
    """Put a FIFO, a link, a directory or a file at a path."""
    precious.write_text("precious")
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(precious)
    elif kind == "directory":
        path.mkdir()
    else:
        path.write_text("theirs")


@pytest.mark.parametrize("kind", ["fifo", "link", "directory", "file"])
def test_what_is_in_place_of_a_temporary_file_is_not_opened(
    nodes_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A FIFO, link, directory or file with the name of a temporary file, new or old, hangs and misleads no writer."""
    precious = tmp_path / "precious"
    put_in_place(nodes_dir / f".web1.{os.getpid()}", kind, precious)
    assert record(str(nodes_dir), ALIVE, WEB1)
    monkeypatch.setattr(os, "urandom", bytes)
    put_in_place(nodes_dir / f".web2.{'00' * 8}", kind, precious)
    with pytest.raises(SystemFault, match="File exists"):
        record(str(nodes_dir), ALIVE, WEB2)
    assert precious.read_text() == "precious"
    assert sorted(load(str(nodes_dir))[0]) == ["web1"]


def test_names_of_temporary_files_differ(nodes_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each write has a temporary name of its own, which a reader knows as one."""
    made: list[str] = []

    def die(source: str, _target: str) -> None:
        made.append(source)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", die)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            record(str(nodes_dir), ALIVE, WEB1)
    assert len(set(made)) == 3
    assert load_lines(nodes_dir) == [], "they are being written"
    for name in made:
        os.utime(name, (0, 0))
    assert [is_remnant(stray) for stray in load(str(nodes_dir))[1]] == [True] * 3


def test_directory_in_place_of_a_node_file_is_an_error(nodes_dir: Path) -> None:
    """A directory in place of a node file is an error that names it, and no temporary file remains."""
    (nodes_dir / "web1").mkdir()
    with pytest.raises(SystemFault, match=re.escape(f"cannot write {nodes_dir}/web1: Is a directory")):
        record(str(nodes_dir), ALIVE, WEB1)
    with pytest.raises(SystemFault, match=re.escape(f"cannot remove {nodes_dir}/web1: Is a directory")):
        forget(str(nodes_dir), "web1")
    assert os.listdir(nodes_dir) == ["web1"]


def test_missing_directory_is_an_error(tmp_path: Path) -> None:
    """Without the node directory, recording, forgetting and loading fail with its path and the remedy."""
    missing = str(tmp_path / "missing")
    remedy = "No such file or directory; make the directory or start the daemon, which makes it"
    with pytest.raises(SystemFault, match=re.escape(f"cannot write {missing}/web1: {remedy}")):
        record(missing, ALIVE, WEB1)
    with pytest.raises(SystemFault, match=re.escape(f"cannot read {missing}: {remedy}")):
        load(missing)
    with pytest.raises(SystemFault, match=re.escape(f"cannot remove {missing}/web1: {remedy}")):
        forget(missing, "web1")


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Disk]:
    """Yield a small disk for this test."""
    with private_mounts():
        disk = Disk(tmp_path / "disk")
        try:
            yield disk
        finally:
            disk.remove()


def test_full_disk_is_an_error(tiny_disk: Disk) -> None:
    """On a full disk, recording fails with path and remedy, keeps the old line and leaves no temporary file."""
    directory = tiny_disk.directory
    record(str(directory), ALIVE, WEB1)
    tiny_disk.fill()
    with pytest.raises(SystemFault) as caught:
        record(str(directory), LEFT, WEB1)
    assert f"cannot write {directory}/web1: No space left on device; free some space" in str(caught.value)
    assert sorted(os.listdir(directory)) == ["ballast.log", "web1"]
    tiny_disk.clear()
    assert load_lines(directory) == [format_line(ALIVE, WEB1)]


CRAMPED_WRITER = """
import resource, sys
from serf_haproxy.errors import SystemFault
from serf_haproxy.serf.events import make_member
from serf_haproxy.serf.nodes import record
resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
try:
    record(sys.argv[1], "left", make_member("web1", "127.0.1.1", {"role": "web", "port": "8080"}))
except SystemFault as error:
    print(error)
"""


def test_half_written_line_is_an_error(nodes_dir: Path) -> None:
    """When only part of a line can be written, the old line is kept and no temporary file remains."""
    record(str(nodes_dir), ALIVE, WEB1)
    argv = [sys.executable, "-c", CRAMPED_WRITER, nodes_dir]
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert said.startswith(f"cannot write {nodes_dir}/web1: ")
    assert load_lines(nodes_dir) == [format_line(ALIVE, WEB1)]
    assert os.listdir(nodes_dir) == ["web1"]


def test_an_unchanged_file_is_read_once_and_every_change_is_seen(nodes_dir: str) -> None:
    """`load` reads a cached file again after any change, even one that keeps size and mtime."""
    record(nodes_dir, ALIVE, make_member("web1", "127.0.1.1", {}))
    path = Path(nodes_dir, "web1")
    time.sleep(1.1)
    before, _ = load(nodes_dir)
    assert load(nodes_dir, before)[0]["web1"] is before["web1"]
    text, mtime_ns = path.read_text(), path.stat().st_mtime_ns
    path.write_text(text.replace("127.0.1.1", "127.0.1.2"))
    os.utime(path, ns=(mtime_ns, mtime_ns))
    for address in ("127.0.1.2", "127.0.1.3", "127.0.1.4"):
        path.write_text(text.replace("127.0.1.1", address))
        before, _ = load(nodes_dir, before)
        assert before["web1"].member.address == address
    path.unlink()
    assert load(nodes_dir, before)[0] == {}


def test_single_files_can_be_read_again(nodes_dir: Path) -> None:
    """After corrections only the written files are read again; a file removed meanwhile is left out."""
    (nodes_dir / "web1").write_text("torn")
    record(str(nodes_dir), ALIVE, WEB2)
    assert [stray.name for stray in load(str(nodes_dir))[1]] == ["web1"]
    record(str(nodes_dir), ALIVE, WEB1)
    files, strays = load(str(nodes_dir), names={"web1", "web3"})
    assert ([*files], strays) == (["web1"], [])
    assert load_lines(nodes_dir) == [format_line(ALIVE, member) for member in (WEB1, WEB2)]
