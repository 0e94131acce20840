"""Words of a configuration with which a server that is added at run time equals one that is loaded from the file. Pure.

This is an allow list. For each word of a server line, and for each algorithm, `tests/integration/test_equality.py`
shows on the real HAProxy that both servers behave the same. A line or a section with any other word takes a reload.

Words left out on purpose: `agent-check` (an added server stays down until its agent says `up`), `disabled` and
`enabled` (the administrator's intent), `track`, `resolvers`, `init-addr` and all others that HAProxy refuses at run
time or does not treat equally.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

# Words of `server` and `default-server` lines, and what `add server` needs of them.
_ALONE = frozenset(
    """
    backup check check-send-proxy check-ssl send-proxy send-proxy-v2 ssl
    """.split()  # noqa: SIM905
)
_WITH_VALUE = frozenset(
    """
    addr alpn ca-file check-alpn check-proto check-sni cookie downinter error-limit fall fastinter inter maxconn
    maxqueue observe on-error on-marked-down pool-max-conn pool-purge-delay port proto rise
    slowstart sni verify verifyhost
    """.split()  # noqa: SIM905
)
# The defaults of a server in the file, and what they imply for its health checks.
_POOL = ("pool-max-conn", "-1", "pool-purge-delay", "5s")
_OBSERVED = ("error-limit", "10", "on-error", "fail-check")
_IMPLIED = (("check-ssl", "ssl"), ("check-send-proxy", "send-proxy"), ("check-send-proxy", "send-proxy-v2"))
WORDS = _ALONE | _WITH_VALUE

# First words of lines in `backend`, `listen` and `defaults` sections that treat all servers alike.
_SECTION = frozenset(
    """
    acl backlog balance bind capture clitcpka-cnt clitcpka-idle clitcpka-intvl compression cookie
    declare default-server default_backend description dynamic-cookie-key errorfile errorfiles errorloc errorloc302
    errorloc303 filter force-persist fullconn hash-type http-after-response http-check http-error http-request
    http-response http-reuse id ignore-persist load-server-state-from-file log log-format log-format-sd log-tag
    max-keep-alive-queue maxconn mode monitor monitor-uri option rate-limit redirect retries retry-on server
    server-state-file-name srvtcpka-cnt srvtcpka-idle srvtcpka-intvl stats stick stick-table tcp-check tcp-request
    tcp-response timeout unique-id-format unique-id-header use_backend use-server
    """.split()  # noqa: SIM905
)
# Options with health checks of their own, or that change where a server is.
_OTHER_OPTIONS = frozenset(
    """
    external-check ldap-check spop-check ssl-hello-chk transparent
    """.split()  # noqa: SIM905
)
_ALIKE = frozenset(["roundrobin", "leastconn", "static-rr"])  # a server's id does not matter
_BY_ID = frozenset(["random", "first"])
_HASHES = frozenset(
    ["source", "uri", "url_param", "hdr", "hash", "rdp-cookie"]
)  # the id matters where they are consistent


class Manner(NamedTuple):
    """How a section treats servers that are added at run time.

    Attributes:
        is_proven: Whether as those that are loaded from the file.
        needs_ids: Whether only where each has an id in the file.
        has_cookies: Whether HAProxy makes the servers' cookies: it does so for an added server only when told.
    """

    is_proven: bool
    needs_ids: bool
    has_cookies: bool


def are_proven(words: Sequence[str]) -> bool:
    """Return whether all words of a server line, without its weight and id, are on the list."""
    index = 0
    while index < len(words):
        if words[index] in _WITH_VALUE:
            index += 1
        elif words[index] not in _ALONE:
            return False
        index += 1
    return index == len(words)


def spell_out(words: Sequence[str]) -> tuple[str, ...]:
    """Return the words with which `add server` makes the same server as these words in the file.

    HAProxy 2.6 gives an added server a pool of 0 idle connections, and observes it with a limit of 0 errors. The health
    checks of a server from the file have the TLS and the PROXY line of its requests unless they go elsewhere; those of
    an added server have them only when told.
    """
    has_checks = "check" in words and {"port", "addr"}.isdisjoint(words)
    more = [word for word, cause in _IMPLIED if has_checks and cause in words and word not in words]
    return (*_POOL, *(_OBSERVED if "observe" in words else ()), *words, *dict.fromkeys(more))


def judge_section(lines: Iterable[str]) -> Manner:
    """Return how a section treats servers that are added at run time.

    Args:
        lines: Those of the `defaults` that it inherits, then its own.
    """
    is_proven, has_cookies = True, False
    algorithm, hashing = "roundrobin", ""
    for line in lines:
        first, *rest = line.split()
        if first in ("no", "default") and rest:
            first, *rest = rest
        second = rest[0] if rest else ""
        is_proven = is_proven and first in _SECTION and not (first == "option" and second in _OTHER_OPTIONS)
        if first == "balance":
            algorithm = second.partition("(")[0]
        elif first == "hash-type":
            hashing = second
        elif first == "cookie":
            has_cookies = "dynamic" in rest
    is_hash = algorithm in _HASHES
    is_known = is_hash or algorithm in _ALIKE or algorithm in _BY_ID
    needs_ids = algorithm in _BY_ID or (is_hash and hashing == "consistent")
    return Manner(is_proven and is_known, needs_ids, has_cookies)
