"""What the JSON of each command promises: names and types of version 1, in every state of a balancer."""

import json
import re
import signal
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from integration.balancer import Balancer
from serf_haproxy.cli.main import build_parser

pytestmark = pytest.mark.usefixtures("time_limit")

Ask = Callable[[str], str]

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
# The promise: a key keeps its name and its types. Add what is new; change and remove nothing without a new version.
MEMBER = {
    "string": "cause evidence level name reason state trouble",
    "null|string": "address health quarantined role service status version",
    "boolean": "in_haproxy is_backup",
    "number": "session_count",
    "null|number": "damped_s held_s left_s port since_s wanted_weight weight",
    "null|object": "check measured",
}
PROMISES: dict[str, list[dict[str, str]]] = {
    "status": [
        {"number": "at_s changed_at_s read_at_s server_count took_s version", "null|number": "up_count"},
        {"string": "digest level reason self_name verdict", "object": "daemon haproxy serf services strays"},
        {"array": "certificate_faults conditions findings members orders service_faults", "null|object": "old_workers"},
        {"boolean|null": "daemon_runs resident_runs", "boolean": "haproxy_answers"},
    ],
    "status.serf": [{"string": "fault state version", "null|number": "age_s heard_at_s"}],
    "status.haproxy": [{"string": "fault state version", "null|number": "age_s"}],
    "status.daemon": [{"null|number": "passed_at_s", "boolean|null": "runs", "string": "fault state"}],
    "status.findings": [{"string": "level remedy subject text"}],
    "status.conditions": [{"string": "name reason"}],
    "status.old_workers": [{"number": "memory_bytes oldest_s worker_count"}],
    "member": [MEMBER],
    "member.check": [{"string": "code result status text"}],
    "service": [
        {"string": "balance bind mode", "boolean": "is_announced", "object": "node_counts split", "array": "routes"},
        {"number": "server_count", "null|number": "up_count", "null|string": "table", "null|object": "scaling"},
    ],
    "plan": [
        {"string": "diff how pause serf_fault words", "array": "commands faults servers"},
        {"number": "version", "null|number": "changes_in_s"},
    ],
    "plan.servers": [{"string": "server sign text"}],
    "explanation": [
        MEMBER,
        {"string": "haproxy_fault rule", "object": "heard", "array": "settings would_change", "array|null": "events"},
        {"number": "total_count", "null|number": "unchanged_s", "null|object": "scaling"},
    ],
    "explanation.heard": [{"null|string": "now status", "string": "evidence", "null|number": "at_s", "object": "tags"}],
    "explanation.settings": [{"string": "key value where"}],
    "history": [{"number": "at_s", "string": "balancer by kind node service what why"}],
    "orders": [{"number": "version", "array": "orders"}],
    "order": [
        {"string": "author issuer mode node reason service verb", "number": "at_ms until_ms", "boolean": "is_local"}
    ],
}
PROMISED = {
    kind: {key: types for part in parts for types, keys in part.items() for key in keys.split()}
    for kind, parts in PROMISES.items()
}


def name_type(value: object) -> str:
    """Return the name that JSON has for a value's type."""
    names = {bool: "boolean", int: "number", float: "number", str: "string", list: "array", dict: "object"}
    return "null" if value is None else names[type(value)]


@pytest.fixture
def ask(balancer: Balancer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Return what runs a command in this process, and returns what it prints: starting a program takes long."""
    for name, value in balancer.environment.items():
        monkeypatch.setenv(name, value)

    def do(words: str) -> str:
        args = build_parser().parse_args(words.split())
        capsys.readouterr()
        args.command(args)
        return capsys.readouterr().out

    return do


def collect(ask: Ask, found: dict[str, list[Mapping[str, Any]]]) -> None:
    """Add what all commands print now."""
    status, plan = json.loads(ask("status -o json")), json.loads(ask("plan -o json"))
    explained = [json.loads(ask(f"explain {name} -o json")) for name in ("web1", "lb1", "web3")]
    history = [json.loads(line) for line in ask("history -o json").splitlines()]
    explanations = [each for one in explained for each in one["explanations"]]
    orders = json.loads(ask("maint list --json"))
    for kind, documents in {
        "status": [status],
        "status.serf": [status["serf"]],
        "status.haproxy": [status["haproxy"]],
        "status.daemon": [status["daemon"]],
        "status.findings": status["findings"],
        "status.conditions": status["conditions"],
        "status.old_workers": filter(None, [status["old_workers"]]),
        "member": status["members"],
        "member.check": [one["check"] for one in status["members"] if one["check"]],
        "service": status["services"].values(),
        "plan": [plan],
        "plan.servers": plan["servers"],
        "explanation": explanations,
        "explanation.heard": [one["heard"] for one in explanations],
        "explanation.settings": [each for one in explanations for each in one["settings"]],
        "history": [*history, *(each for one in explanations for each in one["events"] or ())],
        "orders": [orders],
        "order": [*orders["orders"], *status["orders"]],
    }.items():
        found.setdefault(kind, []).extend(documents)
    assert {one["version"] for one in (status, plan, orders, *explained)} == {1}


def list_types(documents: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the types that each key has in some of the documents."""
    listed = list(documents)
    keys = set.intersection(*(set(one) for one in listed)) if listed else set()
    return {key: "|".join(sorted({name_type(one[key]) for one in listed})) for key in sorted(keys)}


def test_names_and_types_are_kept(balancer: Balancer, ask: Ask) -> None:
    """With a wrong node, orders, an order that waits, a pause, and without HAProxy and Serf, each promise holds."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    balancer.record("web3", 0)
    collect(ask, found)
    ask("maint set web1 --reason disk --by alice --until 1h")
    ask("maint set web2 --service nodes --stop --reason x --local")
    collect(ask, found)
    balancer.run_pass()
    balancer.webs["web1"].status = 503
    collect(ask, found)
    ask("pause --reason upgrade")
    balancer.run_pass()
    balancer.stop(signal.SIGKILL)
    collect(ask, found)
    types = {kind: list_types(documents) for kind, documents in found.items()}
    broken = {
        f"{kind}.{key}: {types[kind].get(key, 'gone')}, promised is {promised}"
        for kind, keys in PROMISED.items()
        for key, promised in keys.items()
        if not set(types[kind].get(key, "gone").split("|")) <= set(promised.split("|"))
    }
    assert broken == set()
    missing = {f"{kind}.{key}" for kind, keys in types.items() for key in keys.keys() - PROMISED.get(kind, {}).keys()}
    assert missing == set(), "these are new: promise them in PROMISED"


@pytest.mark.parametrize(
    ("page", "title", "kind"), [("status", "An order", "order"), ("orders", "The history", "history")]
)
def test_the_reference_names_each_key(page: str, title: str, kind: str) -> None:
    """The tables of orders and of the history have every key."""
    text = (REFERENCE / f"{page}.md").read_text()
    section = re.split(r"^## ", text.partition(f"\n## {title}\n")[2], flags=re.M)[0]
    rows = re.findall(r"^\| (.*?) \|", section, re.M)
    assert {key for row in rows for key in re.findall(r"`(\w+)`", row)} == PROMISED[kind].keys()
