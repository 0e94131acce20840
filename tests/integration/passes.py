"""Passes in separate processes that stop at a step, so that a test can act at that moment.

Run as a program, this module is the process that forks them. Importing the package for each pass would take too long.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from serf_haproxy.control.reconcile import reconcile
from serf_haproxy.errors import SerfHaproxyError
from serf_haproxy.settings import load_settings

START = "start"  # before the first step


class Stopped:
    """A pass that has stopped itself at a step, or has ended before that step."""

    def __init__(self, passes: "Passes") -> None:
        self._passes = passes
        told = passes.read()
        self.pid: int = told["pid"]
        self.is_stopped: bool = told["is_stopped"]

    def send(self, number: int) -> None:
        """Send a signal if the pass still runs."""
        with contextlib.suppress(ProcessLookupError):
            if self.is_stopped:
                os.kill(self.pid, number)

    def finish(self) -> str:
        """Continue the pass and return its result: verdict and reason, or the name and text of an exception."""
        self.send(signal.SIGCONT)
        said = str(self._passes.read()["said"])
        self.is_stopped = False
        return said

    def kill(self) -> None:
        """Kill the pass at the step where it has stopped."""
        self.send(signal.SIGKILL)
        self._passes.read()
        self.is_stopped = False


class Passes:
    """The process that forks passes; `close` ends it and its pipes."""

    def __init__(self) -> None:
        path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        environ = os.environ | {"PYTHONPATH": path}
        argv = [sys.executable, "-m", "integration.passes"]
        self._process = subprocess.Popen(
            argv, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self._last: Stopped | None = None

    def begin(self, environ: Mapping[str, str], step: str, delay_s: float = 0.0) -> Stopped:
        """Begin a pass that stops itself delay_s seconds after a step; return when it has stopped."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"environ": dict(environ), "step": step, "delay_s": delay_s}) + "\n")
        self._last = Stopped(self)
        return self._last

    def read(self) -> dict[str, Any]:
        """Return the next message of the process."""
        assert self._process.stdout
        told: dict[str, Any] = json.loads(self._process.stdout.readline())
        return told

    def close(self) -> None:
        """End the process, and a pass that a test has left stopped."""
        if self._last:
            self._last.send(signal.SIGKILL)
        with self._process:
            assert self._process.stdin
            self._process.stdin.close()


def _be_pass(order: dict[str, Any], writable: int) -> NoReturn:
    def stop() -> None:
        os.kill(os.getpid(), signal.SIGSTOP)

    def on_step(ended: str) -> None:
        if ended == order["step"] and order["delay_s"]:
            threading.Timer(order["delay_s"], stop).start()
        elif ended == order["step"]:
            stop()

    try:
        on_step(START)
        outcome = reconcile(load_settings(order["environ"]), lambda: None, on_step=on_step)
        said = f"{outcome.verdict} {outcome.reason}"
    except SerfHaproxyError as error:
        said = f"{type(error).__name__} {error}"
    except BaseException as error:  # noqa: BLE001 the test reads it
        said = f"BUG {error!r}"
    os.write(writable, said.encode("utf-8", "backslashreplace")[:60000])
    os._exit(0)


def main() -> None:
    """Fork a pass for each line of standard input; print when it has stopped, and its result."""
    for line in sys.stdin:
        readable, writable = os.pipe()
        pid = os.fork()
        if not pid:
            _be_pass(json.loads(line), writable)
        os.close(writable)
        _, status = os.waitpid(pid, os.WUNTRACED)
        is_stopped = os.WIFSTOPPED(status)
        print(json.dumps({"pid": pid, "is_stopped": is_stopped}), flush=True)
        if is_stopped:
            os.waitpid(pid, 0)
        with open(readable, encoding="utf-8") as told:
            print(json.dumps({"said": told.read()}), flush=True)


if __name__ == "__main__":
    main()
