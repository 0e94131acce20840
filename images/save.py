#!/usr/bin/env python3
"""Build the images, tag them with the version, and save each as a file with a list of what is in it (SBOM).

Usage: images/save.py [--base IMAGE] [--output DIRECTORY] [--network NAME] [TARGET...]

For each target, DIRECTORY gets `serf-haproxy-TARGET-VERSION.tar`, which `docker load` reads, and `....spdx.json` (SPDX
2.3), from Debian's and Python's own metadata in the image. `SHA256SUMS` has a line for each file, and `images.txt` the
tag and the id of each image, by which it can be named exactly. Nothing is sent anywhere.
"""

import argparse
import datetime
import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGETS = ("node", "balancer", "webapp")
_BUNDLED = "/etc/serf-haproxy/node.packages"  # what the build of the node bundle has copied from
_LIST_DEBIAN = f"dpkg-query -W -f '${{Package}} ${{Version}}\\n'; [ ! -e {_BUNDLED} ] || cat {_BUNDLED}"
_LIST_PYTHON = """
import glob, importlib.metadata
for found in importlib.metadata.distributions(path=glob.glob('/opt/*/lib/python3*/site-packages')):
    print(found.metadata['Name'], found.version)
"""


def main(argv: Sequence[str]) -> None:
    """Build and save."""
    parser = argparse.ArgumentParser(prog="images/save.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--base", help="build on this image instead of the one that images/Dockerfile names")
    parser.add_argument("--network", help="the network in which the build fetches packages")
    parser.add_argument("--output", type=Path, default=ROOT / "dist" / "images", metavar="DIRECTORY")
    parser.add_argument(
        "targets", nargs="*", metavar="TARGET", help=f"{', '.join(TARGETS)}; all of them if none is given"
    )
    words = parser.parse_args(argv)
    if wrong := [name for name in words.targets if name not in TARGETS]:
        parser.error(f"{wrong[0]} is no target of images/Dockerfile: name {', '.join(TARGETS)}")
    options = [f"--build-arg=BASE={words.base}"] if words.base else []
    options += [f"--network={words.network}"] if words.network else []
    version = read_version()
    docker("version", "--format={{.Server.Version}}")
    words.output.mkdir(parents=True, exist_ok=True)
    sums, images = [], []
    for target in words.targets or TARGETS:
        tag = f"serf-haproxy/{target}:{version}"
        image_id = build(target, tag, version, options)
        name = f"serf-haproxy-{target}-{version}"
        packages = list_packages(target, tag)
        described = json.dumps(describe(tag, image_id, version, packages), indent=1) + "\n"
        (words.output / f"{name}.spdx.json").write_text(described)
        docker("save", f"--output={words.output / name}.tar", tag)
        sums += [f"{digest(words.output / file)}  {file}\n" for file in (f"{name}.tar", f"{name}.spdx.json")]
        images.append(f"{tag} {image_id}\n")
        sys.stdout.write(f"{tag}: {len(packages)} packages, {words.output / name}.tar\n")
    (words.output / "SHA256SUMS").write_text("".join(sums))
    (words.output / "images.txt").write_text("".join(images))


def read_version() -> str:
    """Return the version of the package."""
    text = (ROOT / "agent" / "serf_haproxy" / "__init__.py").read_text()
    found = re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE)
    if not found:
        sys.exit('agent/serf_haproxy/__init__.py: there is no line `__version__ = "..."`')
    return found[1]


def build(target: str, tag: str, version: str, options: Sequence[str]) -> str:
    """Build an image; return its id."""
    labels = {"title": f"serf-haproxy {target}", "version": version, "revision": read_revision(), "licenses": "MPL-2.0"}
    words = [f"--label=org.opencontainers.image.{name}={value}" for name, value in labels.items()]
    docker("build", "--quiet", f"--file={ROOT / 'images' / 'Dockerfile'}", f"--target={target}", f"--tag={tag}", *words,
           *options, str(ROOT))  # fmt: skip
    return docker("image", "inspect", "--format={{.Id}}", tag).strip()


def read_revision() -> str:
    """Return the commit; with `-dirty` where files differ from it."""
    argv = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40"]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def list_packages(target: str, tag: str) -> list[tuple[str, str, str]]:
    """Return kind (`deb` or `pypi`), name and version of all that an image is made of."""
    inside = ("run", "--rm", "--network=none")
    if target == "node":  # it has neither dpkg nor Python
        debian = docker(*inside, "--entrypoint=/command/busybox", tag, "cat", _BUNDLED)
        python = ""
    else:
        debian = docker(*inside, "--entrypoint=sh", tag, "-c", _LIST_DEBIAN)
        python = docker(*inside, "--entrypoint=python3", tag, "-c", _LIST_PYTHON)
    listed = [("deb", *line.split()) for line in debian.splitlines()]
    listed += [("pypi", *line.split()) for line in python.splitlines()]
    return sorted({(kind, name, version) for kind, name, version in listed})


def describe(tag: str, image_id: str, version: str, packages: Sequence[tuple[str, str, str]]) -> dict[str, object]:
    """Return the SPDX document of an image: the image, and each package that it contains."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    root: dict[str, object] = {
        "SPDXID": "SPDXRef-image",
        "name": tag,
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
    }
    algorithm, _, value = image_id.partition(":")
    root |= {"checksums": [{"algorithm": algorithm.upper(), "checksumValue": value}], "filesAnalyzed": False}
    contained = [
        {
            "SPDXID": f"SPDXRef-package-{number}",
            "name": name,
            "versionInfo": package_version,
            "downloadLocation": "NOASSERTION",
            "filesAnalyzed": False,
            "externalRefs": [
                {
                    "referenceCategory": "PACKAGE-MANAGER",
                    "referenceType": "purl",
                    "referenceLocator": locate(kind, name, package_version),
                }
            ],
        }
        for number, (kind, name, package_version) in enumerate(packages, 1)
    ]
    relations = [("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-image")]
    relations += [("SPDXRef-image", "CONTAINS", str(package["SPDXID"])) for package in contained]
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": tag,
        "documentNamespace": f"urn:{tag}:{value}",
        "creationInfo": {"created": now, "creators": [f"Tool: serf-haproxy-images-save-{version}"]},
        "packages": [root, *contained],
        "relationships": [
            {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other}
            for one, kind, other in relations
        ],
    }


def locate(kind: str, name: str, version: str) -> str:
    """Return the package URL (purl) of a package; its characters are percent-encoded as the format wants it."""
    quoted = re.sub(r"[^A-Za-z0-9.~_:-]", lambda found: f"%{ord(found[0]):02X}", version)
    if kind == "deb":
        return f"pkg:deb/debian/{name.replace('+', '%2B')}@{quoted}"
    return f"pkg:pypi/{name.lower().replace('_', '-')}@{quoted}"


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def docker(*words: str) -> str:
    """Run a command of Docker's; return its standard output, or end with what it said last."""
    argv = [shutil.which("docker") or "/usr/bin/docker", *words]
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except OSError as fault:
        sys.exit(f"docker cannot be run: {fault.strerror}: {argv[0]}")
    if done.returncode:
        sys.exit(f"docker {words[0]}: {(done.stderr.strip() or done.stdout.strip() or 'failed').splitlines()[-1]}")
    return done.stdout


if __name__ == "__main__":
    main(sys.argv[1:])
