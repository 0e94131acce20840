"""The services of a lab: their names, the balancers' services file, the tags of nodes, and where clients connect."""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from serf_haproxy.errors import InputError
from serf_haproxy.lab.ports import TCP_COUNT
from serf_haproxy.lab.records import Balancer, Node, Record, Service
from serf_haproxy.policy.claim import tag_of
from serf_haproxy.services import DEFAULT_SERVICE, NAME, RESERVED
from serf_haproxy.services.service import HTTP, TCP

FILE_VARIABLE = "SERF_HAPROXY_SERVICES_FILE"
TCP_NAMES = ("echo", "mysql", "pg", "redis", "smtp")  # without a mode, services of these names are TCP
_NODE_COUNT = 100  # of one service
_MAXCONN = 4  # requests that a server of a service that scales takes at once
_QUEUE_S = 60  # they wait for servers that start, also where this machine has too much to do to start them soon
_PATHS = ("delay", "health", "idle", "retire")  # the web application's own paths, which a route would take away
_WISH = re.compile(r"([^=:]*)=([0-9]{1,4})(?::(http|tcp))?", re.ASCII)
_FORM = "must be NAME=COUNT or NAME=COUNT:MODE with the mode http or tcp, separated by commas"


class Wish(NamedTuple):
    """A service that a user wants: its name, its mode, the number of its nodes, how many more the load may start."""

    name: str
    mode: str
    node_count: int
    most: int = 0


class NodeOptions(NamedTuple):
    """What a user may say of a new node: its service (None: the default one), its application's port, more tags."""

    service: str | None = None
    port: int | None = None
    tags: Mapping[str, str] = {}


def read_wishes(text: str) -> list[Wish]:
    """Return the services in a text like `shop=3,api=2,pg=2`.

    Raises:
        InputError: A name, number or mode is wrong, or two services or nodes would have one name.
    """
    wishes: dict[str, Wish] = {}
    owners: dict[str, str] = {}
    for word in text.split(","):
        found = _WISH.fullmatch(word.strip())
        if not found or int(found[2]) > _NODE_COUNT:
            limit = f"at most {_NODE_COUNT} nodes" if found else _FORM
            raise InputError(f"--services {word.strip()!a}: {limit}")
        name = check_name(found[1])
        if name in wishes:
            raise InputError(f"--services: {name} is there twice; give each service once")
        wishes[name] = Wish(name, found[3] or (TCP if name in TCP_NAMES else HTTP), int(found[2]))
        for node in name_nodes(wishes[name]):
            if owners.setdefault(node, name) != name:
                raise InputError(f"--services: {owners[node]} and {name} both have a node {node}; rename one of them")
    if sum(wish.mode == TCP for wish in wishes.values()) > TCP_COUNT:
        raise InputError(f"--services {text!a}: a lab has ports for {TCP_COUNT} services of mode tcp")
    return list(wishes.values())


def add_scales(wishes: Sequence[Wish], text: str) -> list[Wish]:
    """Return services with what a text like `shop=5` says: how many servers of each the autoscaler may start.

    Raises:
        InputError: A number is wrong, or there is no such service.
    """
    scales = {}
    for word in filter(None, text.split(",")):
        name, sign, number = word.strip().partition("=")
        if not sign or not (number.isascii() and number.isdecimal() and 0 < int(number) <= _NODE_COUNT):
            raise InputError(f"--scale {word.strip()!a}: must be NAME=MAX, with a number from 1 to {_NODE_COUNT}")
        if name not in [wish.name for wish in wishes]:
            raise InputError(f"--scale {name!a}: --services names no such service")
        scales[name] = int(number)
    return [wish._replace(most=scales.get(wish.name, 0)) for wish in wishes]


def check_name(name: str) -> str:
    """Return the name of a service of a lab.

    Raises:
        InputError: It cannot have this name.
    """
    if not NAME.fullmatch(name):
        fault = "a name is a letter a-z, then up to 30 of a-z, 0-9 and dash"
    elif name == DEFAULT_SERVICE:
        fault = "is the default service; --nodes is the number of its nodes"
    elif name in RESERVED:
        fault = "is the name of a section of the built-in template; choose another"
    elif name in _PATHS:
        fault = "is a path of the web application; choose another"
    elif name == "lb":
        fault = "its nodes would have names of balancers; choose another"
    else:
        return name
    raise InputError(f"--services: service {name!a}: {fault}")


