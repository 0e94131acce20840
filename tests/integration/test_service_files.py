"""Files that services name, with a real HAProxy: one that is missing or wrong is a fault of its service alone."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.web import Web, answering
from integration.proxy import Proxy, running_proxy, wait_for
from integration.recorder import CERTIFICATE
from integration.test_daemon import COMMAND, running_daemon, said
from integration.test_service_options import get, other_haproxy
from integration.test_services import offer, wait_up
from serf_haproxy.control.outcome import Verdict
from serf_haproxy.errors import SystemFault
from serf_haproxy.haproxy.socket import ask
from serf_haproxy.show.levels import Level

pytestmark = pytest.mark.usefixtures("time_limit")

OTHER_CERTIFICATE = CERTIFICATE.with_name("other.pem")
NEW = '[new]\nroutes = ["/new"]\n'


@pytest.fixture
def web() -> Iterator[Web]:
    """Run a web application."""
    with answering() as running:
        yield running


def run(proxy: Proxy, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a serf-haproxy command."""
    environ = os.environ | proxy.environment | environment
    return subprocess.run([*COMMAND, *words], env=environ, capture_output=True, text=True, timeout=60, check=False)


def write_services(directory: Path, authorities: Path, more: str = "") -> None:
    """Write a services file: api with TLS, shop without."""
    text = (
        f'[api]\nroutes = ["api.test"]\ntls = true\ntls_ca_file = "{authorities}"\n[shop]\nroutes = ["/shop"]\n{more}'
    )
    (directory / "services.toml").write_text(text)


def list_copies(proxy: Proxy) -> set[str]:
    """Return the names of the copies."""
    return set(os.listdir(proxy.settings.certificate_copies_dir))


@pytest.mark.parametrize("loss", ["missing", "wrong", "FIFO"])
def test_lost_authorities_are_a_fault_of_their_service(short_dir: Path, web: Web, loss: str) -> None:
    """Their last good content goes on, also over a restart; other services change as always; one line tells of it."""
    authorities = short_dir / "ca.pem"
    shutil.copy(CERTIFICATE, authorities)
    write_services(short_dir, authorities)
    with other_haproxy(short_dir, f"ssl crt {CERTIFICATE}") as port, running_proxy(short_dir) as proxy:
        offer(proxy, "a1", api=port)
        assert proxy.run_pass().is_in_force
        wait_up(proxy, ("api", "a1"))
        authorities.unlink()
        if loss == "wrong":
            authorities.write_text("-----BEGIN CERTIFICATE-----\n")
        elif loss == "FIFO":
            os.mkfifo(authorities)
        line = f"[api] tls_ca_file = {authorities}: "
        for is_restarted in (False, True):
            if is_restarted:
                proxy.stop()
                assert "the last one that HAProxy confirmed" in run(proxy, "boot").stdout
                proxy.start()
            name = f"s{int(is_restarted)}"
            offer(proxy, name, shop=web.port)
            outcome = proxy.run_pass()
            assert outcome.is_in_force, outcome
            assert [problem.count(line) for problem in outcome.problems] == [1]
            wait_up(proxy, ("api", "a1"), ("shop", name))
            assert get(proxy)[0] == 200
        checked = run(proxy, "check")
        assert checked.returncode == 100
        assert (checked.stderr.count("\n"), checked.stderr.count(line)) == (1, 1)
        assert line in run(proxy, "status").stdout
        shutil.rmtree(proxy.settings.certificate_copies_dir)
        outcome = proxy.run_pass()
        assert outcome.is_in_force, outcome
        assert f"{line}" in outcome.problems[0]
        assert "it is left out" in outcome.problems[0]


def test_renewed_authorities_are_in_force_after_one_reload(short_dir: Path) -> None:
    """A file with another content under the same name is noticed; copies that nothing names any more are removed."""
    authorities = short_dir / "ca.pem"
    shutil.copy(OTHER_CERTIFICATE, authorities)
    write_services(short_dir, authorities)
    with other_haproxy(short_dir, f"ssl crt {CERTIFICATE}") as port, running_proxy(short_dir) as proxy:
        offer(proxy, "a1", api=port)
        proxy.run_pass()
        wait_for(lambda: "L6RSP" in ask(proxy.settings.runtime_socket, "show stat api 4 -1", 5), "a1 is refused")
        before, count = list_copies(proxy), proxy.reload_count()
        shutil.copy(CERTIFICATE, authorities)
        assert proxy.run_pass().verdict is Verdict.RELOADED
        wait_up(proxy, ("api", "a1"))
        assert get(proxy)[0] == 200
        assert proxy.reload_count() == count + 1
        assert proxy.run_pass().verdict is Verdict.UNCHANGED
        offer(proxy, "a2", api=port)
        assert proxy.run_pass().verdict is Verdict.APPLIED
        wait_up(proxy, ("api", "a2"))
        offer(proxy, "a3", api=port)
        assert proxy.run_pass().verdict is Verdict.APPLIED
        assert len(list_copies(proxy)) == 1
        assert not list_copies(proxy) & before


