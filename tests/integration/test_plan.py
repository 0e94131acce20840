"""`plan` says what the next pass does, and changes nothing."""

import contextlib
import difflib
import json
import os
import random
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import probe
from fakes.web import Web, answering
from integration.balancer import list_haproxy, stopped
from integration.proxy import Proxy, wait_for
from integration.test_status import run
from serf_haproxy.control.give import Desk, Wish
from serf_haproxy.control.outcome import Verdict
from serf_haproxy.control.plan import How, make_plan
from serf_haproxy.errors import InputError
from serf_haproxy.policy.orders import DRAIN, MAINT, ON, PAUSE, RELOAD, STOP, UNDONE

CASE_COUNT = int(os.environ.get("PLAN_CASES", "30"))
VERDICTS = {
    Verdict.UNCHANGED: How.NONE,
    Verdict.APPLIED: How.RUNTIME,
    Verdict.RELOADED: How.RELOAD,
    Verdict.PAUSED: How.PAUSED,
}
BRIEF_S = 0.3  # how long an order lasts that ends before the plan is made


@pytest.fixture
def webs() -> Iterator[list[Web]]:
    """Run three applications."""
    with answering() as one, answering() as two, answering() as three:
        yield [one, two, three]


def read_all(proxy: Proxy) -> dict[str, bytes]:
    """Return the content of all files of a balancer."""
    top = Path(proxy.settings.config_path).parent
    return {str(path): path.read_bytes() for path in sorted(top.rglob("*")) if path.is_file() and path.suffix != ".log"}


def change(proxy: Proxy, webs: list[Web], rng: random.Random) -> str:
    """Change something at random; return what."""
    name, port = f"web{rng.randrange(6)}", rng.choice(webs).port
    kinds = "join join tags leave fail drift settings remove wrong nothing maint maint unset brief pause resume resume"
    kind = rng.choice([*kinds.split(), "reload"])
    if kind == "join":
        proxy.record(name, port)
    elif kind == "tags":
        proxy.record(name, port, **rng.choice([{"weight": "5"}, {"drain": "true"}, {"weight": "0"}]))
    elif kind in ("leave", "fail"):
        proxy.record(name, port, status={"leave": "left", "fail": "failed"}[kind])
    elif kind == "remove":
        Path(proxy.settings.nodes_dir, name).unlink(missing_ok=True)
    elif kind == "wrong":
        proxy.record(name, 0)
    elif kind == "drift":
        names = sorted(proxy.servers()) or [name]
        probe.change(
            proxy.settings, [f"set server nodes/{rng.choice(names)} {rng.choice(['weight 7', 'state maint'])}"]
        )
    elif kind in ("maint", "unset", "brief", "pause", "resume", "reload"):
        give(proxy, kind, name, rng)
    elif kind == "settings":
        key, value = rng.choice(
            [("balance", "leastconn"), ("balance", "random"), ("health_path", "/x"), ("cookie", "C")]
        )
        proxy.settings = proxy.settings.replace(**{key: value})
    return f"{kind} {name}"


def give(proxy: Proxy, kind: str, name: str, rng: random.Random) -> None:
    """Give an order, which waits for the next pass; a brief one has ended by then."""
    desk, wish = Desk(proxy.settings), Wish(reason="a test")
    if kind == "unset":
        with contextlib.suppress(InputError):  # there is none
            desk.give(desk.undo(name, "", wish))
    elif kind == "brief":
        desk.give([desk.make(MAINT, STOP, wish._replace(until_s=time.time() + BRIEF_S), node=name)])
        proxy.run_pass()
        time.sleep(BRIEF_S)
    elif kind == "maint":
        desk.give([desk.make(MAINT, rng.choice([DRAIN, STOP]), wish, node=name)])
    elif kind == "reload":
        desk.give([desk.make(RELOAD, ON, wish)])
    else:
        desk.give([desk.make(PAUSE, ON if kind == "pause" else UNDONE, wish)])


def settle(proxy: Proxy) -> None:
    """Wait until no health check changes a server any more: what HAProxy sees decides, too."""

    def read_states() -> set[str]:
        return {view.status.split(" ")[0] for view in (probe.read_servers(proxy.settings) or {}).values()}

    wait_for(lambda: read_states() <= {"UP", "MAINT", "DRAIN"}, lambda: f"no server changes: {read_states()}", 20)


def test_the_plan_equals_what_the_next_pass_does(proxy: Proxy, webs: list[Web]) -> None:
    """In random cases: whether anything, at run time or by a reload, and the same text; PLAN_CASES sets how many."""
    # Nothing may end between the plan and the pass.
    proxy.settings = proxy.settings.replace(drain_timeout_s=0.0, failed_grace_s=0.0, guard_hold_s=0.0, flap_cutoff=0.0)
    proxy.record("web1", webs[0].port)
    proxy.run_pass()
    proxy.wait_up("web1")
    seed = random.randrange(2**32)
    rng, story, hows = random.Random(seed), [f"seed {seed}"], set()
    for _ in range(CASE_COUNT):
        story.append(", ".join(change(proxy, webs, rng) for _ in range(rng.randrange(1, 4))))
        settle(proxy)
        plan = make_plan(proxy.settings)
        outcome = proxy.run_pass()
        hows.add(plan.how)
        live = probe.read_live(proxy.settings) or ""
        planned = plan.before if plan.how is How.PAUSED else plan.after
        other = list(difflib.unified_diff(planned.splitlines(), live.splitlines(), lineterm="", n=0))
        assert (plan.how, other) == (VERDICTS.get(outcome.verdict), []), (story, outcome)
    assert {How.RUNTIME, How.RELOAD, How.PAUSED} <= hows


