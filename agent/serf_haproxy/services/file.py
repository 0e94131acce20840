"""The operator's services file: TOML, one table for each service; a wrong service is left out alone.

A service whose table is wrong goes on as it was when its table was last in force, and so do all while the file cannot
be read, is missing or has no table. Of two services that contradict each other, the one that was there before is kept.
"""

import tomllib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from serf_haproxy.services import DEFAULT_SERVICE, NAME, RESERVED
from serf_haproxy.services.conflicts import find_conflicts
from serf_haproxy.services.options import NOT_OF_DEFAULT, find_misfits
from serf_haproxy.services.scaling import read_scale
from serf_haproxy.services.service import HTTP, KEYS, Service, make_default, make_service
from serf_haproxy.services.values import name_wrong, read_value
from serf_haproxy.settings import Settings, variable

Table = Mapping[str, Any]  # a table of the file, as TOML has it
_Form = tuple[Service, Table]  # what a service may be

_KEPT = "it goes on as it was before"
_LEFT_OUT = "it is left out"
_AS_SET = "it is as the settings say"


class Source(NamedTuple):
    """Where services come from.

    Attributes:
        path: The path of the services file, for the lines about faults.
        settings: The settings, which say what a table does not.
        good: The tables that were last in force, by name.
        inspect: Returns what is wrong with a file of certificates that a new or changed table names, "" for nothing.
        refuse: Returns why a new or changed table whose values are right cannot count, "" where that is not known.
    """

    path: str
    settings: Settings
    good: Mapping[str, Table] = {}
    inspect: Callable[[str], str] = lambda _: ""
    refuse: Callable[[str, Table], str] = lambda _name, _table: ""


class Announced(NamedTuple):
    """Services that members announce and the operator has not named; none unless a setting allows them.

    Attributes:
        seen_s: When a member last announced each, by name, seconds since the epoch.
        changed_at_s: When the names last changed, seconds since the epoch.
        changes_in_s: After how many seconds they may change without news; None for never.
        refused: Why others that members announce are not served, by name.
    """

    seen_s: Mapping[str, float] = {}
    changed_at_s: float = 0.0
    changes_in_s: float | None = None
    refused: Mapping[str, str] = {}


class Services(NamedTuple):
    """The services that there are.

    Attributes:
        listed: The default service and those that the operator has named, sorted by name.
        faults: One line for each fault of the file.
        tables: The tables that count, by name: to be remembered when they are in force.
        are_named: Whether there is a services file: only then do the tags `svc.NAME` of members count.
        claimed: The names of all tables, right or wrong: the operator has them.
        announced: Services that members announce; `listed` has them too.
    """

    listed: tuple[Service, ...] = ()
    faults: tuple[str, ...] = ()
    tables: Mapping[str, Table] = {}
    are_named: bool = False
    claimed: frozenset[str] = frozenset()
    announced: Announced = Announced()

    @property
    def measured(self) -> Mapping[str, bool]:
        """The names of those with measured weights, and whether a split shares their requests between versions."""
        return {service.name: bool(service.split) for service in self.listed if service.is_measured}

    @property
    def names(self) -> frozenset[str]:
        """The names of all services."""
        return frozenset(service.name for service in self.listed) | {DEFAULT_SERVICE}


def read_from(source: Source, text: str | None, fault: str = "") -> Services:
    """Return the services that a file names.

    Args:
        source: Where they come from.
        text: The text of the file; None when there is none, or when it cannot be read.
        fault: Why the file cannot be read.
    """
    path, settings, good = source[:3]
    faults: list[str] = []
    tables: Mapping[str, Any] = {}
    try:
        tables = good if text is None else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        fault = f"{path}: {str(error) or 'its tables are too deep'}"
    if not fault and (text is None or not tables) and good.keys() - {DEFAULT_SERVICE}:
        # A full disk or a copy that was broken off leaves such a file, which must not end all services.
        fault = f"{path} {'is missing' if text is None else 'has no table'}; to end all services, write [nodes] into it"
    if text is None and not fault:
        return Services((make_default(settings),))
    if fault:
        faults.append(f"{fault}; all services go on as they were before")
        tables = good
    services = _choose(tables, source, faults)
    # A file that could never be read has named no service.
    return services._replace(are_named=bool(good)) if fault else services


