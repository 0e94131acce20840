"""The loop of the autoscaler: what it says of faults."""

import logging
from pathlib import Path

import pytest

from serf_haproxy.autoscale import loop
from serf_haproxy.autoscale.loop import Autoscaler
from serf_haproxy.errors import SystemFault
from serf_haproxy.settings import load_settings
from serf_haproxy.system.notify import Notifier


def test_a_fault_of_each_second_look_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Looks that fail by turns are one fault, whose pauses grow; it is over after ten seconds of good looks."""
    names = {"STATE_DIR": "state", "NODES_DIR": "nodes", "WAKE_FIFO": "wake", "RUNTIME_SOCKET": "socket"}
    environ = {f"SERF_HAPROXY_{name}": str(tmp_path / path) for name, path in names.items()}
    scaler = Autoscaler(load_settings(environ | {"SERF_HAPROXY_SETTINGS_FILE": "/dev/null"}), Notifier(""))
    now_s, faults = 1000.0, iter([True, False] * 20 + [False] * 100)

    def look(_: float) -> float:
        if next(faults):
            raise SystemFault("cannot read the moon")
        return 0.25

    monkeypatch.setattr(scaler, "look", look)
    monkeypatch.setattr(loop.time, "monotonic", lambda: now_s)
    pauses_s = []
    with caplog.at_level(logging.INFO):
        for _ in range(140):
            pauses_s.append(scaler._survive())
            now_s += pauses_s[-1]
    said = [record.getMessage() for record in caplog.records]
    assert said == ["nothing is started or stopped: cannot read the moon", "scaling goes on"]
    assert max(pauses_s) == 30
