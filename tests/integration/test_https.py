"""HTTPS with a real HAProxy: certificates by name, changed without a reload, and wrong ones beside good ones."""

import ctypes
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import probe
from fakes.certificates import connect, get, get_with_h2, make_pair, see_certificate, write_pair
from fakes.web import Web, answering
from integration.proxy import Proxy, free_port, wait_for
from integration.test_daemon import log_path, running_daemon, said
from serf_haproxy.control.boot import boot
from serf_haproxy.control.edges import make_edges
from serf_haproxy.control.outcome import Verdict
from serf_haproxy.control.reconcile import Reconciler
from serf_haproxy.control.report import read_report
from serf_haproxy.haproxy.socket import ask
from serf_haproxy.settings import variable
from serf_haproxy.show.table import format_table

pytestmark = pytest.mark.usefixtures("time_limit")


def make_proxy(directory: Path, **settings: object) -> Proxy:
    """Return a HAProxy with an HTTPS listener that has not started yet."""
    (directory / "certificates").mkdir()
    values = {
        "https_bind": f"127.0.0.1:{free_port()}",
        "certificates_dir": str(directory / "certificates"),
        "certificate_copies_dir": str(directory / "copies"),
    }
    return Proxy(directory, **{variable(name): str(value) for name, value in (values | settings).items()})


def start(proxy: Proxy) -> None:
    """Start HAProxy as the s6 tree does: `boot` has made the configuration."""
    os.unlink(proxy.settings.config_path)
    boot(proxy.settings)
    proxy.start()


@pytest.fixture
def proxy(short_dir: Path) -> Iterator[Proxy]:
    """Yield a HAProxy with an HTTPS listener that has not started yet."""
    running = make_proxy(short_dir)
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def directory(proxy: Proxy) -> Path:
    """Return the directory of certificates."""
    return Path(proxy.settings.certificates_dir)


@pytest.fixture
def web() -> Iterator[Web]:
    """Yield an application."""
    with answering() as running:
        yield running


def serve(proxy: Proxy, web: Web) -> None:
    """Start HAProxy with one server."""
    start(proxy)
    proxy.record("web1", web.port)
    proxy.run_pass()
    proxy.wait_up("web1")


def find_worker(proxy: Proxy) -> str:
    """Return the process id of the newest worker."""
    found = re.search(r"^Pid: (\d+)$", ask(proxy.settings.runtime_socket, "show info", 5), re.MULTILINE)
    assert found
    return found[1]


def see(proxy: Proxy, host: str | None) -> str | None:
    """Return the certificate that a client gets for a host; None when the handshake is refused."""
    return see_certificate(proxy.settings.https_bind, host)


def test_a_client_gets_the_certificate_of_its_host(proxy: Proxy, directory: Path, web: Web) -> None:
    """Each host has its own certificate; a client that names no host, or another one, is refused."""
    shop, many = write_pair(directory / "shop.pem", "shop.test"), write_pair(directory / "m.pem", "a.test", "*.b.test")
    serve(proxy, web)
    assert see(proxy, "shop.test") == shop
    assert see(proxy, "a.test") == many
    assert see(proxy, "x.b.test") == many
    assert see(proxy, "b.test") is None
    assert see(proxy, None) is None
    with connect(proxy.settings.https_bind, "shop.test") as connection:
        assert get(connection, "shop.test").startswith("HTTP/1.1 200")
    with connect(proxy.settings.https_bind, "shop.test", ["h2", "http/1.1"]) as connection:
        assert get_with_h2(connection, "shop.test") == 200
    with connect(proxy.settings.https_bind, "shop.test", ["http/1.1"]) as connection:
        assert connection.selected_alpn_protocol() == "http/1.1"


