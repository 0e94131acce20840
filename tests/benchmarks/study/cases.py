"""The cases of the study: what happens to the servers while requests arrive."""

import dataclasses
import time
from collections.abc import Callable

from study.site import Site

SICK = "s1"
TIMES = 10.0
_COOKIE = "SRV"
_COLD_TIMES = (8, 6, 4, 3, 2, 1)
_COLD_STEP_S = 1.0
_ROLL_S = 2.0
_LINGER_S = 1.0  # an application serves on for this time after its node has left

Act = Callable[[Site, list[str]], None]


def _nothing(_site: Site, _names: list[str]) -> None:
    return


def _slow_down(site: Site, _names: list[str]) -> None:
    site.tell(SICK, f"times {TIMES:g}")


def _speed_up(site: Site, _names: list[str]) -> None:
    site.tell(SICK, "times 1")


def _heat(site: Site, _names: list[str]) -> None:
    """Let a server join that is slow at first, as one with empty caches is."""
    site.start("cold")
    site.tell("cold", f"times {_COLD_TIMES[0]}")
    site.join("cold")
    site.wait_up("cold")
    for times in _COLD_TIMES[1:]:
        time.sleep(_COLD_STEP_S)
        site.tell("cold", f"times {times}")


def _roll(site: Site, names: list[str]) -> None:
    """Replace every server by a new one, one after another."""
    for name in names:
        started_s = time.monotonic()
        site.start(f"new-{name}")
        site.join(f"new-{name}")
        site.wait_up(f"new-{name}")
        site.leave(name)
        time.sleep(_LINGER_S)
        site.kill(name)
        time.sleep(max(0.0, started_s + _ROLL_S - time.monotonic()))


def _restart(site: Site, _names: list[str]) -> None:
    site.start(SICK)


@dataclasses.dataclass(frozen=True)
class Case:
    """One case.

    Attributes:
        name: Its name in files and on the command line.
        title: A heading.
        remark: What happens, for a reader.
        fault: What happens once the load runs.
        heal: What ends that.
        is_steady: Whether only what comes `SETTLE_S` after the fault counts: the steady state with that fault.
        speed: The speed of the server SICK during the fault; 1 for an ordinary one.
        cookie: The name of the cookie by which clients stay at their server; "" for none.
        skew: See `serf_haproxy.lab.arrivals.make_requests`.
        balancer_count: The number of balancers.
        services: The text of the services file.
        service: The distribution of the work.
        loads: The loads of the whole study, in percent of what all servers can do together, and the numbers of servers.
        algorithms: The names of the algorithms, without weights; empty: all.
    """

    name: str
    title: str
    remark: str
    fault: Act = _nothing
    heal: Act = _nothing
    is_steady: bool = True
    speed: float = 1.0
    cookie: str = ""
    skew: float = 0.0
    balancer_count: int = 1
    services: str = ""
    service: str = "exponential"
    loads: tuple[tuple[int, int], ...] = ((50, 5),)
    algorithms: tuple[str, ...] = ()

    @property
    def has_sick(self) -> bool:
        """Whether the case is about the server SICK."""
        return self.speed != 1.0


_CHOICE = ("roundrobin", "leastconn", "random(2)")


def list_cases() -> dict[str, Case]:
    """Return all cases by name."""
    cases = (
        Case(
            "slow",
            "One server is ten times slower, and heals",
            "After 2 s one server takes ten times as long for everything; later it is as before.",
            _slow_down,
            _speed_up,
            speed=1 / TIMES,
            loads=((50, 5), (10, 5), (75, 5), (50, 12)),
        ),
        Case(
            "equal",
            "All servers are equal",
            "Nothing happens.",
            loads=((10, 5), (50, 5), (75, 5), (90, 5), (50, 12)),
        ),
        Case(
            "broken",
            "One server answers 500 at once (a black hole)",
            "After 2 s one server answers every request with 500 without doing it. Its health check stays good.",
            lambda site, _: site.tell(SICK, "status 500"),
            lambda site, _: site.tell(SICK, "status 200"),
            speed=0.0,
        ),
        Case(
            "frozen",
            "One server freezes",
            "After 2 s one server is stopped (SIGSTOP): it accepts connections and says nothing. Later it goes on.",
            lambda site, _: site.freeze(SICK),
            lambda site, _: site.thaw(SICK),
            is_steady=False,
            speed=0.0,
            algorithms=_CHOICE,
        ),
        Case(
            "killed",
            "One server is killed",
            "After 2 s one server is killed (SIGKILL), with the requests that it has. Later it is started again.",
            lambda site, _: site.kill(SICK),
            _restart,
            is_steady=False,
            speed=0.0,
            algorithms=_CHOICE,
        ),
        *_list_of_changes(),
        *_list_of_clients(),
    )
    return {case.name: case for case in cases}


def _list_of_changes() -> list[Case]:
    return [
        Case(
            "cold",
            "A server joins cold",
            "After 2 s a further server joins, eight times slower at first, and as fast as the others after 5 s.",
            _heat,
            is_steady=False,
            loads=((75, 5),),
            algorithms=_CHOICE,
        ),
        Case(
            "cold-slowstart",
            "A server joins cold, with slow start",
            "The same, with `slowstart_s = 5` in the services file.",
            _heat,
            is_steady=False,
            services="[nodes]\nslowstart_s = 5\n",
            loads=((75, 5),),
            algorithms=_CHOICE,
        ),
        Case(
            "rolling",
            "All servers are replaced, one after another",
            "Every 2 s a new server joins and an old one leaves; its application ends 1 s later.",
            _roll,
            is_steady=False,
            algorithms=_CHOICE,
        ),
    ]


def _list_of_clients() -> list[Case]:
    return [
        Case(
            "mix",
            "Some clients ask much more than others, without sticky sessions",
            "200 clients; the share of each falls with its rank (one over the rank).",
            skew=1.0,
            algorithms=_CHOICE,
        ),
        Case(
            "mix-sticky",
            "The same clients with sticky sessions",
            "The same, and a cookie keeps each client at its server.",
            skew=1.0,
            cookie=_COOKIE,
            algorithms=_CHOICE,
        ),
        Case(
            "slow-sticky",
            "Sticky sessions, and one server is ten times slower",
            "200 equal clients with a cookie; after 2 s one server takes ten times as long.",
            _slow_down,
            _speed_up,
            speed=1 / TIMES,
            cookie=_COOKIE,
            loads=((5, 5),),
            algorithms=_CHOICE,
        ),
        Case(
            "drain",
            "A server drains, with sticky clients",
            "200 clients with a cookie; after 2 s one server gets the tag `drain`, later it has it no more.",
            lambda site, _: site.tag(SICK, drain="true"),
            lambda site, _: site.tag(SICK),
            cookie=_COOKIE,
            is_steady=False,
            algorithms=("roundrobin", "leastconn"),
        ),
        Case(
            "two-balancers",
            "Two balancers before the same servers, one of which is ten times slower",
            "Each gets half of the requests and knows nothing of the other. After 2 s one server is ten times slower.",
            _slow_down,
            _speed_up,
            speed=1 / TIMES,
            balancer_count=2,
            algorithms=_CHOICE,
        ),
        Case(
            "slow-bimodal",
            "One server is ten times slower, and requests are short or long",
            "One request of ten is twenty times as long as the others; after 2 s one server is ten times slower.",
            _slow_down,
            _speed_up,
            speed=1 / TIMES,
            service="bimodal",
        ),
    ]
