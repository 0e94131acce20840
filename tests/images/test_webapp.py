"""The demo web application, run as real processes on loopback addresses."""

import concurrent.futures
import contextlib
import http.client
import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

APP = Path(__file__).parents[2] / "images" / "webapp" / "app.py"
HOST = "127.77.1.1"
DEADLINE_S = 10
DELAY_MS = 200
LONGEST_MS = 60_000


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait until the condition holds; fail after DEADLINE_S seconds."""
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s, f"no {what} within {DEADLINE_S} s"
        time.sleep(0.005)


def choose_port(host: str) -> int:
    """Return a port that is free on this address."""
    with socket.create_server((host, 0)) as listener:
        return int(listener.getsockname()[1])


def accepts(host: str, port: int) -> bool:
    """Return whether a process accepts connections at this address."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), DEADLINE_S):
        return True
    return False


def launch(**settings: str) -> subprocess.Popen[str]:
    """Start the application with only these settings; its stderr is a pipe."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("APP_")}
    return subprocess.Popen([sys.executable, str(APP)], env=environ | settings, stderr=subprocess.PIPE, text=True)


@contextlib.contextmanager
def running(
    host: str = HOST, at: str = HOST, tag: str = "", path: str = ""
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Yield process and port of an application bound to host, when it accepts connections at `at`."""
    port = choose_port(host)
    with launch(APP_HOST=host, APP_PORT=str(port), APP_TAG=tag, APP_PATH=path) as process:
        try:
            wait_until(lambda: process.poll() is not None or accepts(at, port), "listening application")
            assert process.poll() is None, process.communicate()[1]
            yield process, port
        finally:
            process.kill()


@pytest.fixture(scope="module")
def shared_url() -> Iterator[str]:
    """Yield the URL of the application that most tests share."""
    with running(tag="v1") as (_, port):
        yield f"http://{HOST}:{port}"


@pytest.fixture
def url(shared_url: str) -> Iterator[str]:
    """Yield the shared URL, and reset the delay afterwards."""
    yield shared_url
    assert ask_delay(shared_url, b'{"delay": 0}').status_code == 200


def get(url: str, cookie: str = "") -> requests.Response:
    """Send a GET request on a new connection, with this session cookie if not empty."""
    headers = {"Cookie": f"NODESESSID={cookie}"} if cookie else {}
    return requests.get(url, headers=headers, timeout=DEADLINE_S)


def ask_delay(url: str, body: bytes) -> requests.Response:
    """Send this body with POST to /delay."""
    return requests.post(url + "/delay", data=body, timeout=DEADLINE_S)


def test_root_names_the_instance(url: str) -> None:
    """GET / answers with exactly six keys, among them address, host name and tag."""
    answer = get(url).json()
    assert re.fullmatch("[0-9a-f]{16}", answer.pop("id"))
    expected = {"hello": "world!", "ip": HOST, "host": socket.gethostname(), "tag": "v1", "sessionViews": 1}
    assert answer == expected


def test_a_path_leads_to_the_same_answers() -> None:
    """With APP_PATH the application answers at that path and below as at / and below, and nowhere else."""
    with running(path="/api") as (_, port):
        url = f"http://{HOST}:{port}"
        found = {path: get(url + path).status_code for path in ("/", "/api", "/api/", "/api/health", "/health")}
        assert set(found.values()) == {200}
        assert get(f"{url}/api").json()["hello"] == "world!"
        assert get(f"{url}/api/health").json() == {"status": "ok"}
        assert {get(url + path).status_code for path in ("/apis", "/apihealth", "/api/api", "/x/api")} == {404}


def test_session_counts_views(url: str) -> None:
    """A client that sends its cookie keeps its id, and each GET / counts one more view."""
    with requests.Session() as session:
        answers = [session.get(url, timeout=DEADLINE_S).json() for _ in range(3)]
    assert [answer["sessionViews"] for answer in answers] == [1, 2, 3]
    assert len({answer["id"] for answer in answers}) == 1


def test_clients_without_cookie_get_separate_sessions(url: str) -> None:
    """Two clients without a cookie get different ids."""
    assert get(url).json()["id"] != get(url).json()["id"]


def test_cookie_is_a_session_cookie(url: str) -> None:
    """The cookie has no expiry, covers every path, and is hidden from scripts and other sites."""
    response = get(url)
    value, *attributes = response.headers["Set-Cookie"].split("; ")
    assert value == f"NODESESSID={response.json()['id']}"
    assert sorted(attribute.lower() for attribute in attributes) == ["httponly", "path=/", "samesite=lax"]


