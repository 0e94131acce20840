"""The commands of the tutorial, run as they stand there."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.cluster import PORTS
from serf_haproxy.lab.cluster import Lab

PAGE = Path(__file__).parents[2] / "docs" / "tutorial" / "first-cluster.md"


@pytest.fixture
def lab(short_dir: Path) -> Iterator[Lab]:
    """Yield a lab, not started, in the directory that is the default one of the tutorial's shell."""
    lab = Lab(short_dir / "serf-haproxy" / "lab", next(PORTS))
    try:
        yield lab
    finally:
        lab.down()


def read_commands(title: str) -> list[str]:
    """Return the commands of each block of a section as a shell script."""
    section = PAGE.read_text().partition(title)[2].partition("\n## ")[0]
    return [read_script(block) for block in re.findall(r"^```\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)]


def read_script(block: str) -> str:
    """Return the commands among the lines of a block."""
    script, in_document = [], False
    for line in block.splitlines():
        if line.startswith("$ ") or in_document:
            script.append(line.removeprefix("$ "))
            in_document = line.endswith("<<END") or (in_document and line != "END")
    return "\n".join(script)


def test_two_services_with_tls_take_ten_lines(lab: Lab, short_dir: Path) -> None:
    """The tutorial leads from the default service to two with TLS in ten lines of commands."""
    steps, look = read_commands("## 8. Carry a second service, and TLS")
    assert len(steps.splitlines()) <= 10
    base = lab.port_base
    assert base
    script = re.sub(
        r"\b1808([0-9])\b", lambda found: str(base + int(found[1])), f"serf-haproxy lab up\n{steps}\n{look}"
    )
    script = script.replace("lab up", f"lab up --port-base {base}")
    script = re.sub(r"\bsleep ([0-9])", lambda found: f"sleep {4 * int(found[1])}", script)  # on a busy machine
    bin_dir = Path(sys.executable).parent
    environ = os.environ | {"XDG_STATE_HOME": str(short_dir), "PATH": f"{bin_dir}:{os.environ['PATH']}"}
    argv = ["bash", "-e", "-o", "pipefail", "-c", script]
    ran = subprocess.run(argv, env=environ, cwd=short_dir, capture_output=True, text=True, timeout=150, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    answers = [json.loads(found)["tag"] for found in re.findall(r'{"hello".*?}', ran.stdout)]
    assert (answers[0], len(answers)) == ("web4", 2)
    assert answers[1] in {"web1", "web2", "web3"}
    assert "services: api, nodes)" in ran.stdout
    assert "service api (http, api.localhost): 1 of 1 servers are up" in ran.stdout
    assert "service nodes (http, all other requests): 3 of 3 servers are up" in ran.stdout
    assert re.search(r"^lb1 +up +https?://\S+ +https://127.0.0.1:[0-9]+ ", ran.stdout, re.MULTILINE)