def test_the_daemon_notices_renewed_and_lost_authorities(short_dir: Path) -> None:
    """Without an event it follows the file within seconds, reloads once for another content, and tells of a loss."""
    authorities = short_dir / "ca.pem"
    shutil.copy(OTHER_CERTIFICATE, authorities)
    write_services(short_dir, authorities)
    with other_haproxy(short_dir, f"ssl crt {CERTIFICATE}") as port, running_proxy(short_dir) as proxy:
        offer(proxy, "a1", api=port)
        with running_daemon(proxy, SERF_HAPROXY_RELOAD_INTERVAL_S="0"):
            wait_for(lambda: "L6RSP" in ask(proxy.settings.runtime_socket, "show stat api 4 -1", 5), "a1 is refused")
            count = proxy.reload_count()
            shutil.copy(CERTIFICATE, authorities)
            wait_up(proxy, ("api", "a1"))
            authorities.unlink()
            line = f"[api] tls_ca_file = {authorities}: there is no such file"
            wait_for(lambda: said(proxy, line), "the loss is told", 20)
            os.mkfifo(authorities)
            wait_for(lambda: said(proxy, "it is not a regular file"), "the FIFO is told", 20)
            assert proxy.reload_count() == count + 1
            assert get(proxy)[0] == 200


@pytest.mark.parametrize("key", ["proof_secret_file", "cookie_secret_file"])
@pytest.mark.parametrize("content", [None, "short\n"])
def test_a_new_service_without_its_secret_is_left_out_alone(
    short_dir: Path, web: Web, key: str, content: str | None
) -> None:
    """One line names file, table, key and remedy, pass after pass; the service is there once the secret is."""
    secret = short_dir / "new.secret"
    if content is not None:
        secret.write_text(content)
    write_services(short_dir, CERTIFICATE, f'{NEW}cookie = "S"\n{key} = "{secret}"\n')
    with running_proxy(short_dir) as proxy:
        said = "there is no such file" if content is None else "must have one secret of 16 or more characters"
        for name in ("s1", "s2"):
            offer(proxy, name, shop=web.port)
            outcome = proxy.run_pass()
            assert outcome.is_in_force
            (problem,) = outcome.problems
            assert problem.startswith(f"{short_dir}/services.toml: [new] {key} = {secret}: {said}")
            assert problem.endswith(f"or change {key} of service new; it is left out")
            wait_up(proxy, ("shop", name))
        assert run(proxy, "check").returncode == 100
        assert run(proxy, "status").stdout.count("[new]") == 1
        secret.write_text("correct horse battery staple\n")
        outcome = proxy.run_pass()
        assert (outcome.is_in_force, outcome.problems) == (True, ())
        secret.unlink()
        with pytest.raises(SystemFault, match=f"{key} of service new"):
            proxy.run_pass()


@pytest.mark.parametrize("key", ["proof_secret_file", "cookie_secret_file"])
def test_a_changed_table_without_its_secret_stops_no_other_service(short_dir: Path, web: Web, key: str) -> None:
    """The service goes on with its former table, the others follow; the new one counts once the secret is there."""
    secret = short_dir / "new.secret"
    with running_proxy(short_dir) as proxy:
        write_services(short_dir, CERTIFICATE, NEW)
        offer(proxy, "n1", new=web.port)
        assert proxy.run_pass().is_in_force
        wait_up(proxy, ("new", "n1"))
        write_services(short_dir, CERTIFICATE, f'{NEW}cookie = "S"\n{key} = "{secret}"\n')
        for name in ("s1", "s2"):
            offer(proxy, name, shop=web.port)
            outcome = proxy.run_pass()
            assert outcome.is_in_force
            (problem,) = outcome.problems
            assert problem.startswith(f"{short_dir}/services.toml: [new] {key} = {secret}: there is no such file")
            assert problem.endswith("; it goes on as it was before")
            wait_up(proxy, ("shop", name), ("new", "n1"))
        assert "cookie S" not in Path(proxy.settings.config_path).read_text()
        secret.write_text("correct horse battery staple\n")
        proxy.run_pass()
        assert "cookie S" in Path(proxy.settings.config_path).read_text()


def test_status_shows_all_else_while_a_secret_is_missing(short_dir: Path, web: Web) -> None:
    """The nodes, and one line about the file, where a missing secret stops every change."""
    secret = short_dir / "shop.secret"
    with running_proxy(short_dir) as proxy:
        write_services(short_dir, CERTIFICATE)
        offer(proxy, "s1", shop=web.port)
        assert proxy.run_pass().is_in_force
        wait_up(proxy, ("shop", "s1"))
        secret.write_text("correct horse battery staple\n")
        write_services(short_dir, CERTIFICATE, f'proof_secret_file = "{secret}"\ncookie = "S"\n')
        assert proxy.run_pass().is_in_force
        secret.unlink()
        with pytest.raises(SystemFault, match="proof_secret_file of service shop"):
            proxy.run_pass()
        shown = run(proxy, "status")
        assert shown.returncode == Level.CRITICAL  # neither Serf nor the daemon runs
        assert f"{secret}: there is no such file" in shown.stdout
        assert shown.stdout.count("until then nothing is changed") == 1
        assert " s1 " in shown.stdout
        assert "UP" in shown.stdout
        write_services(short_dir, CERTIFICATE)
        shown = run(proxy, "status", SERF_HAPROXY_PROOF_SECRET_FILE=str(secret))
        assert shown.stdout.count("there is no such file") == 1
        assert "or change SERF_HAPROXY_PROOF_SECRET_FILE; until then nothing is changed" in shown.stdout
        assert " s1 " in shown.stdout
