"""What can happen to the balancer that has the address, and what the clients see of it."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from integration.proxy import wait_for
from standby.site import Balancer, Found, Load, Site, Watch

Act = Callable[[Site, Balancer], contextlib.AbstractContextManager[None]]


class Fault(NamedTuple):
    """A fault.

    Attributes:
        name: What happens.
        act: Lets it happen for the length of a block.
        is_graceful: Whether it is ordered, so that no request may be lost.
        moves: Whether the address goes to the other balancer; None where that depends on who is faster.
        lasts_s: How long the block lasts at least, seconds.
    """

    name: str
    act: Act
    is_graceful: bool
    moves: bool | None
    lasts_s: float = 6.0


class Result(NamedTuple):
    """What came of a fault.

    Attributes:
        found: What the clients saw.
        moved_s: When the other balancer had the address, seconds after the fault began; None for never.
    """

    found: Found
    moved_s: float | None


@contextlib.contextmanager
def set_aside(_site: Site, owner: Balancer) -> Iterator[None]:
    """Set a balancer aside, as before an upgrade."""
    owner.command("standby", "on", "--wait", "--reason", "a test")
    yield
    owner.command("standby", "off")


@contextlib.contextmanager
def stop(_site: Site, owner: Balancer) -> Iterator[None]:
    """Stop a balancer as the machine's shutdown does: the tree, then keepalived."""
    owner.stop()
    owner.stop_keepalived()
    yield
    owner.start()
    owner.start_keepalived()


@contextlib.contextmanager
def kill_haproxy(_site: Site, owner: Balancer) -> Iterator[None]:
    """Kill HAProxy; s6 starts it again."""
    os.kill(owner.pid("haproxy"), signal.SIGKILL)
    yield


def end_for_good(*services: str, is_everywhere: bool = False) -> Act:
    """Return what kills services that do not come back, at both balancers if it is everywhere."""

    @contextlib.contextmanager
    def act(site: Site, owner: Balancer) -> Iterator[None]:
        pairs = [(one, service) for one in (site.balancers if is_everywhere else [owner]) for service in services]
        for one, service in pairs:
            one.control(service, "-O")
            os.kill(one.pid(service), signal.SIGKILL)
        yield
        for one, service in pairs:
            one.control(service, "-u")

    return act


def freeze(*, is_worker: bool) -> Act:
    """Return what freezes HAProxy's worker, or the daemon."""

    @contextlib.contextmanager
    def act(_site: Site, owner: Balancer) -> Iterator[None]:
        pid = owner.worker_pid() if is_worker else owner.pid("daemon")
        os.kill(pid, signal.SIGSTOP)
        yield
        os.kill(pid, signal.SIGCONT)

    return act


@contextlib.contextmanager
def cut(site: Site, owner: Balancer) -> Iterator[None]:
    """Cut the network of a balancer."""
    with site.cut(owner):
        yield


@contextlib.contextmanager
def lose_power(site: Site, owner: Balancer) -> Iterator[None]:
    """End everything of a balancer at once."""
    with site.cut(owner):
        owner.kill()
        yield
    owner.start()
    owner.start_keepalived()


@contextlib.contextmanager
def kill_keepalived(_site: Site, owner: Balancer) -> Iterator[None]:
    """Kill keepalived, which cannot take the address away from its interface any more; it is started again."""
    owner.stop_keepalived(signal.SIGKILL)
    yield
    owner.start_keepalived()


FAULTS = (
    Fault("set aside (`serf-haproxy standby on`)", set_aside, is_graceful=True, moves=True, lasts_s=1.0),
    Fault("the machine is stopped gracefully", stop, is_graceful=True, moves=True, lasts_s=1.0),
    Fault("HAProxy is killed, s6 starts it again", kill_haproxy, is_graceful=False, moves=None),
    Fault("HAProxy is killed and does not come back", end_for_good("haproxy"), is_graceful=False, moves=True),
    Fault("HAProxy's worker is frozen", freeze(is_worker=True), is_graceful=False, moves=True),
    Fault("the daemon is killed and does not come back", end_for_good("daemon"), is_graceful=True, moves=False),
    Fault("the daemon is frozen", freeze(is_worker=False), is_graceful=True, moves=False),
    Fault("Serf is killed and does not come back", end_for_good("serf"), is_graceful=True, moves=False),
    Fault("daemon and Serf are dead for a minute", end_for_good("daemon", "serf"), True, moves=True, lasts_s=75.0),
    Fault("the same at both", end_for_good("daemon", "serf", is_everywhere=True), True, moves=None, lasts_s=75.0),
    Fault("the network of the machine is cut", cut, is_graceful=False, moves=True),
    Fault("the machine loses its power", lose_power, is_graceful=False, moves=True),
    Fault("keepalived is killed", kill_keepalived, is_graceful=False, moves=True),
)


def measure(site: Site, fault: Fault, rate: float) -> Result:
    """Let a fault happen under load, heal it, and return what was seen; the site is well again after it."""
    owner, other = site.order()
    before = owner.count_connections()
    load = Load(site.client, rate)
    moved_s = None
    try:
        wait_for(lambda: owner.count_connections() > before + rate, "the load runs")
        began_s = time.monotonic()
        watch = Watch(other, began_s)
        with fault.act(site, owner):
            end_s = max(time.monotonic(), began_s) + fault.lasts_s
            while time.monotonic() < end_s:
                time.sleep(0.1)
            moved_s = watch.end()
        time.sleep(1.0)
    finally:
        found = load.end()
    settle(site)
    return Result(found, moved_s)


def settle(site: Site) -> None:
    """Wait until both balancers are ready, one has the address, and keepalived has seen that."""
    for balancer in site.balancers:
        wait_for(lambda one=balancer: one.look()[0] == 0, lambda one=balancer: f"{one.name}: {one.look()}")
    site.order()
    for balancer in site.balancers:
        wait_for(balancer.is_trusted, f"keepalived of {balancer.name} has its scripts succeed")
