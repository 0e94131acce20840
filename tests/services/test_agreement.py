"""The schema and the reader of the services file agree about generated files."""

from typing import Any

import jsonschema
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from serf_haproxy.services.file import Source, read_from
from serf_haproxy.services.scaling import SCALE_KEYS
from serf_haproxy.services.schema import make_schema
from serf_haproxy.services.service import KEYS, LIST, NUMBER, TABLE, TRUTH
from serf_haproxy.settings import Settings
from serf_haproxy.system.network import read_networks

VALIDATOR = jsonschema.Draft202012Validator(make_schema())
SETTINGS = Settings(https_bind=":443", trusted_proxies=read_networks("10.0.0.0/8"))  # which a schema cannot know
ASCII = st.characters(codec="ascii", exclude_characters="\n")
COMMANDS = {"executor": "command", "max": 2, "start": ["a", "{slot}"], "stop": ["b", "{number}"], "list": ["c"]}
# Keys whose values a schema describes only roughly: it cannot count, nor know which networks there are.
ROUGH: dict[str, list[str]] = {
    "bind": [":5432", "*:99", "10.0.0.1:5432", "[::1]:5432", "", "5432", "host:1", ":", ":1 ", "::1:5432:x"],
    "networks": ["10.0.0.0/8", "fd00::/8,10.0.0.1", "", "all", "10.0.0.0/8;", "x"],
    "ports": ["80", "80,8000-8999", "", "http", "80;81"],
    "health_status": ["200", "200-299,301", "", "2xx", "200,", ",200", "600", "200 201"],
}
ROUGH |= dict.fromkeys(("client_networks", "trusted_proxies", "addr_networks"), ROUGH["networks"])


SCALE: dict[str, Any] = {"executor": "docker", "max": 3, "template": "shop"}
PEAKS = [["Mon-Fri 08:00-18:00 min 2"], ["Sat,Sun 20:00-02:00 min 1", "daily 00:00-24:00 min 1"], ["Mon 8-9 min 2"]]
ARGUMENTS = [
    *PEAKS,
    ["run", "{slot}"],
    ["run", "x{number}"],
    ["run"],
    [],
    ["{slot}", 7],
    ["{slot}", ""],
    "run {slot}",
    True,
]
SCALES = (
    st.dictionaries(
        st.sampled_from([*SCALE_KEYS, "maximum"]),
        st.sampled_from(
            [
                *ARGUMENTS,
                "command",
                "docker",
                "compose",
                "systemd",
                "app@",
                "a",
                "/run/x.sock",
                "UTC",
                "Europe/Berlin",
                0,
                1,
                1.0,
                2.5,
            ]
        ),
        max_size=3,
    )
    .filter(lambda changes: not {"sticky_s", "drain_limit_s"} <= changes.keys())
    .filter(lambda changes: not {"peaks", "max"} <= changes.keys())
    .flatmap(
        lambda changes: st.sampled_from(
            [SCALE | changes, changes, COMMANDS | changes, {"executor": "compose", "project": "p", "max": 2} | changes]
        )
    )
)


def _make_text(key: str) -> st.SearchStrategy[str]:
    """Return texts for a key, many of which are right."""
    if key in ROUGH:
        return st.sampled_from(ROUGH[key])
    schema = KEYS[key].metadata["kind"].schema
    right = st.sampled_from(schema["enum"]) if "enum" in schema else st.from_regex(schema["pattern"], alphabet=ASCII)
    # A `$` of Python matches before a line feed too, unlike one of JSON Schema.
    right = right.filter(lambda text: len(text) < 200 and "\n" not in text)
    broken = st.tuples(right, st.sampled_from([*",/ .#*", "a", ""]), right).map("".join)
    return st.one_of(right, right, broken, st.text(ASCII, max_size=8))


