"""The balancer of a benchmark: a real HAProxy, the daemon as a process, and measurements of both."""

import contextlib
import csv
import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from measure import cpu_s, ended_cpu_s, tree_cpu_s

from integration.proxy import Proxy, wait_for
from serf_haproxy.haproxy import runtime
from serf_haproxy.system.processes import ask


class Daemon:
    """The daemon, and the HAProxy that it controls."""

    def __init__(self, proxy: Proxy, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.proxy, self.process, self.log = proxy, process, log

    def cpu_s(self) -> float:
        """Return the CPU time of the daemon itself, without `haproxy -c`, seconds."""
        return cpu_s(self.process.pid)

    def check_cpu_s(self) -> float:
        """Return the CPU time of the programs that the daemon has run, that is `haproxy -c`, seconds."""
        return ended_cpu_s(self.process.pid)

    def haproxy_cpu_s(self) -> float:
        """Return the CPU time of HAProxy's master and all workers, seconds."""
        assert self.proxy.process
        return tree_cpu_s(self.proxy.process.pid)

    def up(self) -> dict[str, str]:
        """Return the addresses of the servers that are up in HAProxy, by name."""
        views = runtime.read_servers(self.proxy.settings) or {}
        return {name: view.address for name, view in views.items() if view.status.startswith("UP")}

    def weights(self) -> dict[str, int]:
        """Return the weights of HAProxy's servers by name."""
        running = runtime.read_running(self.proxy.settings)
        return {name: seen.weight for (_, name), seen in ((running and running.servers) or {}).items()}

    def frontend_counters(self) -> dict[str, int]:
        """Return HAProxy's counters of the frontend, and of retries in the backend, since the last reload."""
        answer = ask(self.proxy.settings.runtime_socket, "show stat -1 3 -1", 5.0)
        rows = {row["pxname"]: row for row in csv.DictReader(io.StringIO(answer.removeprefix("# ")))}
        counters = {key: int(rows["web"][key] or 0) for key in ("hrsp_2xx", "hrsp_4xx", "hrsp_5xx", "hrsp_other")}
        return counters | {key: int(rows["nodes"][key] or 0) for key in ("wretr", "wredis", "econ", "eresp")}


class PassCounter(threading.Thread):
    """Counts passes by the file that each of them replaces; the log lacks passes that changed nothing."""

    def __init__(self, proxy: Proxy) -> None:
        super().__init__(daemon=True)
        self._path = os.path.join(proxy.settings.state_dir, "last_pass.json")
        self._is_over = threading.Event()
        self.count = 0

    def run(self) -> None:
        """Count until the block ends; a pass takes longer than the interval between two looks."""
        before = self._look()
        while not self._is_over.wait(0.003):
            now = self._look()
            self.count += now != before
            before = now

    def __enter__(self) -> "PassCounter":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self.join()

    def _look(self) -> tuple[int, int]:
        status = os.stat(self._path)
        return status.st_ino, status.st_mtime_ns


@contextlib.contextmanager
def running_daemon(proxy: Proxy, **environment: str) -> Iterator[Daemon]:
    """Run the daemon for the length of the block, with its log in the state directory."""
    log = Path(proxy.settings.state_dir, "daemon.log")
    environ = os.environ | proxy.environment | environment
    with log.open("wb") as stderr:
        process = subprocess.Popen([sys.executable, "-m", "serf_haproxy", "run"], env=environ, stderr=stderr)
    try:
        wait_for(lambda: Path(proxy.settings.state_dir, "last_pass.json").exists(), "the first pass")
        yield Daemon(proxy, process, log)
    finally:
        process.terminate()
        process.wait(30)
