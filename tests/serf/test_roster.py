"""What the roster corrects, and how much memory members take."""

import msgpack

from serf_haproxy.serf.events import Member, parse_line
from serf_haproxy.serf.listing import Listing
from serf_haproxy.serf.nodes import NodeFile
from serf_haproxy.serf.roster import Roster, correct


def entry(name: str, **tags: str) -> object:
    """Return a member's entry as it arrives: every part of it is a new object."""
    raw = {"Name": name, "Addr": bytes([10, 0, 0, 1]), "Status": b"alive", "Tags": tags}
    return msgpack.unpackb(msgpack.packb(raw), raw=True)


def test_a_node_file_that_says_what_the_roster_says_has_its_member() -> None:
    """A member of the roster is in memory once."""
    said = Member("web1", "10.0.0.1", "web", ("port=80", "role=web"))
    file = NodeFile("alive", Member("web1", "10.0.0.1", "web", ("port=80", "role=web")), 1)
    corrections = correct({"web1": file}, Roster(2, "lb", {"web1": ("alive", said)}))
    assert (corrections.record, file.member is said) == ((), True)


def test_a_node_file_that_says_something_else_keeps_its_member() -> None:
    """What the roster corrects is written first, and then read."""
    member = Member("web1", "10.0.0.1", "web", ("port=81", "role=web"))
    said = Member("web1", "10.0.0.1", "web", ("port=80", "role=web"))
    file = NodeFile("alive", member, 1)
    corrections = correct({"web1": file}, Roster(2, "lb", {"web1": ("alive", said)}))
    assert (corrections.record, file.member is member) == ((("alive", said),), True)


def test_a_node_file_with_the_member_of_the_roster_is_corrected_by_its_status() -> None:
    """The same member may have another status by now."""
    said = Member("web1", "10.0.0.1", "web", ("port=80", "role=web"))
    corrections = correct({"web1": NodeFile("alive", said, 1)}, Roster(2, "lb", {"web1": ("left", said)}))
    assert corrections.record == (("left", said),)


def test_members_share_the_tags_that_they_have_in_common() -> None:
    """Ten thousand members have few different tags."""
    listing = Listing()
    members, _ = listing.read([entry("web1", role="web", port="80"), entry("web2", port="80", role="web")])
    one, other = members["web1"][1], members["web2"][1]
    assert all(tag is same for tag, same in zip(one.tags, other.tags, strict=True))
    assert listing._known[b"web1"].said[2] is listing._known[b"web2"].said[2]
    read = parse_line("alive\tweb3\t10.0.0.3\tweb\tport=80,role=web\n")[1]
    assert all(tag is same for tag, same in zip(one.tags, read.tags, strict=True))


def test_an_entry_that_has_not_changed_is_not_read_again() -> None:
    """The same member comes of it, in whatever order its tags arrive; another tag makes another one."""
    listing = Listing()
    before = listing.read([entry("web1", role="web", port="80"), entry("web2", port="1")])[0]
    same = listing.read([entry("web1", port="80", role="web"), entry("web2", port="2")])[0]
    assert same["web1"][1] is before["web1"][1]
    assert same["web2"][1].tags == ("port=2",)