def _choose(tables: Mapping[str, Any], source: Source, faults: list[str]) -> Services:
    """Return the services of those tables that are right, and that agree with each other.

    A table that is wrong, or contradicts one that was there before, gives way to its last good form, which was there
    before too: then the others are looked at again.
    """
    forms, wrong = {}, {}
    for name, table in tables.items():
        forms[name], wrong[name] = _list_forms(name, table, source)
    while contradiction := _find_contradiction(forms, source):
        name, faults_found = contradiction
        del forms[name][0]
        wrong[name] += faults_found
    accepted = {name: found[0] for name, found in forms.items() if found}
    for name in tables:
        what = _KEPT if name in accepted else _AS_SET if name == DEFAULT_SERVICE else _LEFT_OUT
        faults += [f"{source.path}: [{ascii(name)[1:-1]}] {each}; {what}" for each in wrong[name]]
    listed = {name: service for name, (service, _) in accepted.items()}
    listed.setdefault(DEFAULT_SERVICE, make_default(source.settings))
    return Services(
        tuple(listed[name] for name in sorted(listed)),
        tuple(faults),
        {name: table for name, (_, table) in sorted(accepted.items())},
        are_named=True,
        claimed=frozenset(tables),
    )


def _list_forms(name: str, table: Any, source: Source) -> tuple[list[_Form], list[str]]:
    """Return what a service may be, the form of the file first if it is right, and what is wrong with that."""
    good = source.good.get(name)
    service, wrong = _read_table(name, table, source.settings)
    if service and service.tls_ca_file and table != good and (fault := source.inspect(service.tls_ca_file)):
        wrong.append(f"tls_ca_file = {service.tls_ca_file}: {fault}")
    if service and not wrong and table != good and (fault := source.refuse(name, table)):
        wrong.append(fault)
    forms = [(service, table)] if service and not wrong else []
    if good is not None and good != table:
        former, still_wrong = _read_table(name, good, source.settings)
        forms += [(former, good)] if former and not still_wrong else []
    return forms, wrong


def _find_contradiction(forms: Mapping[str, list[_Form]], source: Source) -> tuple[str, list[str]] | None:
    """Return the name of a service that has to give way, and why; None when all agree."""
    accepted: dict[str, Service] = {}
    if DEFAULT_SERVICE not in forms or not forms[DEFAULT_SERVICE]:
        accepted[DEFAULT_SERVICE] = make_default(source.settings)

    def rank(name: str) -> tuple[bool, bool, str]:
        is_changed = forms[name][0][1] != source.good.get(name)
        return is_changed, name not in source.good, name

    for name in sorted((name for name, found in forms.items() if found), key=rank):  # those that were there first
        service = forms[name][0][0]
        if faults := find_conflicts(service, accepted.values(), source.settings):
            return name, faults
        accepted[name] = service
    return None


def _read_table(name: str, table: Any, settings: Settings) -> tuple[Service | None, list[str]]:
    """Return the service of a table, and what is wrong with it."""
    if not isinstance(table, dict):
        return None, ["must be a table: the name of a service, and its keys below"]
    if not NAME.fullmatch(name):
        return None, ["is no name of a service: a letter a-z, then up to 30 of a-z, 0-9 and dash"]
    if name in RESERVED:
        return None, ["is the name of another section of the built-in template; choose another one"]
    values: dict[str, Any] = {}
    faults = []
    for key, value in table.items():
        if key not in KEYS:
            faults.append(f"{ascii(key)[1:-1]}: there is no such key")
            continue
        if key == "scale":
            values[key], wrong = read_scale(value, name)
            faults += wrong
            continue
        try:
            values[key] = read_value(key, value)
        except (ValueError, KeyError):
            faults.append(f"{name_wrong(key, value)}: must be {KEYS[key].metadata['kind'].allowed}")
    if faults:
        return None, faults
    values.setdefault("health", values.get("mode", HTTP))
    is_default = name == DEFAULT_SERVICE
    service = make_default(settings, **values) if is_default else make_service(name, settings, **values)
    return service, _check(service, values, settings)


def _check(service: Service, values: Mapping[str, Any], settings: Settings) -> list[str]:
    """Return which keys of a service do not fit each other, or the settings."""
    said = f"{DEFAULT_SERVICE} is the default service, which gets what no route leads elsewhere"
    faults = [f"{key}: {said}" for key in NOT_OF_DEFAULT if service.is_default and key in values]
    faults += find_misfits(service)
    if service.scale and not service.scale.min and service.mode != HTTP:
        faults.append("scale.min = 0: needs mode http, whose requests can wait while there is no server")
    if values.get("redirect_https") and not (settings.https_bind or service.forwarded_for == "append"):
        faults.append(f"redirect_https: needs the setting {variable('https_bind')}, where clients then connect")
    return faults
