"""Words of servers that HAProxy was given ahead of the published file: it does not tell them, and they count.

RANDOM_CHANGES=500 makes 500 changes, RANDOM_SEED=N repeats them.
"""

import contextlib
import csv
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.proxy import Proxy, running_proxy, wait_for
from integration.test_services import offer
from integration.test_unpublished import list_backups, waiting_server
from serf_haproxy.control.outcome import NO_PAUSE, Pause, Verdict
from serf_haproxy.control.reconcile import Reconciler
from serf_haproxy.haproxy.socket import ask
from serf_haproxy.serf.events import ALIVE, make_member

CHANGE_COUNT = int(os.environ.get("RANDOM_CHANGES", "8"))
SEED = int(os.environ.get("RANDOM_SEED") or random.randrange(2**32))
BUILT_IN = Path(__file__).parents[2] / "agent/serf_haproxy/config/templates/haproxy.cfg.j2"
# What HAProxy tells of a server's line: `show stat`, and `show servers state`.
TOLD = ("addr", "weight", "bck", "slim", "qlimit", "check_rise", "check_fall", "cookie", "mode", "algo")
STATE = ("srv_uweight", "srv_use_ssl", "srv_check_port", "srv_check_addr", "srv_agent_port", "srv_fqdn")
CUT = ("compared", "applied", "checked", "published")
PLAIN = '[nodes]\nbalance = "roundrobin"\n'
LIMITED = f"{PLAIN}server_maxconn = 5\n"


class CutError(Exception):
    """A pass is cut short, as by a crash."""


def cut_at(step: str) -> Callable[[str], None]:
    """Return what cuts a pass short when this step has ended."""

    def stop(ended: str) -> None:
        if ended == step:
            raise CutError

    return stop


def list_told(proxy: Proxy) -> dict[tuple[str, str], tuple[str, ...]]:
    """Return all that HAProxy tells of each server's line."""
    stat, state = (
        ask(proxy.settings.runtime_socket, command, 5) for command in ("show stat -1 4 -1", "show servers state")
    )
    told = {
        (row["pxname"], row["svname"]): tuple(row[name] for name in TOLD)
        for row in csv.DictReader(stat.removeprefix("# ").splitlines())
    }
    header, *lines = state.splitlines()[1:]
    for line in filter(None, lines):
        row = dict(zip(header.removeprefix("# ").split(), line.split(), strict=True))
        told[row["be_name"], row["srv_name"]] += tuple(row[name] for name in STATE)
    return {key: words for key, words in told.items() if key[0] != "successor"}


def list_fresh(proxy: Proxy, directory: Path) -> dict[tuple[str, str], tuple[str, ...]]:
    """Return the same of a HAProxy that has just started with a copy of the published file."""
    directory.mkdir()
    fresh = Proxy(directory)
    text = Path(proxy.settings.config_path).read_text().replace(f"{directory.parent}/", f"{directory}/")
    for name in ("frontend_bind", "stats_bind"):
        text = text.replace(getattr(proxy.settings, name), getattr(fresh.settings, name))
    Path(fresh.settings.config_path).write_text(text)
    Path(fresh.settings.server_state_path).write_text("1\n")
    try:
        fresh.start()
        return list_told(fresh)
    finally:
        fresh.stop()


def list_limits(proxy: Proxy) -> dict[str, str]:
    """Return `maxconn` of each server."""
    return {name: words[TOLD.index("slim")] for (_, name), words in list_told(proxy).items()}


@contextlib.contextmanager
def serving_two(directory: Path) -> Iterator[tuple[Proxy, Reconciler]]:
    """Yield a balancer that has web1 and web2, and what has made its first pass."""
    (directory / "services.toml").write_text(PLAIN)
    with running_proxy(directory) as proxy:
        offer(proxy, "web1", nodes=8001)
        offer(proxy, "web2", nodes=8001)
        reconciler = Reconciler(proxy.settings)
        assert reconciler.reconcile(lambda: None).is_in_force
        yield proxy, reconciler


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_change_that_is_taken_back_before_its_reload_leaves_nothing(short_dir: Path, is_restarted: bool) -> None:
    """Servers that joined and moved while the reload was put off have the words of that time no more."""
    with serving_two(short_dir) as (proxy, reconciler):
        (short_dir / "services.toml").write_text(LIMITED)
        offer(proxy, "web2", nodes=8002)
        offer(proxy, "web3", nodes=8003)
        assert reconciler.reconcile(lambda: None, pause=Pause(time.monotonic() + 10)).reason.startswith(
            "servers changed as far as"
        )
        assert list_limits(proxy) == {"web1": "", "web2": "5", "web3": "5"}
        (short_dir / "services.toml").write_text(PLAIN)
        later = Reconciler(proxy.settings) if is_restarted else reconciler
        assert later.reconcile(lambda: None).verdict is Verdict.APPLIED
        assert list_limits(proxy) == {"web1": "", "web2": "", "web3": ""}
        assert later.reconcile(lambda: None).verdict is Verdict.UNCHANGED
        assert not (short_dir / "ahead.json").exists()


