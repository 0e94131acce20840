"""HAProxy starts with a damaged live file, last good file, template or server state."""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import probe
from integration.proxy import Proxy, free_port, make_environment, wait_for
from integration.test_cluster import Cluster, cluster  # noqa: F401 - a fixture
from integration.test_daemon import COMMAND
from serf_haproxy.control import rendering
from serf_haproxy.control.edges import make_edges
from serf_haproxy.lab import programs
from serf_haproxy.settings import load_settings
from serf_haproxy.system.locks import locked

KEPT = Path(programs.S6_DIR, "haproxy", "data", "kept")


def boot(proxy: Proxy, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run `serf-haproxy boot`."""
    environ = os.environ | proxy.environment | environment
    return subprocess.run([*COMMAND, "boot"], env=environ, capture_output=True, text=True, check=False)


def make_bare_environment(directory: Path) -> dict[str, str]:
    """Return an environment in which no directory exists yet."""
    environ = make_environment(directory / "var")
    for name in ("master", "runtime"):
        environ[f"SERF_HAPROXY_{name.upper()}_SOCKET"] = str(directory / "run" / name / "its.sock")
    return programs.base_environ({}) | environ | {"LOG_DIR": str(directory / "log" / "of" / "all")}


@contextlib.contextmanager
def running_tree(directory: Path, environ: dict[str, str]) -> Iterator[Path]:
    """Run the s6 tree for the duration of a block; yield its scan directory when all services are ready."""
    scan = directory / "service"
    shutil.copytree(programs.S6_DIR, scan, symlinks=True, dirs_exist_ok=True)
    process = subprocess.Popen(["s6-svscan", scan], env=environ, start_new_session=True)
    try:
        for service in ("haproxy", "daemon", "serf"):
            argv = ["s6-svwait", "-U", "-t", "1000", scan / service]
            wait_for(lambda argv=argv: not subprocess.run(argv, capture_output=True, check=False).returncode, service)
        yield scan
    finally:
        process.terminate()
        assert process.wait(30) == 0


def test_the_tree_needs_no_directory(short_dir: Path) -> None:
    """The s6 tree starts the configured HAProxy where no directory exists, and again after /run was emptied."""
    environ = make_bare_environment(short_dir)
    address = f"127.0.0.1:{free_port()}"
    environ |= {"SERF_BIND": address, "SERF_RPC_ADDR": environ["SERF_HAPROXY_RPC_ADDR"], "SERF_TAGS": "role=balancer"}
    own = short_dir / "own-haproxy"
    own.write_text(f'#!/bin/sh\nexec {shutil.which("haproxy", path=environ["PATH"])} "$@"\n')
    own.chmod(0o755)
    no_other = short_dir / "bin"
    no_other.mkdir()
    (no_other / "haproxy").symlink_to("/bin/false")
    environ |= {"SERF_HAPROXY_HAPROXY_BIN": str(own), "PATH": f"{no_other}:{environ['PATH']}"}
    with running_tree(short_dir, environ):
        assert probe.read_description(load_settings(environ))
    assert (short_dir / "log" / "of" / "all" / "daemon" / "current").exists()
    shutil.rmtree(short_dir / "run")
    with running_tree(short_dir, environ):
        assert probe.read_description(load_settings(environ))


def test_boot_makes_what_haproxy_needs(short_dir: Path) -> None:
    """After `boot` on a new machine, HAProxy starts with the README's command and creates both sockets."""
    environ = make_bare_environment(short_dir)
    settings = load_settings(environ)
    subprocess.run([*COMMAND, "boot"], env=environ, check=True, capture_output=True)
    argv = ["haproxy", "-W", "-db", "-S", settings.master_socket, "-f", settings.config_path]
    process = subprocess.Popen(argv, env=environ, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: probe.read_description(settings), "HAProxy answers")
        assert probe.read_servers(settings) == {}
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.parametrize(
    "damage", [b"", b"\0\xff\n", b"global\n    bogus\n", None], ids=["empty", "bytes", "bogus", "none"]
)
def test_haproxy_starts_with_the_last_confirmed_configuration(cluster: Cluster, damage: bytes | None) -> None:  # noqa: F811
    """When HAProxy is killed after the live file was damaged without a daemon, it restarts and serves."""
    live = Path(cluster.settings.config_path)
    wait_for(lambda: "server web2 " in live.read_text(), "the file follows HAProxy")
    cluster.lab.add("web3")  # so that the previous configuration becomes the last confirmed one
    wait_for(lambda: "server web3 " in live.read_text(), "the file follows HAProxy")
    cluster.control("daemon", "-wd", "-d")
    if damage is None:
        live.unlink()
    else:
        live.write_bytes(damage)
    Path(cluster.settings.server_state_path).write_bytes(b"\0broken\n")
    before = cluster.pid("haproxy")
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: cluster.pid("haproxy") not in (before, -1), "HAProxy is back")
    wait_for(lambda: cluster.servers() >= {"web1", "web2"}, "HAProxy has servers")
    wait_for(lambda: cluster.seen() >= {"127.0.1.1", "127.0.1.2"}, "the servers answer")
    cluster.control("daemon", "-wU", "-u")
    cluster.wait_servers("web1", "web2", "web3")
    wait_for(cluster.is_right, "the live file and HAProxy agree")


