"""Stable ids of servers."""

import functools
import itertools
import random

from hypothesis import given
from hypothesis import strategies as st

from serf_haproxy.config.ids import assign_ids, choose_id, is_id_of
from serf_haproxy.config.keywords import are_proven, judge_section, spell_out
from serf_haproxy.config.parse import Line, Parser

FEW = functools.partial(choose_id, lowest=1, end=17)
NAMES = st.lists(st.sampled_from([f"web{number}" for number in range(12)]), unique=True, max_size=8)


@given(NAMES, st.randoms(use_true_random=False))
def test_ids_do_not_depend_on_the_order_of_joins(names: list[str], chance: random.Random) -> None:
    """Balancers with the same nodes give the same ids, and no two servers of a service share one."""
    keys = [("nodes", name) for name in names]
    ids = assign_ids(keys, FEW)
    chance.shuffle(keys)
    assert assign_ids(keys, FEW) == ids
    assert len(set(ids.values())) == len(keys)
    assert all(1 <= number < 17 for number in ids.values())


@given(NAMES, st.sampled_from([f"web{number}" for number in range(12)]))
def test_a_join_changes_ids_only_where_they_collide(names: list[str], newcomer: str) -> None:
    """In a space of 16 ids: without a collision every server keeps its id; with one, another server may move."""
    before = assign_ids([("nodes", name) for name in names], FEW)
    after = assign_ids([("nodes", name) for name in {*names, newcomer}], FEW)
    choices = {FEW(("nodes", newcomer), attempt) for attempt in range(4)}
    if choices.isdisjoint(before.values()):
        assert all(after[key] == number for key, number in before.items())
    moved = {key for key, number in before.items() if after[key] != number}
    # Names that sort before the newcomer never move.
    assert all(name > newcomer for _, name in moved)


def test_ids_are_distinct_where_the_ring_uses_them() -> None:
    """All ids are below 2 to the power of 20, beyond which HAProxy's ring does not tell them apart."""
    ids = assign_ids([("nodes", f"web{number}") for number in range(5000)])
    assert len({number % 2**20 for number in ids.values()}) == 5000
    assert min(ids.values()) >= 2**16
    assert all(is_id_of(key, number) for key, number in ids.items())
    assert not any(is_id_of(("nodes", "web1"), number) for number in range(1, 100))


def test_services_do_not_share_ids_space() -> None:
    """The id of a server depends on the servers of its own service alone."""
    alone = assign_ids([("nodes", "web1")])
    assert assign_ids([("nodes", "web1"), ("api", "web1")])["nodes", "web1"] == alone["nodes", "web1"]


def layout_of(*lines: str, balance: str = "roundrobin", head: str = "") -> tuple[set[str], set[str]]:
    """Return the names of the servers that can change at run time, and of those that cannot."""
    text = f"{head}backend nodes\n    balance {balance}\n" + "".join(f"    {line}\n" for line in lines)
    layout = Parser().read(text)
    return {name for _, name in layout.servers}, {name for _, name in layout.fixed}


def test_only_literal_endpoints_change_at_run_time() -> None:
    """An endpoint that HAProxy reports in another form belongs to the rest, whose digest it changes."""
    good = ["10.0.0.1:80", "[fd00::1]:80", "[2001:db8::1:2]:8080"]
    bad = ["localhost:80", "127.1:80", "10.0.0.1:080", "10.0.0.1", ":80", "unix@/s", "/s", "ipv4@10.0.0.1:80"]
    bad += [
        "[FD00::1]:80",
        "fd00::1:80",
        "[::ffff:1.2.3.4]:80",
        "10.0.0.1:+1",
        "[fd00:0::1]:80",
        "010.0.0.1:80",
        "abns@x",
        "fd@3",
        "10.0.0.1:80-81",
    ]
    for endpoint, is_good in itertools.chain(((e, True) for e in good), ((e, False) for e in bad)):
        changeable, fixed = layout_of(f"server web1 {endpoint} check")
        assert (changeable, fixed) == (({"web1"}, set()) if is_good else (set(), {"web1"})), endpoint


def test_lines_with_other_words_need_a_reload() -> None:
    """Only such a line belongs to the rest, not its neighbours."""
    for word in (
        "disabled",
        "enabled",
        "agent-check",
        "track nodes/web2",
        "resolvers dns",
        "init-addr none",
        "crt x",
        "new-word",
    ):
        line = f"server web1 10.0.0.1:80 check {word}"
        assert layout_of(line, "server web2 10.0.0.2:80 check") == ({"web2"}, {"web1"}), word


def test_sections_with_other_words_need_a_reload() -> None:
    """A section with its own kind of health check, or with a word that is not known, belongs to the rest."""
    for line in ("option external-check", "source 10.0.0.9", "new-word", "option ldap-check", "option transparent"):
        assert layout_of(line, "server web1 10.0.0.1:80 check") == (set(), {"web1"}), line
        head = f"defaults\n    {line}\n"
        assert layout_of("server web1 10.0.0.1:80 check", head=head) == (set(), {"web1"}), line


def test_algorithms_that_choose_by_id_need_ids() -> None:
    """Without an id in the file, an added server would have another place than a loaded one."""
    for balance in ("random", "random(3)", "first", "uri\n    hash-type consistent"):
        lines = ("server web1 10.0.0.1:80", "server web2 10.0.0.2:80 id 70002")
        assert layout_of(*lines, balance=balance) == ({"web2"}, {"web1"}), balance
    assert layout_of("server web1 10.0.0.1:80", balance="leastconn") == ({"web1"}, set())
    assert layout_of("server web1 10.0.0.1:80 id 7", balance="new-algorithm") == (set(), {"web1"})


def test_defaults_are_inherited_from_named_ones() -> None:
    """`defaults NAME from BASE` includes the words of BASE; where HAProxy alone knows BASE, a reload is needed."""
    base = "defaults base\n    default-server check inter 2s\n"
    head = base + "defaults web from base\n    default-server rise 3\n"
    layout = Parser().read(f"{head}backend nodes\n    server web1 10.0.0.1:80\n")
    assert layout.servers["nodes", "web1"] == Line("10.0.0.1:80", 1, ("check", "inter", "2s", "rise", "3"))
    for head in ("defaults web from unknown\n", base + base + "defaults from base\n"):
        assert layout_of("server web1 10.0.0.1:80", head=head) == (set(), {"web1"}), head


def test_words_are_spelled_out_for_an_added_server() -> None:
    """What the words imply in the file is said in the command."""
    assert "check-ssl" in spell_out(("ssl", "verify", "none", "check"))
    assert "check-ssl" not in spell_out(("ssl", "verify", "none", "check", "port", "81"))
    assert "check-send-proxy" in spell_out(("check", "send-proxy-v2"))
    assert spell_out(("observe", "layer7", "error-limit", "3"))[-2:] == ("error-limit", "3")
    assert not are_proven(("inter",))
    assert judge_section(["cookie S insert dynamic"]).has_cookies
