"""The commands and outputs of the tutorial with Docker, run as they stand there."""

import re
import subprocess
from collections.abc import Iterator

import pytest

from containers.cluster import FAIL_S
from containers.engine import PREFIX, ROOT, Engine
from integration.proxy import wait_for

PAGE = ROOT / "docs" / "tutorial" / "docker-lab.md"
NAMES = ("ha", "s1", "s2", "s3")
NETWORK = f"{PREFIX}-tutorial"


def read_blocks() -> list[list[tuple[str, list[str]]]]:
    """Return the commands of each block of the page, each with the lines of output that the page shows."""
    blocks = []
    for text in re.findall(r"^```\n(\$ .*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        steps: list[tuple[str, list[str]]] = []
        for line in text.splitlines():
            if line.startswith("$ "):
                steps.append((line.removeprefix("$ "), []))
            else:
                steps[-1][1].append(line)
        blocks.append(steps)
    return blocks


def adapt(engine: Engine, command: str) -> str:
    """Return a command for the tests' images, network and label, without the published ports."""
    command = re.sub(r"\bserf-haproxy/(balancer|webapp)\b", rf"{PREFIX}/\g<1>", re.sub(r"-p \S+ ", "", command))
    command = re.sub(r"(--network |network (?:create|rm) )lab\b", rf"\g<1>{NETWORK}", command)
    return re.sub(r"^docker (run|network create) ", rf"docker \g<1> --label {engine.label} ", command)


def is_shown(expected: list[str], said: str) -> bool:
    """Return whether each line of the page is a line of the output; `...` and runs of blanks stand for anything."""
    patterns = [re.sub(r"\\ (\\ )+", " +", re.escape(line)).replace(r"\.\.\.", ".*") for line in expected]
    return all(re.search(f"^{pattern}$", said, re.MULTILINE) for pattern in patterns)


def follow(engine: Engine, command: str, expected: list[str]) -> None:
    """Run a command until it shows what the page shows; one that shows nothing there runs once and succeeds."""
    said = ""

    def works() -> bool:
        nonlocal said
        argv = ["bash", "-c", adapt(engine, command)]
        ran = subprocess.run(argv, env=engine.environ, capture_output=True, text=True, timeout=120, check=False)
        said = ran.stdout + ran.stderr
        assert expected or ran.returncode == 0, f"{command}: {said}"
        return is_shown(expected, said)

    wait_for(works, lambda: f"{command}: {said}", 2 * FAIL_S)


@pytest.fixture
def shell(engine: Engine) -> Iterator[Engine]:
    """Yield an engine without the tutorial's containers, before and after."""

    def clean() -> None:
        engine("rm", "-f", "-v", *NAMES, is_checked=False)
        engine("network", "rm", NETWORK, is_checked=False)

    clean()
    yield engine
    clean()


def test_the_tutorial_with_docker_shows_what_it_says(shell: Engine) -> None:
    """Each command succeeds, and shows the lines that stand below it on the page."""
    blocks = read_blocks()
    assert len(blocks) > 10
    for command, expected in (step for block in blocks for step in block):
        follow(shell, command, expected)


def test_the_test_of_the_tutorial_can_fail() -> None:
    """A line that is missing or different is not shown."""
    assert is_shown(["s1  ...:7946  alive"], "x\ns1   10.0.0.1:7946  alive\n")
    assert not is_shown(["s1  ...:7946  alive"], "s1  10.0.0.1:7946  failed\n")
    assert not is_shown(["true ..."], "")
