"""Whether traffic should come to a balancer: the files beside the FIFO, and a HAProxy that is only a socket."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.cli import answering_cli
from serf_haproxy.haproxy import readiness
from serf_haproxy.haproxy.readiness import READY, STALE, UNREADY, Place

MARK = "serf-haproxy-{}-00112233445566aa"
HEADER = "# pxname,svname,status,weight,act,bck,last_chk,"
INFO = f"Name: HAProxy\nStopping: 0\ndescription: {MARK.format('a' * 16)}\n\n"


def answer(*rows: str, info: str = INFO) -> str:
    """Return HAProxy's answer with these sections: name, servers that are up, backups that are up."""
    lines = []
    for row in rows:
        name, active, backup = row.split()
        lines.append(f"{name},BACKEND,UP,1,{active},{backup},a text, with a comma,")
    return info + "\n".join((HEADER, *lines)) + "\n\n"


class Home:
    """A balancer's files, on which nothing is wrong."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = directory / "admin.sock"
        self.master = directory / "master.sock"
        (directory / "answers").mkdir()
        (directory / "answers" / "status").write_text("lb1 UNCHANGED: fine\n")
        (directory / "haproxy.cfg").write_text(f"text\n    description {MARK.format('b' * 16)}\n")
        self.tell()

    def tell(self, heard_ago_s: float = 1, stale: str = "") -> None:
        """Write what the daemon says."""
        paths = str(self.socket), str(self.master), str(self.directory / "haproxy.cfg")
        text = readiness.format_facts(paths, int(time.time() - heard_ago_s), 130, stale)
        (self.directory / "answers" / "traffic").write_text(text)

    def look(self, *services: str) -> tuple[int, str]:
        """Look as the check does, which knows only the directory."""
        return readiness.look(Place(str(self.directory)), services)


@pytest.fixture
def home(short_dir: Path) -> Home:
    """Return a balancer's files; HAProxy is not there yet."""
    return Home(short_dir)


def test_a_balancer_on_which_nothing_is_wrong_is_ready(home: Home) -> None:
    """It is ready, with HAProxy's newest configuration apart from servers, which change at run time."""
    with answering_cli(home.socket, answer("successor 1 0", "nodes 2 0")):
        assert home.look() == (READY, "")


@pytest.mark.parametrize(
    ("rows", "services", "said"),
    [
        (["nodes 0 0", "successor 1 0"], (), "no server is up"),
        (["nodes 1 0", "shop 0 0"], (), ""),
        (["nodes 1 0", "shop 0 0"], ("shop",), "no server is up: shop"),
        (["nodes 0 0", "shop 0 1"], ("shop",), ""),
        (["nodes 1 0"], ("nodes", "shop", "api"), "no server is up: shop, api"),
        ([], (), "no server is up"),
    ],
)
def test_each_required_service_needs_a_server(
    home: Home, rows: list[str], services: tuple[str, ...], said: str
) -> None:
    """Without names one server of any service is enough; a service that is named needs one of its own, or a backup."""
    with answering_cli(home.socket, answer(*rows)):
        assert home.look(*services) == (UNREADY if said else READY, said)


def test_a_stopping_haproxy_is_not_ready(home: Home) -> None:
    """A worker that no longer takes connections is not ready."""
    with answering_cli(home.socket, answer("nodes 1 0", info=INFO.replace("Stopping: 0", "Stopping: 1"))):
        assert home.look() == (UNREADY, "HAProxy is stopping")


@pytest.mark.parametrize(("name", "said"), [("standby", "it is on standby"), ("leaving", "HAProxy is about to be")])
def test_a_balancer_that_is_set_aside_is_not_ready(home: Home, name: str, said: str) -> None:
    """A file sets it aside, with a reason or without; HAProxy is not even asked."""
    (home.directory / name).write_text("")
    code, text = home.look()
    assert (code, text[: len(said)]) == (UNREADY, said)
    (home.directory / name).write_text("an\nupgrade\n")
    assert home.look()[1].endswith(": an upgrade")


