"""What a member says of itself in one service: its claim. Pure.

In the default service that is the tags `port`, `weight` and `drain`; in any service, where the operator has named some:

    svc.NAME = PORT[:OPTION]*      OPTION = wWEIGHT | vVERSION | drain | backup

for example `svc.shop=8080` or `svc.pg=5432:w50:backup`. A tag `addr` names another address for all its servers, where
the application is. Everything here comes from the network.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from serf_haproxy.policy.address import HostAddress, read_address, shorten
from serf_haproxy.serf.events import Member, unescape
from serf_haproxy.services import DEFAULT_SERVICE, NAME, VERSION

WEIGHT_MAX = 256  # HAProxy's own limit
ADDRESS_TAG = "addr"

_PREFIX = "svc."
_LITERAL = re.compile(r"[0-9A-Fa-f.:]+", re.ASCII)
_PORT = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)
_WEIGHT = re.compile(r"w(0|[1-9][0-9]{0,2})", re.ASCII)
_SHORT_FORM = ("port", "weight", "drain")


class Claim(NamedTuple):
    """What a member says of itself in one service.

    Attributes:
        port: 1 to 65535; None where it says none.
        weight: 0 to 256, None for HAProxy's default.
        is_drained: Whether it is to get no new clients.
        is_backup: Whether it serves only while no other server is up.
        version: The version of its application, "" for none.
    """

    port: int | None
    weight: int | None
    is_drained: bool = False
    is_backup: bool = False
    version: str = ""

    @property
    def signed(self) -> str:
        """What a proof covers of a tag `svc.NAME`: all but weight and drain, in one order."""
        return ":".join([str(self.port), *([self.version] if self.version else []), *(["backup"] * self.is_backup)])


def tag_of(service: str) -> str:
    """Return the tag by which a member offers a service."""
    return _PREFIX + service


def list_offers(member: Member) -> tuple[str, ...]:
    """Return the services that a member offers where the operator has named services, sorted.

    A tag `svc.NAME` offers a service; a tag with an improper name offers none. The default service is offered by each
    member that says its port, or that has no tag of this kind at all.
    """
    tags = member.tag_values()
    said = [key[len(_PREFIX) :] for key in tags if key.startswith(_PREFIX)]
    names = {name for name in said if NAME.fullmatch(name)}
    if "port" in tags or not said:
        names.add(DEFAULT_SERVICE)
    return tuple(sorted(names))


def find_place(member: Member, service: str) -> tuple[str, str | None, str]:
    """Return what says where a member's server in a service is, right or wrong: address and ports."""
    tags = member.tag_values()
    port = tags.get("port") if service == DEFAULT_SERVICE else None
    return find_address(member), port, tags.get(tag_of(service), "").partition(":")[0]


def find_address(member: Member) -> str:
    """Return where a member says that its servers are, right or wrong: by its tag `addr`, else its own address."""
    return member.tag_values().get(ADDRESS_TAG, member.address)


def read_announced(member: Member) -> HostAddress | None:
    """Return the address that a member announces by its tag `addr`; None without one.

    Raises:
        ValueError: It is no literal IP address of one host.
    """
    text = member.tag_values().get(ADDRESS_TAG)
    if text is None:
        return None
    if not _LITERAL.fullmatch(text):
        raise ValueError(f"tag {ADDRESS_TAG}={shorten(text)} is not an IP address")
    try:
        return read_address(text)
    except ValueError as error:
        raise ValueError(f"tag {ADDRESS_TAG}: {error}") from None


def read_claim(member: Member, service: str, are_named: bool) -> Claim:
    """Return what a member says of itself in a service.

    Args:
        member: The member.
        service: The service's name.
        are_named: Whether the operator has named services: else no tag `svc.NAME` counts.

    Raises:
        ValueError: It is wrong; the text says which tag, and what is allowed.
    """
    tags = member.tag_values()
    key = tag_of(service)
    if not are_named or (service == DEFAULT_SERVICE and key not in tags):
        return _read_short_form(tags)
    if key not in tags:
        raise ValueError(f"it has no tag {key}")
    if service == DEFAULT_SERVICE and (double := [short for short in _SHORT_FORM if short in tags]):
        raise ValueError(f"tags {key} and {double[0]} both describe this service; remove one")
    if sum(unescape(tag.partition("=")[0]) == key for tag in member.tags) > 1:
        raise ValueError(f"tag {key} is there more than once")
    return read_value(key, tags[key])


def read_value(key: str, text: str) -> Claim:
    """Return the claim in the value of a tag `svc.NAME`.

    Raises:
        ValueError: It is wrong.
    """
    port, *options = text.split(":")
    if not _PORT.fullmatch(port) or int(port) > 65535:
        raise ValueError(f"tag {key}={shorten(text)}: the port {shorten(port)} is not a whole number from 1 to 65535")
    weight: int | None = None
    version = ""
    seen: set[str] = set()
    for option in options:
        kind = option if option in ("drain", "backup") else option[:1]
        found = _WEIGHT.fullmatch(option)
        if found and int(found[1]) <= WEIGHT_MAX:
            weight = int(found[1])
        elif VERSION.fullmatch(option):
            version = option
        elif kind not in ("drain", "backup"):
            allowed = f"wN with 0 to {WEIGHT_MAX}, vWORD, drain and backup"
            raise ValueError(f"tag {key}={shorten(text)}: {shorten(option)} is no option; allowed are {allowed}")
        if kind in seen:
            raise ValueError(f"tag {key}={shorten(text)}: {shorten(option)} is a second option of its kind")
        seen.add(kind)
    return Claim(int(port), weight, "drain" in seen, "backup" in seen, version)


def _read_short_form(tags: Mapping[str, str]) -> Claim:
    weight = _read_number(tags, "weight", 0, WEIGHT_MAX)
    if tags.get("drain", "false") not in ("true", "false"):
        raise ValueError(f"tag drain={shorten(tags['drain'])} is not true or false")
    return Claim(_read_number(tags, "port", 1, 65535), weight, tags.get("drain") == "true")


def _read_number(tags: Mapping[str, str], key: str, low: int, high: int) -> int | None:
    if key not in tags:
        return None
    text = tags[key]
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and low <= int(text) <= high):
        raise ValueError(f"tag {key}={shorten(text)} is not a whole number from {low} to {high}")
    return int(text)
