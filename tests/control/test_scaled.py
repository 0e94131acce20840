"""What the autoscaler says, read from notes that may be damaged."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serf_haproxy.control.scaled import locate_notes, read_scaled
from serf_haproxy.show.scaling import find_slot, format_scaling

SHOP: dict[str, Any] = {
    "min": 1,
    "max": 4,
    "floor": 2,
    "capacity": 2.8,
    "demand": 5,
    "mean": 4.5,
    "fixed": 0,
    "wanted": 3,
    "have": 2,
    "reason": "5 requests",
    "blind": "",
    "slots": {"shop-1": "serving", "shop-2": "starting", "shop-3": "draining"},
    "counts": {"start": 3, "start done": 2, "another": 9},
}
NOTES: dict[str, Any] = {"version": 1, "at_s": 100.0, "is_deciding": True, "why": "", "services": {"shop": SHOP}}
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)


def read(directory: Path, notes: object) -> dict[str, Any]:
    """Return what is read from some notes."""
    Path(locate_notes(str(directory))).write_text(json.dumps(notes))
    return {name: one.to_json(110.0) for name, one in read_scaled(str(directory)).items()}


def test_what_is_said_is_read(tmp_path: Path) -> None:
    """Slots are counted by state, decisions and results by their words."""
    shop = read(tmp_path, NOTES)["shop"]
    assert shop["slot_counts"] == {"serving": 1, "starting": 1, "draining": 1, "stopping": 0, "failed": 0}
    assert {what: count for what, count in shop["counts"].items() if count} == {"start": 3, "start done": 2}
    assert format_scaling("shop", shop) == (
        "service shop scales: 2 of 1 to 4 servers, 2 at this time, 3 wanted (1 starting, 1 draining); "
        "5 requests at once, 2.8 for each server: 5 requests"
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"is_deciding": False, "why": "lb1 decides"}, "lb1 decides"), ({"at_s": 10.0}, "has said nothing for 100s")],
)
def test_who_decides_and_silence_are_told(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    """A balancer that does not decide says which one does; of an autoscaler that is away no old number is shown."""
    assert format_scaling("shop", read(tmp_path, NOTES | changes)["shop"]).endswith(said)


def test_a_slot_is_found_by_its_name(tmp_path: Path) -> None:
    """Also one that has not joined."""
    read(tmp_path, NOTES)
    scaled = read_scaled(str(tmp_path))
    assert (find_slot(scaled, "", "shop-2") or {})["state"] == "starting"
    assert find_slot(scaled, "api", "shop-2") is find_slot(scaled, "", "shop-9") is None


@given(key=st.sampled_from([*SHOP, *NOTES]), value=JSON)
def test_damaged_notes_are_left_out(tmp_path_factory: pytest.TempPathFactory, key: str, value: object) -> None:
    """Any value in the place of any other: the service is left out, or what is read can be shown."""
    notes = NOTES | {key: value} if key in NOTES else NOTES | {"services": {"shop": SHOP | {key: value}}}
    for name, one in read(tmp_path_factory.getbasetemp(), notes).items():
        assert format_scaling(name, one).isprintable()
        json.dumps(one, allow_nan=False)
