"""Debian's Prometheus: unpacked where it is not installed, and running on loopback."""

import contextlib
import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from integration.debian import unpack
from integration.proxy import free_port, wait_for


def find_programs(directory: Path) -> dict[str, str]:
    """Return the paths of `prometheus` and `promtool`; unpack Debian's package into a directory where there are none.

    Raises:
        AssertionError: The package cannot be had.
    """
    names = ("prometheus", "promtool")
    found = {name: shutil.which(name) for name in names}
    if not all(found.values()):
        unpack(directory, "prometheus")
        found = {name: str(directory / "usr" / "bin" / name) for name in names}
    return {name: str(path) for name, path in found.items()}


class Prometheus:
    """A running Prometheus."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1"

    def ask(self, path: str) -> Any:
        """Return the data of an answer."""
        with urllib.request.urlopen(f"{self._url}/{path}", timeout=10) as response:
            return json.load(response)["data"]

    def list_firing(self) -> set[str]:
        """Return the names of the alerts that fire."""
        return {one["labels"]["alertname"] for one in self.ask("alerts")["alerts"] if one["state"] == "firing"}

    def is_up(self) -> bool:
        """Return whether it answers."""
        with contextlib.suppress(OSError):
            return isinstance(self.ask("alerts"), dict)
        return False


@contextlib.contextmanager
def running_prometheus(program: str, directory: Path, rules: str, target: str) -> Iterator[Prometheus]:
    """Run Prometheus for the duration of a block.

    Args:
        program: Its path.
        directory: Where it keeps its files.
        rules: The alert rules.
        target: What it asks each second, host:port.
    """
    (directory / "rules.yml").write_text(rules)
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yml"],
        "scrape_configs": [{"job_name": "serf-haproxy", "static_configs": [{"targets": [target]}]}],
    }
    (directory / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    port = free_port()
    words = [f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/data"]
    words.append(f"--web.listen-address=127.0.0.1:{port}")
    with open(directory / "prometheus.log", "wb") as log:
        process = subprocess.Popen([program, *words], stdout=log, stderr=log, cwd=directory)
    try:
        prometheus = Prometheus(port)
        wait_for(prometheus.is_up, (directory / "prometheus.log").read_text)
        yield prometheus
    finally:
        process.terminate()
        process.wait(30)
