"""What the doctor says of the web process: whether it answers."""

from collections.abc import Iterator

from serf_haproxy.control.answers import UP, Answer
from serf_haproxy.settings import Settings, variable
from serf_haproxy.show.check import Check


def look_at_page(settings: Settings, page: Answer) -> Iterator[Check]:
    """Look whether the web process answers where one is wanted; it says itself whether the daemon makes passes."""
    if not (bind := settings.web_bind):
        return
    if page.state == UP:
        yield Check(True, f"the web process answers at {bind}")
    else:
        yield Check(False, page.fault, find_remedy(page))


def find_remedy(page: Answer) -> str:
    """Return what to do where the web process does not answer."""
    if "another program" in page.fault:
        return f"change {variable('web_bind')}"
    return "look at the daemon's log; kill a web process that hangs, and the daemon starts another one"
