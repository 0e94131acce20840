"""certbot gets and renews a certificate from pebble, an ACME test server, with a real HAProxy, as the how-to says."""

import contextlib
import functools
import http.server
import json
import os
import re
import shlex
import socket
import ssl
import subprocess
import textwrap
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from containers.engine import need
from fakes.certificates import write_pair
from fakes.servers import serving_in_thread
from fakes.web import answering
from integration.proxy import Proxy, free_port, wait_for
from integration.test_daemon import running_daemon
from integration.test_https import find_worker, make_proxy, start
from integration.test_services import offer, wait_up
from serf_haproxy.system.network import split_endpoint

pytestmark = pytest.mark.usefixtures("time_limit")

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "get-certificates-with-certbot.md"
HOOK = "/usr/local/sbin/serf-haproxy-certificates"
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

    handler = functools.partial(Handler, directory=directory)
    with serving_in_thread(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)) as port:
        yield port


def find_block(start: str) -> str:
    """Return the code block of the how-to that begins with these words, without its indentation."""
    blocks = re.findall(r"^   ```\w*\n(.*?)^   ```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    (found,) = (block for block in (textwrap.dedent(each) for each in blocks) if block.startswith(start))
    return found


def write_script(path: Path, text: str, replaced: Mapping[str, str]) -> None:
    """Write a script of the how-to, with the places of this machine."""
    for words, others in replaced.items():
        assert words in text
        text = text.replace(words, others)
    path.write_text(text)
    path.chmod(0o755)


def write_scripts(directory: Path, certificates: str) -> Path:
    """Write both scripts of the how-to, and return the hook; it runs the other one as ssh does for a forced command."""
    taker = directory / "take"
    write_script(taker, find_block("#!/bin/sh\nset -eu\numask"), {"/etc/serf-haproxy/certificates": certificates})
    ssh = f'env SSH_ORIGINAL_COMMAND="$name" {taker}'
    places = {"lb1 lb2": "lb1", 'ssh "serf-haproxy@$balancer" "$name"': ssh}
    write_script(directory / "hook", find_block("#!/bin/sh\nset -eu\nname"), places)
    return directory / "hook"


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
    places = {HOOK: str(write_scripts(short_dir, proxy.settings.certificates_dir)), "/var/lib/acme": str(webroot)}
    line = find_block("certbot certonly").replace("\\\n", "")
    program, *first_certificate = (places.get(word, word) for word in shlex.split(line))
    assert program == "certbot"
    assert set(places.values()) <= set(first_certificate)
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
                run_certbot(short_dir, environ, *first_certificate, *account)
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


@pytest.mark.parametrize("name", ["", ".", "..", "../x", ".x", "a/b", "a b", "a;b", "$(id)", "a\nb", "*"])
def test_a_wrong_name_writes_no_file(name: str, tmp_path: Path) -> None:
    """The program that ssh runs on a balancer takes no name that leads out of the directory, or that is hidden."""
    certificates = tmp_path / "certificates"
    certificates.mkdir()
    write_scripts(tmp_path, str(certificates))
    environ = os.environ | {"SSH_ORIGINAL_COMMAND": name}
    done = subprocess.run([tmp_path / "take"], env=environ, input=b"x", capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (2, b"no name of a certificate\n")
    assert list(certificates.iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"certificates", "hook", "take"}
