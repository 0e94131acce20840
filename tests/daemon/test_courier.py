"""The courier: what it sends, takes, publishes and asks, with a Serf agent whose answers the test chooses."""

import logging
import select
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from fakes.serf_rpc import speak_queries
from fakes.servers import at_once, serving_tcp
from serf_haproxy.control import absence
from serf_haproxy.control.order_book import OrderBook
from serf_haproxy.daemon import courier
from serf_haproxy.daemon.courier import Courier
from serf_haproxy.policy.order_wire import ORDER, Message, decode, encode, make_pages
from serf_haproxy.policy.orders import DRAIN, MAINT, MOST, UNDONE, Order
from serf_haproxy.policy.proof import Secret
from serf_haproxy.serf import inbox
from serf_haproxy.settings import Settings, load_settings
from serf_haproxy.system.moments import time_ms

SECRET = b"0123456789abcdef"
SECRETS = (Secret(SECRET),)


def make(node: str = "web1", mode: str = DRAIN, issuer: str = "lb1", **more: Any) -> Order:
    return Order(MAINT, "", node, mode, time_ms(), issuer, reason="disk swap")._replace(**more)


class Clock:
    """The time of the courier, which the test moves."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def monotonic(self) -> float:
        """Return the time of a clock that never goes back."""
        return time.monotonic() + self.ahead_s


class Agent:
    """A Serf agent: the events that it took, the queries that it was asked, and the answers that it gives."""

    def __init__(self) -> None:
        self.is_reachable = True
        self.has_end = True  # whether it says that no more answers will come, in one piece with all others
        self.events: list[Order] = []
        self.asked: list[tuple[list[str], str]] = []
        self.answers: dict[tuple[str, str], bytes] = {}  # by node and payload

    def is_up(self) -> bool:
        """Return whether it runs, as `serf.client.Client` does."""
        return True

    def send_event(self, name: str, payload: bytes) -> bool:
        """Take an event as `serf.client.Client` passes it on."""
        assert name == inbox.EVENT
        if self.is_reachable:
            self.events += decode(payload, SECRETS, time_ms()).orders
        return self.is_reachable

    def answer(self, nodes: list[str], payload: str) -> dict[str, bytes]:
        """Return the answers of nodes to a query."""
        self.asked.append((nodes, payload))
        return {node: self.answers[node, payload] for node in nodes if (node, payload) in self.answers}


@pytest.fixture
def agent() -> Agent:
    return Agent()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Give the courier a clock that the test moves."""
    clock = Clock()
    monkeypatch.setattr(courier, "time", clock)
    monkeypatch.setattr(absence, "time", clock)
    return clock


@pytest.fixture
def settings(tmp_path: Path, agent: Agent) -> Iterator[Settings]:
    """Yield the settings of a balancer whose Serf agent is the test's."""
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET)
    secret.chmod(0o600)
    for name in ("state", "run", "run/inbox", "run/answers"):
        (tmp_path / name).mkdir()
    with serving_tcp(at_once(speak_queries(agent.answer, lambda: agent.has_end))) as (host, port):
        yield load_settings(
            {
                "SERF_HAPROXY_STATE_DIR": str(tmp_path / "state"),
                "SERF_HAPROXY_WAKE_FIFO": str(tmp_path / "run" / "wake"),
                "SERF_HAPROXY_RPC_ADDR": f"{host}:{port}",
                "SERF_HAPROXY_ORDERS_SECRET_FILE": str(secret),
                "SERF_HAPROXY_SETTINGS_FILE": "/dev/null",
            }
        )


Work = Callable[..., bool]


@pytest.fixture
def subject(settings: Settings, clock: Clock) -> Iterator[Courier]:  # noqa: ARG001 it has the clock
    made = Courier(settings)
    yield made
    made.close()


@pytest.fixture
def work(subject: Courier, agent: Agent) -> Work:
    """Return what does what is due, and reads the answers to a query; whether there was news."""
    return lambda *others, self_name="lb1": work_once(subject, agent, others, self_name)


