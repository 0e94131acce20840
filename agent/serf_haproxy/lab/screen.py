"""The output of the tour: lines, colours, bars."""

import sys
from collections.abc import Mapping, Sequence

from serf_haproxy.serf.printing import printable

_BAR = 40  # characters for all requests


def show_shares(shares: Mapping[str, int], servers: Mapping[str, str]) -> None:
    """Print the share of each address in some requests as a bar; `servers` are addresses by name."""
    total = sum(shares.values())
    say("", f"  Share of {total} requests, each with a new connection:")
    names = {address: name for name, address in servers.items()}
    for address, count in sorted(shares.items()):
        bar = "█" * round(_BAR * count / total)
        say(f"  {names.get(address, '?'):8} {address:12} {bar} {100 * count / total:.0f} %")


def show_change(before: Sequence[str], after: Sequence[str]) -> None:
    """Print the lines of haproxy.cfg that were removed and those that were added."""
    say("", "  Changes in haproxy.cfg:")
    say(*(red(f"  - {printable(line)}") for line in before if line not in after))
    say(*(green(f"  + {printable(line)}") for line in after if line not in before), "")


def say(*lines: str) -> None:
    """Print lines at once, not buffered."""
    for line in lines:
        print(line, flush=True)


def bold(text: str) -> str:
    """Return a text in bold, if the output is a terminal."""
    return _paint("1", text)


def red(text: str) -> str:
    """Return a text in red, if the output is a terminal."""
    return _paint("31", text)


def green(text: str) -> str:
    """Return a text in green, if the output is a terminal."""
    return _paint("32", text)


def _paint(code: str, text: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if sys.stdout.isatty() else text
