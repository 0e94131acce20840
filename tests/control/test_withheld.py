"""Tables that HAProxy cannot run: which ones they are, and when they are tried again."""

import dataclasses
import errno
import socket
from unittest import mock

import pytest

from serf_haproxy.control.record import Record, format_record, parse_record
from serf_haproxy.control.vetting import Names, find_refused
from serf_haproxy.control.withheld import Refusal, list_withheld, read_withheld
from serf_haproxy.system.listening import find_listen_fault


@pytest.mark.parametrize("bad", ["", "a", "h", "dg", "abcdefgh"])
def test_bisection_finds_each_refused_table(bad: str) -> None:
    """All that HAProxy refuses is found, with its words; no other is."""
    checked: list[Names] = []

    def check(names: Names) -> str | None:
        checked.append(names)
        wrong = [name for name in names if name in bad]
        return f"bad: {wrong[0]}" if wrong else None

    found = find_refused(tuple("abcdefgh"), check, 60)
    assert found == {name: f"bad: {name}" for name in bad}
    assert len(checked) <= 17


def test_tables_are_not_blamed_for_the_rest() -> None:
    """Where HAProxy refuses the configuration without them too, the template or the settings are at fault."""
    assert find_refused(("a", "b"), lambda _: "no", 60) == {}


@pytest.mark.parametrize(("count", "timeout_s"), [(1000, 60.0), (4, -1.0)])
def test_the_search_has_an_end(count: int, timeout_s: float) -> None:
    """After some checks, or some time, what is left counts as refused: the rest of the configuration goes on."""
    names = tuple(f"s{number}" for number in range(count))
    check = mock.Mock(side_effect=lambda names: "no" if names else None)
    assert set(find_refused(names, check, timeout_s)) == set(names)
    assert check.call_count <= 50


def test_pauses_grow_to_a_limit() -> None:
    """A listener is tried again sooner than what HAProxy refuses."""
    pauses_s = [Refusal("", "", 100.0, count).left_s(100.0, 300.0) for count in (1, 2, 3, 12, 10**6)]
    assert pauses_s == [2.0, 4.0, 8.0, 300.0, 300.0]
    pauses_s = [Refusal("", "", 100.0, count, "basis").left_s(100.0, 300.0) for count in (1, 2, 10)]
    assert pauses_s == [20.0, 40.0, 300.0]
    assert Refusal("", "", 100.0, 1).left_s(99.0, 300.0) == 0.0, "the clock was set back"


def test_the_record_keeps_them() -> None:
    """They are read back as they were; a damaged entry is left out alone."""
    withheld = {"a": Refusal("d1", "words", 1.5, 2), "b": Refusal("d2", "ü", 3.0, 1, "basis")}
    record = parse_record(format_record(Record(withheld=list_withheld(withheld))))
    assert read_withheld(record) == withheld
    damaged = [None, [], ["x", "d", "w", "nan", 1, ""], *record.withheld]
    assert read_withheld(dataclasses.replace(record, withheld=damaged)) == withheld


def test_only_what_concerns_haproxy_too_is_a_fault() -> None:
    """A port that this process may not open says nothing; one that is taken, or an address elsewhere, does."""
    assert find_listen_fault("192.0.2.1:7777") == "Cannot assign requested address"
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        bind = f"127.0.0.1:{listener.getsockname()[1]}"
        assert find_listen_fault(bind) == "Address already in use"
        assert find_listen_fault(bind, is_own=True) == ""
    assert find_listen_fault(bind) == find_listen_fault("*:0") == ""
    with mock.patch("socket.socket.bind", side_effect=OSError(errno.EACCES, "no")):
        assert find_listen_fault(":80") == ""
