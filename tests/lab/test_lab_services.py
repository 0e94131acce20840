"""The services of a lab: their names, the services file, the tags of nodes, and where clients connect."""

from pathlib import Path

import pytest

from serf_haproxy.errors import InputError
from serf_haproxy.lab import balancer, plan, report, services
from serf_haproxy.lab.records import Balancer, Node, Record, load
from serf_haproxy.lab.services import NodeOptions, Wish
from serf_haproxy.services import RESERVED
from serf_haproxy.services.file import Source, read_from
from serf_haproxy.settings import Settings


def make_record(tmp_path: Path, text: str = "shop=2,pg=1,queue=0:tcp") -> Record:
    """Return the record of a lab with services and one balancer."""
    return plan.plan_lab(str(tmp_path), 20000, 1, 1, services.read_wishes(text))


def test_services_are_read_with_their_modes_and_numbers() -> None:
    """The mode follows from the name, or stands behind the number."""
    assert services.read_wishes("shop=3, api=2,pg=2") == [
        Wish("shop", "http", 3),
        Wish("api", "http", 2),
        Wish("pg", "tcp", 2),
    ]
    assert services.read_wishes("pg=1:http,queue=0:tcp") == [Wish("pg", "http", 1), Wish("queue", "tcp", 0)]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "must be NAME=COUNT"),
        ("shop", "must be NAME=COUNT"),
        ("shop=", "must be NAME=COUNT"),
        ("shop=x", "must be NAME=COUNT"),
        ("shop=-1", "must be NAME=COUNT"),
        ("shop=1,", "must be NAME=COUNT"),
        ("shop=1:udp", "must be NAME=COUNT"),
        ("shop=٣", "must be NAME=COUNT"),
        ("shop=101", "at most 100 nodes"),
        ("=1", "service '': a name is a letter a-z"),
        ("Shop=1", "service 'Shop': a name is a letter a-z"),
        ("a_b=1", "service 'a_b': a name is a letter a-z"),
        ("shöp=1", r"service 'sh\\xf6p': a name is a letter a-z"),
        (f"{'x' * 32}=1", "a name is a letter a-z"),
        ("nodes=1", "is the default service; --nodes"),
        ("lb=1", "its nodes would have names of balancers"),
        ("health=1", "is a path of the web application"),
        *((f"{name}=1", "is the name of a section of the built-in template") for name in RESERVED),
        ("shop=1,shop=2", "shop is there twice"),
        ("a=11,a1=1", "a and a1 both have a node a11"),
        ("a=1:tcp,b=1:tcp,c=1:tcp,d=1:tcp,e=1:tcp", "ports for 4 services of mode tcp"),
    ],
)
def test_wrong_services_are_refused(text: str, fault: str) -> None:
    """A wrong name, number, mode or combination is one line that names the option and the remedy."""
    with pytest.raises(InputError, match=fault) as caught:
        services.read_wishes(text)
    assert str(caught.value).startswith("--services")
    assert "\n" not in str(caught.value)


def test_the_services_file_is_right(tmp_path: Path) -> None:
    """The file of each balancer has no fault, and names the services at the balancer's own address."""
    record = make_record(tmp_path)
    settings = Settings().replace(frontend_bind="127.0.0.1:20000", stats_bind="127.0.0.1:20001")
    read = read_from(Source("services.toml", settings), services.write_file(record, record.balancers["lb1"]))
    assert read.faults == ()
    listed = {service.name: service for service in read.listed}
    assert set(listed) == {"nodes", "shop", "pg", "queue"}
    assert (listed["shop"].mode, listed["shop"].routes) == ("http", ("/shop", "shop.localhost"))
    assert [(listed[name].mode, listed[name].bind) for name in ("pg", "queue")] == [
        ("tcp", "127.0.0.1:20006"),
        ("tcp", "127.0.0.1:20007"),
    ]
    assert 'bind = "127.0.0.2:20006"' in services.write_file(record, Balancer("lb2", "127.0.0.2"))


def test_a_lab_with_https_has_a_listener_and_directories_of_its_own(tmp_path: Path) -> None:
    """Each balancer listens for TLS at its own address, and has its own certificates; else there is no such setting."""
    record = make_record(tmp_path)
    plain = balancer.make_settings_environ(record, Balancer("lb2", "127.0.0.2"))
    assert not [name for name in plain if "HTTPS" in name or "CERTIFICATES" in name]
    record.has_https = True
    record.save()
    read = load(str(tmp_path))
    assert read
    environ = balancer.make_settings_environ(read, Balancer("lb2", "127.0.0.2"))
    assert {name: value for name, value in environ.items() if name not in plain} == {
        "SERF_HAPROXY_HTTPS_BIND": "127.0.0.2:20005",
        "SERF_HAPROXY_HTTPS_PORT": "20005",
        "SERF_HAPROXY_CERTIFICATES_DIR": f"{tmp_path}/lb2/certificates",
    }
    assert environ["SERF_HAPROXY_CERTIFICATE_COPIES_DIR"] == f"{tmp_path}/lb2/copies"
    listeners = balancer.list_listeners(read, read.balancers["lb1"])
    assert ("HTTPS of lb1", "127.0.0.1", 20005, False) in listeners
    plan.check_ports(read, read.balancers.values(), read.nodes.values())
    status = report.describe(read)
    assert status["balancers"][0]["https_url"] == "https://127.0.0.1:20005"
    assert report.format_table(status).splitlines()[0].split()[2:5] == ["frontend_url", "https_url", "stats_url"]


