"""The page in Debian's Chromium, with real clicks and keys, before a real HAProxy."""

import contextlib
import http.client
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.web import answering
from integration.browser import Tab, browsing
from integration.proxy import Proxy, wait_for
from integration.test_daemon import log_path, running_daemon
from integration.test_orders import run
from integration.test_services import offer
from integration.test_web import BIND, Web, join, serving
from integration.tunnel import tunnel
from serf_haproxy.serf.wake import wake

NODE = "document.querySelector('#node')"
SCREENSHOT = Path(__file__).parents[2] / "docs" / "page.png"


@pytest.fixture(scope="module")
def browser() -> Iterator[Tab]:
    """Yield a tab that all tests of this module use one after another."""
    with browsing() as tab:
        yield tab


@pytest.fixture
def tab(browser: Tab) -> Iterator[Tab]:
    """Yield the tab at its usual measures; a test fails for an error of a script or a broken policy."""
    browser.resize(1280, 900)
    browser.prefer("light")
    browser.urls.clear()
    yield browser
    faults, browser.faults[:] = list(browser.faults), []
    assert faults == []


@contextlib.contextmanager
def showing(proxy: Proxy, tab: Tab) -> Iterator[Web]:
    """Run the daemon with its web process, whose page the tab leaves before the end: it would miss the process."""
    with serving(proxy) as web:
        try:
            yield web
        finally:
            tab.open("about:blank")


def get(proxy: Proxy, count: int, path: str = "/") -> None:
    """Send requests through HAProxy."""
    host, port = proxy.settings.frontend_bind.split(":")
    for _ in range(count):
        with contextlib.closing(http.client.HTTPConnection(host, int(port), timeout=20)) as client:
            client.request("GET", path)
            client.getresponse().read()


def test_the_page_follows_the_cluster(proxy: Proxy, tab: Tab) -> None:
    """A node that joins appears by itself, with its share; problems are on top, a click explains, keys lead there."""
    with answering() as one, answering() as two, showing(proxy, tab) as web:
        join(proxy, "web1", one.port)
        tab.open(f"http://127.0.0.1:{web.port}/")
        tab.wait("document.querySelectorAll('#rows .row').length === 1")
        tab.wait("document.querySelector('#live').textContent === 'live'")
        join(proxy, "web2", two.port)
        tab.wait("document.querySelector('#rows').innerText.includes('web2')")
        tab.wait("document.querySelector('#total').textContent === '2 of 2 servers up'")
        deadline_s = time.monotonic() + 60
        while "50.0 %" not in tab.read("#rows"):
            get(proxy, 20)
            assert time.monotonic() < deadline_s, tab.read("body")
        tab.wait("document.querySelector('#services').innerText.includes('requests/s')")
        join(proxy, "web3", 9)
        tab.wait("document.querySelector('#problems').innerText.includes('nodes/web3')")
        assert tab.read("#rows .row").split()[1] == "web3"
        tab.wait("document.querySelector('#story').innerText.includes('in HAProxy after')")
        get(proxy, 1)
        tab.wait("document.querySelector('#story .way')?.innerText.includes('decided after')")
        tab.wait("document.querySelector('#story').innerText.includes('first request after')")
        tab.wait("document.querySelector('#diff .added')")
        assert "server web3 127.0.0.1:9 " in tab.read("#diff")
        tab.click("#rows .row:nth-child(2)")
        tab.wait(f"{NODE}.open && document.querySelector('#node-fields').innerText.includes('serving')")
        assert tab.read("#node-name") == "nodes / web1"
        assert "an event of Serf's said so" in tab.read("#node-fields")
        assert "unknown -> serving" in tab.read("#node-fields")
        tab.press("Escape")
        tab.wait(f"!{NODE}.open")
        for key in ("/", "w", "e", "b", "2"):
            tab.press(key)
        tab.wait("document.querySelectorAll('#rows .row').length === 1")
        tab.press("ArrowDown")
        tab.press("Enter")
        tab.wait(f"{NODE}.open && document.querySelector('#node-name').textContent === 'nodes / web2'")
        tab.click("#node form button")
        tab.wait(f"!{NODE}.open")
        assert all(url.startswith(f"http://127.0.0.1:{web.port}/") for url in tab.urls if url != "about:blank")
        if os.environ.get("SCREENSHOT"):
            tab.run("document.querySelector('#filter').value = ''; drawRows(); scrollTo(0, 0)")
            tab.shoot(SCREENSHOT)