def test_certificates_change_without_a_reload(proxy: Proxy, directory: Path, web: Web) -> None:
    """A certificate that is added, renewed or removed counts after the pass, and after a restart, without a reload."""
    old = write_pair(directory / "shop.pem", "shop.test")
    serve(proxy, web)
    worker, reload_count = find_worker(proxy), proxy.reload_count()
    api = write_pair(directory / "api.pem", "api.test")
    assert proxy.run_pass().verdict is Verdict.UNCHANGED
    assert (see(proxy, "shop.test"), see(proxy, "api.test")) == (old, api)
    new = write_pair(directory / "shop.pem", "shop.test")
    proxy.run_pass()
    assert see(proxy, "shop.test") == new
    (directory / "api.pem").unlink()
    proxy.run_pass()
    assert see(proxy, "api.test") is None
    assert see(proxy, "shop.test") == new
    assert (find_worker(proxy), proxy.reload_count()) == (worker, reload_count)
    assert len(os.listdir(proxy.settings.certificate_copies_dir)) == 2
    proxy.stop()
    proxy.start()
    assert see(proxy, "shop.test") == new
    assert see(proxy, "api.test") is None
    assert make_edges(proxy.settings).master.reload() is None
    wait_for(lambda: see(proxy, "shop.test") == new, "the new worker answers")


def test_of_two_files_for_one_host_the_first_counts(
    proxy: Proxy, directory: Path, web: Web, caplog: pytest.LogCaptureFixture
) -> None:
    """Whichever of two files for one host is renewed, added or wrong, clients get what they get after a restart."""
    hosts = {"a.pem": ("shop.test", "a.test"), "b.c.pem": ("shop.test", "b.test"), "b.pem": ("b.test", "c.test")}
    now = {name: write_pair(directory / name, *names) for name, names in hosts.items()}
    serve(proxy, web)
    worker = find_worker(proxy)

    def check_order(changed: str) -> None:
        for host in ("shop.test", "a.test", "b.test", "c.test"):
            first = min((name for name in now if host in hosts[name]), default="")
            assert see(proxy, host) == now.get(first), (changed, host)

    check_order("start")
    for name in (*hosts, "b.c.pem", "a.pem"):
        now[name] = write_pair(directory / name, *hosts[name])
        assert proxy.run_pass().problems == ()
        check_order(name)
    (directory / "b.c.pem").write_text("nonsense")  # its last good content keeps its place
    now["a.pem"] = write_pair(directory / "a.pem", *hosts["a.pem"])
    assert len(proxy.run_pass().problems) == 1
    check_order("b.c.pem is wrong")
    weak = make_pair("shop.test", "a.test", kind=["rsa:512"])
    (directory / "a.pem").write_text(weak.certificate + weak.key)  # what HAProxy refuses changes nothing
    now["b.c.pem"] = write_pair(directory / "b.c.pem", *hosts["b.c.pem"])
    assert len(proxy.run_pass().problems) == 1
    check_order("HAProxy refuses a.pem")
    assert proxy.run_pass().verdict is Verdict.UNCHANGED
    for name in ("a.pem", "b.c.pem"):
        (directory / name).unlink()
        del now[name]
        assert proxy.run_pass().problems == ()
        check_order(f"{name} is gone")
    for name in ("b.c.pem", "a.pem"):
        now[name] = write_pair(directory / name, *hosts[name])
        assert proxy.run_pass().problems == ()
        check_order(f"{name} is back")
    assert find_worker(proxy) == worker
    assert len(os.listdir(proxy.settings.certificate_copies_dir)) == 4
    proxy.stop()
    proxy.start()
    check_order("restart")
    assert f"{directory}/b.c.pem: it names shop.test, for which clients get a.pem, the first file" in caplog.text
    assert f"{directory}/b.pem: it names b.test, for which clients get b.c.pem, the first file" in caplog.text


