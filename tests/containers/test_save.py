"""`make images`: each image as a file for a registry, with a list of what is in it."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from containers.engine import ROOT, Engine
from serf_haproxy import __version__

SAVE = ROOT / "images" / "save.py"


def save(engine: Engine, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the program with the tests' engine."""
    options = [f"--base={engine.base}", "--network=host"]
    argv = [sys.executable, str(SAVE), *options, *words]
    return subprocess.run(argv, env=engine.environ, capture_output=True, text=True, check=False, timeout=900)


@pytest.fixture(scope="module")
def saved(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with all images as files."""
    directory: Path = tmp_path_factory.mktemp("saved")
    done = save(engine, f"--output={directory}")
    assert done.returncode == 0, done.stderr
    return directory


@pytest.mark.parametrize(
    ("target", "known"),
    [
        ("node", {"deb/debian/s6", "deb/debian/serf", "deb/debian/busybox-static"}),
        ("balancer", {"deb/debian/haproxy", "deb/debian/serf", "pypi/jinja2", "pypi/serf-haproxy"}),
        ("webapp", {"deb/debian/serf", "pypi/starlette", "pypi/uvicorn"}),
    ],
)
def test_an_image_is_saved_with_a_list_of_its_packages(
    engine: Engine, saved: Path, target: str, known: set[str]
) -> None:
    """The file can be loaded; the list has what Debian and Python say, each with its version and package URL."""
    name, tag = f"serf-haproxy-{target}-{__version__}", f"serf-haproxy/{target}:{__version__}"
    assert tag in engine("load", f"--input={saved / name}.tar")
    image_id = engine("image", "inspect", "--format={{.Id}}", tag).strip()
    assert f"{tag} {image_id}" in (saved / "images.txt").read_text().splitlines()
    document = json.loads((saved / f"{name}.spdx.json").read_text())
    root, *packages = document["packages"]
    assert root["checksums"] == [{"algorithm": "SHA256", "checksumValue": image_id.partition(":")[2]}]
    urls = [package["externalRefs"][0]["referenceLocator"] for package in packages]
    assert known <= {url.removeprefix("pkg:").partition("@")[0] for url in urls}
    assert len(urls) == len(set(urls)) == len(document["relationships"]) - 1
    ids = {package["SPDXID"] for package in document["packages"]} | {"SPDXRef-DOCUMENT"}
    named = {(one["spdxElementId"], one["relatedSpdxElement"]) for one in document["relationships"]}
    assert {name for pair in named for name in pair} == ids


def test_the_sums_are_those_of_the_files(saved: Path) -> None:
    """`sha256sum -c` accepts every file, and no other is there."""
    lines = [line.split() for line in (saved / "SHA256SUMS").read_text().splitlines()]
    assert {name: hashlib.sha256((saved / name).read_bytes()).hexdigest() for _, name in lines} == {
        name: value for value, name in lines
    }
    assert {path.name for path in saved.iterdir()} == {name for _, name in lines} | {"SHA256SUMS", "images.txt"}


def test_an_unknown_target_and_a_missing_engine_are_told(engine: Engine, tmp_path: Path) -> None:
    """Both end with one line that names the cause."""
    wrong = save(engine, "webserver")
    assert wrong.returncode == 2
    assert wrong.stderr.endswith("webserver is no target of images/Dockerfile: name node, balancer, webapp\n")
    environ = engine.environ | {"DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    argv = [sys.executable, str(SAVE), f"--output={tmp_path / 'out'}"]
    away = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert away.returncode == 1
    assert away.stderr.startswith("docker version: ")
    assert "Is the docker daemon running?" in away.stderr
    assert away.stderr.count("\n") == 1
