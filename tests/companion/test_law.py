"""Which containers are announced, and as what: tables."""

import json
from typing import Any

import pytest

from serf_haproxy.companion.law import Announcement, Seen, choose, choose_port, is_ours, judge, read_seen
from serf_haproxy.policy.proof import Offer, Secret, check_proof

NUMBER = "ab" * 32
OWN = ("127.0.0.1", "10.7.0.9")
SECRET = Secret(b"correct horse battery staple")


def inspected(**changes: Any) -> dict[str, Any]:
    """Return an engine's description of a container, with some parts changed."""
    endpoint = {"IPAddress": "10.7.0.5", "IPPrefixLen": 24, "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0}
    return {
        "Id": NUMBER,
        "Name": "/shop-app-1",
        "State": {"Running": True, "Paused": False, "Restarting": False, "StartedAt": "2026-01-01T00:00:00Z"},
        "Config": {"Labels": {"serf-haproxy.service": "shop", "serf-haproxy.port": "8080"}, "StopSignal": "SIGQUIT"},
        "NetworkSettings": {"Networks": {"front": endpoint}},
    } | changes


def seen(**changes: Any) -> Seen:
    """Return a container that can be announced, with some parts changed."""
    found = read_seen(inspected())
    assert found is not None
    return found._replace(**changes)


def label(service: str, port: str | None) -> dict[str, str]:
    """Return the two labels."""
    return {"serf-haproxy.service": service} | ({} if port is None else {"serf-haproxy.port": port})


def test_a_container_becomes_a_node() -> None:
    """Name, service, port and address come from the container."""
    assert judge(seen(), "", OWN) == Announcement("shop-app-1", "shop", 8080, "10.7.0.5")
    assert judge(seen(), "host2.", OWN).node == "host2.shop-app-1"


@pytest.mark.parametrize(
    ("changes", "is_drained"),
    [
        ({"health": "healthy"}, False),
        ({"health": "unhealthy"}, True),
        ({"health": "starting"}, True),
        ({"is_paused": True}, True),
        ({"is_paused": True, "health": "healthy"}, True),
    ],
)
def test_an_unfit_container_is_drained(changes: dict[str, Any], is_drained: bool) -> None:
    """A container that is frozen, or that the engine does not call healthy, gets no new clients."""
    assert judge(seen(**changes), "", OWN).is_drained is is_drained


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": label("", "80")}, "names no service"),
        ({"labels": label("Shop", "80")}, "names no service"),
        ({"labels": label("shop\n", "80")}, r"'shop\n' names no service"),
        ({"labels": label("a" * 4000, "80")}, "names no service"),
        ({"labels": label("../x", "80")}, "names no service"),
        ({"labels": label("shop", None)}, "has no label serf-haproxy.port"),
        ({"labels": label("shop", "")}, "'' is no port"),
        ({"labels": label("shop", "0")}, "is no port"),
        ({"labels": label("shop", "65536")}, "is no port"),
        ({"labels": label("shop", "080")}, "is no port"),
        ({"labels": label("shop", "80:w256")}, "is no port"),
        ({"labels": label("shop", "80\x1b[2J")}, r"\x1b[2J' is no port"),
        ({"labels": label("shop", "٨٠")}, "is no port"),
        ({"name": "a" * 129}, "129 characters"),
        ({"name": "-rf"}, "cannot be that of a node"),
        ({"name": "a/b"}, "cannot be that of a node"),
        ({"name": ""}, "it is empty"),
        ({"networks": {}}, "has no address in a network"),
    ],
)
def test_what_is_wrong_is_said(changes: dict[str, Any], said: str) -> None:
    """A wrong label or name is refused in one line that any terminal can show."""
    with pytest.raises(ValueError, match=".") as refused:
        judge(seen(**changes), "", OWN)
    text = str(refused.value)
    assert said in text
    assert text.isprintable()
    assert text.isascii()
    assert len(text) < 300


def test_the_network_that_both_are_in_counts() -> None:
    """Of several networks it is one that the companion is in too: the application can be reached there."""
    found = seen(networks={"back": ("10.8.0.5", 24), "front": ("10.7.0.5", 24), "z": ("fd00::5", 64)})
    assert judge(found, "", ("10.7.0.9",)).address == "10.7.0.5"
    assert judge(found, "", ("127.0.0.1", "fd00::9")).address == "fd00::5"
    assert judge(found, "", ("10.7.0.9", "10.8.0.9")).address == "10.8.0.5"
    with pytest.raises(ValueError, match="in none of its networks"):
        judge(found, "", ("127.0.0.1",))


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        "x",
        {},
        {"Id": 7},
        inspected(State={"Running": False}),
        inspected(State={"Running": True, "Restarting": True}),
        inspected(State=None),
    ],
)
def test_what_is_no_running_container_is_none(content: Any) -> None:
    """An answer of another form describes no container."""
    assert read_seen(content) is None