def test_a_session_is_lost_at_another_instance(url: str) -> None:
    """The count is in the server's memory: a cookie from another instance begins a session with another id."""
    with running(tag="v2") as (_, port):
        other = get(f"http://{HOST}:{port}").json()["id"]
    answer = get(url, other).json()
    assert (answer["id"] != other, answer["sessionViews"]) == (True, 1)
    assert get(url, answer["id"]).json()["sessionViews"] == 2


@pytest.mark.parametrize("cookie", ["nonsense", "0123456789abcdef", "0123456789ABCDEF.1", "../../etc/passwd"])
def test_an_unknown_cookie_starts_a_new_session(url: str, cookie: str) -> None:
    """The client cannot choose the id of its session."""
    answer = get(url, cookie).json()
    assert answer["sessionViews"] == 1
    assert re.fullmatch("[0-9a-f]{16}", answer["id"])
    assert answer["id"] != cookie


def test_old_sessions_make_room() -> None:
    """Of a limited number of sessions, the one that was silent longest goes."""
    spec = importlib.util.spec_from_file_location("webapp", APP)
    assert spec
    assert spec.loader
    webapp = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(webapp)
    sessions = webapp.Sessions()
    first, second = (sessions.count_view("")[0] for _ in range(2))
    for _ in range(webapp.SESSION_COUNT - 2):
        sessions.count_view("")
    assert sessions.count_view(first) == (first, 2)
    sessions.count_view("")
    assert sessions.count_view(first) == (first, 3)
    assert sessions.count_view(second)[1] == 1


def test_head_counts_nothing(url: str) -> None:
    """HEAD / answers 200 and sets no cookie."""
    response = requests.head(url, timeout=DEADLINE_S)
    assert response.status_code == 200
    assert "Set-Cookie" not in response.headers


def test_health_answers_ok(url: str) -> None:
    """GET /health answers 200 with a status and sets no cookie."""
    response = get(url + "/health")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})
    assert "Set-Cookie" not in response.headers


def test_the_delay_slows_health_checks_too(url: str) -> None:
    """After POST /delay, HEAD / and GET /health take at least that long."""
    assert ask_delay(url, b'{"delay": %d}' % DELAY_MS).json() == {"delay": DELAY_MS}
    for ask in (requests.head, lambda where, timeout: requests.get(f"{where}/health", timeout=timeout)):
        start_s = time.monotonic()
        assert ask(url, timeout=DEADLINE_S).status_code == 200
        assert time.monotonic() - start_s >= DELAY_MS / 1000


def test_checks_can_ignore_the_delay(url: str) -> None:
    """With "checks": false HEAD / and GET /health answer at once during the longest delay."""
    assert ask_delay(url, b'{"delay": %d, "checks": false}' % LONGEST_MS).json() == {"delay": LONGEST_MS}
    assert requests.head(url, timeout=DEADLINE_S).status_code == 200
    assert get(url + "/health").status_code == 200


def test_delay_slows_the_root(url: str) -> None:
    """After POST /delay, every GET / takes at least that long."""
    assert ask_delay(url, b'{"delay": %d}' % DELAY_MS).json() == {"delay": DELAY_MS}
    start_s = time.monotonic()
    assert get(url).status_code == 200
    assert time.monotonic() - start_s >= DELAY_MS / 1000


def test_delay_of_zero_ends_the_delay(url: str) -> None:
    """A delay of 0 ends even the longest delay for later requests."""
    assert ask_delay(url, b'{"delay": %d}' % LONGEST_MS).status_code == 200
    assert ask_delay(url, b'{"delay": 0}').json() == {"delay": 0}
    assert get(url).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"slow",
        b"\xff\xfe",
        b"60",
        b"[]",
        b"{}",
        b'{"delay": -1}',
        b'{"delay": 60001}',
        b'{"delay": 1.5}',
        b'{"delay": true}',
        b'{"delay": null}',
        b'{"delay": "60"}',
        b'{"delay": [60]}',
        b'{"delay": 60, "more": 1}',
        b'{"delay": 60, "checks": 0}',
        b'{"checks": false}',
        b'{"delay": 60' + b" " * 1024 + b"}",
        b"[" * 1024,
    ],
    ids=repr,
)
def test_wrong_delay_is_refused(url: str, body: bytes) -> None:
    """Anything but a whole number from 0 to 60000 in a small body is answered with 400 and the allowed range."""
    response = ask_delay(url, body)
    assert response.status_code == 400
    assert "0 to 60000" in response.json()["error"]


def test_kept_connection_answers_without_delay(url: str) -> None:
    """On a kept connection answers come sooner than a delayed acknowledgement (40 ms), which delays all of them."""
    durations_s = []
    with requests.Session() as session:
        for _ in range(21):
            start_s = time.monotonic()
            assert session.get(url, timeout=DEADLINE_S).status_code == 200
            durations_s.append(time.monotonic() - start_s)
    assert sorted(durations_s)[3] < 0.035  # on a busy machine others take longer


