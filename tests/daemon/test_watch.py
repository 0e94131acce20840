"""What the daemon notices of the files that an operator writes."""

import os
from pathlib import Path

import pytest

from serf_haproxy.daemon.watch import Watch


def looks(watch: Watch, count: int = 4) -> list[bool]:
    """Return what some looks in a row say."""
    return [watch.has_changed() for _ in range(count)]


def test_a_file_is_noticed_once_when_it_comes_changes_and_goes(tmp_path: Path) -> None:
    """Each change is told once, by the second look after it."""
    path = tmp_path / "services.toml"
    watch = Watch([str(path), str(tmp_path / "missing")])
    assert looks(watch) == [False] * 4
    for act in (
        lambda: path.write_text("[a]\n"),
        lambda: path.write_text("[ab]\n"),
        lambda: path.chmod(0),
        path.unlink,
    ):
        act()
        assert looks(watch) == [False, True, False, False]


def test_a_file_that_is_being_written_is_left_alone(tmp_path: Path) -> None:
    """A change counts when nothing has changed between two looks; one that is undone counts as none."""
    path = tmp_path / "services.toml"
    path.write_text("")
    watch = Watch([str(path)])
    for length in range(1, 6):
        path.write_text("x" * length)
        assert not watch.has_changed()
    assert looks(watch) == [True, False, False, False]
    found = path.stat()
    path.write_text("yyyyy")
    assert not watch.has_changed()
    path.write_text("xxxxx")
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert looks(watch) == [False] * 4


@pytest.mark.parametrize("is_link", [False, True])
def test_the_files_of_a_directory_count(tmp_path: Path, is_link: bool) -> None:
    """New and removed files are told, also behind links; hidden ones, as programs write them first, are not."""
    real = tmp_path / "real"
    real.mkdir()
    directory = tmp_path / "certificates"
    directory.symlink_to(real) if is_link else real.rename(directory)
    watch = Watch([str(directory)])
    (directory / ".a.pem.tmp").write_text("a")
    assert looks(watch) == [False] * 4
    (directory / ".a.pem.tmp").rename(directory / "a.pem")
    assert looks(watch) == [False, True, False, False]
    (directory / "a.pem").unlink()
    assert looks(watch) == [False, True, False, False]


def test_files_that_services_name_are_followed(tmp_path: Path) -> None:
    """A file counts from the moment when it is followed until it is not; changes of the others are not lost by that."""
    path, other = tmp_path / "services.toml", tmp_path / "ca.pem"
    watch = Watch([str(path)])
    path.write_text("[a]\n")
    watch.follow([str(other)])
    assert looks(watch) == [False, True, False, False]
    other.write_text("a")
    assert looks(watch) == [False, True, False, False]
    watch.follow([])
    other.unlink()
    assert looks(watch) == [False] * 4
