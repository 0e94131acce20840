"""HAProxy's answers about its servers, taken apart."""

import pytest

from serf_haproxy.haproxy.seen import read_seen
from serf_haproxy.services import SUCCESSOR

HEADER = (
    "# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight"
    " srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state"
    " bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr"
    " srv_agent_addr srv_agent_port"
)
LINE = "3 web 70000 node1 10.0.0.1 2 0 10 1 77 6 3 4 6 0 0 1 - 8080 - 0 0 - - 0"


def line(section: str = "web", name: str = "node1", address: str = "10.0.0.1") -> str:
    return LINE.replace(" web ", f" {section} ").replace("node1", name).replace("10.0.0.1", address)


def test_each_line_of_a_server_is_read() -> None:
    """Names, endpoint, weight, state and id are columns, wherever the header has them."""
    answer = f"1\n{HEADER}\n{line()}\n{line(name='node2', address='2001:db8::1')}\n\n"
    seen = read_seen(answer, HEADER, {})
    assert list(seen) == [("web", "node1"), ("web", "node2")]
    one = seen["web", "node1"]
    assert (one.endpoint, one.weight, one.operation, one.unchanged_s, one.id) == ("10.0.0.1:8080", 10, 2, 77, 70000)
    assert one.line == line()
    assert seen["web", "node2"].endpoint == "[2001:db8::1]:8080"
    swapped = HEADER.replace("srv_id srv_name", "srv_name srv_id")
    other = read_seen(line().replace("70000 node1", "node1 70000"), swapped, {})
    assert other["web", "node1"].id == 70000


def test_other_lines_are_left_out() -> None:
    """Lines of another length, those without a section's number, and the sections that are ours are no servers."""
    others = [line() + " more", line().replace(" 77", ""), line().replace("3 web", "web web"), line(SUCCESSOR), "x", ""]
    assert read_seen("\n".join(others), HEADER, {}) == {}
    assert read_seen(line(), "", {}) == {}


def test_an_unchanged_line_is_not_read_again() -> None:
    """What was known of it counts, and its connections are those of now."""
    before = read_seen(line(), HEADER, {})
    assert read_seen(line(), HEADER, before)["web", "node1"] is before["web", "node1"]
    header = "# bkname/svname bkid/svid addr port - purge_delay used_cur used_max"
    conn = f"\n{header}\nweb/node1 3/70000 10.0.0.1 8080 - 5 2 9"
    assert read_seen(f"{line()}\n{conn}\n", HEADER, before)["web", "node1"].connection_count == 2


@pytest.mark.parametrize("wrong", [HEADER.replace("srv_port", "srv_portal"), HEADER.replace("srv_id ", "")])
def test_a_missing_column_is_an_error(wrong: str) -> None:
    """Another version of HAProxy may have other columns."""
    with pytest.raises(ValueError):  # noqa: PT011 - whatever it says
        read_seen(line(), wrong, {})


def test_a_number_that_is_none_is_an_error() -> None:
    """The whole answer is then not to be trusted."""
    with pytest.raises(ValueError):  # noqa: PT011 - whatever it says
        read_seen(line().replace(" 10 1 ", " ten 1 "), HEADER, {})