def test_huge_body_is_refused(url: str) -> None:
    """A body that is far too large is refused, and the client's next request is answered."""
    with requests.Session() as session:
        assert session.post(url + "/delay", data=b"x" * 1_000_000, timeout=DEADLINE_S).status_code == 400
        assert session.get(url, timeout=DEADLINE_S).status_code == 200


def test_it_says_how_long_no_other_machine_has_asked() -> None:
    """GET /idle counts from the last request from another address; requests from its own address do not count."""
    with running() as (_, port):

        def read_idle_s() -> float:
            connection = http.client.HTTPConnection(HOST, port, DEADLINE_S, source_address=(HOST, 0))
            with contextlib.closing(connection):
                connection.request("GET", "/idle")
                return float(json.load(connection.getresponse())["idle_s"])

        before_s = read_idle_s()
        wait_until(lambda: read_idle_s() > before_s + 0.1, "growth while it asks itself")
        requests.head(f"http://{HOST}:{port}/", timeout=DEADLINE_S)
        assert read_idle_s() < before_s + 0.1


def test_a_retired_application_fails_its_health_checks_and_answers_requests() -> None:
    """POST /retire counts only from the application's own address."""
    with running() as (_, port):
        url = f"http://{HOST}:{port}"
        assert requests.post(f"{url}/retire", timeout=DEADLINE_S).status_code == 404
        assert requests.get(f"{url}/health", timeout=DEADLINE_S).status_code == 200
        connection = http.client.HTTPConnection(HOST, port, DEADLINE_S, source_address=(HOST, 0))
        with contextlib.closing(connection):
            connection.request("POST", "/retire")
            assert connection.getresponse().status == 200
        assert requests.get(f"{url}/health", timeout=DEADLINE_S).status_code == 503
        assert requests.head(url, timeout=DEADLINE_S).status_code == 503
        assert requests.get(url, timeout=DEADLINE_S).status_code == 200


def ask_behaviour(url: str, body: object) -> requests.Response:
    """Send this as JSON with POST to /behaviour."""
    return requests.post(url + "/behaviour", json=body, timeout=DEADLINE_S)


def get_work(url: str, work_us: int) -> float:
    """Send a request that brings this much work; return how long its answer took, seconds."""
    start_s = time.monotonic()
    assert requests.get(url, headers={"X-Work-Us": str(work_us)}, timeout=DEADLINE_S).status_code == 200
    return time.monotonic() - start_s


def test_a_slow_instance_takes_a_multiple_of_the_work(url: str) -> None:
    """A request takes at least its work; at an instance that is five times slower, five times that."""
    assert get_work(url, 40_000) >= 0.04
    assert ask_behaviour(url, {"times": 5}).json() == {"times": 5, "status": 200}
    try:
        assert get_work(url, 40_000) >= 0.2
        start_s = time.monotonic()
        assert get(url).status_code == 200
        assert time.monotonic() - start_s >= 0.1  # a request that brings no work has the ordinary 20 ms
        assert requests.head(url, timeout=DEADLINE_S).status_code == 200
    finally:
        assert ask_behaviour(url, {"times": 1}).status_code == 200


def test_requests_wait_for_a_worker(url: str) -> None:
    """Four requests are worked on at a time: twenty, all sent at once, take as long as five one after another."""
    start_s = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(20) as threads:
        list(threads.map(lambda _: get_work(url, 100_000), range(20)))
    assert time.monotonic() - start_s >= 5 * 0.1


def test_a_broken_instance_answers_with_that_status_and_stays_healthy(url: str) -> None:
    """GET / gets the status that it was told, health checks get 200, until it is told otherwise."""
    assert ask_behaviour(url, {"status": 500}).json() == {"times": 1, "status": 500}
    try:
        assert get(url).status_code == 500
        assert requests.head(url, timeout=DEADLINE_S).status_code == 200
        assert get(url + "/health").status_code == 200
    finally:
        assert ask_behaviour(url, {"status": 200}).status_code == 200
    assert get(url).status_code == 200


@pytest.mark.parametrize(
    "body",
    [{}, [], {"times": 0}, {"times": 1e9}, {"times": "2"}, {"status": 99}, {"status": 500.0}, {"more": 1}],
    ids=repr,
)
def test_wrong_behaviour_is_refused(url: str, body: object) -> None:
    """Anything else is answered with 400 and what is allowed, and changes nothing."""
    response = ask_behaviour(url, body)
    assert response.status_code == 400
    assert "200 to 599" in response.json()["error"]
    assert get(url).status_code == 200