def test_boot_waits_for_a_pass(tmp_path: Path) -> None:
    """`boot` writes the files of a pass, so it waits for the end of one that runs."""
    proxy = Proxy(tmp_path)
    proxy.record("web1", 8001)
    live = Path(proxy.settings.config_path)
    argv, environ = [*COMMAND, "boot"], os.environ | proxy.environment
    with locked(make_edges(proxy.settings).state.pass_lock_path, 5, "the test"):
        process = subprocess.Popen(argv, env=environ, stdout=subprocess.DEVNULL)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(3)
        assert not Path(f"{live}.candidate").exists()
    assert process.wait(30) == 0
    assert "server web1 127.0.0.1:8001" in live.read_text()


def test_boot_tries_each_fallback_in_turn(tmp_path: Path) -> None:
    """`boot` tries the last confirmed file, the node files, the last good and the built-in template in turn."""
    proxy = Proxy(tmp_path)
    proxy.record("web1", 8001)
    own = tmp_path / "own.j2"
    own.write_text("bogus {{ nothing }}")
    environ = {"SERF_HAPROXY_TEMPLATE_PATH": str(own)}
    live, good = Path(proxy.settings.config_path), Path(f"{proxy.settings.config_path}.good")

    good.write_text(f"# confirmed\n{probe.render(proxy.settings, ()).text}")
    ended = boot(proxy, **environ)
    assert ended.stdout == "HAProxy starts with the last one that HAProxy confirmed\n"
    assert live.read_text() == good.read_text()

    good.write_text("bogus")
    ended = boot(proxy, **environ)
    assert (
        "starts with one made with the built-in template; not with the last one that HAProxy confirmed:" in ended.stdout
    )
    assert "'nothing' is undefined" in ended.stdout
    assert "server web1 127.0.0.1:8001" in live.read_text()

    template = "# mine\n" + Path(rendering.BUILT_IN_TEMPLATE).read_text()
    make_edges(proxy.settings).state.keep_template(template, 0o644)
    assert "starts with one made with the last good template" in boot(proxy, **environ).stdout
    assert live.read_text().startswith("# mine\n")
    assert "server web1" in live.read_text()

    good.unlink()
    assert boot(proxy).stdout == "HAProxy starts with one made with the present template\n"
    assert probe.check(proxy.settings, live.read_text()) is None


def test_an_unwritable_live_file_is_reported(tmp_path: Path) -> None:
    """When the live file cannot be replaced, `boot` reports it and ends with exit code 111."""
    proxy = Proxy(tmp_path)
    ended = boot(proxy, SERF_HAPROXY_CONFIG_PATH="/proc/haproxy.cfg")
    assert ended.returncode == 111
    assert "/proc/haproxy.cfg" in ended.stderr


@pytest.mark.parametrize("damage", ["no secrets", "good template", "record"])
def test_boot_takes_the_confirmed_configuration_whatever_else_is_broken(proxy: Proxy, damage: str) -> None:
    """The last configuration that HAProxy confirmed needs no other file; without it boot still finds one."""
    state_dir, good = Path(proxy.settings.state_dir), Path(f"{proxy.settings.config_path}.good")
    environ = {}
    if damage == "no secrets":
        environ["SERF_HAPROXY_PROOF_SECRET_FILE"] = str(state_dir / "missing")
    elif damage == "good template":
        (state_dir / "template.good").mkdir()
        (state_dir / "own.j2").write_text(Path(rendering.BUILT_IN_TEMPLATE).read_text())
        environ["SERF_HAPROXY_TEMPLATE_PATH"] = str(state_dir / "own.j2")
    else:
        (state_dir / "last_pass.json").mkdir()
    good.write_text(Path(proxy.settings.config_path).read_text())
    ended = boot(proxy, **environ)
    assert (ended.returncode, ended.stdout) == (0, "HAProxy starts with the last one that HAProxy confirmed\n")
    good.unlink()
    ended = boot(proxy, **environ)
    assert ended.returncode == 0, ended.stderr
    expected = "without servers" if damage == "no secrets" else "made with the present template"
    assert f"starts with one {expected}" in ended.stdout


def test_what_a_container_kept_is_used_once_and_only_by_the_same(proxy: Proxy, tmp_path: Path) -> None:
    """The live file comes back after a restart that emptied its directory, unless a setting or the copy has changed."""
    live, state = Path(proxy.settings.config_path), Path(proxy.settings.state_dir)
    template = tmp_path / "own.j2"
    template.write_text("a template")
    environ = os.environ | proxy.environment | {"SERF_HAPROXY_TEMPLATE_PATH": str(template)}
    text = live.read_text()
    live.chmod(0o640)

    def keep(change: Callable[[], object] = dict, **changed: str) -> str | None:
        """Save, make a change, restore; return what the live file is then."""
        live.write_text(text)
        subprocess.run([KEPT, "save"], env=environ, check=True)
        live.unlink()
        change()
        subprocess.run([KEPT, "restore"], env=environ | changed, check=True)
        assert list(state.glob("*.kept*")) == [], "it is used once"
        return live.read_text() if live.exists() else None

    assert keep() == text
    assert live.stat().st_mode & 0o777 == 0o640
    assert keep(SERF_HAPROXY_FRONTEND_BIND=":8080") is None
    assert keep(SERF_HAPROXY_HAPROXY_BIN="/bin/true") is None
    assert keep(lambda: template.write_text("another template")) is None
    assert keep(lambda: (state / "haproxy.cfg.kept").write_text(text[:-100])) is None
    assert keep() == text
    live.unlink()
    subprocess.run([KEPT, "restore"], env=environ, check=True)
    assert not live.exists()
