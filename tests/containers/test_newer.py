"""Integration tests run inside the balancer's image, with Debian 13's HAProxy and Serf."""

import os
import platform
import re
import sys
from pathlib import Path

from containers.engine import PREFIX, ROOT, Engine, run

# What HAProxy does with servers at run time and with certificates; NEWER=all runs the others too.
MODULES = ("equality", "https", "live", "runtime_rules")
if os.environ.get("NEWER") == "all":
    MODULES += ("clients", "forwarding", "health", "last_resort", "listening", "load", "maxconn", "measured")
    MODULES += ("old_workers", "pass", "service_options", "sharing", "splits", "sticky")
TESTS = ("tests/config/test_render.py", *(f"tests/integration/test_{name}.py" for name in MODULES))
PACKAGES = ("pytest", "pytest-randomly", "hypothesis", "requests", "starlette", "uvicorn")
# The code under test is the image's. `env -i` drops the image's settings, which are for its own paths.
SCRIPT = f"""
set -e
mkdir /work
cd /source
cp -r pyproject.toml tests handlers s6 images agent /work
cd /work
handlers/install /opt/serf-haproxy/bin/python handlers/member_event
handlers/install /opt/serf-haproxy/bin/python handlers/order_event
exec env -i PATH="$PATH" PYTHONPATH=/packages STICKY_CLIENTS=200 \\
    python -m pytest -q -p no:cacheprovider {" ".join(TESTS)}
"""


def fetch_packages(directory: Path) -> None:
    """Install the tests' packages for Debian 13's Python into a directory."""
    words = ["--quiet", "--disable-pip-version-check", "--only-binary=:all:", f"--target={directory}"]
    words += ["--python-version=3.13", "--implementation=cp", "--abi=cp313", "--abi=abi3", "--abi=none"]
    words += [f"--platform=manylinux{tag}_{platform.machine()}" for tag in ("_2_28", "_2_17", "2014", "_2_12")]
    run([sys.executable, "-m", "pip", "install", *words, *PACKAGES], 300)


def test_the_rules_hold_with_the_newer_haproxy_and_serf(engine: Engine, tmp_path: Path) -> None:
    """The tests of rendering and of run-time changes succeed with HAProxy 3 and Serf 0.10."""
    fetch_packages(tmp_path)
    where = [
        f"--label={engine.label}",
        "--network=none",
        f"--volume={ROOT}:/source:ro",
        f"--volume={tmp_path}:/packages:ro",
    ]
    here = ROOT / "tests" / "containers" / "testing"
    image = engine.build("testing", here / "Dockerfile", here, f"--build-arg=IMAGE={PREFIX}/balancer")
    versions = engine("run", "--rm", *where, "--entrypoint=sh", image, "-c", "haproxy -v; dpkg-query -W serf")
    assert re.search(r"HAProxy version [3-9]\.", versions), versions
    assert re.search(r"^serf\s+0\.1\d\.", versions, re.MULTILINE), versions  # it calls itself 0.8.2-dev
    said = engine("run", "--rm", *where, "--entrypoint=sh", image, "-c", SCRIPT, timeout_s=1200)
    print(said)
    assert re.search(r"^\d\d+ passed", said.splitlines()[-1]), said
