"""certbot gets and renews a certificate from pebble, an ACME test server, with a real HAProxy, as the how-to says."""

import contextlib
import functools
import http.server
import json
import os
import re
import socket
import ssl
import subprocess
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from containers.engine import need
from fakes.certificates import write_pair
from fakes.web import answering
from integration.proxy import Proxy, free_port, wait_for
from integration.test_daemon import running_daemon
from integration.test_https import find_worker, make_proxy, start
from integration.test_services import offer, wait_up
from serf_haproxy.system.network import split_endpoint

pytestmark = pytest.mark.usefixtures("time_limit")

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "get-certificates-with-certbot.md"
HOST = "shop.example.com"


@pytest.fixture(scope="module", autouse=True)
def programs() -> None:
    """Install the client and the test server where they are missing."""
    need("pebble")
    need("certbot")


@contextlib.contextmanager
def running(argv: list[str], log: Path, **environ: str) -> Iterator[None]:
    """Run a program for the duration of a block."""
    with log.open("wb") as output:
        process = subprocess.Popen(argv, env=os.environ | environ, stdout=output, stderr=output)
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)


def accepts(port: int) -> bool:
    """Return whether a process listens on a port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@contextlib.contextmanager
def serving_authority(directory: Path, http_port: int) -> Iterator[tuple[str, str]]:
    """Run an ACME server that asks for challenges at a port of loopback; yield its URL, and its root certificate."""
    port, admin_port, dns_port, other_port = (free_port() for _ in range(4))
    write_pair(directory / "acme.pem", "localhost")
    pebble = {
        "listenAddress": f"127.0.0.1:{port}",
        "managementListenAddress": f"127.0.0.1:{admin_port}",
        "certificate": str(directory / "acme.pem"),
        "privateKey": str(directory / "acme.pem"),
        "httpPort": http_port,
        "tlsPort": free_port(),
    }
    (directory / "pebble.json").write_text(json.dumps({"pebble": pebble}))
    dns = ["pebble-challtestsrv", "-dns01", f"127.0.0.1:{dns_port}", "-management", f"127.0.0.1:{other_port}"]
    dns += ["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", ""]
    acme = ["pebble", "-config", str(directory / "pebble.json"), "-dnsserver", f"127.0.0.1:{dns_port}"]
    with (
        running(dns, directory / "dns.log"),
        running(acme, directory / "pebble.log", PEBBLE_VA_NOSLEEP="1", PEBBLE_WFE_NONCEREJECT="0"),
    ):
        wait_for(lambda: accepts(port) and accepts(admin_port), (directory / "pebble.log").read_text)
        context = ssl.create_default_context(cafile=str(directory / "acme.pem"))
        with urllib.request.urlopen(f"https://localhost:{admin_port}/roots/0", context=context, timeout=10) as answer:
            yield f"https://localhost:{port}/dir", answer.read().decode()


@contextlib.contextmanager
def serving_files(directory: Path) -> Iterator[int]:
    """Serve the files of a directory; yield the port."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=directory)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def write_hook(path: Path, certificates: str) -> None:
    """Write the hook of the how-to, for a directory of this machine."""
    found = re.search(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found
    hook = found[1].replace("/etc/serf-haproxy/certificates", certificates).replace("lb1 lb2", "lb1")
    assert 'ssh "serf-haproxy@$balancer"' in hook
    path.write_text(re.sub(r"^   ", "", hook, flags=re.MULTILINE).replace('ssh "serf-haproxy@$balancer"', "sh -c"))
    path.chmod(0o755)


def run_certbot(directory: Path, environ: Mapping[str, str], *argv: str) -> None:
    """Run certbot with all its files in a directory."""
    places = [f"--{name}-dir={directory}/certbot-{name}" for name in ("config", "work", "logs")]
    done = subprocess.run(["certbot", *argv, "-n", *places], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def read_serial(proxy: Proxy, root: str) -> str:
    """Make a TLS connection as a browser would, with the authority's root; return the certificate's serial number."""
    address, port = split_endpoint(proxy.settings.https_bind)
    context = ssl.create_default_context(cadata=root)
    with (
        socket.create_connection((address, int(port)), 10) as connection,
        context.wrap_socket(connection, server_hostname=HOST) as secure,
    ):
        certificate = secure.getpeercert()
        assert certificate
        return str(certificate["serialNumber"])


def test_certbot_gets_and_renews_a_certificate(short_dir: Path) -> None:
    """The first certificate and a renewed one are in use without a reload, while HTTP is redirected to HTTPS."""
    proxy = make_proxy(short_dir, redirect_https="on")
    found = re.search(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found
    Path(proxy.settings.services_file).write_text(re.sub(r"^   ", "", found[1], flags=re.MULTILINE))
    (webroot := short_dir / "webroot").mkdir()
    write_hook(short_dir / "hook", proxy.settings.certificates_dir)
    http_port = int(split_endpoint(proxy.settings.frontend_bind)[1])
    try:
        with (
            serving_files(webroot) as port,
            answering() as web,
            serving_authority(short_dir, http_port) as (server, root),
        ):
            start(proxy)
            offer(proxy, "acme1", acme=port)
            offer(proxy, "shop1", shop=web.port)
            with running_daemon(proxy):
                wait_up(proxy, ("acme", "acme1"), ("shop", "shop1"))
                worker, reload_count = find_worker(proxy), proxy.reload_count()
                environ = os.environ | {"REQUESTS_CA_BUNDLE": str(short_dir / "acme.pem")}
                account = ["--agree-tos", "--register-unsafely-without-email", "--server", server]
                what = ["--webroot", "-w", str(webroot), "--cert-name", HOST, "-d", HOST]
                run_certbot(short_dir, environ, "certonly", *account, *what, "--deploy-hook", str(short_dir / "hook"))
                path = Path(proxy.settings.certificates_dir, f"{HOST}.pem")
                assert path.stat().st_mode & 0o777 == 0o600

                def find_serial() -> str:
                    with contextlib.suppress(OSError):
                        return read_serial(proxy, root)
                    return ""

                wait_for(find_serial, "the first certificate is in use", 10)
                first = find_serial()
                run_certbot(short_dir, environ, "renew", "--force-renewal", "--no-random-sleep-on-renew")
                wait_for(lambda: find_serial() not in ("", first), "the renewed certificate is in use", 10)
                assert (find_worker(proxy), proxy.reload_count()) == (worker, reload_count)
    finally:
        proxy.stop()
