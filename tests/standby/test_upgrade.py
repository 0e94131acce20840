"""The steps of docs/how-to/upgrade.md, on a running balancer under requests at a constant rate."""

import os
from pathlib import Path

import pytest

from integration.proxy import wait_for
from standby.faults import settle
from standby.site import Balancer, Load, Site

pytestmark = pytest.mark.alone
RATE = 150


@pytest.fixture(autouse=True)
def _settled(site: Site) -> None:
    settle(site)


def read_age(balancer: Balancer) -> tuple[float | None, str]:
    """Return how long HAProxy's worker has run, and its version."""
    return balancer.runtime.read_age()


def test_the_package_is_upgraded_without_a_lost_request(site: Site) -> None:
    """The daemon is started again, as after an installation; the address stays, and each request is answered."""
    owner, _ = site.order()
    before = owner.pid("daemon")
    load = Load(site.client, RATE)
    owner.control("daemon", "-r")
    wait_for(lambda: owner.find_pid("daemon") not in (before, -1), "the daemon is back")
    settle(site)
    assert load.end().faults == ()
    assert owner.has_address()


def test_serf_is_upgraded_without_a_lost_request(site: Site) -> None:
    """The Serf agent leaves and comes back; servers stay as they are, and each request is answered."""
    owner, _ = site.order()
    before = owner.pid("serf")
    load = Load(site.client, RATE)
    owner.control("serf", "-r")
    wait_for(lambda: owner.find_pid("serf") not in (before, -1), "Serf is back")
    wait_for(lambda: owner.look() == (0, "ready"), lambda: str(owner.look()))
    assert load.end().faults == ()
    assert owner.has_address()


def test_haproxy_is_upgraded_by_a_reload_without_a_lost_request(site: Site) -> None:
    """A reload executes the program that is at the path now: the new version takes the listeners of the old one."""
    owner, _ = site.order()
    _, version = read_age(owner)
    newer = f"{version[:-1]}{'x' if version[-1] != 'x' else 'y'}"
    replace(owner.haproxy_path, version, newer)
    load = Load(site.client, RATE)
    owner.command("reload", "--local", "--reason", "a new version")
    wait_for(lambda: read_age(owner)[1] == newer, lambda: str(read_age(owner)))
    settle(site)
    assert load.end().faults == ()
    assert owner.has_address()


def test_haproxy_is_upgraded_by_a_restart_without_a_lost_request(site: Site) -> None:
    """On standby HAProxy can be stopped and started: traffic is at the other balancer before that."""
    owner, other = site.order()
    before = owner.pid("haproxy")
    load = Load(site.client, RATE)
    owner.command("standby", "on", "--wait", "--reason", "a new version")
    owner.control("haproxy", "-r")
    wait_for(lambda: owner.find_pid("haproxy") not in (before, -1), "HAProxy is back")
    assert owner.look("--allow-stale") == (111, "not ready: it is on standby: a new version")
    owner.command("standby", "off")
    settle(site)
    assert load.end().faults == ()
    assert site.order() == (other, owner)


def replace(path: Path, version: str, newer: str) -> None:
    """Put a HAProxy of another version into the place of one, as an installation does: by a rename."""
    new = path.with_name("haproxy.new")
    new.write_bytes(path.read_bytes().replace(version.encode(), newer.encode()))
    new.chmod(0o755)
    os.replace(new, path)