def _make_value(key: str) -> st.SearchStrategy[Any]:
    """Return values for a key, many of which are right."""
    metadata = KEYS[key].metadata
    form, schema = metadata["form"], metadata["kind"].schema
    if form == TRUTH:
        return st.sampled_from([True, False, True, False, 0, "true"])
    if key == "scale":
        return SCALES
    if form == TABLE:
        versions = st.sampled_from(["v1", "v2", "v2.1", "one", "v", "V1", "v1,v2"])
        whole = st.sampled_from([{"v1": 95, "v2": 5}, {"v1": 100}, {"v1": 100.0}, {}, "v1=100", ["v1"]])
        wrong = st.dictionaries(versions, st.sampled_from([101, -1, 0.5, True, "1"]), min_size=1)
        return st.one_of(whole, wrong)
    if form == NUMBER:
        low, high = schema["minimum"], schema["maximum"]
        edges = st.sampled_from([low, high, low - 1, high + 1, float(low), float(high), low + 0.5, "1", True, [1]])
        return st.one_of(edges, st.integers(int(low), int(high)), st.floats(low, high))
    text = _make_text(key)
    if form == LIST:
        words = st.one_of(text, st.sampled_from([80, 8000.0, True, 1.5]) if key == "ports" else text)
        return st.one_of(text, st.lists(words, max_size=3))
    return st.one_of(text, st.sampled_from([7, True]))


VALUES = {key: _make_value(key) for key in KEYS}
MODES: dict[str, dict[str, Any]] = {
    "shop": {"routes": ["shop.test"]},
    "pg": {"mode": "tcp", "bind": ":5432"},
    "nodes": {},
}
TABLES = st.sampled_from(sorted(MODES)).flatmap(
    lambda name: st.tuples(
        st.just(name),
        st.lists(st.sampled_from(sorted(KEYS)), max_size=4, unique=True).flatmap(
            lambda keys: st.fixed_dictionaries({key: VALUES[key] for key in keys})
        ),
    )
)


def is_accepted(name: str, table: dict[str, Any]) -> list[str]:
    """Return what the reader says against a table."""
    return list(read_from(Source("services.toml", SETTINGS, {name: table}), None, "read as it was").faults[1:])


@pytest.mark.parametrize("name", sorted(MODES))
def test_the_tables_that_are_varied_are_right(name: str) -> None:
    """Both accept what the generated tables begin with."""
    assert is_accepted(name, MODES[name]) == []
    assert list(VALIDATOR.iter_errors({name: MODES[name]})) == []


@given(TABLES)
@example(("shop", {"retries": 3.0}))
@example(("shop", {"retries": 3.5}))
@example(("shop", {"routes": "a.test,"}))
@example(("shop", {"routes": ["a.test", "/"]}))
@example(("shop", {"forwarded_for": "append"}))
@example(("shop", {"forwarded_for": "append", "trusted_proxies": []}))
@example(("shop", {"ports": ["", ""]}))
@example(("shop", {"roles": [""]}))
@example(("pg", {"redirect_https": False}))
@example(("shop", {"scale": SCALE}))
@example(("shop", {"scale": SCALE, "server_maxconn": 10}))
@example(("shop", {"scale": COMMANDS, "server_maxconn": 10}))
@example(("shop", {"scale": SCALE | {"min": 0}, "server_maxconn": 10}))
@example(("pg", {"scale": SCALE | {"min": 0}, "server_maxconn": 10}))
@example(("pg", {"scale": SCALE | {"start": ["{slot}"]}, "server_maxconn": 10}))
@example(("shop", {"scale": "docker", "server_maxconn": 10}))
def test_the_schema_accepts_what_the_reader_accepts(described: tuple[str, dict[str, Any]]) -> None:
    """A generated table is valid if, and only if, the reader finds no fault in it."""
    name, changes = described
    table = MODES[name] | changes
    said = is_accepted(name, table)
    errors = [error.message for error in VALIDATOR.iter_errors({name: table})]
    assert (said == []) is (errors == []), (table, said, errors)
