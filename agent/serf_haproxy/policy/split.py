"""The split of a service between versions: which servers get requests, and the weights that give each its share.

The total weights of the versions have exactly the ratio of their shares, whatever the number of their servers. Within
a version weights follow those that its members ask for, rounded to whole numbers. Pure.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from serf_haproxy.policy.admission import Rules
from serf_haproxy.policy.claim import WEIGHT_MAX
from serf_haproxy.policy.decision import Entry
from serf_haproxy.policy.server import Server

Shares = Mapping[str, int]  # of each version, percent

_FINE = 32  # servers of a version with this weight differ by 3 % at most; a larger one costs HAProxy memory


def find_missing(shares: Shares, servers: Iterable[Server]) -> list[str]:
    """Return the versions with a share and without a server that gets requests, sorted."""
    able = [server for server in servers if server.weight != 0]
    there = {server.version for server in able if not server.is_backup} or {server.version for server in able}
    return sorted(version for version, share in shares.items() if share and version not in there)


def exclude(entry: Entry, rules: Rules) -> Entry:
    """Return an entry whose server gets no new clients if its version has no share."""
    server = entry.server
    if server is None or server.weight == 0 or rules.has_share(server):
        return entry
    return entry._replace(server=server._replace(weight=0))


def share_out(shares: Shares, servers: Sequence[Server], is_up: Callable[[Server], bool]) -> tuple[Server, ...]:
    """Return a service's servers with the weights that give each version its share.

    Servers with weight 0, and those of a version without a share, which are the last that are up, keep their weights.
    The share of a version without servers goes to the others in proportion to theirs. Backup servers are shared out
    by themselves: they get requests only while no other server is up.

    Args:
        shares: The share of each version.
        servers: The servers as decided.
        is_up: Whether HAProxy sees a server up. The servers of a version that are up share all that it gets; while
            none is, all are taken for up.
    """
    weights: dict[str, int] = {}
    for is_backup in (False, True):
        groups = [
            [
                server
                for server in servers
                if (server.version, server.is_backup) == (version, is_backup) and server.weight != 0
            ]
            for version, share in shares.items()
            if share
        ]
        weights |= _share_group(shares, [group for group in groups if group], is_up)
    return tuple(server._replace(weight=weights.get(server.name, server.weight)) for server in servers)


def mark_spared(asked: Sequence[Server], given: Sequence[Server]) -> tuple[Server, ...]:
    """Return servers with the weights that were asked for, but 0 where the split left a server without weight."""
    return tuple(one._replace(weight=0) if other.weight == 0 else one for one, other in zip(asked, given, strict=True))


def _share_group(shares: Shares, groups: Sequence[Sequence[Server]], is_up: Callable[[Server], bool]) -> dict[str, int]:
    """Return the weight of each server by name; each group has servers of one version."""
    standing = [[server for server in group if is_up(server)] or group for group in groups]
    asked = [[server.weight or 1 for server in group] for group in standing]
    found = weigh([shares[group[0].version] for group in groups], asked)
    weights: dict[str, int] = {}
    for group, up, wanted, given in zip(groups, standing, asked, found, strict=True):
        weights |= {server.name: weight for server, weight in zip(up, given, strict=True)}
        for server in group:  # one that comes up starts like the others of its version, until the next decision
            weight = round((server.weight or 1) * sum(given) / sum(wanted))
            weights.setdefault(server.name, min(WEIGHT_MAX, max(1, weight)))
    return weights


def weigh(shares: Sequence[int], asked: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return weights of 0 to 256 whose totals have exactly the ratio of the shares.

    A version with so many servers that its total is less than their number leaves the last of them without weight.

    Args:
        shares: The share of each version, 1 to 100 percent.
        asked: For each version the weights that its servers ask for, 1 or more each, at least one server.
    """
    parts = [share // math.gcd(*shares) for share in shares]
    scale = _choose_scale(parts, asked)
    weights = [_divide(part * scale, group) for part, group in zip(parts, asked, strict=True)]
    common = math.gcd(*(weight for group in weights for weight in group)) or 1
    return [[weight // common for weight in group] for group in weights]


def _choose_scale(parts: Sequence[int], asked: Sequence[Sequence[int]]) -> int:
    """Return how much total weight a version gets for each of its parts."""
    pairs = list(zip(parts, asked, strict=True))
    most = min((WEIGHT_MAX * sum(group) // (part * max(group)) for part, group in pairs), default=1)
    exact = math.lcm(*(sum(group) // math.gcd(sum(group), part * math.gcd(*group)) for part, group in pairs))
    fine = max((math.ceil(_FINE * sum(group) / (part * min(group))) for part, group in pairs), default=1)
    return exact if exact <= most else min(most, fine)


def _divide(total: int, asked: Sequence[int]) -> list[int]:
    """Return whole numbers with this total in the ratio of others, each wrong by less than 1."""
    whole = sum(asked)
    parts = [total * each // whole for each in asked]
    by_rest = sorted(range(len(asked)), key=lambda index: (-(total * asked[index] % whole), index))
    for index in by_rest[: total - sum(parts)]:
        parts[index] += 1
    return parts