def test_the_page_fits_dark_and_narrow_screens(proxy: Proxy, tab: Tab) -> None:
    """A dark screen is dark, and a narrow one needs no scrolling to the side."""
    with showing(proxy, tab) as web:
        join(proxy, "a-node-with-quite-a-long-name.in.a.domain.example.com", 9)
        tab.open(f"http://127.0.0.1:{web.port}/")
        tab.wait("document.querySelectorAll('#rows .row').length === 1")
        join(proxy, "web2", 9)
        tab.wait("document.querySelector('#diff .added')")
        light = tab.run("getComputedStyle(document.body).backgroundColor")
        tab.prefer("dark")
        assert tab.run("getComputedStyle(document.body).backgroundColor") != light
        for width in (360, 800, 1280):
            tab.resize(width, 700)
            assert tab.run("document.documentElement.scrollWidth") <= width


def test_hostile_names_are_only_text(proxy: Proxy, tab: Tab) -> None:
    """What a member says of itself is shown as text: no element, no script."""
    with showing(proxy, tab) as web:
        proxy.record("web1", 9, weight="<img src=x onerror=alert(1)>")
        wake(proxy.settings.wake_fifo)
        tab.open(f"http://127.0.0.1:{web.port}/")
        tab.wait("document.querySelector('#rows').innerText.includes('<img')")
        assert tab.run("document.querySelectorAll('img').length") == 0


def test_the_page_comes_back_with_the_daemon(proxy: Proxy, tab: Tab) -> None:
    """A page whose web process has died says so, and goes on with the next one."""
    with showing(proxy, tab) as web:
        join(proxy, "web1", 9)
        tab.open(f"http://127.0.0.1:{web.port}/")
        tab.wait("document.querySelector('#live').textContent === 'live'")
        web.find_process().kill()
        tab.wait("document.querySelector('#live').textContent.includes('lost')")
        wait_for(web.is_up, "the web process is back")
        join(proxy, "web2", 9)
        tab.wait("document.querySelector('#rows').innerText.includes('web2')")
    browser_faults = [fault for fault in tab.faults if "ERR_" not in fault]  # the lost connection is one
    tab.faults[:] = browser_faults


def test_orders_are_given_and_undone_on_the_page(proxy: Proxy, tab: Tab, short_dir: Path) -> None:
    """By a forwarded Unix socket an order is given with its reason and end, shown with its author, and undone."""
    path = str(short_dir / "web.sock")
    with (
        answering() as one,
        answering() as two,
        running_daemon(proxy, **{BIND: path}),
        tunnel(path) as port,
        contextlib.ExitStack() as stack,
    ):
        stack.callback(tab.open, "about:blank")
        wait_for(lambda: os.path.exists(path), lambda: log_path(proxy).read_text())
        join(proxy, "web1", one.port)
        join(proxy, "web2", two.port)
        proxy.wait_up("web1", "web2")
        tab.open(f"http://localhost:{port}/")
        tab.wait("document.querySelectorAll('#rows .row').length === 2")
        tab.click("#rows .row")
        tab.wait("document.querySelector('#node-name').textContent === 'nodes / web1'")
        tab.wait(f"{NODE}.open && !document.querySelector('#maint').hidden")
        tab.wait("document.querySelectorAll('#node-fields dd').length > 1")  # until then the dialog grows, and moves
        tab.click("#maint summary")
        tab.wait("document.querySelector('#maint').open")
        tab.click("#maint-set")
        tab.wait("document.querySelector('#maint-said').textContent.includes('the reason is missing')")
        for name, text in (("reason", "<b>disk</b>"), ("until", "2h"), ("by", "alice")):
            tab.click(f"#maint-{name}")
            for key in text:
                tab.press(key)
        tab.click("#maint-set")
        tab.wait("document.querySelector('#maint-said').textContent === 'the order is given'")
        tab.click("#node form button")
        tab.wait("document.querySelector('#orders').innerText.includes('drain: <b>disk</b> (alice at ')")
        tab.wait("document.querySelector('#rows .row').innerText.includes('draining')")
        tab.wait("document.querySelector('#story .order')?.innerText.includes('maint drain')")
        assert "(by alice)" in tab.read("#story .order")
        tab.click("#orders button")
        tab.wait("document.querySelector('#orders-part').hidden")
        tab.wait("document.querySelector('#rows .row').innerText.includes('serving')")


