"""The algorithms that the study compares, as settings of the balancer."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

from serf_haproxy import config
from serf_haproxy.settings import Settings, variable

_TEMPLATE = Path(config.__file__).parent / "templates" / "haproxy.cfg.j2"
_LINE = "    balance {{ service.balance }}"
_MEASURED = "measured"


class Algorithm(NamedTuple):
    """One way to choose the server of a request.

    Attributes:
        name: HAProxy's name for it, and "+ weights" where the balancer measures the weights.
        balance: The value of the setting.
        is_measured: Whether the balancer measures the weights.
        draws: How many servers `random` looks at; 0 for HAProxy's default, which is 2.
    """

    name: str
    balance: str
    is_measured: bool = False
    draws: int = 0

    def write_settings(self, directory: Path) -> dict[str, str]:
        """Return the settings; a template of its own goes into a directory."""
        settings = {variable("balance"): self.balance}
        if self.is_measured:
            settings[variable("weights")] = _MEASURED
        if self.draws:
            path = directory / "template.j2"
            before = _TEMPLATE.read_text()
            text = before.replace(_LINE, f"{_LINE}({self.draws})")
            assert text != before, f"the built-in template has no line `{_LINE}`"
            path.write_text(text)
            settings[variable("template_path")] = str(path)
        return settings


_STATIC = (
    Algorithm("roundrobin", "roundrobin"),
    Algorithm("static-rr", "static-rr"),
    Algorithm("leastconn", "leastconn"),
    Algorithm("random(1)", "random", draws=1),
    Algorithm("random(2)", "random"),
    Algorithm("first", "first"),
    Algorithm("source", "source"),
    Algorithm("uri", "uri"),
)
# The weights of `first` count for nothing, and those of a hash would move clients from server to server.
_WITH_WEIGHTS = ("roundrobin", "leastconn", "random(1)", "random(2)")


def can_measure() -> bool:
    """Return whether this version of the product measures weights."""
    return "weights" in {field.name for field in dataclasses.fields(Settings)}


def list_algorithms(is_whole: bool = False) -> dict[str, Algorithm]:
    """Return all algorithms by name: each with its static weights, then those that measured weights can help.

    The latter are there if this version of the product measures weights, or for a whole list.
    """
    measured = [
        one._replace(name=f"{one.name} + weights", is_measured=True) for one in _STATIC if one.name in _WITH_WEIGHTS
    ]
    return {one.name: one for one in (*_STATIC, *(measured if is_whole or can_measure() else ()))}