@pytest.mark.parametrize("step", CUT)
@pytest.mark.parametrize("is_new", [False, True])
def test_a_member_that_changes_back_after_a_pass_was_cut_short(short_dir: Path, step: str, is_new: bool) -> None:
    """It was a backup for HAProxy alone, or for the file too, and is none again when the next pass comes."""
    (short_dir / "services.toml").write_text(PLAIN)
    with running_proxy(short_dir) as proxy:
        offer(proxy, "web1", nodes=8001)
        if not is_new:
            offer(proxy, "web2", nodes=8001)
        assert proxy.run_pass().is_in_force
        offer(proxy, "web2", nodes="8001:backup")
        with pytest.raises(CutError):
            Reconciler(proxy.settings).reconcile(lambda: None, on_step=cut_at(step))
        offer(proxy, "web2", nodes=8001)
        assert proxy.run_pass().is_in_force
        assert list_backups(proxy, "nodes") == {"web1": False, "web2": False}


def test_a_disk_that_is_full_hides_nothing(short_dir: Path) -> None:
    """The published file cannot be written, nor what HAProxy was given, while a member turns into a backup and back."""
    with serving_two(short_dir) as (proxy, reconciler):
        (short_dir / "ahead.json").mkdir()
        offer(proxy, "web2", nodes="8001:backup")
        with pytest.raises(CutError):
            reconciler.reconcile(lambda: None, on_step=cut_at("applied"))
        assert list_backups(proxy, "nodes") == {"web1": False, "web2": True}
        offer(proxy, "web2", nodes=8001)
        assert reconciler.reconcile(lambda: None).is_in_force
        assert list_backups(proxy, "nodes") == {"web1": False, "web2": False}


def test_a_server_that_comes_back_while_it_ends_has_the_words_of_its_line_now(short_dir: Path) -> None:
    """A last connection keeps it in HAProxy, and the operator's template gives its new version another limit."""
    template = short_dir / "own.cfg.j2"
    template.write_text(make_template(7))
    with waiting_server(short_dir, "", ":v2", SERF_HAPROXY_TEMPLATE_PATH=str(template)) as (proxy, port):
        assert list_limits(proxy) == {"web1": "", "web2": "7"}, "the connection keeps it"
        offer(proxy, "web2", pg=port)

        def is_right() -> bool:
            proxy.run_pass()
            return list_limits(proxy) == {"web1": "", "web2": ""}

        wait_for(is_right, lambda: str(list_limits(proxy)), 20)


def test_a_server_that_was_added_ahead_has_the_words_of_its_line_now(short_dir: Path) -> None:
    """A member is given to HAProxy ahead of a pass, and says another version before that pass comes."""
    template = short_dir / "own.cfg.j2"
    template.write_text(make_template(7))
    (short_dir / "services.toml").write_text(PLAIN)
    with running_proxy(short_dir, SERF_HAPROXY_TEMPLATE_PATH=str(template)) as proxy:
        reconciler = Reconciler(proxy.settings)
        offer(proxy, "web1", nodes=8001)
        assert reconciler.reconcile(lambda: None).is_in_force
        member = make_member("web2", "127.0.0.1", {"svc.nodes": "8002:v2"})
        assert reconciler.hasten({"web2"}, lambda names: (0, dict.fromkeys(names, (ALIVE, member))))
        assert list_limits(proxy) == {"web1": "", "web2": "7"}
        offer(proxy, "web2", nodes=8002)
        assert reconciler.reconcile(lambda: None).verdict is Verdict.APPLIED
        assert list_limits(proxy) == {"web1": "", "web2": ""}


