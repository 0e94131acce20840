"""The JSON Schema of the services file, compared with the reader."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import jsonschema
import pytest

from serf_haproxy.services.schema import make_schema
from serf_haproxy.services.service import KEYS
from services.test_services_file import DOCKER, FAULTY, PG, SCALED, SHOP, read

GOLDEN_DIR = Path(__file__).parents[1] / "golden"
VALIDATOR = jsonschema.Draft202012Validator(make_schema())
# What only counting, another service or the settings decide.
BEYOND = (
    "[shop] scale.max = 3: must be at least",
    "[shop] scale.peaks: min 4",
    "[shop] scale.time_zone = Europe/Nowhere",
    "[shop] scale.sticky_s = 9",
    '[shop] split = {"v1": 95, "v2": 6}',
    '[shop] client_networks = ["10.0.0.1/8"]',
    "[shop] drain_timeout_s = NaN",
    '[shop] health_status = "500-200"',
    "[pg] bind = :80",
    "[pg] bind = :7947",
    "[shop] redirect_https: needs the setting",
    "[pg] bind = 10.0.0.1:1936",
)
GOOD = [
    "",
    SHOP + PG,
    *(path.read_text() for path in sorted(GOLDEN_DIR.glob("*.toml"))),
    '[nodes]\nbalance = "hash"\nhash_key = "path"\n',
    SHOP + 'ports = [80, "8000-8999"]\nroles = "web,app"\ndrain_timeout_s = 5\nnetworks = ["10.0.0.0/8", "fd00::/8"]\n',
    SHOP + 'health = "tcp"\nhealth_status = "200,301-302"\nhealth_host = "[::1]:80"\nproof_secret_file = ""\n',
    SHOP + 'tls = true\ntls_ca_file = "/a/ca.pem"\ntls_name = "a.example"\nserver_proto = "h2"\ncookie = ""\n',
    SHOP + "tls = false\nserver_maxconn = 0\nserver_maxqueue = 0\nguard_share = 0.5\n",
    PG + 'health = "mysql"\nhealth_user = "checker"\nbalance = "hash"\nhash_key = "source"\n',
    PG + 'sni = ["a.test", "*.b.test"]\nstick = "source"\nstick_size = 100\n',
    PG.replace(":5432", "[::1]:5432") + 'cookie = ""\nserver_proto = "h1"\n',
    '[shop]\nroutes = "a.test,*.b.test/x,/y"\nsplit = {v1 = 100, v2 = 0}\n',
    SCALED + DOCKER + 'peaks = ["Mon-Fri 08:00-18:00 min 3", "daily 22:00-02:00 min 2"]\ntime_zone = "Europe/Berlin"\n',
]


def test_every_key_is_in_the_schema() -> None:
    """The schema itself is valid, and has each key with its meaning."""
    schema = make_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    (named,) = schema["patternProperties"].values()
    assert named["properties"].keys() == KEYS.keys()
    assert all(KEYS[key].metadata["doc"] in said["description"] for key, said in named["properties"].items())


@pytest.mark.parametrize("text", GOOD)
def test_what_the_reader_accepts_is_valid(text: str) -> None:
    """A file without faults is valid."""
    assert read(text).faults == ()
    assert list(VALIDATOR.iter_errors(tomllib.loads(text))) == []


@pytest.mark.parametrize(("text", "said"), FAULTY)
def test_what_the_reader_refuses_is_invalid(text: str, said: str) -> None:
    """A file with a fault is invalid, but for those that a schema cannot describe."""
    errors = list(VALIDATOR.iter_errors(tomllib.loads(text)))
    assert bool(errors) is not said.startswith(BEYOND), said


def test_the_command_prints_the_schema() -> None:
    """`serf-haproxy schema` prints it as JSON."""
    argv = [sys.executable, "-m", "serf_haproxy", "schema"]
    printed = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert json.loads(printed) == make_schema()