def test_the_page_undoes_what_it_shows(proxy: Proxy, tab: Tab, short_dir: Path) -> None:
    """Of two orders about a node the button undoes its own; one that has been replaced meanwhile stays."""
    path = str(short_dir / "web.sock")
    with running_daemon(proxy, **{BIND: path}), tunnel(path) as port, contextlib.ExitStack() as stack:
        stack.callback(tab.open, "about:blank")
        wait_for(lambda: os.path.exists(path), lambda: log_path(proxy).read_text())
        join(proxy, "web1", 9)
        run(proxy, "maint", "set", "web1", "--reason", "disk")
        run(proxy, "maint", "set", "web1", "--service", "nodes", "--reason", "load")
        tab.open(f"http://localhost:{port}/")
        tab.wait("document.querySelectorAll('#orders li').length === 2")
        tab.run("stream.close()")  # the page hears nothing more
        assert "disk" in tab.read("#orders li:last-child")
        run(proxy, "maint", "set", "web1", "--reason", "fan")
        tab.click("#orders li:last-child button")
        tab.wait("document.querySelector('#orders').innerText.includes('no such order about web1 any more')")
        tab.faults[:] = [fault for fault in tab.faults if "400" not in fault]
        tab.open("about:blank")
        tab.open(f"http://localhost:{port}/")
        tab.wait("document.querySelector('#orders li').innerText.includes('fan')")
        tab.click("#orders li button")
        tab.wait("document.querySelectorAll('#orders li').length === 1")
        assert "load" in tab.read("#orders")


def test_a_late_answer_is_not_shown_of_another_node(proxy: Proxy, tab: Tab) -> None:
    """What is told of a node comes late, when another one is open."""
    with showing(proxy, tab) as web:
        join(proxy, "web1", 9)
        join(proxy, "web2", 9)
        tab.open(f"http://127.0.0.1:{web.port}/")
        tab.wait("document.querySelectorAll('#rows .row').length === 2")
        late = "const before = window.fetch; window.fetch = async (path) => { const answer = await before(path); "
        late += "if (path.includes('web1')) await new Promise((done) => { window.release = done; }); return answer; };"
        tab.run(late)
        tab.click("#rows .row:nth-child(1)")
        tab.wait(f"{NODE}.open && window.release")
        tab.click("#node form button")
        tab.click("#rows .row:nth-child(2)")
        tab.wait("document.querySelectorAll('#node-fields dd').length > 1")
        shown = tab.read("#node-fields")
        tab.run("window.release()")
        tab.run("new Promise((done) => setTimeout(done, 200))")
        assert tab.read("#node-fields") == shown
        assert tab.read("#node-name") == "nodes / web2"