def test_the_second_file_for_a_host_never_serves_it(proxy: Proxy, directory: Path, web: Web) -> None:
    """While the first of two files for one host is renewed under load, no client gets the second, nor is refused."""
    pairs = [make_pair("shop.test") for _ in range(21)]
    (directory / "a.pem").write_text("".join(pairs[0]))
    second = write_pair(directory / "b.pem", "shop.test", "b.test")
    serve(proxy, web)
    stopping = threading.Event()
    seen: dict[str, list[str | None]] = {"shop.test": [], "b.test": []}

    def work(host: str) -> None:
        while not stopping.is_set():
            seen[host].append(see(proxy, host))

    clients = [threading.Thread(target=work, args=(host,)) for host in seen]
    for client in clients:
        client.start()
    try:
        for pair in pairs[1:]:
            (directory / "a.pem").write_text("".join(pair))
            assert proxy.run_pass().problems == ()
            assert see(proxy, "shop.test") == pair.certificate
    finally:
        stopping.set()
        for client in clients:
            client.join()
    assert set(seen["shop.test"]) <= {pair.certificate for pair in pairs}
    assert set(seen["b.test"]) == {second}


def test_certificates_of_two_kinds_share_a_host(
    proxy: Proxy, directory: Path, web: Web, caplog: pytest.LogCaptureFixture
) -> None:
    """An RSA and an ECDSA certificate for one host are no double: nothing is said, and each is renewed alone."""
    old = make_pair("shop.test", kind=["rsa:2048"])
    (directory / "shop.rsa.pem").write_text(old.certificate + old.key)
    write_pair(directory / "shop.ec.pem", "shop.test")
    serve(proxy, web)
    copies = Path(proxy.settings.certificate_copies_dir)
    before = {path.name for path in copies.glob("shop.rsa.*")}
    new = write_pair(directory / "shop.ec.pem", "shop.test")
    proxy.run_pass()
    assert see(proxy, "shop.test") == new
    assert {path.name for path in copies.glob("shop.rsa.*")} == before
    assert "it names" not in caplog.text


def test_a_certificate_changes_under_load(proxy: Proxy, directory: Path, web: Web) -> None:
    """While clients make new connections, a certificate is renewed 10 times: no request fails, the worker stays."""
    path, pairs = directory / "shop.pem", [make_pair("shop.test") for _ in range(11)]
    path.write_text("".join(pairs[0]))
    serve(proxy, web)
    worker, reload_count = find_worker(proxy), proxy.reload_count()
    stopping, answers = threading.Event(), []

    def work() -> None:
        while not stopping.wait(0.005):
            try:
                with connect(proxy.settings.https_bind, "shop.test") as connection:
                    answers.append(get(connection, "shop.test").partition("\r\n")[0])
            except OSError as error:
                answers.append(repr(error))

    clients = [threading.Thread(target=work) for _ in range(3)]
    for client in clients:
        client.start()
    try:
        for pair in pairs[1:]:
            count = len(answers)
            path.write_text("".join(pair))
            assert proxy.run_pass().problems == ()
            assert see(proxy, "shop.test") == pair.certificate
            wait_for(lambda count=count: len(answers) >= count + 5, "clients are answered")
    finally:
        stopping.set()
        for client in clients:
            client.join()
    assert set(answers) == {"HTTP/1.1 200 OK"}
    assert (find_worker(proxy), proxy.reload_count()) == (worker, reload_count)


