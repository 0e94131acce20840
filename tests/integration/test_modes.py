"""Permissions of HAProxy's configuration, of the files beside it and of the state directory."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.proxy import Proxy, free_port
from serf_haproxy.control import rendering
from serf_haproxy.control.outcome import Verdict
from serf_haproxy.system.files import read_mode


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    """Work with the umask of most systems."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def list_modes(proxy: Proxy) -> dict[str, int | None]:
    """Return the permissions of the live file and of those beside it."""
    path = Path(proxy.settings.config_path)
    return {each.name.removeprefix(path.name): read_mode(str(each)) for each in path.parent.glob(f"{path.name}*")}


def reject(proxy: Proxy, **changes: object) -> None:
    """Have HAProxy refuse a configuration."""
    with open(proxy.settings.template_path or "/dev/null", encoding="utf-8") as before:
        text = before.read()
    wrong = Path(proxy.settings.state_dir, "wrong.j2")
    wrong.write_text(f"{text or Path(rendering.BUILT_IN_TEMPLATE).read_text()}\nnonsense\n")
    wrong.chmod(read_mode(proxy.settings.template_path) or 0o644)
    assert proxy.run_pass(template_path=str(wrong), **changes).verdict is Verdict.REJECTED


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o660, 0o644])
def test_a_foreign_configuration_keeps_its_mode(short_dir: Path, mode: int) -> None:
    """The live file keeps its permissions, and every file beside it has the same: it may contain secrets."""
    proxy = Proxy(short_dir)
    live = Path(proxy.settings.config_path)
    own = f"global\n    stats socket {proxy.settings.runtime_socket} level admin\ndefaults\n    timeout client 1s\n"
    live.write_text(f"{own}frontend own\n    bind 127.0.0.1:{free_port()}\n")
    live.chmod(mode)
    try:
        proxy.start()
        proxy.record("web1", 8001)
        assert proxy.run_pass().verdict is Verdict.RELOADED
        proxy.record("web2", 8002)
        assert proxy.run_pass().verdict is Verdict.APPLIED
        with socket.create_server(("127.0.0.1", 0)) as taken:  # the previous one is restored
            bind = f"127.0.0.1:{taken.getsockname()[1]}"
            assert proxy.run_pass(frontend_bind=bind).verdict is Verdict.UNCONFIRMED
        assert list_modes(proxy)[""] == mode
        reject(proxy)
    finally:
        proxy.stop()
    assert list_modes(proxy) == dict.fromkeys(("", ".before", ".good", ".rejected", ".state"), mode)


@pytest.mark.parametrize(("template_mode", "live_mode", "mode"), [(0o600, 0o644, 0o600), (0o640, 0o664, 0o660)])
def test_a_secret_template_makes_secret_files(short_dir: Path, template_mode: int, live_mode: int, mode: int) -> None:
    """What is made from a template is readable for no one who may not read the template."""
    template = short_dir / "mine.j2"
    template.write_text("# a secret\n" + Path(rendering.BUILT_IN_TEMPLATE).read_text())
    template.chmod(template_mode)
    proxy = Proxy(short_dir, SERF_HAPROXY_TEMPLATE_PATH=str(template))
    live = Path(proxy.settings.config_path)
    live.chmod(live_mode)
    Path(f"{live}.before").touch(0o644)
    try:
        proxy.start()
        for name in ("web1", "web2"):
            proxy.record(name, 8001)
            assert proxy.run_pass().verdict in (Verdict.APPLIED, Verdict.RELOADED)
        kept = Path(proxy.settings.state_dir, "template.good")
        assert read_mode(str(kept)) == template_mode
        reject(proxy)
    finally:
        proxy.stop()
    modes = list_modes(proxy)
    assert modes.pop(".before") == 0o644 & mode  # it is not ours: it loses permissions, and gets none
    assert set(modes.values()) == {mode}


def test_the_locks_of_a_pass_are_the_owners(proxy: Proxy) -> None:
    """No other user can open the lock of a pass, and so freeze the daemon."""
    proxy.run_pass()
    assert read_mode(os.path.join(proxy.settings.state_dir, "pass.lock")) == 0o600
