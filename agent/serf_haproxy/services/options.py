"""Which options of a service do not fit each other: one table, for the reader and for the schema."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from serf_haproxy.services.service import HTTP, HTTP_ONLY, KEYS, TCP, Options
from serf_haproxy.services.words import HASH, MEASURED, PROTOCOL_CHECKS, WEIGHED
from serf_haproxy.settings import variable

NOT_OF_DEFAULT = ("mode", "routes", "bind", "sni", "stick")  # the default service gets what no route leads elsewhere


class Condition(NamedTuple):
    """What a key has to be.

    Attributes:
        key: The key.
        values: Some values.
        is_one: Whether it has to be one of them, or none of them.
    """

    key: str
    values: tuple[Any, ...]
    is_one: bool = True

    def holds(self, service: Options) -> bool:
        """Return whether a service fulfils it."""
        return (getattr(service, self.key) in self.values) is self.is_one


class Rule(NamedTuple):
    """What a service has to fulfil.

    Attributes:
        key: The key that is at fault where it does not.
        when: When the rule counts.
        needs: What has to hold then.
        said: What an operator reads, a format of `service`.
    """

    key: str
    when: Condition
    needs: Condition
    said: str


def _one_of(key: str, *values: Any) -> Condition:
    return Condition(key, values)


def _none_of(key: str, *values: Any) -> Condition:
    return Condition(key, values, is_one=False)


_HTTP, _TCP = _one_of("mode", HTTP), _one_of("mode", TCP)
_TLS = _one_of("tls", True)
RULES = (
    Rule(
        "split",
        _none_of("split", ()),
        _one_of("balance", "roundrobin"),
        "needs balance roundrobin; {service.balance} does not follow weights exactly",
    ),
    Rule(
        "weights",
        _one_of("weights", MEASURED),
        _one_of("balance", *WEIGHED),
        f"measured needs balance {', '.join(WEIGHED[:-1])} or {WEIGHED[-1]}; it is {{service.balance}}",
    ),
    Rule(
        "balance",
        _one_of("balance", HASH),
        _none_of("hash_key", ""),
        "hash needs hash_key, what of a request decides about its server",
    ),
    Rule(
        "hash_key",
        _none_of("hash_key", ""),
        _one_of("balance", HASH),
        "needs balance hash; it is {service.balance}",
    ),
    Rule("hash_key", _TCP, _one_of("hash_key", "", "source"), "{service.hash_key} needs mode http; source does not"),
    Rule("balance", _TCP, _none_of("balance", "uri"), "uri needs mode http; name another algorithm"),
    Rule("health", _one_of("health", *PROTOCOL_CHECKS), _TCP, "{service.health} needs mode tcp"),
    Rule(
        "server_maxqueue",
        _none_of("server_maxqueue", 0),
        _none_of("server_maxconn", 0),
        "needs server_maxconn, without which there is no queue",
    ),
    Rule(
        "scale",
        _none_of("scale", None),
        _none_of("server_maxconn", 0),
        "needs server_maxconn, how many requests a server takes at once",
    ),
    Rule(
        "tls",
        _TLS,
        _none_of("tls_ca_file", ""),
        "needs tls_ca_file, the certificates of those that sign the servers' certificates",
    ),
    Rule("tls_ca_file", _none_of("tls_ca_file", ""), _TLS, "needs tls = true"),
    Rule("tls_name", _none_of("tls_name", ""), _TLS, "needs tls = true"),
    Rule(
        "forwarded_for",
        _one_of("forwarded_for", "append"),
        _none_of("trusted_proxies", ()),
        "append needs trusted_proxies, whose word is believed",
    ),
    Rule("sni", _HTTP, _one_of("sni", ()), "needs mode tcp; the hosts of mode http are in routes"),
    Rule("routes", _HTTP, _none_of("routes", ()), "mode http needs at least one route"),
    Rule("bind", _HTTP, _one_of("bind", ""), f"mode http has none; its clients connect at {variable('frontend_bind')}"),
    Rule("stick", _HTTP, _one_of("stick", ""), "needs mode tcp; name a cookie instead"),
    Rule("bind", _TCP, _none_of("bind", ""), "mode tcp needs the address and port for its clients"),
    *(Rule(key, _TCP, _one_of(key, KEYS[key].default), "needs mode http") for key in HTTP_ONLY),
)

# What HAProxy runs as it is told, and what an operator hardly wants.
ADVICE = (
    Rule(
        "balance",
        _one_of("weights", MEASURED),
        _none_of("balance", "leastconn"),
        "leastconn gives a server that fails at once up to half of all requests, whatever its measured weight; "
        "random does not",
    ),
)


def list_rules(is_default: bool) -> tuple[Rule, ...]:
    """Return the rules of the default service, or of any other one."""
    return tuple(rule for rule in RULES if not is_default or rule.key not in NOT_OF_DEFAULT)


def find_misfits(service: Options) -> Iterator[str]:
    """Yield a line for each option that does not fit another one, with its key first."""
    yield from _find_broken(list_rules(service.is_default), service)


def find_advice(service: Options) -> Iterator[str]:
    """Yield a line for each option that works otherwise than an operator would expect, with its key first."""
    yield from _find_broken(ADVICE, service)


def _find_broken(rules: Iterable[Rule], service: Options) -> Iterator[str]:
    for rule in rules:
        if rule.when.holds(service) and not rule.needs.holds(service):
            yield f"{rule.key}: {rule.said.format(service=service)}"