def test_a_service_may_have_the_name_of_a_property(proxy: Proxy, tab: Tab) -> None:
    """Each object of JavaScript has a `constructor`, and so may the cluster."""
    services = Path(proxy.settings.services_file)
    services.write_text('[constructor]\nroutes = ["/c"]\n')
    with answering() as one, showing(proxy, tab) as web:
        offer(proxy, "web1", constructor=one.port, nodes=one.port)
        wake(proxy.settings.wake_fifo)
        tab.open(f"http://127.0.0.1:{web.port}/")
        tab.wait("document.querySelector('#rows').innerText.includes('constructor')")
        tab.wait("document.querySelector('#total').textContent === '2 of 2 servers up'")
        deadline_s = time.monotonic() + 60
        while "100.0 %" not in tab.read("#rows"):
            get(proxy, 5, "/c")
            assert time.monotonic() < deadline_s, tab.read("#rows")
        services.write_text("[nodes]\n")
        wake(proxy.settings.wake_fifo)
        tab.wait("!document.querySelector('#services').innerText.includes('constructor')")


def test_a_page_at_a_port_gives_no_orders(proxy: Proxy, tab: Tab) -> None:
    """At loopback there is nothing to give an order with."""
    with showing(proxy, tab) as web:
        join(proxy, "web1", 9)
        tab.open(f"http://127.0.0.1:{web.port}/")
        tab.wait("document.querySelectorAll('#rows .row').length === 1")
        tab.click("#rows .row")
        tab.wait(f"{NODE}.open")
        assert tab.run("document.querySelector('#maint').hidden")


# The names in the rows that are on the screen.
LISTED = """[...document.querySelectorAll('#rows .row')].map((row) => row.children[1].textContent)"""

# Time to make as many elements as a thousand rows have, without thought.
BASELINE = """(() => {
  const began = performance.now(), host = document.createElement("div");
  for (let i = 0; i < 1000; i++) {
    const row = document.createElement("div");
    row.className = "row";
    for (let j = 0; j < 12; j++) {
      const cell = document.createElement("span");
      cell.textContent = `${i} ${j}`;
      row.append(cell);
    }
    host.append(row);
  }
  document.body.append(host);
  document.body.getBoundingClientRect();
  const took = performance.now() - began;
  host.remove();
  return took;
})()"""


def test_a_thousand_servers_are_drawn_at_once(proxy: Proxy, tab: Tab) -> None:
    """To draw a page with a thousand servers takes less than making bare elements for them; all can be reached."""
    for number in range(1000):
        proxy.record(f"web{number:04}", 10_000 + number)
    with showing(proxy, tab) as web:
        tab.open(f"http://127.0.0.1:{web.port}/")
        tab.wait("document.querySelector('#count').textContent === '1000 of 1000'")
        baseline_ms = min(tab.run(BASELINE) for _ in range(3))
        first_ms = float(tab.run("document.documentElement.dataset.drawMs"))
        tab.wait("Number(document.documentElement.dataset.drawCount) >= 4")
        later_ms = float(tab.run("document.documentElement.dataset.drawMs"))
        print(f"first {first_ms:.0f} ms, later {later_ms:.0f} ms, bare {baseline_ms:.0f} ms")
        assert first_ms < baseline_ms
        assert later_ms < baseline_ms
        assert tab.run("document.querySelectorAll('#rows .row').length") < 100
        tab.run("stream.close()")  # the order rests
        seen = set()
        for step in range(0, 30_000, 400):
            tab.run(f"scrollTo(0, {step})")
            seen |= set(tab.run("new Promise(requestAnimationFrame).then(() => " + LISTED + ")"))
        assert seen == {f"web{number:04}" for number in range(1000)}
        tab.run("scrollTo(0, 0)")
        for _ in range(60):
            tab.press("j")
        assert tab.run("document.activeElement.children[1].textContent === shown[59][1][NAME]")
        top, bottom, height = tab.run(
            "(({top, bottom}) => [top, bottom, innerHeight])(document.activeElement.getBoundingClientRect())"
        )
        assert 0 < top < bottom <= height