@pytest.mark.parametrize("path", ["/delay", "/behaviour"])
@pytest.mark.parametrize("header", ["X-Forwarded-For", "CDN-Loop", "Via", "Forwarded"])
def test_no_client_of_a_balancer_can_change_the_instance(url: str, path: str, header: str) -> None:
    """A request that came through a proxy finds nothing there."""
    body = {"/delay": {"delay": LONGEST_MS}, "/behaviour": {"status": 500}}[path]
    response = requests.post(url + path, json=body, headers={header: "x"}, timeout=DEADLINE_S)
    assert response.status_code == 404
    assert get(url).status_code == 200


@pytest.mark.parametrize(("method", "path"), [("GET", "/other"), ("GET", "/delay"), ("POST", "/health")])
def test_other_paths_are_not_found(url: str, method: str, path: str) -> None:
    """Other paths and methods are answered with 404 and JSON."""
    response = requests.request(method, url + path, timeout=DEADLINE_S)
    assert response.status_code == 404
    assert "only GET /, GET /health and GET /idle exist" in response.json()["error"]


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/"), ("HEAD", "/"), ("GET", "/health"), ("POST", "/delay"), ("GET", "/other")],
)
def test_every_answer_names_the_address(url: str, method: str, path: str) -> None:
    """Every answer, including refusals, has the instance's address in X-Backend-IP and no Server header."""
    headers = requests.request(method, url + path, timeout=DEADLINE_S).headers
    assert headers["X-Backend-IP"] == HOST
    assert "Server" not in headers


def test_wildcard_names_the_requested_address() -> None:
    """Bound to the wildcard, the application names the address on which each request arrived."""
    with running("0.0.0.0", at=HOST) as (_, port):
        for address in (HOST, "127.77.1.2"):
            response = get(f"http://{address}:{port}")
            assert (response.json()["ip"], response.headers["X-Backend-IP"]) == (address, address)


def test_sigterm_finishes_requests_in_flight() -> None:
    """After SIGTERM, new connections are refused, a slow request is answered with 200 and the exit code is 0."""
    with running() as (process, port), socket.create_connection((HOST, port), DEADLINE_S) as connection:
        assert ask_delay(f"http://{HOST}:{port}", b'{"delay": 1000, "checks": false}').status_code == 200
        # Both requests arrive together, so the answer to the first proves that the second has begun.
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
        first = receive_until(connection, b'"ok"}')
        process.terminate()
        wait_until(lambda: not accepts(HOST, port), "closed listener")
        assert process.poll() is None
        second = receive_until(connection, None)
        assert process.wait(DEADLINE_S) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert first.startswith(b"HTTP/1.1 200 ")
    assert second.startswith(b"HTTP/1.1 200 ")
    assert b'"sessionViews":1' in second


def receive_until(connection: socket.socket, end: bytes | None) -> bytes:
    """Return the received bytes up to `end`; None means until the other side closes."""
    received = b""
    while chunk := connection.recv(65536):
        received += chunk
        if end is not None and received.endswith(end):
            break
    return received


@pytest.mark.parametrize("port", ["", "0", "65536", "-1", "http", "3000.0", "9" * 5000])
def test_wrong_port_is_named(port: str) -> None:
    """An invalid APP_PORT ends the start with 100 and one line with variable, value and range."""
    expect_refusal({"APP_HOST": HOST, "APP_PORT": port}, 100, f"APP_PORT={port!r}", "1 to 65535")


def test_wrong_host_is_named() -> None:
    """An APP_HOST that is not an address ends the start with 100 and one line."""
    expect_refusal({"APP_HOST": "no.such"}, 100, "APP_HOST='no.such'", "IPv4 or IPv6")


def test_wrong_tag_is_named() -> None:
    """An APP_TAG with a control character ends the start with 100 and one line."""
    expect_refusal({"APP_TAG": "a\nb"}, 100, r"APP_TAG='a\nb'", "printable")


@pytest.mark.parametrize("path", ["api", "/", "/api/", "/a b", "/a\n"])
def test_a_wrong_path_is_refused(path: str) -> None:
    """An APP_PATH that is no path ends the start with 100 and one line."""
    expect_refusal({"APP_PATH": path}, 100, f"APP_PATH={path!r}", "a path like /api")


def test_occupied_address_is_a_system_failure() -> None:
    """An address in use by another process ends the start with 111 and one line."""
    with socket.create_server((HOST, 0)) as holder:
        settings = {"APP_HOST": HOST, "APP_PORT": str(holder.getsockname()[1])}
        expect_refusal(settings, 111, "in use", HOST)


def expect_refusal(settings: dict[str, str], exit_code: int, *parts: str) -> None:
    """Start the application; assert this exit code and one line on stderr that contains these parts."""
    with launch(**settings) as process:
        try:
            _, errors = process.communicate(timeout=DEADLINE_S)
        finally:
            process.kill()
    assert process.returncode == exit_code
    assert len(errors.splitlines()) == 1
    assert [part for part in parts if part not in errors] == []