def test_a_wrong_certificate_is_told_and_others_go_on(proxy: Proxy, directory: Path, web: Web) -> None:
    """Each wrong file is one line with its path and the remedy. Its last good content goes on, and so do all others."""
    good = write_pair(directory / "good.pem", "good.test")
    first, other = make_pair("kept.test"), make_pair("other.test")
    kept = directory / "kept.pem"
    kept.write_text(first.certificate + first.key)
    serve(proxy, web)
    kept.write_text(first.certificate + other.key)
    weak = make_pair("weak.test", kind=["rsa:512"])
    (directory / "weak.pem").write_text(weak.certificate + weak.key)
    (directory / "nokey.pem").write_text(other.certificate)
    (directory / "nocert.pem").write_text(other.key)
    (directory / "two keys.pem").write_text("")
    (directory / "twokeys.pem").write_text(other.certificate + other.key + other.key)
    (directory / "damaged.pem").write_text(other.certificate.replace("MII", "M!I") + other.key)
    (directory / "garbled.pem").write_text(other.certificate.replace("MII", "AAA") + other.key)
    (directory / "large.pem").write_text("x" * 70000)
    (directory / "chain.pem").write_text(other.certificate * 30 + other.key)
    (directory / "folder.pem").mkdir()
    (directory / "shop.crt").write_text(other.certificate)
    os.mkfifo(directory / "fifo.pem")
    expired = write_pair(directory / "old.pem", "old.test", days=-1)
    secret = subprocess.run(
        ["openssl", "pkey", "-aes128", "-passout", "pass:x"],
        input=other.key,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (directory / "secret.pem").write_text(other.certificate + secret)
    problems = proxy.run_pass().problems
    for name, words in {
        "kept.pem": "its key does not fit its first certificate; put the certificate of this key first, then the chain"
        "; its last good content goes on",
        "nokey.pem": "it has no private key; append the key of its first certificate; it is left out",
        "nocert.pem": "it has no certificate in PEM format",
        "two keys.pem": "is no name of a certificate; use letters",
        "weak.pem": "HAProxy refuses it: ",
        "twokeys.pem": "it has 2 private keys; leave one",
        "damaged.pem": "it is damaged: a block is not base64; write it again",
        "garbled.pem": "its first certificate cannot be read; write it again",
        "large.pem": "cannot be read: it is longer than 65536 bytes",
        "chain.pem": "it has more than 15000 bytes, which HAProxy does not take at run time; leave out the root",
        "folder.pem": "cannot be read: it is not a regular file; make it a regular file",
        "fifo.pem": "cannot be read: it is not a regular file",
        "shop.crt": "is no name of a certificate; use letters",
        "old.pem": "it expired on 20",
        "secret.pem": "its private key has a passphrase, which HAProxy cannot ask for; remove it: `openssl pkey`",
    }.items():
        assert [line for line in problems if line.startswith(f"{directory}/{name}: {words}")], (name, problems)
    assert len(problems) == 15
    assert see(proxy, "kept.test") == first.certificate
    assert see(proxy, "good.test") == good
    assert see(proxy, "old.test") == expired
    assert see(proxy, "other.test") is None
    assert proxy.run_pass().problems == problems
    assert format_table(read_report(proxy.settings)).count(str(directory)) == 15
    # A restart, and the loss of the copies, change nothing for the good ones.
    proxy.stop()
    assert "kept.pem: its key does not fit" in boot(proxy.settings)
    proxy.start()
    assert see(proxy, "kept.test") == first.certificate
    assert see(proxy, "good.test") == good
    keys = [*re.findall(r"-----BEGIN [A-Z ]*KEY-----\n(\S+)", first.key + other.key + secret), "PRIVATE"]
    assert not [key for key in keys if any(key in line for line in problems)]


def test_haproxy_starts_without_any_certificate(proxy: Proxy, directory: Path, web: Web) -> None:
    """Without a good certificate HAProxy starts, HTTP works, and the first certificate is in use without a reload."""
    (directory / "bad.pem").write_text("nonsense")
    serve(proxy, web)
    assert see(proxy, "shop.test") is None
    reload_count = proxy.reload_count()
    (directory / "bad.pem").unlink()
    assert f"{directory} has no certificates; put one there" in proxy.run_pass().problems[0]
    shop = write_pair(directory / "shop.pem", "shop.test")
    assert proxy.run_pass().problems == ()
    assert see(proxy, "shop.test") == shop
    assert proxy.reload_count() == reload_count


@pytest.mark.parametrize("loss", ["empty", "absent"])
def test_the_last_certificates_stay(proxy: Proxy, directory: Path, web: Web, loss: str) -> None:
    """A directory that is empty or gone, such as a volume that is not mounted, takes no certificate away."""
    shop = write_pair(directory / "shop.pem", "shop.test")
    serve(proxy, web)
    (directory / "shop.pem").unlink()
    if loss == "absent":
        directory.rmdir()
    problems = proxy.run_pass().problems
    assert len(problems) == 1
    assert str(directory) in problems[0]
    assert problems[0].endswith("before go on")
    assert see(proxy, "shop.test") == shop


def test_copies_are_private(proxy: Proxy, directory: Path) -> None:
    """Copies have mode 600; in a directory that passes its group on to HAProxy's user, 640."""
    copies = Path(proxy.settings.certificate_copies_dir)
    write_pair(directory / "shop.pem", "shop.test")
    boot(proxy.settings)
    assert copies.stat().st_mode & 0o7777 == 0o700
    assert {path.stat().st_mode & 0o7777 for path in copies.iterdir()} == {0o600}
    copies.chmod(0o2750)
    make_edges(proxy.settings).certificates.refresh(None)
    assert {path.stat().st_mode & 0o7777 for path in copies.iterdir()} == {0o640}


def test_an_interrupted_change_is_ended(proxy: Proxy, directory: Path, web: Web) -> None:
    """What a pass had begun when it was killed does not stand in the way of the next one."""
    write_pair(directory / "shop.pem", "shop.test")
    serve(proxy, web)
    pair = make_pair("x.test")
    path = f"{proxy.settings.certificate_copies_dir}/x.0123456789abcdef.pem"
    ask(proxy.settings.runtime_socket, f"new ssl cert {path}; set ssl cert {path} <<\n{pair.certificate}{pair.key}", 5)
    new = write_pair(directory / "shop.pem", "shop.test")
    assert proxy.run_pass().problems == ()
    assert see(proxy, "shop.test") == new


def test_a_trial_that_fails_is_no_refusal(proxy: Proxy, directory: Path, web: Web) -> None:
    """Where HAProxy cannot try a certificate, all stay as they were, and the next pass tries again."""
    old = write_pair(directory / "shop.pem", "shop.test")
    serve(proxy, web)
    new = write_pair(directory / "shop.pem", "shop.test")
    problems = proxy.run_pass(haproxy_bin="/bin/false").problems
    assert problems == ("certificates stay as they were: /bin/false -c ended with exit status 1 and no message",)
    assert see(proxy, "shop.test") == old
    assert proxy.run_pass().problems == ()
    assert see(proxy, "shop.test") == new


# HAProxy, but a trial of certificates waits for a file.
SLOW = """\
#!/bin/sh
case "$*" in *.trial.cfg)
    touch {place}/begun
    n=0; while [ ! -e {place}/go ] && [ $n -lt 300 ]; do sleep 0.1; n=$((n + 1)); done
esac
exec haproxy "$@"
"""


def test_servers_do_not_wait_for_certificates(proxy: Proxy, directory: Path, web: Web, short_dir: Path) -> None:
    """A leave is applied before a slow trial of certificates ends, and the trial counts all the same."""
    write_pair(directory / "shop.pem", "shop.test")
    serve(proxy, web)
    slow = short_dir / "slow"
    slow.write_text(SLOW.format(place=short_dir))
    slow.chmod(0o755)
    with answering() as leaving:
        proxy.record("web2", leaving.port)
        proxy.run_pass()
        proxy.wait_up("web2")
        new = write_pair(directory / "shop.pem", "shop.test")
        proxy.record("web2", leaving.port, status="left")
        running = threading.Thread(target=proxy.run_pass, kwargs={"haproxy_bin": str(slow)})
        running.start()
        try:
            wait_for((short_dir / "begun").exists, "the trial has begun")
            servers = probe.read_servers(proxy.settings) or {}
            assert "web1" in servers
            assert "web2" not in servers or servers["web2"].status == "DRAIN"
        finally:
            (short_dir / "go").touch()
            running.join()
    assert see(proxy, "shop.test") == new


def test_a_reload_finds_certificates(proxy: Proxy, directory: Path, web: Web) -> None:
    """The pass that adds the HTTPS listener, or that comes after the copies were lost, has certificates for it."""
    shop = write_pair(directory / "shop.pem", "shop.test")
    changed, proxy.settings = proxy.settings, proxy.settings.replace(https_bind="")
    start(proxy)
    proxy.settings = changed
    proxy.record("web1", web.port)
    assert proxy.run_pass().verdict is Verdict.RELOADED
    assert see(proxy, "shop.test") == shop
    for name in os.listdir(proxy.settings.certificate_copies_dir):
        os.unlink(os.path.join(proxy.settings.certificate_copies_dir, name))
    assert proxy.run_pass(balance="leastconn").verdict is Verdict.RELOADED
    assert see(proxy, "shop.test") == shop


def test_a_list_that_is_no_file_is_set_aside(proxy: Proxy, directory: Path, web: Web) -> None:
    """A directory in the place of the crt-list makes HAProxy refuse no configuration."""
    shop = write_pair(directory / "shop.pem", "shop.test")
    serve(proxy, web)
    crt_list = Path(proxy.settings.certificate_list)
    crt_list.unlink()
    crt_list.mkdir()
    assert proxy.run_pass(balance="leastconn").verdict is Verdict.RELOADED
    assert see(proxy, "shop.test") == shop
    assert Path(f"{crt_list}.aside-1").is_dir()


def test_a_lost_copy_is_no_refusal(proxy: Proxy, directory: Path, web: Web) -> None:
    """A copy that was removed makes HAProxy refuse no configuration: the pass makes it again."""
    shop, api = write_pair(directory / "shop.pem", "shop.test"), write_pair(directory / "api.pem", "api.test")
    serve(proxy, web)
    copies = Path(proxy.settings.certificate_copies_dir)
    next(copies.glob("shop.*")).unlink()
    assert proxy.run_pass(balance="leastconn").verdict is Verdict.RELOADED
    assert (see(proxy, "shop.test"), see(proxy, "api.test")) == (shop, api)
    assert len(list(copies.glob("*.pem"))) == 2


def list_opened(events: bytes) -> set[str]:
    """Return the names in what inotify reports (inotify(7))."""
    names, at = set(), 0
    while at < len(events):
        size = int.from_bytes(events[at + 12 : at + 16], sys.byteorder)
        names.add(events[at + 16 : at + 16 + size].rstrip(b"\0").decode())
        at += 16 + size
    return names


def test_unchanged_certificates_are_not_opened(proxy: Proxy, directory: Path, web: Web) -> None:
    """A pass over unchanged certificates, good and wrong ones, opens neither them nor their copies."""
    write_pair(directory / "shop.pem", "shop.test")
    (directory / "bad.pem").write_text("nonsense")
    serve(proxy, web)
    time.sleep(1.1)  # a file younger than a second may change unseen
    reconciler = Reconciler(proxy.settings)
    problems = reconciler.reconcile(lambda: None).problems
    assert len(problems) == 1
    libc, opened = ctypes.CDLL(None), 0x20
    fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        for path in (directory, proxy.settings.certificate_copies_dir):
            assert libc.inotify_add_watch(fd, os.fsencode(path), opened) > 0
        assert reconciler.reconcile(lambda: None).problems == problems
        assert not [name for name in list_opened(os.read(fd, 65536)) if name.endswith(".pem")]
        assert (directory / "shop.pem").read_text()
        assert list_opened(os.read(fd, 65536)) == {"shop.pem"}
    finally:
        os.close(fd)


def test_every_change_of_a_certificate_is_seen(proxy: Proxy, directory: Path, web: Web) -> None:
    """A file that is written in place counts, even where it keeps size and mtime; so does one that cannot be read."""
    path, pairs = directory / "shop.pem", [make_pair("shop.test") for _ in range(3)]
    texts = [(pair.certificate + pair.key).ljust(4000, "\n") for pair in pairs]
    path.write_text(texts[0])
    mtime_ns = path.stat().st_mtime_ns
    serve(proxy, web)
    reconciler = Reconciler(proxy.settings)
    time.sleep(1.1)
    reconciler.reconcile(lambda: None)
    for pair, text in zip(pairs[1:], texts[1:], strict=True):
        path.write_text(text)
        os.utime(path, ns=(mtime_ns, mtime_ns))
        reconciler.reconcile(lambda: None)
        assert see(proxy, "shop.test") == pair.certificate
    path.unlink()
    path.mkdir()
    assert "cannot be read: it is not a regular file" in reconciler.reconcile(lambda: None).problems[0]
    path.rmdir()
    path.write_text(texts[0])
    assert reconciler.reconcile(lambda: None).problems == ()
    assert see(proxy, "shop.test") == pairs[0].certificate


def test_the_daemon_sees_a_change_at_once(proxy: Proxy, directory: Path, web: Web) -> None:
    """The daemon makes a pass soon after a file of the directory has changed, and tells a fault once."""
    write_pair(directory / "shop.pem", "shop.test")
    serve(proxy, web)
    with running_daemon(proxy) as process:
        proxy.run_pass()  # the first pass of the daemon has ended
        new = write_pair(directory / "shop.pem", "shop.test")
        wait_for(lambda: see(proxy, "shop.test") == new, "the new certificate is in use", 10)
        (directory / "shop.pem").write_text("nonsense")
        wait_for(lambda: said(proxy, "shop.pem: it has no certificate"), "the fault is told", 10)
        assert process.poll() is None
    log = log_path(proxy).read_text()
    assert log.count("shop.pem: it has no certificate") == 1
    assert "certificates changed at run time: ~shop.pem" in log
    assert "PRIVATE" not in log


def test_check_names_wrong_certificates(proxy: Proxy, directory: Path) -> None:
    """`serf-haproxy check` tells every fault before a pass, warns of two files for one host, and leaves no copy."""
    write_pair(directory / "shop.pem", "shop.test")
    argv = [sys.executable, "-m", "serf_haproxy", "check"]
    environ = os.environ | proxy.environment
    assert subprocess.run(argv, env=environ, check=False).returncode == 0
    write_pair(directory / "double.pem", "double.test", "shop.test")
    checked = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)
    said = f"{directory}/shop.pem: it names shop.test, for which clients get double.pem, the first file"
    assert (checked.returncode, checked.stderr.count(said)) == (0, 1)
    (directory / "double.pem").unlink()
    (directory / "bad.pem").write_text("nonsense")
    checked = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)
    assert checked.returncode == 100
    assert f"{directory}/bad.pem: it has no certificate in PEM format" in checked.stderr
    assert not os.path.exists(proxy.settings.certificate_copies_dir)


