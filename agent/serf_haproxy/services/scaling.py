"""How a service scales, as the operator describes it: the table `scale` of a service, and what its keys allow."""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

from serf_haproxy.services.peaks import PATTERN, UTC, Peak, find_zone, read_peaks
from serf_haproxy.system import kinds
from serf_haproxy.system.kinds import Kind

COMMAND, DOCKER, COMPOSE, SYSTEMD = "command", "docker", "compose", "systemd"
NUMBER, TEXT, LIST = "number", "text", "list"
SLOT, PLACE = "{slot}", "{number}"  # what an argument may have: the name of a slot, and its number

_ARGUMENT = re.compile(r"[^\x00]{1,4096}")
_SLOTS = kinds.match("up to 40 of a-z, 0-9 and dash, the first no dash; numbers follow", "[a-z0-9][a-z0-9-]{0,39}")
_NAME = kinds.match("up to 128 letters, digits, dots, dashes and underscores", "[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_UNIT = kinds.match("the name of a template unit, such as app@", "[A-Za-z0-9_.-]{1,100}@")
_ARGUMENTS = Kind("a list: a program and its arguments, without a shell", tuple)
_PEAKS = Kind("a list of texts such as Mon-Fri 08:00-18:00 min 6", read_peaks, {"pattern": f"^(?:{PATTERN})$"})
_ZONE = kinds.match("UTC, or a name such as Europe/Berlin", "UTC|[A-Za-z]{1,30}(?:/[A-Za-z0-9_+-]{1,40}){1,2}")


def _key(kind: Kind, default: Any, form: str, doc: str, otherwise: str = "") -> Any:
    shown = f"{default:g}" if form == NUMBER and default is not None else default or "none"
    metadata = {"kind": kind, "form": form, "doc": f"{doc}; default: {otherwise or shown}"}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True, slots=True)
class Scale:
    """How a service scales; the metadata of each field holds its kind, form and meaning."""

    executor: str = _key(
        kinds.choose(COMMAND, DOCKER, COMPOSE, SYSTEMD), "", TEXT, "what starts and stops servers", "none; needed"
    )
    max: int = _key(kinds.count(1, 1000), 0, NUMBER, "most servers that may be started", "none; needed")
    min: int = _key(kinds.count(0, 1000), 1, NUMBER, "fewest servers that stay started")
    peaks: tuple[Peak, ...] = _key(
        _PEAKS,
        (),
        LIST,
        "times of the week with more servers than min: days, Mon to Sun or daily, and times of the day",
    )
    time_zone: str = _key(_ZONE, UTC, TEXT, "the time zone of peaks")
    slots: str = _key(
        _SLOTS, "", TEXT, "how the names of servers and of their nodes begin", "the service's name and a dash"
    )
    target: float = _key(kinds.number(0.1, 1), 0.7, NUMBER, "the part of server_maxconn that servers are used to")
    out_window_s: float = _key(
        kinds.seconds(1, 60), 3.0, NUMBER, "servers are added for the greatest demand of this time"
    )
    in_window_s: float = _key(
        kinds.seconds(10, 3600), 60.0, NUMBER, "one is taken away if the greatest demand of this time allows it"
    )
    cooldown_s: float = _key(
        kinds.seconds(0, 3600), 10.0, NUMBER, "least time from a change to the next server that is taken away"
    )
    zero_after_s: float = _key(
        kinds.seconds(10, 86400), 300.0, NUMBER, "time without a request after which the last one goes, with min = 0"
    )
    start_limit_s: float = _key(
        kinds.seconds(1, 3600),
        120.0,
        NUMBER,
        "a server that is not in service by then is stopped; longer than any start",
    )
    drain_limit_s: float | None = _key(
        kinds.seconds(1, 86400),
        None,
        NUMBER,
        "longest time that a server may finish its requests before it is stopped",
        "60, and 600 for a service with sticky clients",
    )
    sticky_s: float | None = _key(
        kinds.seconds(0, 86400),
        None,
        NUMBER,
        "least time that a server which is to be stopped stays for the clients that it has",
        "0, and 300 for a service with sticky clients",
    )
    act_limit_s: float = _key(
        kinds.seconds(1, 3600), 60.0, NUMBER, "longest time that the executor may take to start or stop one"
    )
    start: tuple[str, ...] = _key(
        _ARGUMENTS, (), LIST, "executor command: starts the server {slot}, whose number is {number}"
    )
    stop: tuple[str, ...] = _key(
        _ARGUMENTS, (), LIST, "executor command: lets the server {slot} leave, finish and end, or do nothing if it has"
    )
    list: tuple[str, ...] = _key(
        _ARGUMENTS, (), LIST, "executor command: prints one line for each server that it has started: its name"
    )
    socket: str = _key(
        kinds.PATH, "/var/run/docker.sock", TEXT, "executors docker and compose: the socket of Docker or Podman"
    )
    template: str = _key(
        _NAME, "", TEXT, "executor docker: the container of which each server is a copy; it need not run"
    )
    project: str = _key(_NAME, "", TEXT, "executor compose: the project")
    container: str = _key(
        _NAME,
        "",
        TEXT,
        "executor compose: the service of the project whose containers are copied",
        "the service's name",
    )
    unit: str = _key(_UNIT, "", TEXT, "executor systemd: the template unit, whose instances are the numbers")


