"""HTTP services that only members announce, with a real HAProxy: where a setting names a domain, and within limits."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import probe
from fakes.web import Web, answering
from integration.proxy import Proxy, running_proxy
from integration.test_services import get, offer, wait_up
from serf_haproxy.control.outcome import Verdict
from serf_haproxy.control.report import read_report
from serf_haproxy.policy.announced import PAUSE_S, SETTLE_S
from serf_haproxy.serf.events import Member
from serf_haproxy.serf.nodes import record
from serf_haproxy.show.document import to_json
from serf_haproxy.show.table import format_table

pytestmark = pytest.mark.usefixtures("time_limit")

SECRET = "a secret of sixteen or more characters"
SERVICES = """\
[shop]
routes = ["/shop"]

[wide]
routes = ["*.wide.apps.test"]
"""
ENVIRONMENT = {"SERF_HAPROXY_ANNOUNCED_DOMAIN": "apps.test", "SERF_HAPROXY_ANNOUNCED_MAX": "3"}


@pytest.fixture
def web() -> Iterator[Web]:
    """Yield an application."""
    with answering() as web:
        yield web


@pytest.fixture
def proxy(short_dir: Path) -> Iterator[Proxy]:
    """Yield a balancer that serves what members announce."""
    (short_dir / "services.toml").write_text(SERVICES)
    with running_proxy(short_dir, **ENVIRONMENT) as proxy:
        yield proxy


def age(proxy: Proxy, seconds: float) -> None:
    """Let all that was heard, and the last change of the announced services, be older."""
    at_s = time.time() - seconds
    for path in Path(proxy.settings.nodes_dir).iterdir():
        os.utime(path, (at_s, at_s))
    record = Path(proxy.settings.state_dir, "last_pass.json")
    if record.exists():
        known = json.loads(record.read_text())
        record.write_text(json.dumps(known | {"announced_at_s": known["announced_at_s"] - seconds}))


def list_services(proxy: Proxy) -> set[str]:
    """Return the names of the services that the published configuration has, but for the default one."""
    lines = (probe.read_live(proxy.settings) or "").splitlines()
    return {line.split()[1] for line in lines if line.startswith("backend ")} - {"nodes", "successor"}


def test_an_announced_service_is_at_its_host(proxy: Proxy, web: Web) -> None:
    """A steady name is a service after one reload; its next members take none, and the status tells it."""
    offer(proxy, "n1", blog=web.port)
    outcome = proxy.run_pass()
    assert outcome.verdict is not Verdict.RELOADED
    assert outcome.again_s is not None
    assert outcome.again_s <= SETTLE_S
    assert "it waits for" in format_table(read_report(proxy.settings), width=0)
    reload_count = proxy.reload_count()
    age(proxy, SETTLE_S)
    assert proxy.run_pass().verdict is Verdict.RELOADED
    wait_up(proxy, ("blog", "n1"))
    assert get(proxy, "blog.apps.test") == 200
    assert get(proxy, "other.apps.test") == 503
    offer(proxy, "n2", blog=web.port + 1 if web.port < 65535 else 1)
    assert proxy.run_pass().verdict is Verdict.APPLIED
    for name in ("n1", "n2"):
        offer(proxy, name, "left", blog=web.port)
    proxy.run_pass()
    assert list_services(proxy) == {"blog", "shop", "wide"}, "it stays for an hour"
    assert proxy.reload_count() == reload_count + 1
    assert "service blog (http, blog.apps.test, announced by members)" in format_table(
        read_report(proxy.settings), width=0
    )


def test_the_operator_has_the_first_word(proxy: Proxy, web: Web, short_dir: Path) -> None:
    """No announced service takes a name of the services file, right or wrong, or a host of its routes."""
    (short_dir / "services.toml").write_text(SERVICES + '[broken]\nroutes = 7\n[host]\nroutes = ["mail.apps.test/x"]\n')
    offer(proxy, "n1", **dict.fromkeys(("shop", "broken", "mail", "web", "stats", "blog"), web.port))
    age(proxy, SETTLE_S)
    proxy.run_pass()
    assert list_services(proxy) == {"shop", "wide", "host", "blog"}
    notes = {row["service"]: row["reason"] for row in to_json(read_report(proxy.settings))["members"]}
    assert notes["broken"] == "the services file has a table of this name"
    assert notes["mail"].startswith("the route mail.apps.test/x of service host has its host")
    assert notes["web"] == "another section of the built-in template has this name"
    (short_dir / "services.toml").write_text(SERVICES + '[blog]\nroutes = ["blog.test"]\n')
    assert proxy.run_pass().verdict is Verdict.RELOADED
    wait_up(proxy, ("blog", "n1"))
    assert get(proxy, "blog.test") == 200
    assert get(proxy, "blog.apps.test") == 503, "the operator's own service is where its routes say"


def test_hostile_gossip_takes_few_reloads(proxy: Proxy, web: Web) -> None:
    """However many names members invent, there are no more than the setting allows, and no reload for the others."""
    offer(proxy, "n1", **dict.fromkeys(("blog", "shop"), web.port))
    age(proxy, SETTLE_S)
    proxy.run_pass()
    reload_count = proxy.reload_count()
    for number in range(12):
        names = (f"x{number}-{each}" for each in range(10))
        offer(proxy, f"evil{number % 3}", **dict.fromkeys(names, web.port))
        age(proxy, PAUSE_S)
        proxy.run_pass()
    assert len(list_services(proxy) - {"blog", "shop", "wide"}) == 2
    assert proxy.reload_count() == reload_count + 1
    wait_up(proxy, ("blog", "n1"), ("shop", "n1"))
    assert get(proxy, "blog.apps.test") == get(proxy, "any.test", "/shop") == 200
    assert "there are 3 already" in format_table(read_report(proxy.settings), width=0)


def test_a_member_without_a_proof_announces_nothing(short_dir: Path, web: Web) -> None:
    """Where proofs are required, only a member with the proof of its service creates it."""
    (short_dir / "proof.secret").write_text(SECRET)
    environment = ENVIRONMENT | {"SERF_HAPROXY_PROOF_SECRET_FILE": str(short_dir / "proof.secret")}
    with running_proxy(short_dir, **environment) as proxy:  # no services file is needed
        where = "--name", "n1", "--address", "127.0.0.1", "--service", "blog", "--tag", f"svc.blog={web.port}"
        argv = [sys.executable, "-m", "serf_haproxy", "proof", *where]
        said = subprocess.run(argv, env=os.environ | proxy.environment, capture_output=True, text=True, check=True)
        proof = said.stdout.strip().removeprefix("proof.blog=")
        for service in ("blog", "evil"):  # the proof of one service is none of another
            record_offer(proxy, f"svc.{service}={web.port}", f"proof.{service}={proof}", name=f"n-{service}")
        record_offer(proxy, f"svc.blog={web.port}", f"proof.blog={proof}", name="n1")
        age(proxy, SETTLE_S)
        assert proxy.run_pass().verdict is Verdict.RELOADED
        assert list_services(proxy) == {"blog"}
        wait_up(proxy, ("blog", "n1"))


def record_offer(proxy: Proxy, *tags: str, name: str) -> None:
    """Write the node file of a member with these tags."""
    record(proxy.settings.nodes_dir, "alive", Member(name, "127.0.0.1", "", tags))