def work_once(subject: Courier, agent: Agent, others: Sequence[str], self_name: str = "lb1") -> bool:
    """Do what is due, and read the answers to a query; return whether there was news."""
    is_news = subject.work(agent, self_name, others)  # type: ignore[arg-type]
    while subject.watched():
        assert select.select(subject.watched(), [], [], 60)[0], "no answer"
        is_news = subject.look() or is_news
    return is_news


def book_of(settings: Settings) -> OrderBook:
    return OrderBook(settings.state_dir)


def list_nodes(settings: Settings) -> dict[str, bool]:
    """Return the nodes that orders are about, and whether the cluster has been told."""
    return {one.order.node: one.is_sent for one in book_of(settings).read().values()}


def list_pages(settings: Settings) -> list[str]:
    return sorted(path.name for path in Path(settings.answers_dir).glob("orders.*"))


def answer(agent: Agent, node: str, orders: list[Order], secrets: tuple[Secret, ...] = SECRETS) -> int:
    """Have another balancer answer with all its orders; return the number of pages."""
    pages = make_pages(node, orders, time_ms(), secrets)
    agent.answers |= {(node, str(number)): page for number, page in enumerate(pages)}
    return len(pages)


def test_what_is_given_here_is_told_once(settings: Settings, agent: Agent, subject: Courier, work: Work) -> None:
    """An order of a command is news, goes out as one event, and stays told; a local one never goes out."""
    book_of(settings).give([make(), make("web2", is_local=True)])
    assert work()
    assert [order.node for order in agent.events] == ["web1"]
    assert list_nodes(settings) == {"web1": True, "web2": True}
    subject.note_mail()
    assert not work()
    assert len(agent.events) == 1


def test_an_event_that_serf_does_not_take_is_sent_later(
    settings: Settings, agent: Agent, clock: Clock, work: Work
) -> None:
    """The pauses between tries grow, and the order is told in the end."""
    agent.is_reachable = False
    book_of(settings).give([make()])
    assert work()
    assert list_nodes(settings) == {"web1": False}
    agent.is_reachable = True
    work()
    assert agent.events == []
    clock.ahead_s += 1.1
    work()
    assert (len(agent.events), list_nodes(settings)) == (1, {"web1": True})


def test_more_orders_than_fit_into_one_turn_are_all_told(settings: Settings, agent: Agent, work: Work) -> None:
    """A turn sends a few events, so that it ends soon; the next ones send the rest."""
    book_of(settings).give([make(f"web{number}") for number in range(40)])
    work()
    assert 0 < len(agent.events) < 40
    for _ in range(2):
        work()
    assert len({order.node for order in agent.events}) == len(agent.events) == 40


