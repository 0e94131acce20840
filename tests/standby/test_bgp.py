"""Two balancers that announce one address by ExaBGP, as `images/examples/bgp` has it, to a router with BIRD."""

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.proxy import wait_for
from standby.site import BALANCERS, CHECK, CLIENT, ROOT, Balancer, Site, find_libraries

EXAMPLE = ROOT / "images" / "examples" / "bgp" / "exabgp.conf"
ADDRESS = "198.51.100.1"
ROUTER = f"""
router id {CLIENT};
protocol device {{ scan time 1; }}
protocol kernel {{ ipv4 {{ export all; }}; }}
template bgp balancer {{
    local {CLIENT} as 65000;
    hold time 3;
    connect delay time 1;
    connect retry time 1;
    error wait time 1, 2;
    ipv4 {{ import all; export none; }};
}}
"""
MOVED_S = 15.0


def start_speaker(stack: contextlib.ExitStack, balancer: Balancer, programs_dir: Path) -> None:
    """Run ExaBGP on a balancer with the example's configuration."""
    text = (
        EXAMPLE.read_text().replace(CHECK, balancer.make_check()).replace("192.0.2.1;", f"{BALANCERS[balancer.name]};")
    )
    conf = balancer.home / "exabgp.conf"
    conf.write_text(text)
    environ = balancer.environ | {
        "PYTHONPATH": str(programs_dir / "usr/lib/python3/dist-packages"),
        "exabgp.daemon.user": "root",
        "exabgp.api.cli": "false",
        "exabgp.log.destination": "stderr",
    }
    with (balancer.home / "exabgp.log").open("wb") as log:
        argv = [*balancer.space.enter, "/usr/bin/python3", str(programs_dir / "usr/sbin/python3-exabgp"), str(conf)]
        process = subprocess.Popen(argv, env=environ, stdout=log, stderr=log, start_new_session=True)
    stack.callback(process.wait)
    stack.callback(os.killpg, process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """Yield two balancers and a router, which knows two ways to the address."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sh-", dir="/tmp")))
        site = Site(directory, stack, packages=("exabgp", "bird2"))
        programs_dir = directory / "programs"
        conf = directory / "bird.conf"
        peers = (f"protocol bgp {name} from balancer {{ neighbor {at} as 65001; }}\n" for name, at in BALANCERS.items())
        conf.write_text(ROUTER + "".join(peers))
        argv = [*site.client.enter, str(programs_dir / "usr/sbin/bird"), "-f", "-c", str(conf)]
        argv += ["-s", str(directory / "bird.ctl"), "-P", str(directory / "bird.pid")]
        environ = os.environ | find_libraries(programs_dir)
        with (directory / "bird.log").open("wb") as log:
            process = subprocess.Popen(argv, env=environ, stdout=log, stderr=log)
        stack.callback(process.wait)
        stack.callback(process.kill)
        for balancer in site.balancers:
            start_speaker(stack, balancer, programs_dir)
        ask_bird = [str(programs_dir / "usr/sbin/birdc"), "-s", str(directory / "bird.ctl"), "show", "route"]

        def list_ways() -> str:
            return subprocess.run(ask_bird, env=environ, capture_output=True, text=True, check=False, timeout=10).stdout

        wait_for(lambda: all(f"via {at} " in list_ways() for at in BALANCERS.values()), list_ways)
        yield site


def find_way(site: Site) -> str:
    """Return the address of the balancer to which the router sends what is for the address, "" for none."""
    words = site.client.run("ip", "route", "show", ADDRESS).split()
    return words[words.index("via") + 1] if "via" in words else ""


def ask(site: Site) -> str:
    """Return what the address answers."""
    return site.client.run("curl", "-sS", "--max-time", "5", f"http://{ADDRESS}/")


def test_the_router_prefers_a_balancer_that_is_ready(site: Site) -> None:
    """It goes to the other one while one is set aside, and to any where all are."""
    assert ask(site) == "hello\n"
    names = {at: name for name, at in BALANCERS.items()}
    first = next(one for one in site.balancers if one.name == names[find_way(site)])
    other = next(one for one in site.balancers if one is not first)
    first.command("standby", "on")
    wait_for(lambda: find_way(site) == BALANCERS[other.name], "the other one is preferred", MOVED_S)
    assert ask(site) == "hello\n"
    other.command("standby", "on")
    first.control("haproxy", "-wU", "-u")
    wait_for(lambda: other.look()[0] == 111, "the other one is set aside")
    assert find_way(site)
    assert ask(site) == "hello\n"
    first.command("standby", "off")
    wait_for(lambda: find_way(site) == BALANCERS[first.name], "the first one is preferred", MOVED_S)
    other.command("standby", "off")


def test_the_router_leaves_a_balancer_that_is_cut_off(site: Site) -> None:
    """A balancer that the router cannot reach has no route after the hold time."""
    names = {at: name for name, at in BALANCERS.items()}
    first = next(one for one in site.balancers if one.name == names[find_way(site)])
    with site.cut(first):
        wait_for(lambda: find_way(site) not in ("", BALANCERS[first.name]), "the other one is preferred", MOVED_S)
        assert ask(site) == "hello\n"
