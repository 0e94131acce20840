"""The operator's services file: TOML, one table for each service; a wrong service is left out alone.

A service whose table is wrong goes on as it was when its table was last in force, and so do all while the file cannot
be read. Of two services that contradict each other, the one that was there before is kept.
"""

import tomllib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from serf_haproxy.services import DEFAULT_SERVICE, NAME, RESERVED
from serf_haproxy.services.options import find_misfits
from serf_haproxy.services.service import FORMS, HTTP, KEYS, TCP, Service, make_default, make_service
from serf_haproxy.settings import Settings, variable
from serf_haproxy.system.network import split_endpoint

Table = Mapping[str, Any]  # a table of the file, as TOML has it

_BINDS = ("frontend_bind", "https_bind", "stats_bind")
_HTTP_ONLY = ("routes", "cookie", "redirect_https", "hsts_max_age_s")
_KEPT = "it goes on as it was before"
_LEFT_OUT = "it is left out"
_AS_SET = "it is as the settings say"


class Source(NamedTuple):
    """Where services come from.

    Attributes:
        path: The path of the services file, for the lines about faults.
        settings: The settings, which say what a table does not.
        good: The tables that were last in force.
        inspect: Returns what is wrong with a file of certificates that a new or changed table names, "" for nothing.
        refuse: Returns why HAProxy cannot run a new or changed table as it is, "" where that is not known.
    """

    path: str
    settings: Settings
    good: Mapping[str, Table]
    inspect: Callable[[str], str] = lambda _: ""
    refuse: Callable[[str, Table], str] = lambda _name, _table: ""


class Services(NamedTuple):
    """The services that there are.

    Attributes:
        listed: The default service and those that the operator has named, sorted by name.
        faults: One line for each fault of the file.
        tables: The tables that count, by name: to be remembered when they are in force.
        are_named: Whether there is a services file: only then do the tags `svc.NAME` of members count.
    """

    listed: tuple[Service, ...] = ()
    faults: tuple[str, ...] = ()
    tables: Mapping[str, Table] = {}
    are_named: bool = False

    @property
    def names(self) -> frozenset[str]:
        """The names of all services."""
        return frozenset(service.name for service in self.listed) | {DEFAULT_SERVICE}


def read_services(
    text: str | None, path: str, settings: Settings, good: Mapping[str, Table], fault: str = ""
) -> Services:
    """Return the services that a file names.

    Args:
        text: The text of the file; None when there is none, or when it cannot be read.
        path: Its path, for the lines about faults.
        settings: The settings, which say what a table does not.
        good: The tables that were last in force.
        fault: Why the file cannot be read.
    """
    return read_from(Source(path, settings, good), text, fault)


def read_from(source: Source, text: str | None, fault: str = "") -> Services:
    """Return the services that a file names; arguments are those of `read_services`."""
    path, settings, good = source[:3]
    if text is None and not fault:
        return Services((make_default(settings),))
    faults: list[str] = []
    tables: Mapping[str, Any] = {}
    try:
        tables = good if text is None else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        fault = f"{path}: {str(error) or 'its tables are too deep'}"
    if fault:
        faults.append(f"{fault}; all services go on as they were before")
        tables = good
    services = _choose(tables, source, faults)
    # A file that could never be read has named no service.
    return services._replace(are_named=bool(good)) if fault else services


def _choose(tables: Mapping[str, Any], source: Source, faults: list[str]) -> Services:
    """Return the services of those tables that are right, and that agree with each other."""
    path, settings, good, inspect, refuse = source
    accepted: dict[str, tuple[Service, Table]] = {}
    for name in sorted(tables, key=lambda name: tables[name] != good.get(name)):  # those that were there before first
        table = tables[name]
        service, wrong = _read_table(name, table, settings)
        if service and service.tls_ca_file and table != good.get(name) and (fault := inspect(service.tls_ca_file)):
            wrong.append(f"tls_ca_file = {service.tls_ca_file}: {fault}")
        wrong = wrong or _find_conflicts(service, (other for other, _ in accepted.values()), settings)
        if not wrong and table != good.get(name) and (fault := refuse(name, table)):
            wrong = [fault]
        if wrong:
            table = good.get(name, {})
            service, still_wrong = _read_table(name, table, settings) if table else (None, ["it was never right"])
            if still_wrong or _find_conflicts(service, (other for other, _ in accepted.values()), settings):
                service = None
            what = _KEPT if service else _AS_SET if name == DEFAULT_SERVICE else _LEFT_OUT
            faults += [f"{path}: [{ascii(name)[1:-1]}] {each}; {what}" for each in wrong]
        if service:
            accepted[name] = service, table
    listed = {name: service for name, (service, _) in accepted.items()}
    listed.setdefault(DEFAULT_SERVICE, make_default(settings))
    return Services(
        tuple(listed[name] for name in sorted(listed)),
        tuple(faults),
        {name: table for name, (_, table) in sorted(accepted.items())},
        are_named=True,
    )


