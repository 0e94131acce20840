"""Whether a worker still learns its tables, by what HAProxy says."""

import pytest

from serf_haproxy.haproxy.tables import is_learning

# Recorded from HAProxy 2.6.12.
ANSWER = """\
Name: HAProxy
Uptime: 0d 0h00m{uptime:02}s
Uptime_sec: {uptime}

0x560e74d5fdf0: [26/Nov/2026:01:14:36] id=serf_haproxy disabled=0 flags=0x{flags} resync_timeout=1s task_calls=122
  0x5568ebfa0fa0: id=lb1(local,inactive) addr=127.77.1.1:7947 last_status=NONE last_hdshk=<NEVER>
        reconnect=<NEVER> heartbeat=<NEVER> confirm=0 tx_hbt=0 rx_hbt=0 no_hbt=0 new_conn=0 proto_err=0 coll=0
        flags=0x0

# table: pg, type: ipv6, size:102400, used:{used}
# table: successor, type: string, size:1, used:1

"""


@pytest.mark.parametrize(
    ("uptime", "flags", "used", "expected"),
    [(2, "11", 40, True), (2, "33", 40, False), (2, "1103", 40, False), (2, "11", 0, False), (30, "11", 40, False)],
)
def test_a_young_worker_with_entries_may_be_learning(uptime: int, flags: str, used: int, expected: bool) -> None:
    """A reload waits only for a worker that is young, has entries, and does not have all of its teachers' yet."""
    assert is_learning(ANSWER.format(uptime=uptime, flags=flags, used=used)) is expected


@pytest.mark.parametrize("answer", ["", "Uptime_sec: 1\n", "Unknown command", "Uptime_sec: 1\n# table: pg, used:4\n"])
def test_without_peers_no_reload_waits(answer: str) -> None:
    """Where there is no section `peers`, or the answer is unknown, there is nothing to wait for."""
    assert not is_learning(answer)
