"""Services that members announce: which there are, and how often that may change."""

import itertools
import random

import pytest

from serf_haproxy.policy.admission import Policy, Rules
from serf_haproxy.policy.announced import KEEP_S, PAUSE_S, SETTLE_S, Limits, find_announced
from serf_haproxy.policy.proof import Secret
from serf_haproxy.serf.events import make_member
from serf_haproxy.serf.nodes import NodeFile
from serf_haproxy.services.file import Announced

NOW_S = 1_800_000_000.0
NONE = Announced()
RULES = Rules(3000, roles=("web",), balancer_roles=("lb",), are_named=True)


def offer(*services: str, name: str = "n1", status: str = "alive", age_s: float = 60.0, role: str = "web") -> NodeFile:
    """Return the node file of a member that announces services, NAME or NAME=VALUE."""
    tags = dict(f"svc.{service}{'' if '=' in service else '=8080'}".split("=", 1) for service in services)
    return NodeFile(status, make_member(name, "10.0.0.1", {"role": role} | tags), int((NOW_S - age_s) * 1e9))


def find(*files: NodeFile, before: Announced = NONE, now_s: float = NOW_S, rules: Rules = RULES) -> Announced:
    """Return what members announce."""
    limits = Limits(3, lambda name: "it is the operator's" if name == "taken" else "")
    return find_announced(files, rules, before, limits, now_s)


def test_a_steady_name_is_served_at_once() -> None:
    """What a member has announced for some seconds is a service; the default service is none of them."""
    found = find(offer("blog", "nodes"))
    assert found == Announced({"blog": NOW_S}, NOW_S)


def test_a_new_name_waits_until_it_is_steady() -> None:
    """A name that has come a moment ago waits, and it is said until when."""
    found = find(offer("blog", age_s=2))
    assert (found.seen_s, found.changes_in_s) == ({}, SETTLE_S - 2)
    assert "it waits for 3.0 s" in found.refused["blog"]


@pytest.mark.parametrize(
    "file",
    [
        offer("taken"),
        offer("blog", status="left"),
        offer("blog", status="failed"),
        offer("blog", role="db"),
        offer("blog", role="lb"),
        offer("blog=8080:bad"),
        offer("blog=0"),
        offer("Blog"),
        offer("nodes"),
    ],
)
def test_only_members_that_may_serve_announce(file: NodeFile) -> None:
    """A member that cannot be a server announces nothing, and no name of the operator's is taken."""
    assert find(file).seen_s == {}
    assert find(file, before=Announced({"taken": NOW_S})).seen_s == {}, "a name that the operator has taken meanwhile"


def test_where_proofs_are_required_they_are_required_here() -> None:
    """A member without a proof for a service does not create it."""
    rules = RULES._replace(policy=Policy(secrets=(Secret(b"a secret of sixteen or more characters"),)))
    assert find(offer("blog"), rules=rules).seen_s == {}


def test_there_are_at_most_so_many() -> None:
    """Those that are there stay, and further ones are told to be too many."""
    found = find(offer("a", "b", "c", "d", "e"), before=Announced({"e": NOW_S - 60}))
    assert set(found.seen_s) == {"a", "b", "e"}
    assert all("as many as there may be" in found.refused[name] for name in ("c", "d"))


def test_the_names_change_once_a_minute() -> None:
    """After a change the next one waits; what has changed is told with the time."""
    before = Announced({"a": NOW_S}, NOW_S - 20)
    found = find(offer("a", "b"), before=before)
    assert (set(found.seen_s), found.changed_at_s, found.changes_in_s) == ({"a"}, NOW_S - 20, PAUSE_S - 20)
    assert "at most once in 60 s" in found.refused["b"]
    assert set(find(offer("a", "b"), before=before, now_s=NOW_S + 40).seen_s) == {"a", "b"}
    assert set(find(offer("a", "b"), before=Announced({"a": NOW_S}, NOW_S + 1e6)).seen_s) == {"a", "b"}, "set back"


def test_a_name_stays_for_an_hour_after_its_last_member() -> None:
    """Members that come and go within the hour change nothing."""
    before = Announced({"a": NOW_S - 100}, NOW_S - 100)
    found = find(before=before)
    assert (found.seen_s, found.changes_in_s) == (before.seen_s, KEEP_S - 100)
    assert find(before=found, now_s=NOW_S + KEEP_S).seen_s == {}
    assert find(offer("a"), before=found, now_s=NOW_S + KEEP_S - 101).seen_s == {"a": NOW_S + KEEP_S - 101}


def test_hostile_gossip_cannot_cause_endless_changes() -> None:
    """However names come and go, each hour has at most as many changes as there may be services, and those that end."""
    generator = random.Random(7)
    announced, now_s, changes = Announced(), NOW_S, []
    while now_s < NOW_S + 4 * KEEP_S:
        names = {f"x{generator.randrange(1000)}" for _ in range(5)}
        before = set(announced.seen_s)
        file = offer(*names, age_s=NOW_S - now_s + 10)
        announced = find_announced([file], RULES, announced, Limits(3, lambda _: ""), now_s)
        assert len(announced.seen_s) <= 3
        if set(announced.seen_s) != before:
            changes.append(now_s)
        now_s += 10
    assert all(later - earlier >= PAUSE_S for earlier, later in itertools.pairwise(changes))
    for begin in changes:
        assert sum(begin <= at_s < begin + KEEP_S for at_s in changes) <= 6, "three that end, three that come"