def _read_table(name: str, table: Any, settings: Settings) -> tuple[Service | None, list[str]]:
    """Return the service of a table, and what is wrong with it."""
    if not isinstance(table, dict):
        return None, ["must be a table: the name of a service, and its keys below"]
    if not NAME.fullmatch(name):
        return None, ["is no name of a service: a letter a-z, then up to 30 of a-z, 0-9 and dash"]
    if name in RESERVED:
        return None, ["is the name of another section of the built-in template; choose another one"]
    values, faults = {}, []
    for key, value in table.items():
        if key not in KEYS:
            faults.append(f"{ascii(key)[1:-1]}: there is no such key")
            continue
        try:
            values[key] = _read_value(key, value)
        except (ValueError, KeyError):
            shown = ascii(value)
            shown = shown if len(shown) <= 60 else f"{shown[:60]}..."
            faults.append(f"{key} = {shown}: must be {KEYS[key].metadata['kind'].allowed}")
    if faults:
        return None, faults
    values.setdefault("health", values.get("mode", HTTP))
    is_default = name == DEFAULT_SERVICE
    service = make_default(settings, **values) if is_default else make_service(name, settings, **values)
    return service, _check(service, values, settings)


def _read_value(key: str, value: Any) -> Any:
    """Return the value of a key; raise ValueError or KeyError for a wrong one."""
    metadata = KEYS[key].metadata
    allowed = FORMS[metadata["form"]]
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        raise ValueError(value)
    if isinstance(value, dict):
        if not all(type(each) is int and {"=", ","}.isdisjoint(name) for name, each in value.items()):
            raise ValueError(value)
        return metadata["kind"].read(",".join(f"{name}={each}" for name, each in value.items()))
    if not isinstance(value, list):
        return metadata["kind"].read(str(value))
    if not all(isinstance(word, (str, int)) and not isinstance(word, bool) for word in value):
        raise ValueError(value)
    return metadata["kind"].read(",".join(map(str, value)))


def _check(service: Service, values: Mapping[str, Any], settings: Settings) -> list[str]:
    """Return which keys of a service do not fit each other, or the settings."""
    faults = list(find_misfits(service))
    if values.get("redirect_https") and not settings.has_https:
        faults.append(f"redirect_https: needs the setting {variable('https_bind')}, where clients then connect")
    if service.is_default:
        remedy = f"{DEFAULT_SERVICE} is the default service, which gets what no route leads elsewhere"
        faults += [f"{key}: {remedy}" for key in ("mode", "routes", "bind", "sni", "stick") if key in values]
        return faults
    if service.mode == HTTP:
        faults += ["sni: needs mode tcp; the hosts of mode http are in routes"] * bool(service.sni)
        faults += [] if service.routes else ["routes: mode http needs at least one route"]
        faults += [f"bind: mode http has none; its clients connect at {variable('frontend_bind')}"] * bool(service.bind)
        faults += ["stick: needs mode tcp; name a cookie instead"] if service.stick else []
    if service.mode == TCP:
        faults += [] if service.bind else ["bind: mode tcp needs the address and port for its clients"]
        faults += [f"{key}: needs mode http" for key in _HTTP_ONLY if values.get(key)]
        faults += ["balance: uri needs mode http; name another algorithm"] if service.balance == "uri" else []
    return faults


def _find_conflicts(service: Service | None, others: Iterable[Service], settings: Settings) -> list[str]:
    """Return which keys of a service contradict the settings or another service."""
    if service is None:
        return []
    set_binds = {name: bind for name in _BINDS if (bind := getattr(settings, name))}
    faults = [
        f"bind = {service.bind}: {variable(name)} is there"
        for name, bind in set_binds.items()
        if service.bind and _overlap(service.bind, bind)
    ]
    others, peers_port = list(others), f":{settings.peers_port}"
    if service.stick:
        faults += [
            f"stick: {variable(name)} has the port of {variable('peers_port')}"
            for name, bind in set_binds.items()
            if _overlap(bind, peers_port)
        ]
    if service.bind and any(one.stick for one in (service, *others)) and _overlap(service.bind, peers_port):
        faults.append(f"bind = {service.bind}: {variable('peers_port')} is there")
    for other in others:
        if service.bind and other.bind and _overlap(service.bind, other.bind):
            faults += _find_shared(service, other)
        faults += [
            f"routes: {route} leads to service {other.name}" for route in service.routes if route in other.routes
        ]
    return faults


def _find_shared(service: Service, other: Service) -> list[str]:
    """Return why two services cannot share a listener: they must name different hosts there."""
    if not service.sni or not other.sni:
        remedy = f"; to share it, give sni to both, {service.name} and {other.name}" if service.sni or other.sni else ""
        return [f"bind = {service.bind}: service {other.name} is there{remedy}"]
    if service.bind != other.bind:
        return [f"bind = {service.bind}: service {other.name} is there; to share it, write {other.bind}"]
    return [f"sni: {host} leads to service {other.name}" for host in service.sni if host in other.sni]


def _overlap(one: str, other: str) -> bool:
    """Return whether two listeners would be at one address and port."""
    (one_host, one_port), (other_host, other_port) = split_endpoint(one), split_endpoint(other)
    everywhere = ("", "*", "0.0.0.0", "::")  # noqa: S104 - not a bind of ours
    return int(one_port) == int(other_port) and (
        one_host == other_host or one_host in everywhere or other_host in everywhere
    )