def test_without_haproxy_it_is_not_ready(home: Home) -> None:
    """Where no process listens it is not ready."""
    code, text = home.look()
    assert (code, text) == (UNREADY, f"HAProxy does not answer on {home.socket}: No such file or directory")


def test_a_frozen_haproxy_is_not_ready_within_a_second(home: Home) -> None:
    """A HAProxy that is there and does not answer is not ready, and that is said in time."""
    with answering_cli(home.socket, None), answering_cli(home.master, None):
        began_s = time.monotonic()
        code, text = home.look()
        assert (code, text[:17]) == (UNREADY, "HAProxy is frozen")
        assert time.monotonic() - began_s < 1


def test_the_master_is_asked_where_there_is_no_runtime_socket(home: Home) -> None:
    """A template without a runtime socket is no fault."""
    with answering_cli(home.master, answer("nodes 1 0", info="")) as asked:
        assert home.look() == (READY, "")
    assert asked == [b"@1 show stat -1 2 -1\n"]


@pytest.fixture
def serving(home: Home) -> Iterator[Home]:
    """Yield a balancer that serves."""
    with answering_cli(home.socket, answer("nodes 1 0")):
        yield home


def test_without_the_daemon_it_serves_by_old_news(serving: Home) -> None:
    """A daemon that has not reported for long makes the balancer stale, not unready."""
    path = serving.directory / "answers" / "status"
    os.utime(path, (0, time.time() - 40))
    assert serving.look() == (STALE, "the daemon has reported nothing for 40 s")
    path.unlink()
    assert serving.look() == (STALE, "the daemon has not reported yet")


def test_without_serf_it_serves_by_old_news(serving: Home) -> None:
    """When Serf has not answered for more than two resyncs, the balancer is stale."""
    serving.tell(heard_ago_s=100)
    assert serving.look() == (READY, "")
    serving.tell(heard_ago_s=200)
    code, text = serving.look()
    assert (code, text[:28]) == (STALE, "Serf has said nothing for 20")


def test_what_the_daemon_complains_of_makes_it_stale(serving: Home) -> None:
    """A pass that was paused, refused or not confirmed makes the balancer stale, with its reason."""
    serving.tell(stale="it is alone\nin the dark")
    code, text = serving.look()
    assert (code, text[:11]) == (STALE, "it is alone")
    assert "\n" not in readiness.describe(code, text)


def test_another_configuration_than_the_published_one_makes_it_stale(serving: Home) -> None:
    """HAProxy has to run what was published last, apart from its servers."""
    path = serving.directory / "haproxy.cfg"
    path.write_text(path.read_text().replace("00112233445566aa", "aa66554433221100"))
    assert serving.look() == (STALE, "HAProxy does not run the configuration that was published last")
    path.write_text("a configuration of an operator's own\n")
    assert serving.look() == (READY, "")


@pytest.mark.parametrize("text", ["", "heard\n", "heard x\npatience y\n", "\0\n \n", "heard 99999999999999999999\n"])
def test_damaged_facts_make_it_stale(serving: Home, text: str) -> None:
    """What the daemon has written may be damaged: HAProxy is found where the check was told."""
    (serving.directory / "answers" / "traffic").write_text(text)
    code, said = readiness.look(Place(str(serving.directory), str(serving.socket), str(serving.master)))
    assert (code, said) == (STALE, "what the daemon has reported cannot be read")


@pytest.mark.parametrize("said", ["", "Name: HAProxy\n", f"{HEADER}\nnodes,BACKEND\n", "# pxname,svname,\nnodes,x,\n"])
def test_an_answer_that_is_none_is_no_server(home: Home, said: str) -> None:
    """Whatever listens on the socket, without a section that has a server up the balancer is not ready."""
    with answering_cli(home.socket, said):
        assert home.look() == (UNREADY, "no server is up")
