"""What the autoscaler asks HAProxy."""

from pathlib import Path

import pytest

from integration.proxy import Proxy
from serf_haproxy.autoscale import meter
from serf_haproxy.haproxy.sections import QUESTION

TABLE = '[{name}]\nroutes = ["/{name}"]\n'


def test_sections_are_asked_for_once_and_again_after_a_reload(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look is one question, as long as the numbers of the sections stay; a reload that shifts them is noticed."""
    questions: list[str] = []
    ask = meter.ask
    monkeypatch.setattr(meter, "ask", lambda path, text, wait_s: questions.append(text) or ask(path, text, wait_s))

    def look(*names: str) -> set[str]:
        questions.clear()
        return set(read.read(names, float(len(names))))

    read = meter.Meter(proxy.settings.runtime_socket)
    tables = Path(proxy.settings.services_file)
    tables.write_text("".join(TABLE.format(name=name) for name in ("shop", "blog")))
    proxy.run_pass()
    assert look("shop", "blog") == {"shop", "blog"}
    assert questions[0] == QUESTION
    for _ in range(5):
        assert look("shop", "blog") == {"shop", "blog"}
        assert len(questions) == 1
        assert questions[0] != QUESTION
    before = questions[0]
    tables.write_text("".join(TABLE.format(name=name) for name in ("api", "cart", "shop", "blog")))
    proxy.run_pass()
    assert look("shop", "blog") == {"shop", "blog"}
    assert questions[-2] == QUESTION
    assert questions[-1] != before
    proxy.stop()
    assert look("shop", "blog") == set()
    proxy.start()
    assert look("shop", "blog") == {"shop", "blog"}