def test_a_pause_and_a_hold_that_ends_are_planned(proxy: Proxy, webs: list[Web]) -> None:
    """What a pause holds back is shown all the same; a hold is planned as what it is, and when it may end."""
    for number, web in enumerate(webs):
        proxy.record(f"web{number}", web.port)
    proxy.run_pass()
    proxy.wait_up("web0", "web1", "web2")
    assert run(proxy, "pause", "--reason", "upgrade").returncode == 0
    proxy.record("web1", webs[1].port, weight="7")
    shown = run(proxy, "plan")
    assert shown.returncode == 0
    assert "~ nodes/web1  127.0.0.1:" in shown.stdout
    assert "nothing until `serf-haproxy resume`: an order to pause: upgrade (" in shown.stdout
    run(proxy, "resume")
    proxy.run_pass()
    for number in (0, 2):
        proxy.record(f"web{number}", webs[number].port, status="failed")
    held = make_plan(proxy.settings)
    assert (held.how, held.changes_in_s is not None) == (How.NONE, True)
    assert re.search(r"this may change by itself within \d+\w, since a time limit ends", run(proxy, "plan").stdout)
    released = make_plan(proxy.settings.replace(guard_hold_s=0.0))
    assert [(sign, name) for sign, name, _ in released.servers] == [("-", "nodes/web0"), ("-", "nodes/web2")]


def test_a_plan_changes_nothing_and_says_how(proxy: Proxy, webs: list[Web]) -> None:
    """Servers, the text's difference and the way are shown; every file stays as it was."""
    proxy.record("web1", webs[0].port)
    proxy.run_pass()
    shown = run(proxy, "plan")
    assert shown.stdout.splitlines()[0] == "nothing to change: HAProxy runs what it should"
    assert re.search(
        r"^WARNING Serf: Serf's RPC at .*: .*; a change of the cluster that is not heard", shown.stdout, re.M
    )
    proxy.record("web2", webs[1].port, weight="7")
    before = read_all(proxy)
    shown = run(proxy, "plan")
    assert shown.returncode == 1
    lines = shown.stdout.splitlines()
    assert lines[0] == f"+ nodes/web2  127.0.0.1:{webs[1].port} weight 7"
    assert lines[1] == f"--- {proxy.settings.config_path}"
    assert any(line.startswith("+    server web2 ") for line in lines)
    assert lines[-2].startswith("at run time, by ")
    assert read_all(proxy) == before
    document = json.loads(run(proxy, "plan", "-o", "json").stdout)
    assert (document["version"], document["how"], document["servers"][0]["sign"]) == (1, "run time", "+")


def test_a_plan_for_a_frozen_haproxy_says_that_changes_wait(proxy: Proxy, webs: list[Web]) -> None:
    """It is not about to start; one that does not run is."""
    proxy.record("web1", webs[0].port)
    proxy.run_pass()
    with stopped(*list_haproxy(proxy)):
        shown = run(proxy, "plan")
    assert (shown.returncode, shown.stdout.split(":")[0]) == (1, "HAProxy is there and does not answer")
    proxy.stop(signal.SIGKILL)
    assert make_plan(proxy.settings).how is How.START
    assert "HAProxy does not run: it is published for its start" in run(proxy, "plan").stdout


def test_a_drift_is_planned(proxy: Proxy, webs: list[Web]) -> None:
    """What was set at HAProxy's socket is shown with what the next pass makes of it."""
    proxy.record("web1", webs[0].port)
    proxy.run_pass()
    probe.change(proxy.settings, ["set server nodes/web1 weight 7"])
    shown = run(proxy, "plan").stdout
    assert f"! nodes/web1  is 127.0.0.1:{webs[0].port} weight 7" in shown
    assert "at run time, by 1 commands" in shown


def test_other_files_are_tried(proxy: Proxy, webs: list[Web], tmp_path: Path) -> None:
    """Options say which template, services and settings to plan with; what HAProxy refuses is wrong input."""
    proxy.record("web1", webs[0].port)
    proxy.run_pass()
    settings = tmp_path / "settings.toml"
    settings.write_text('balance = "leastconn"\n')
    shown = run(proxy, "plan", "--settings", str(settings))
    assert (shown.returncode, shown.stdout.splitlines()[-2]) == (1, "by a reload")
    assert "+    balance leastconn" in shown.stdout
    services = tmp_path / "services.toml"
    services.write_text('[shop]\nroutes = ["/shop"]\n')
    assert "+backend shop" in run(proxy, "plan", "--services", str(services)).stdout
    template = tmp_path / "own.j2"
    template.write_text("nonsense\n")
    refused = run(proxy, "plan", "--template", str(template))
    assert refused.returncode == 100
    assert "not at all, since HAProxy refuses it:" in refused.stdout
    template.write_text("{{ nothing\n")
    broken = run(proxy, "plan", "--template", str(template))
    assert (broken.returncode, str(template) in broken.stderr) == (100, True)
    for option in ("--services", "--template"):
        missing = run(proxy, "plan", option, "/nowhere")
        assert missing.returncode == 100
        assert missing.stderr == f"serf-haproxy: {option} /nowhere: there is no such file\n"


def test_json_has_what_the_reference_promises(proxy: Proxy) -> None:
    """The reference names every key of the plan's document, and every way."""
    page = (Path(__file__).parents[2] / "docs" / "reference" / "status.md").read_text()
    table = page.partition("## The plan\n")[2].partition("\n## ")[0]
    document = json.loads(run(proxy, "plan", "-o", "json").stdout)
    assert set(re.findall(r"^\| `(\w+)`", table, re.M)) == document.keys() - {"version"}
    assert all(f"`{how}`" in table for how in How)