def make_template(limit: int) -> str:
    """Return a template of the operator that limits servers of version v2."""
    line = f' {{%- if server.version == "v2" %}} maxconn {limit}{{% endif %}} id {{{{ server.id }}}}'
    text = BUILT_IN.read_text()
    assert " id {{ server.id }}" in text
    return text.replace(" id {{ server.id }}", line)


class Story:
    """A balancer to which much happens by chance.

    Args:
        proxy: The balancer.
        generator: Chance.
    """

    def __init__(self, proxy: Proxy, generator: random.Random) -> None:
        self._proxy, self._generator = proxy, generator
        self._directory = Path(proxy.settings.state_dir).parent
        self._reconciler = Reconciler(proxy.settings)
        self.told: list[str] = []

    def change(self) -> None:
        """Change members, the services file, or the template."""
        generator = self._generator
        for _ in range(generator.choice([1, 1, 2, 3])):
            kind = generator.choice(["member"] * 4 + ["services", "template"])
            self.told.append(kind)
            if kind == "member":
                self._offer(f"web{generator.randint(1, 5)}")
            elif kind == "services":
                more = generator.choice(["", "server_maxconn = 5\n", "slowstart_s = 1\n", 'cookie = "C"\n'])
                (self._directory / "services.toml").write_text(PLAIN + more)
            else:
                (self._directory / "own.cfg.j2").write_text(make_template(generator.choice([7, 8])))

    def _offer(self, name: str) -> None:
        words = [str(self._generator.choice([8001, 8002]))]
        words += [word for word in ("backup", "v2", "w7", "drain") if self._generator.random() < 0.25]
        status = self._generator.choice(["alive", "alive", "alive", "left"])
        offer(self._proxy, name, status, nodes=":".join(words))
        self.told.append(f"{name} {status} {words}")

    def go_on(self) -> None:
        """Make a pass: whole, cut short, without a reload, or of a new daemon; or change a member ahead of one."""
        generator = self._generator
        kind = generator.choice(["whole", "whole", "cut", "paused", "new", "ahead"])
        self.told.append(kind)
        if kind == "new":
            self._reconciler = Reconciler(self._proxy.settings)
        if kind == "ahead":
            said = generator.choice(["8001:v2", "8002:backup", "8001"])
            member = make_member("web6", "127.0.0.1", {"svc.nodes": said})
            self._reconciler.hasten({"web6"}, lambda names: (0, dict.fromkeys(names, (ALIVE, member))))
            return
        with contextlib.suppress(CutError):
            stop: dict[str, Any] = {"on_step": cut_at(generator.choice(CUT))} if kind == "cut" else {}
            outcome = self._reconciler.reconcile(
                lambda: None, pause=Pause(time.monotonic() + 9) if kind == "paused" else NO_PAUSE, **stop
            )
            self.told.append(f"{outcome.verdict} {outcome.reason}")

    def go_through(self, count: int) -> None:
        """Make some changes, each with a pass that may end early, then passes until nothing is left to do."""
        for _ in range(count):
            self.change()
            self.go_on()
        wait_for(lambda: self._reconciler.reconcile(lambda: None).verdict is Verdict.UNCHANGED, str(self.told[-20:]))


def test_what_runs_is_what_the_published_file_says(short_dir: Path) -> None:
    """After random changes and interrupted passes HAProxy has the servers of one that starts with that file."""
    (short_dir / "services.toml").write_text(PLAIN)
    (short_dir / "own.cfg.j2").write_text(make_template(7))
    environ = {
        "SERF_HAPROXY_TEMPLATE_PATH": str(short_dir / "own.cfg.j2"),
        "SERF_HAPROXY_DRAIN_TIMEOUT_S": "0",
        "SERF_HAPROXY_GUARD_HOLD_S": "0",
        "SERF_HAPROXY_FLAP_CUTOFF": "0",
    }
    with running_proxy(short_dir, **environ) as proxy:
        story = Story(proxy, generator := random.Random(SEED))
        for number in range(CHANGE_COUNT):
            story.go_through(generator.randint(1, 4))
            fresh = list_fresh(proxy, short_dir / f"fresh{number}")
            assert list_told(proxy) == fresh, f"{SEED=} {number=} {story.told[-12:]}"
