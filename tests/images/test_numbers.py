"""The checks that the images make of their variables before anything starts."""

import subprocess

import pytest

from conftest import ROOT

SCRIPT = '. "$1"; refuse() { echo "$*"; exit 100; }; check_numbers'
RIGHT = (
    {},
    {"SERF_PROFILE": "wan", "SERF_LOG_LEVEL": "DEBUG", "SERF_NODE": "web-1.example_org"},
    {"SERF_JOIN": "lb1 lb2.example.org:7946 10.0.0.5 [fd00::1]:7946 fd00::2 fe80::1%eth0"},
    {"APP_GRACE_S": "2.5", "APP_STOP_S": "0"},
)
WRONG = (
    ({"SERF_PROFILE": "fast"}, "SERF_PROFILE='fast': allowed is lan, wan or local"),
    ({"SERF_LOG_LEVEL": "loud"}, "SERF_LOG_LEVEL='loud': allowed is trace, debug, info, warn or err"),
    ({"SERF_NODE": "web 1"}, "SERF_NODE='web 1': allowed are letters, digits, dots, dashes and underscores"),
    ({"SERF_NODE": "-web"}, "SERF_NODE='-web': allowed are letters, digits, dots, dashes and underscores"),
    (
        {"SERF_JOIN": "lb1,lb2"},
        "SERF_JOIN: 'lb1,lb2': allowed are host names and IP addresses, with blanks between them",
    ),
    (
        {"SERF_JOIN": "lb1 http://lb2/"},
        "SERF_JOIN: 'http://lb2/': allowed are host names and IP addresses, with blanks between them",
    ),
    ({"SERF_JOIN": "lb1:0"}, "SERF_JOIN: 'lb1:0': its port must be a whole number, 1 to 65535"),
    ({"APP_GRACE_S": "long"}, "APP_GRACE_S='long': allowed is a number of seconds, such as 2.5"),
    ({"APP_STOP_S": "1.5"}, "APP_STOP_S='1.5': allowed is a whole number of seconds, 0 to 86400"),
)


@pytest.mark.parametrize("shell", [("sh",), ("busybox", "sh")], ids=" ".join)
def test_wrong_variables_are_refused_with_one_line(shell: tuple[str, ...]) -> None:
    """Each wrong value ends with one line that names the variable and what is allowed; right ones pass."""

    def check(environ: dict[str, str]) -> tuple[int, str]:
        argv = [*shell, "-c", SCRIPT, "check", ROOT / "s6" / ".common" / "numbers"]
        ran = subprocess.run(argv, env={"PATH": "/usr/bin:/bin"} | environ, capture_output=True, text=True, check=False)
        return ran.returncode, (ran.stdout + ran.stderr).removesuffix("\n")

    assert [check(environ) for environ in RIGHT] == [(0, "")] * len(RIGHT)
    assert [check(environ) for environ, _ in WRONG] == [(100, line) for _, line in WRONG]