def test_events_of_others_count_once_their_signature_does(
    settings: Settings, clock: Clock, subject: Courier, work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    """A forged event is refused with one line a minute, whatever comes with it."""
    forged = encode(Message(ORDER, "lb2", time_ms(), (make("web9"),)), (Secret(b"another-secret-x"),))
    genuine = encode(Message(ORDER, "lb2", time_ms(), (make("web1"),)), SECRETS)
    with caplog.at_level(logging.WARNING):
        for payload in (forged, genuine + b"\n", forged):
            inbox.put(settings.inbox_dir, payload)
        assert work()
        assert list_nodes(settings) == {"web1": True}
        refusal = "an order from Serf is refused: it is signed with another secret, or not at all"
        assert caplog.messages == [refusal]
        clock.ahead_s += 61
        inbox.put(settings.inbox_dir, forged)
        assert not work()  # nothing has told it of mail
        subject.note_mail()
        assert not work()
        assert caplog.messages == [refusal] * 2


def test_a_page_is_no_event(settings: Settings, work: Work) -> None:
    """A page that was put into an event is left out: only answers have pages."""
    inbox.put(settings.inbox_dir, make_pages("lb2", [make("web1")], time_ms(), SECRETS)[0])
    assert not work()
    assert list_nodes(settings) == {}


@pytest.mark.parametrize(
    ("secret", "said"),
    [
        ("", "an order from Serf is refused: there is no secret for orders, see SERF_HAPROXY_ORDERS_SECRET_FILE"),
        ("/nowhere/secret", "orders from Serf do not count: /nowhere/secret: there is no such file"),
    ],
)
def test_without_a_secret_orders_count_here_alone(
    settings: Settings, agent: Agent, caplog: pytest.LogCaptureFixture, secret: str, said: str
) -> None:
    """What is given here counts; nothing is told, published or asked, and what comes from Serf is refused."""
    alone = Courier(settings.replace(orders_secret_file=secret))
    inbox.put(settings.inbox_dir, encode(Message(ORDER, "lb2", time_ms(), (make("web9"),)), SECRETS))
    book_of(settings).give([make()])
    assert alone.work(agent, "lb1", ["lb2"])  # type: ignore[arg-type]
    assert list_nodes(settings) == {"web1": False}
    assert (agent.events, agent.asked, list_pages(settings)) == ([], [], [])
    assert any(said in line for line in caplog.messages), caplog.messages
    assert not alone.look()


def test_a_balancer_that_does_not_know_its_name_only_takes(settings: Settings, agent: Agent, work: Work) -> None:
    """Before Serf has said who it is, orders count here, and nothing goes out in a wrong name."""
    book_of(settings).give([make()])
    assert work("lb2", self_name="")
    assert (agent.events, agent.asked, list_pages(settings)) == ([], [], [])


def test_too_many_orders_are_refused_aloud(settings: Settings, work: Work, caplog: pytest.LogCaptureFixture) -> None:
    """A full book refuses what is given, and the log says what to do."""
    book_of(settings).give([make(f"web{number}") for number in range(MOST)])
    assert work()
    book_of(settings).give([make("one-more")])
    Courier.note_mail(subject := Courier(settings))
    assert not subject.work(Agent(), "lb1", ())  # type: ignore[arg-type]
    assert any("orders are refused: there are 256 orders already" in line for line in caplog.messages)
    assert "one-more" not in list_nodes(settings)


def test_pages_follow_the_orders(settings: Settings, clock: Clock, subject: Courier, work: Work) -> None:
    """All orders are in the pages, those too many go, and a page is dated anew each minute."""
    work()
    assert list_pages(settings) == ["orders.0"]
    names = [f"web{number}" for number in range(30)]
    book_of(settings).give([make(name) for name in names])
    subject.note_mail()
    for _ in range(3):  # as many turns as it takes to tell of all
        work()
    many = list_pages(settings)
    assert len(many) > 2
    told = [decode((Path(settings.answers_dir) / name).read_bytes(), SECRETS, time_ms()) for name in many]
    assert sorted(order.node for message in told for order in message.orders) == sorted(names)
    dated = {message.sent_ms for message in told}
    work()
    assert decode(Path(settings.answers_dir, "orders.0").read_bytes(), SECRETS, time_ms()).sent_ms in dated
    clock.ahead_s += 61
    work()
    assert decode(Path(settings.answers_dir, "orders.0").read_bytes(), SECRETS, time_ms()).sent_ms > max(dated)
    for path in Path(settings.state_dir).glob("orders.json"):
        path.unlink()
    clock.ahead_s += 61
    work()
    assert list_pages(settings) == ["orders.0"]


def test_pages_that_cannot_be_written_are_a_complaint(
    settings: Settings, work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    """Orders go on counting here where the directory of answers is gone."""
    Path(settings.answers_dir).rmdir()
    book_of(settings).give([make()])
    assert work()
    assert any(line.startswith("other balancers cannot ask for the orders of this one: ") for line in caplog.messages)


def test_others_are_asked_at_the_start_each_minute_and_when_one_comes(agent: Agent, clock: Clock, work: Work) -> None:
    """A question goes to all of a few balancers at once."""
    work("lb2")
    work("lb2")
    assert agent.asked == [(["lb2"], "0")]
    clock.ahead_s += 61
    work("lb2")
    assert len(agent.asked) == 2
    work("lb2", "lb3")
    assert agent.asked[2] == (["lb2", "lb3"], "0")
    work("lb3")
    assert len(agent.asked) == 3


def test_of_many_balancers_each_is_asked_in_its_turn(agent: Agent, clock: Clock, work: Work) -> None:
    """Sixteen are in one question; the next one begins after them."""
    others = [f"lb{number}" for number in range(2, 42)]
    for _ in range(3):
        work(*others)
        clock.ahead_s += 61
    assert [len(nodes) for nodes, _ in agent.asked] == [16, 16, 16]
    assert {name for nodes, _ in agent.asked for name in nodes} == set(others)


def test_what_others_answer_is_obeyed_page_after_page(settings: Settings, agent: Agent, work: Work) -> None:
    """Each further page is asked of the balancer that has it, and an order of each counts."""
    names = {f"web{number}" for number in range(30)}
    count = answer(agent, "lb2", [make(name, issuer="lb2") for name in sorted(names)])
    for _ in range(count):
        work("lb2")
    assert agent.asked == [(["lb2"], str(number)) for number in range(count)]
    assert list_nodes(settings) == dict.fromkeys(names, True)
    assert not work("lb2")
    assert len(agent.asked) == count


def test_an_answer_that_is_known_or_forged_is_no_news(
    settings: Settings, agent: Agent, clock: Clock, work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    """The same digest says that nothing is new; a wrong signature is told."""
    orders = [make("web1", issuer="lb2")]
    answer(agent, "lb2", orders)
    assert work("lb2")
    clock.ahead_s += 61
    assert not work("lb2")
    answer(agent, "lb2", [make("web2", UNDONE)], (Secret(b"another-secret-x"),))
    clock.ahead_s += 61
    assert not work("lb2")
    assert list_nodes(settings) == {"web1": True}
    assert any(
        line.startswith("an answer with orders is refused: it is signed with another") for line in caplog.messages
    )


def test_a_serf_agent_that_is_gone_is_asked_again_a_minute_later(
    settings: Settings, agent: Agent, clock: Clock, work: Work
) -> None:
    """A question that cannot be asked is neither an error nor repeated at once."""
    away = Courier(settings.replace(rpc_addr=("127.0.0.1", 1)))
    for _ in range(2):
        assert not away.work(agent, "lb1", ["lb2"])  # type: ignore[arg-type]
        assert away.watched() == []
    clock.ahead_s += 61
    work("lb2")
    assert len(agent.asked) == 1


def test_an_answer_that_breaks_off_ends_the_question(settings: Settings, agent: Agent, subject: Courier) -> None:
    """What comes instead of an answer closes the connection, and the orders stay as they were."""
    agent.answers["lb2", "0"] = b"x" * 2000  # larger than Serf's limit: it is left out
    agent.has_end = False
    subject.work(agent, "lb1", ["lb2"])  # type: ignore[arg-type]
    (query,) = subject.watched()
    query.close()
    assert not subject.look()
    assert subject.watched() == []
    assert list_nodes(settings) == {}


DAY_MS = 86400 * 1000


def leave_for(settings: Settings, days: int, *orders: Order) -> None:
    """Have a balancer take orders, and be away for a number of days since."""
    then_ms = time_ms() - days * DAY_MS
    book = book_of(settings)
    book.take([order._replace(at_ms=then_ms) for order in orders], then_ms)
    book.note_seen(then_ms)


def be_back(settings: Settings, agent: Agent, *others: str) -> Callable[[], bool]:
    """Start the courier anew; return what has it work until no answer is awaited, and says whether there was news."""
    subject = Courier(settings)
    return lambda: work_once(subject, agent, others)


@pytest.mark.usefixtures("clock")
def test_an_order_that_was_undone_during_a_long_absence_does_not_come_back(settings: Settings, agent: Agent) -> None:
    """No balancer has its mark any more: what the others do not know is dropped, and they never hear of it."""
    kept, local = make("web2"), make("web3", is_local=True)
    leave_for(settings, 31, make("web1"), kept, local)
    answer(agent, "lb2", [kept._replace(at_ms=time_ms() - 31 * DAY_MS), make("web4", issuer="lb2")])
    work = be_back(settings, agent, "lb2")
    assert work()
    assert list_nodes(settings).keys() == {"web2", "web3", "web4"}
    assert agent.events == []
    assert not work()
    assert list_pages(settings) == ["orders.0"]
    page = decode(Path(settings.answers_dir, "orders.0").read_bytes(), SECRETS, time_ms())
    assert {order.node for order in page.orders} == {"web2", "web4"}


@pytest.mark.usefixtures("clock")
def test_nothing_is_dropped_before_all_pages_are_there(settings: Settings, agent: Agent) -> None:
    """An order on the last page is not taken for one that is not known; until then nothing is published or told."""
    names = [f"web{number}" for number in range(30)]
    there = [make(name, issuer="lb2", at_ms=time_ms() - 31 * DAY_MS) for name in names]
    leave_for(settings, 31, make("web1"), make("web9"), make("gone"))
    count = answer(agent, "lb2", there)
    assert count > 2
    work = be_back(settings, agent, "lb2")
    for _ in range(count - 1):
        work()
        assert {"web1", "web9", "gone"} <= list_nodes(settings).keys()
        assert list_pages(settings) == []
    assert work()
    assert list_nodes(settings).keys() == set(names)


def test_doubts_end_when_none_knows_better(settings: Settings, agent: Agent, clock: Clock) -> None:
    """A cluster that was off as a whole tells its orders ten minutes later; a new one goes out at once."""
    leave_for(settings, 40, make("web1"))
    work = be_back(settings, agent, "lb2")
    book_of(settings).give([make("web2")])
    for _ in range(10):
        work()
        assert list_pages(settings) == []
        clock.ahead_s += 61
    assert [order.node for order in agent.events] == ["web2"]
    work()
    assert list_pages(settings) == ["orders.0"]
    assert list_nodes(settings) == {"web1": True, "web2": True}


@pytest.mark.usefixtures("clock")
def test_doubts_survive_a_restart(settings: Settings, agent: Agent) -> None:
    """A daemon that is restarted before the others have answered still drops what they do not know."""
    leave_for(settings, 31, make("web1"))
    be_back(settings, agent)()
    assert list_nodes(settings) == {"web1": True}
    answer(agent, "lb2", [])
    assert be_back(settings, agent, "lb2")()
    assert list_nodes(settings) == {}


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("days", [0, 29])
def test_after_a_short_absence_orders_count_as_before(settings: Settings, agent: Agent, days: int) -> None:
    """The marks of what was undone meanwhile are still there, so what others do not know is theirs to learn."""
    leave_for(settings, days, make("web1"))
    answer(agent, "lb2", [])
    be_back(settings, agent, "lb2")()
    assert list_nodes(settings) == {"web1": True}
    assert list_pages(settings) == ["orders.0"]
    assert time_ms() - book_of(settings).read_seen_ms() < DAY_MS


@pytest.mark.usefixtures("clock")
def test_the_same_orders_end_the_doubts(settings: Settings, agent: Agent) -> None:
    """Another balancer that knows exactly these needs to send no further page."""
    leave_for(settings, 31, *(make(f"web{number}") for number in range(30)))
    answer(agent, "lb2", [one.order for one in book_of(settings).read().values()])
    work = be_back(settings, agent, "lb2")
    assert not work()
    assert len(agent.asked) == 1
    work()
    assert len(list_nodes(settings)) == 30
    assert len(list_pages(settings)) > 1