def test_parts_of_another_form_do_not_count() -> None:
    """Labels, networks and times of another form are as if they were absent."""
    networks = {"a": None, "b": {"IPAddress": "nonsense"}, "c": {"IPAddress": "10.7.0.5", "IPPrefixLen": 99}}
    config = {"Labels": {"serf-haproxy.service": 7}, "StopTimeout": "9"}
    found = read_seen(inspected(Config=config, NetworkSettings={"Networks": networks}))
    assert found is not None
    assert (found.labels, found.networks, found.stop_s, found.stop_signal) == ({}, {}, 10.0, "")
    assert not is_ours(found)
    assert read_seen(json.loads(json.dumps(inspected()))) == seen()


def test_copies_of_the_autoscaler_have_a_serf_agent_of_their_own() -> None:
    """Its label does not make them a container to be announced, unless they have a port too."""
    slot = {"serf-haproxy.slot": "shop-3"}
    assert is_ours(seen())
    assert not is_ours(seen(labels=label("shop", None) | slot))
    assert is_ours(seen(labels=label("shop", "80") | slot))


def test_the_limit_keeps_those_that_are_announced() -> None:
    """The first ones that were started are announced; a later one never displaces one that is."""
    found = [
        (seen(id=id_, started=started), judge(seen(), "", OWN)) for id_, started in [("a", "3"), ("b", "2"), ("c", "1")]
    ]
    chosen, rest = choose(found, (), 2)
    assert (list(chosen), rest) == (["c", "b"], 1)
    chosen, rest = choose(found, ("a",), 2)
    assert (list(chosen), rest) == (["a", "c"], 1)
    assert choose(found, (), 9)[1] == 0


def test_a_port_follows_from_the_address() -> None:
    """The same address gets the same port, its neighbours get others; where it is taken, it is the next free one."""
    assert choose_port("10.7.0.5", 20000, 1000, ()) == choose_port("10.7.0.5", 20000, 1000, (20000,))
    ports = {choose_port(f"10.7.0.{n}", 20000, 1000, ()) for n in range(256)}
    assert len(ports) == 256
    first = choose_port("10.7.0.5", 20000, 2, ())
    assert first in (20000, 20001)
    other = 40001 - (first or 0)
    assert choose_port("10.7.0.5", 20000, 2, (first or 0,)) == other
    assert choose_port("10.7.0.5", 20000, 2, (), 1) == other
    assert choose_port("10.7.0.5", 20000, 2, (20000, 20001)) is None
    assert choose_port("fd00::5", 20000, 1000, ()) is not None


def test_tags_of_a_service_and_of_the_default_one() -> None:
    """A named service has a tag of its own; the default one has the short form, which needs no services file."""
    shop = Announcement("n1", "shop", 8080, "10.7.0.5")
    assert shop.list_tags("10.7.0.9", None) == {"role": "web", "addr": "10.7.0.5", "svc.shop": "8080"}
    assert shop._replace(is_drained=True).list_tags("10.7.0.9", None)["svc.shop"] == "8080:drain"
    default = Announcement("n1", "nodes", 8080, "10.7.0.5")
    assert default.list_tags("10.7.0.9", None) == {"role": "web", "addr": "10.7.0.5", "port": "8080"}
    assert default._replace(is_drained=True).list_tags("10.7.0.9", None)["drain"] == "true"


@pytest.mark.parametrize("is_drained", [False, True])
def test_balancers_accept_the_proof(is_drained: bool) -> None:
    """The proof is that of the tags, drained or not."""
    tags = Announcement("n1", "shop", 8080, "10.7.0.5", is_drained).list_tags("10.7.0.9", SECRET)
    check_proof([SECRET], "n1", "10.7.0.9", tags, Offer("shop", "svc.shop", "8080"))
    tags = Announcement("n1", "nodes", 8080, "10.7.0.5", is_drained).list_tags("10.7.0.9", SECRET)
    check_proof([SECRET], "n1", "10.7.0.9", tags)