def name_nodes(wish: Wish) -> list[str]:
    """Return the names of a service's first nodes, such as shop1, shop2; in the default service web1, web2."""
    stem = "web" if wish.name == DEFAULT_SERVICE else wish.name
    return [f"{stem}{number}" for number in range(1, wish.node_count + 1)]


def plan_services(record: Record, wishes: Sequence[Wish]) -> None:
    """Enter services into the record of a lab, those of mode tcp with a port of their own on every balancer."""
    tcp_ports = iter(record.ports.tcp)
    for wish in wishes:
        port = next(tcp_ports) if wish.mode == TCP else 0
        record.services[wish.name] = Service(wish.name, wish.mode, port, wish.most)


def find_service(record: Record, name: str | None) -> str:
    """Return the service of a new node; None names the default service.

    Raises:
        InputError: The lab has no service of this name.
    """
    if name not in (None, DEFAULT_SERVICE, *record.services):
        known = ", ".join([DEFAULT_SERVICE, *record.services])
        remedy = "name one of these, or start a lab with `lab up --services`"
        raise InputError(f"--service {name!a}: the lab at {record.lab_dir} has {known}; {remedy}")
    return name or DEFAULT_SERVICE


def make_tags(record: Record, service: str, port: int) -> dict[str, str]:
    """Return the tags of a new node that offers one service."""
    if service == DEFAULT_SERVICE:
        return {"role": "web", "port": str(port)}
    return {"role": "web" if record.services[service].mode == HTTP else TCP, tag_of(service): str(port)}


def change_port(node: Node, port: int | None) -> dict[str, str]:
    """Return the tag that changes for another port; None changes nothing. Options in a tag `svc.NAME` stay."""
    if port is None:
        return {}
    if node.service == DEFAULT_SERVICE:
        return {"port": str(port)}
    tag = tag_of(node.service)
    return {tag: ":".join([str(port), *node.tags.get(tag, "").split(":")[1:]])}


def offers_another(node: Node) -> bool:
    """Return whether the tags of a node, which a user may change, offer its service no more."""
    if node.service != DEFAULT_SERVICE:
        return tag_of(node.service) not in node.tags
    return "port" not in node.tags and any(tag.startswith(tag_of("")) for tag in node.tags)


def may_get_no_request(node: Node) -> bool:
    """Return whether the tags of a node that is served may keep requests away from it."""
    options = node.tags.get(tag_of(node.service), "").split(":")[1:]
    short = node.tags.get("weight") == "0" or node.tags.get("drain") == "true"
    return short or not {"w0", "drain", "backup"}.isdisjoint(options)


def write_file(record: Record, balancer: Balancer) -> str:
    """Return the text of the services file of a balancer."""
    tables = [
        "# Written by `serf-haproxy lab up`. The daemon follows your changes; docs/reference/services.md has all keys."
    ]
    for service in record.services.values():
        name = service.name
        if service.mode == TCP:
            tables.append(f'[{name}]\nmode = "tcp"\nbind = "{balancer.address}:{service.port}"')
        else:
            tables.append(f'[{name}]\nroutes = ["/{name}", "{name}.localhost"]')
        if service.most:
            limits = f"server_maxconn = {_MAXCONN}\nqueue_timeout_s = {_QUEUE_S}"
            tables[-1] += f"\n{limits}\n\n{_write_scale(record, service)}"
    return "\n\n".join(tables) + "\n"


def _write_scale(record: Record, service: Service) -> str:
    """Return the table by which a service scales, with nodes of the lab."""
    program = [sys.executable, "-P", "-m", "serf_haproxy", "lab"]
    where = ["--dir", record.lab_dir]
    keys = {
        "executor": "command",
        "max": service.most,
        "in_window_s": 10,
        "list": [*program, "slots", *where],
        "start": [*program, "fill", "{slot}", "--service", service.name, *where],
        "stop": [*program, "empty", "{slot}", *where],
    }
    return "\n".join([f"[{service.name}.scale]", *(f"{key} = {json.dumps(value)}" for key, value in keys.items())])


def locate(record: Record, balancer: Balancer, service: str) -> str:
    """Return where clients reach a service through a balancer: a URL, or address:port for mode tcp."""
    known = record.services.get(service)
    if known and known.mode == TCP:
        return f"{balancer.address}:{known.port}"
    url = f"http://{balancer.address}:{record.ports.frontend}"
    return f"{url}/{service}" if known else url
