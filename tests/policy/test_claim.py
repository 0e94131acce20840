"""What members say of themselves in a service."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serf_haproxy.policy.claim import Claim, list_offers, read_claim, read_value
from serf_haproxy.serf.events import Member, make_member, parse_line, read_event


def member(**tags: str) -> Member:
    """Return a member with tags; `svc_shop` is the tag `svc.shop`."""
    return make_member("web1", "10.0.0.1", {key.replace("_", "."): value for key, value in tags.items()})


@pytest.mark.parametrize(
    ("text", "claim"),
    [
        ("8080", Claim(8080, None)),
        ("1", Claim(1, None)),
        ("65535:w0", Claim(65535, 0)),
        ("80:w256", Claim(80, 256)),
        ("80:drain", Claim(80, None, is_drained=True)),
        ("80:w5:drain", Claim(80, 5, is_drained=True)),
        ("80:backup:v2", Claim(80, None, is_backup=True, version="v2")),
        ("9000:v2.1-rc_3:w50", Claim(9000, 50, version="v2.1-rc_3")),
    ],
)
def test_a_claim_is_a_port_and_options(text: str, claim: Claim) -> None:
    """The value of a tag is a port, then options in any order."""
    assert read_value("svc.shop", text) == claim


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the port '' is not"),
        ("0", "the port '0' is not"),
        ("65536", "the port '65536' is not"),
        ("080", "the port '080' is not"),
        ("+80", "the port '+80' is not"),
        ("80 ", "the port '80 ' is not"),
        ("\uff18\uff10", "is not a whole number"),
        ("80:", "'' is no option"),
        ("80:w", "'w' is no option"),
        ("80:w257", "'w257' is no option"),
        ("80:w05", "'w05' is no option"),
        ("80:W5", "'W5' is no option"),
        ("80:v", "'v' is no option"),
        ("80:v" + "1" * 18, "is no option"),
        ("80:Drain", "'Drain' is no option"),
        ("80:fast", "'fast' is no option"),
        ("80:backup\n", "is no option"),
        ("80:w5:w5", "'w5' is a second option"),
        ("80:v1:v2", "'v2' is a second option"),
        ("80:drain:drain", "'drain' is a second option"),
        ("80:backup:w1:backup", "'backup' is a second option"),
    ],
)
def test_wrong_values_are_refused(text: str, said: str) -> None:
    """A wrong port, an unknown option or a second one of a kind is refused with the tag and the reason."""
    with pytest.raises(ValueError, match="^tag svc.shop=") as caught:
        read_value("svc.shop", text)
    assert said in str(caught.value)
    assert str(caught.value).isprintable()


def test_the_short_form_is_the_default_service() -> None:
    """The tags port, weight and drain are about the default service, and its long form replaces all of them."""
    short = member(port="80", weight="5", drain="true")
    assert read_claim(short, "nodes", are_named=True) == Claim(80, 5, is_drained=True)
    assert read_claim(member(svc_nodes="80:w5:drain"), "nodes", are_named=True) == Claim(80, 5, is_drained=True)
    assert read_claim(member(svc_nodes="80"), "nodes", are_named=False) == Claim(None, None)
    with pytest.raises(ValueError, match="tags svc.nodes and weight both describe this service"):
        read_claim(member(svc_nodes="80", weight="5"), "nodes", are_named=True)


@pytest.mark.parametrize(
    ("tags", "offers"),
    [
        ({}, ("nodes",)),
        ({"role": "web"}, ("nodes",)),
        ({"port": "x"}, ("nodes",)),
        ({"svc_shop": "80"}, ("shop",)),
        ({"svc_shop": "80", "port": "80"}, ("nodes", "shop")),
        ({"svc_shop": "wrong", "svc_api": ""}, ("api", "shop")),
        ({"svc_nodes": "80"}, ("nodes",)),
        ({"svc_Shop": "80"}, ()),
        ({"svc_": "80"}, ()),
        ({"svc_" + "a" * 32: "80"}, ()),
        ({"service": "80"}, ("nodes",)),
    ],
)
def test_a_member_offers_what_its_tags_name(tags: dict[str, str], offers: tuple[str, ...]) -> None:
    """A tag `svc.NAME` offers a service; without any such tag, or with a port, a member offers the default one."""
    assert list_offers(member(**tags)) == offers


def test_a_tag_that_is_there_twice_is_refused() -> None:
    """A comma in another tag can look like a second tag of the same name: the roster must say which one is meant."""
    event = read_event("member-join", b"web1\t10.0.0.1\t\tsvc.shop=80,x=1,svc.shop=81\n")
    with pytest.raises(ValueError, match="tag svc.shop is there more than once"):
        read_claim(event.members[0], "shop", are_named=True)
    assert read_claim(event.members[0], "nodes", are_named=True) == Claim(None, None)


def try_to_read(found: Member, service: str, are_named: bool) -> tuple[Claim, str]:
    """Return a claim, or an empty one and the reason why it is refused."""
    try:
        return read_claim(found, service, are_named), ""
    except ValueError as error:
        return Claim(None, None), str(error)


@given(st.binary(max_size=512), st.booleans())
def test_no_gossip_raises_anything_else(raw: bytes, are_named: bool) -> None:
    """Any bytes as tags give a claim within its limits or a printable reason, for each service that they offer."""
    for found in read_event("member-join", b"web1\t10.0.0.1\t\t" + raw.replace(b"\t", b"") + b",\n").members:
        for service in (*list_offers(found), "nodes", "shop"):
            claim, reason = try_to_read(found, service, are_named)
            assert reason.isprintable()
            assert claim.port is None or 1 <= claim.port <= 65535
            assert claim.weight is None or 0 <= claim.weight <= 256
            assert set(claim.version) <= set("abcdefghijklmnopqrstuvwxyz0123456789._-")


@given(
    st.integers(1, 65535),
    st.permutations(["w7", "v2", "drain", "backup"]),
    st.integers(0, 4),
)
def test_any_order_of_options_means_the_same(port: int, options: list[str], count: int) -> None:
    """Options in any order give the same claim, and what a proof covers has one order."""
    chosen = options[:count]
    claim = read_value("svc.x", ":".join([str(port), *chosen]))
    assert claim == read_value("svc.x", ":".join([str(port), *sorted(chosen)]))
    assert claim == Claim(
        port, 7 if "w7" in chosen else None, "drain" in chosen, "backup" in chosen, "v2" * ("v2" in chosen)
    )
    assert read_value("svc.x", claim.signed) == claim._replace(weight=None, is_drained=False)


def test_a_node_file_keeps_the_tags_of_services() -> None:
    """A member's tags for services are the same after its node file was read."""
    text = f"alive\tweb1\t10.0.0.1\t\t{','.join(member(svc_shop='80:w5', svc_pg='5432').tags)}\n"
    assert read_claim(parse_line(text)[1], "shop", are_named=True) == Claim(80, 5)
