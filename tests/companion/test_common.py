"""What an operator says of the cluster, and whether applications accept connections."""

import socket
from pathlib import Path

import pytest

from integration.proxy import free_port
from serf_haproxy.companion.common import make_cluster, read_place, read_range
from serf_haproxy.companion.probe import list_open
from serf_haproxy.errors import InputError, SystemFault

KEY = "MDEyMzQ1Njc4OWFiY2RlZg=="


@pytest.mark.parametrize(
    ("word", "place"),
    [
        ("lb1", ("lb1", 7946)),
        ("lb1:7000", ("lb1", 7000)),
        ("10.1.0.5", ("10.1.0.5", 7946)),
        ("[fd00::5]:7000", ("fd00::5", 7000)),
        ("[fd00::5]", ("fd00::5", 7946)),
        ("fd00::5", ("fd00::5", 7946)),
    ],
)
def test_places_are_read(word: str, place: tuple[str, int]) -> None:
    """A place without a port has Serf's."""
    assert read_place(word) == place


@pytest.mark.parametrize("word", ["", "lb1:", "lb1:0", "lb1:65536", "lb 1", "-x:y", "[lb1]:7000", "a:b:c", "lb1\n"])
def test_wrong_places_are_refused(word: str) -> None:
    """What is no place is named."""
    with pytest.raises(InputError, match="is no gossip address"):
        read_place(word)


@pytest.mark.parametrize("text", ["", "x", "20000-10", "1-2,5-6", "0-7", "20000-70000"])
def test_wrong_ranges_are_refused(text: str) -> None:
    """One range of ports is allowed."""
    with pytest.raises(InputError, match="--ports"):
        read_range(text)
    assert read_range("20000-20999") == (20000, 20999)


def test_the_cluster_is_read_from_the_variables_of_the_images(tmp_path: Path) -> None:
    """Keys, user and addresses come from the environment; ours is the one towards the cluster."""
    (tmp_path / "keys").write_text(f"{KEY}\n\n{KEY}\n")
    environ = {"SERF_ENCRYPT_KEY_FILE": str(tmp_path / "keys"), "SERF_USER": "root"}
    cluster = make_cluster("127.0.0.1 [::1]:7000", environ)
    assert (cluster.bind, cluster.advertised) == ("127.0.0.1", "127.0.0.1")
    assert cluster.join == ("127.0.0.1:7946", "[::1]:7000")
    assert (cluster.keys, cluster.user, cluster.profile) == ((KEY, KEY), "0:0", "lan")
    assert make_cluster("127.0.0.1", {"SERF_ADVERTISE": "192.0.2.1"}).advertised == "192.0.2.1"


@pytest.mark.parametrize("text", ["", "short", "correct horse", f"{KEY}x"])
def test_a_wrong_key_is_refused_and_not_shown(tmp_path: Path, text: str) -> None:
    """The message names the file, not what is in it."""
    (tmp_path / "keys").write_text(text)
    with pytest.raises(InputError, match="as `serf keygen` prints it") as refused:
        make_cluster("127.0.0.1", {"SERF_ENCRYPT_KEY_FILE": str(tmp_path / "keys")})
    assert not text or text not in str(refused.value)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    """No place, no file, no user: each has its message."""
    with pytest.raises(InputError, match="use --join or SERF_JOIN"):
        make_cluster(" ", {})
    with pytest.raises(SystemFault, match="correct SERF_ENCRYPT_KEY_FILE"):
        make_cluster("127.0.0.1", {"SERF_ENCRYPT_KEY_FILE": str(tmp_path / "none")})
    with pytest.raises(InputError, match="there is no such user"):
        make_cluster("127.0.0.1", {"SERF_USER": "no-such-user"})


def test_open_ports_are_told_from_closed_ones() -> None:
    """All are asked at the same time, for a quarter of a second at most."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
        closed = free_port()
        assert list_open({"open": ("127.0.0.1", port), "closed": ("127.0.0.1", closed)}) == {"open"}
    assert list_open({}) == set()