SERVICES = """\
[shop]
routes = ["shop.test"]
redirect_https = true
hsts_max_age_s = 31536000

[api]
routes = ["api.test"]
"""


def test_redirects_and_hsts(proxy: Proxy, directory: Path) -> None:
    """A service may redirect to HTTPS, except what proves a host to an authority, and tell browsers to remember it."""
    Path(proxy.settings.services_file).write_text(SERVICES)
    write_pair(directory / "all.pem", "shop.test", "api.test")
    proxy.settings = proxy.settings.replace(https_port=8443)
    start(proxy)

    def ask_plainly(host: str, path: str = "/", header: str = "") -> str:
        address, _, port = proxy.settings.frontend_bind.rpartition(":")
        with socket.create_connection((address, int(port)), 10) as connection:
            return get(connection, f"{host}\r\n{header}" if header else host, path)

    redirected = ask_plainly("SHOP.test:80", "/cart?x=1&y=%20")
    assert redirected.startswith("HTTP/1.1 308")
    assert "location: https://shop.test:8443/cart?x=1&y=%20" in redirected
    assert ask_plainly("shop.test", "/", "X-Forwarded-Proto: https").startswith("HTTP/1.1 308")
    assert ask_plainly("shop.test", "/.well-known/acme-challenge/x").startswith("HTTP/1.1 503")
    assert ask_plainly("api.test").startswith("HTTP/1.1 503")
    assert ask_plainly("other.test").startswith("HTTP/1.1 503")
    hsts = "strict-transport-security: max-age=31536000"
    for host, expected in (("shop.test", True), ("api.test", False)):
        with connect(proxy.settings.https_bind, host) as connection:
            answer = get(connection, host)
        assert answer.startswith("HTTP/1.1 503")
        assert (hsts in answer) is expected
    assert hsts not in redirected
    assert probe.read_services(proxy.settings).faults == ()
