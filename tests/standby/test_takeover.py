"""Two balancers with keepalived, as `images/examples/keepalived` has it, under requests at a constant rate.

The whole list of faults is measured by `tests/benchmarks/takeover.py`.
"""

import subprocess
import sys

import pytest

from standby.faults import FAULTS, Fault, measure, settle
from standby.site import ADDRESS, Load, Site

pytestmark = pytest.mark.alone
RATE = 150
GRACEFUL_S, CRASH_S = 1.0, 3.0

# Makes one request for each line that it reads, all on one connection, and says what was answered.
CLIENT = """
import http.client, sys
connection = http.client.HTTPConnection(sys.argv[1], 80, timeout=10)
connection.connect()
connection.auto_open = 0
for line in sys.stdin:
    connection.request("GET", "/")
    answer = connection.getresponse()
    answer.read()
    print(answer.status, flush=True)
"""


def find(word: str) -> Fault:
    """Return the fault whose name has a word."""
    return next(fault for fault in FAULTS if word in fault.name)


@pytest.fixture
def well(site: Site) -> Site:
    """Return the site, on which nothing is wrong."""
    settle(site)
    return site


@pytest.mark.parametrize("word", ["stopped gracefully", "set aside"])
def test_a_graceful_end_loses_no_request(well: Site, word: str) -> None:
    """When a balancer is stopped or set aside, the other one has the address before, and every request is answered."""
    found, moved_s = measure(well, find(word), RATE)
    assert (found.count > 5 * RATE, found.faults) == (True, ())
    assert found.gap_s <= GRACEFUL_S
    assert moved_s is not None


def test_a_killed_haproxy_is_replaced_within_seconds(well: Site) -> None:
    """When HAProxy is killed and does not come back, the other balancer answers within three seconds."""
    found, moved_s = measure(well, find("does not come back"), RATE)
    assert found.gap_s <= CRASH_S
    assert moved_s is not None


def test_what_is_needed_for_changes_alone_moves_nothing(well: Site) -> None:
    """While the daemon is dead for some seconds every request is answered where it was."""
    found, moved_s = measure(well, find("the daemon is killed"), RATE)
    assert (found.faults, moved_s) == ((), None)


def test_open_connections_outlive_a_move(well: Site) -> None:
    """A client's connection goes on at the balancer that accepted it, while new ones come to the other."""
    owner, other = well.order()
    argv = [*well.client.enter, sys.executable, "-c", CLIENT, ADDRESS]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdin
        assert client.stdout
        statuses = []
        for act in (None, "on", "off"):
            if act:
                owner.command("standby", act, *(["--wait"] if act == "on" else []))
            client.stdin.write("go\n")
            client.stdin.flush()
            statuses.append(client.stdout.readline())
        client.stdin.close()
    assert statuses == ["200\n"] * 3
    assert (owner.has_address(), other.has_address()) == (False, True)


def test_a_balancer_that_comes_back_does_not_take_the_address_again(well: Site) -> None:
    """After a standby the address stays where it went; no request is lost meanwhile."""
    owner, other = well.order()
    owner.command("standby", "on", "--wait")
    load = Load(well.client, RATE)
    owner.command("standby", "off")
    settle(well)
    assert load.end().faults == ()
    assert well.order() == (other, owner)