SCALE_KEYS = {field.name: field for field in dataclasses.fields(Scale)}
_NEEDED = {
    COMMAND: ("start", "stop", "list"),
    DOCKER: ("template",),
    COMPOSE: ("project",),
    SYSTEMD: ("unit",),
}
SPECIAL = {  # keys of some executors alone
    "start": (COMMAND,),
    "stop": (COMMAND,),
    "list": (COMMAND,),
    "socket": (DOCKER, COMPOSE),
    "template": (DOCKER,),
    "project": (COMPOSE,),
    "container": (COMPOSE,),
    "unit": (SYSTEMD,),
}


def is_shared(slots: str, other: str) -> bool:
    """Return whether two beginnings of names of servers, each with a number, can give one name."""
    short, long = sorted((slots, other), key=len)
    return re.fullmatch(re.escape(short) + "[0-9]*", long) is not None


def list_needed(executor: str) -> tuple[str, ...]:
    """Return the keys that an executor needs, with those that each table needs."""
    return ("executor", "max", *_NEEDED.get(executor, ()))


def read_scale(table: Any, service: str) -> tuple[Scale | None, list[str]]:
    """Return how a service scales, and what is wrong with the table that says it, each with its key first.

    Args:
        table: The table, as TOML has it.
        service: The service's name.
    """
    if not isinstance(table, dict):
        return None, [f"scale: must be a table: [{service}.scale], and its keys below"]
    values: dict[str, Any] = {}
    faults = []
    for key, value in table.items():
        if key not in SCALE_KEYS:
            faults.append(f"scale.{ascii(key)[1:-1]}: there is no such key")
            continue
        try:
            values[key] = _read(key, value)
        except (ValueError, KeyError, TypeError):
            shown = ascii(value)
            shown = shown if len(shown) <= 60 else f"{shown[:60]}..."
            faults.append(f"scale.{key} = {shown}: must be {SCALE_KEYS[key].metadata['kind'].allowed}")
    if faults:
        return None, faults
    faults = [f"scale.{fault}" for fault in _find_misfits(values)]
    named = {"slots": f"{service}-"} | ({"container": service} if values.get("executor") == COMPOSE else {})
    return (None if faults else Scale(**(named | values))), faults


def _read(key: str, value: Any) -> Any:
    kind, form = (SCALE_KEYS[key].metadata[name] for name in ("kind", "form"))
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if form == LIST:
        if not isinstance(value, list) or not 0 < len(value) <= 100:
            raise ValueError(value)
        if not all(isinstance(word, str) and _ARGUMENT.fullmatch(word) for word in value):
            raise ValueError(value)
        return kind.read(value)
    if isinstance(value, bool) or not isinstance(value, str if form == TEXT else (int, float)):
        raise TypeError(value)
    return kind.read(str(value))


def _find_misfits(values: Mapping[str, Any]) -> Iterator[str]:
    executor = values.get("executor", "")
    for key in list_needed(executor):
        if key not in values:
            why = f"executor {executor} needs it" if key in SPECIAL else "it is needed"
            yield f"{key}: {why}: {SCALE_KEYS[key].metadata['kind'].allowed}"
    for key, executors in SPECIAL.items():
        if executor and key in values and executor not in executors:
            yield f"{key}: executor {executor} has no such key; it is one of {' and '.join(executors)}"
    for key in ("start", "stop"):
        if key in values and not any(SLOT in word or PLACE in word for word in values[key]):
            yield f"{key}: one of its arguments must contain {SLOT} or {PLACE}"
    if "max" in values and values["max"] < values.get("min", 1):
        yield f"max = {values['max']}: must be at least min, which is {values.get('min', 1)}"
    yield from _find_misfit_peaks(values)
    if "drain_limit_s" in values and values.get("sticky_s", 0) > values["drain_limit_s"]:
        yield f"sticky_s = {values['sticky_s']:g}: must be at most drain_limit_s, which is {values['drain_limit_s']:g}"


def _find_misfit_peaks(values: Mapping[str, Any]) -> Iterator[str]:
    most = max((peak.least for peak in values.get("peaks", ())), default=0)
    if most > values.get("max", most):
        yield f"peaks: min {most}: must be at most max, which is {values['max']}"
    zone = values.get("time_zone", UTC)
    try:
        find_zone(zone)
    except ValueError as error:
        yield f"time_zone = {zone}: {error}; install the package tzdata"