def test_each_node_offers_the_service_that_it_is_named_after(tmp_path: Path) -> None:
    """Nodes of the default service have the tag port; the others have the tag of their service alone."""
    record = make_record(tmp_path)
    assert {name: node.tags for name, node in record.nodes.items()} == {
        "web1": {"role": "web", "port": "20004"},
        "shop1": {"role": "web", "svc.shop": "20004"},
        "shop2": {"role": "web", "svc.shop": "20004"},
        "pg1": {"role": "tcp", "svc.pg": "20004"},
    }
    added = plan.plan_node(record, "x", None, NodeOptions("pg", 999, {"svc.pg": "999:backup"}))
    assert (added.service, added.port, added.tags["svc.pg"]) == ("pg", 999, "999:backup")
    assert plan.plan_node(record, "y", None, NodeOptions("nodes")).tags == {"role": "web", "port": "20004"}
    with pytest.raises(InputError, match="--service 'no': the lab at .* has nodes, shop, pg, queue"):
        plan.plan_node(record, "z", None, NodeOptions("no"))


def test_another_port_keeps_the_options_of_the_tag() -> None:
    """A node that returns with another port keeps weight and version."""
    node = Node("pg1", "127.0.1.1", 1, {"svc.pg": "1:w5:v2"}, service="pg")
    assert services.change_port(node, 2) == {"svc.pg": "2:w5:v2"}
    assert services.change_port(node, None) == {}
    assert services.change_port(Node("web1", "127.0.1.1", 1, {"port": "1"}), 2) == {"port": "2"}


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"svc.pg": "1"}, False),
        ({"svc.pg": "1:w5:v0"}, False),
        ({"svc.pg": "1:w0"}, True),
        ({"svc.pg": "1:drain"}, True),
        ({"svc.pg": "1:v1:backup"}, True),
        ({"svc.shop": "1:backup", "svc.pg": "1"}, False),
        ({"weight": "0"}, True),
        ({"drain": "true"}, True),
    ],
)
def test_nodes_that_may_get_no_request_are_known(tags: dict[str, str], expected: bool) -> None:
    """Whether such a node is served has to be asked of HAProxy."""
    assert services.may_get_no_request(Node("pg1", "127.0.1.1", 1, tags, service="pg")) is expected


def test_each_balancer_has_a_services_file_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`lab env` puts the file of one balancer into a shell, from which another lab or balancer may be started."""
    monkeypatch.setenv("SERF_HAPROXY_SERVICES_FILE", "/x.toml")
    record = make_record(tmp_path)
    environ = balancer.make_settings_environ(record, Balancer("lb2", "127.0.0.2"))
    assert environ["SERF_HAPROXY_SERVICES_FILE"] == f"{tmp_path}/lb2/services.toml"


@pytest.mark.parametrize(
    ("service", "tags", "expected"),
    [
        ("nodes", {"role": "web", "port": "80"}, False),
        ("nodes", {"role": "web"}, False),
        ("nodes", {"role": "web", "svc.api": "80"}, True),
        ("nodes", {"svc.api": "80", "port": "80"}, False),
        ("api", {"svc.api": "80:drain"}, False),
        ("api", {"svc.shop": "80"}, True),
    ],
)
def test_a_user_may_move_a_node_to_another_service(service: str, tags: dict[str, str], expected: bool) -> None:
    """What a node offers is what its tags say, not what it was added for."""
    assert services.offers_another(Node("n1", "127.0.1.1", 80, tags=tags, service=service)) is expected


def test_the_status_says_where_each_service_is_reached(tmp_path: Path) -> None:
    """Each service has its nodes and, for each balancer, a URL or address:port; without services the table has none."""
    record = make_record(tmp_path)
    record.save()
    loaded = load(str(tmp_path))
    assert loaded == record
    status = report.describe(record)
    assert status["services"] == [
        {"service": "nodes", "mode": "http", "nodes": ["web1"], "reached_at": ["http://127.0.0.1:20000"]},
        {"service": "shop", "mode": "http", "nodes": ["shop1", "shop2"], "reached_at": ["http://127.0.0.1:20000/shop"]},
        {"service": "pg", "mode": "tcp", "nodes": ["pg1"], "reached_at": ["127.0.0.1:20006"]},
        {"service": "queue", "mode": "tcp", "nodes": [], "reached_at": ["127.0.0.1:20007"]},
    ]
    table = report.format_table(status)
    assert "pg       tcp   pg1           127.0.0.1:20006" in table
    assert "queue    tcp   -             127.0.0.1:20007" in table
    plain = report.format_table(report.describe(plan.plan_lab(str(tmp_path), 20000, 1, 1)))
    assert "service" not in plain
