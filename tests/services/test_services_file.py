"""The operator's services file: what its tables say, and what a fault costs."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serf_haproxy.services import DEFAULT_SERVICE
from serf_haproxy.services.file import Services, Source, Table, read_from
from serf_haproxy.services.options import find_advice
from serf_haproxy.services.route import read_route, sort_routes
from serf_haproxy.services.service import KEYS, Service, make_default
from serf_haproxy.settings import Settings

PATH = "/etc/serf-haproxy/services.toml"
SETTINGS = Settings()
SHOP = '[shop]\nroutes = ["shop.example.com"]\n'
PG = '[pg]\nmode = "tcp"\nbind = ":5432"\n'


def read(text: str | None, good: dict[str, Table] | None = None, **settings: object) -> Services:
    """Read a services file."""
    return read_from(Source(PATH, SETTINGS.replace(**settings), good or {}), text)


def find(text: str, name: str, **settings: object) -> Service:
    """Return a service of a file without faults."""
    services = read(text, **settings)
    assert services.faults == ()
    return next(service for service in services.listed if service.name == name)


def test_without_a_file_there_is_the_default_service() -> None:
    """Without a file there is one service, which is as the settings say, and no tag of a member counts."""
    services = read(None, balance="leastconn", cookie="SRV")
    assert services == Services((make_default(SETTINGS.replace(balance="leastconn", cookie="SRV")),))
    assert not services.are_named
    assert services.listed[0].is_default


def test_an_empty_file_names_no_further_service() -> None:
    """With an empty file the default service is as the settings say, and the tags of members count."""
    assert read("") == Services((make_default(SETTINGS),), are_named=True)


def test_tables_say_what_differs_from_the_settings() -> None:
    """A key that is a setting too overrides it for one service; a cookie is not inherited."""
    text = SHOP + 'balance = "random"\nports = [80, "8000-8999"]\nroles = "web,app"\ndrain_timeout_s = 5\n' + PG
    settings = {"balance": "leastconn", "drain_timeout_s": 7.0, "cookie": "SRV", "roles": ("web",)}
    shop, pg = find(text, "shop", **settings), find(text, "pg", **settings)
    assert (shop.mode, shop.routes, shop.balance, shop.drain_timeout_s) == ("http", ("shop.example.com",), "random", 5)
    assert (shop.ports, shop.roles, shop.cookie) == (((80, 80), (8000, 8999)), ("app", "web"), "")
    assert (pg.mode, pg.bind, pg.health, pg.balance, pg.roles) == ("tcp", ":5432", "tcp", "leastconn", ("web",))
    assert find(PG + 'health = "http"\n', "pg").health == "http"
    assert find(text + '[nodes]\nbalance = "first"\n', DEFAULT_SERVICE, **settings).balance == "first"
    assert find(text + '[nodes]\nbalance = "first"\n', DEFAULT_SERVICE, **settings).cookie == "SRV"


@pytest.mark.parametrize(
    ("balance", "weights", "is_told"),
    [("leastconn", "measured", True), ("leastconn", "static", False), ("random", "measured", False)],
)
def test_what_an_operator_hardly_wants_is_said(balance: str, weights: str, is_told: bool) -> None:
    """Measured weights do not help the fewest connections against a server that fails at once."""
    service = find(f'{SHOP}balance = "{balance}"\nweights = "{weights}"\n', "shop")
    assert [line.partition(":")[0] for line in find_advice(service)] == ["balance"] * is_told


SCALED = SHOP + "server_maxconn = 5\n[shop.scale]\n"
DOCKER = 'executor = "docker"\nmax = 3\ntemplate = "shop-template"\n'
COMMAND = 'executor = "command"\nmax = 3\nlist = ["ls"]\nstart = ["touch", "{slot}"]\n'

FAULTY = [
    ("[shop]\n", "[shop] routes: mode http needs at least one route"),
    ('[shop]\nroutes = ["a b"]\n', '[shop] routes = ["a b"]: must be a list of routes'),
    ("[shop]\nroutes = []\n", "[shop] routes = []: must be a list of routes"),
    ("[shop]\nroutes = 7\n", "[shop] routes = 7: must be a list of routes"),
    ("[shop]\nroutes = [true]\n", "[shop] routes = [true]: must be a list of routes"),
    (SHOP + 'bind = ":81"\n', "[shop] bind: mode http has none"),
    (SHOP + 'mode = "udp"\n', '[shop] mode = "udp": must be http or tcp'),
    (SHOP + 'balance = "uri # x"\n', '[shop] balance = "uri # x": must be one of roundrobin'),
    (SHOP + "health_path = 7\n", "[shop] health_path = 7: must be a URL path"),
    (SHOP + 'health_status = "2xx"\n', '[shop] health_status = "2xx": must be status codes and ranges'),
    (SHOP + 'health_status = "500-200"\n', '[shop] health_status = "500-200": must be status codes and ranges'),
    (SHOP + "roles = [80]\n", "[shop] roles = [80]: must be words"),
    ("[shop]\nroutes = [80]\n", "[shop] routes = [80]: must be a list of routes"),
    (SHOP + "drain_timeout_s = true\n", "[shop] drain_timeout_s = true: must be 0 to 86400 seconds"),
    (SHOP + 'drain_timeout_s = "5"\n', '[shop] drain_timeout_s = "5": must be 0 to 86400 seconds'),
    (SHOP + "drain_timeout_s = nan\n", "[shop] drain_timeout_s = NaN: must be 0 to 86400 seconds"),
    (SHOP + "split = {v1 = 95, v2 = 6}\n", '[shop] split = {"v1": 95, "v2": 6}: must be a table of versions and'),
    (SHOP + "split = {v1 = 101, v2 = -1}\n", '[shop] split = {"v1": 101, "v2": -1}: must be a table of versions'),
    (SHOP + "split = {v1 = 99.5, v2 = 0.5}\n", '[shop] split = {"v1": 99.5, "v2": 0.5}: must be a table of'),
    (SHOP + 'split = {v1 = "95", v2 = 5}\n', '[shop] split = {"v1": "95", "v2": 5}: must be a table of'),
    (SHOP + "split = {v1 = true, v2 = 99}\n", '[shop] split = {"v1": true, "v2": 99}: must be a table of'),
    (SHOP + 'split = {"v1=50,v2" = 50}\n', '[shop] split = {"v1=50,v2": 50}: must be a table of versions'),
    (SHOP + "split = {one = 100}\n", '[shop] split = {"one": 100}: must be a table of versions'),
    (SHOP + "split = {}\n", "[shop] split = {}: must be a table of versions"),
    (SHOP + "split = [95, 5]\n", "[shop] split = [95, 5]: must be a table of versions"),
    (SHOP + "split = 100\n", "[shop] split = 100: must be a table of versions"),
    (SHOP + 'split = {v1 = 100}\nbalance = "first"\n', "[shop] split: needs balance roundrobin; first does"),
    (SHOP + 'balance = "hash"\n', "[shop] balance: hash needs hash_key"),
    (SHOP + 'hash_key = "path"\n', "[shop] hash_key: needs balance hash; it is roundrobin"),
    (SHOP + 'hash_key = "header:a b"\n', '[shop] hash_key = "header:a b": must be source, path, uri, header:NAME'),
    (PG + 'balance = "hash"\nhash_key = "path"\n', "[pg] hash_key: path needs mode http; source does not"),
    (PG + 'server_proto = "h2"\n', "[pg] server_proto: needs mode http"),
    (SHOP + 'server_proto = "h3"\n', '[shop] server_proto = "h3": must be h1 or h2'),
    (SHOP + "server_maxqueue = 5\n", "[shop] server_maxqueue: needs server_maxconn"),
    (SHOP + "server_maxconn = 1.5\n", "[shop] server_maxconn = 1.5: must be a whole number, 0 to 1000000"),
    (SHOP + "retries = true\n", "[shop] retries = true: must be a whole number, 0 to 10"),
    (SHOP + "slowstart_s = -1\n", "[shop] slowstart_s = -1: must be 0 to 3600 seconds"),
    (SHOP + "queue_timeout_s = 0\n", "[shop] queue_timeout_s = 0: must be 0.1 to 86400 seconds"),
    (SHOP + 'backups = "none"\n', '[shop] backups = "none": must be first or all'),
    (SHOP + 'client_networks = ["10.0.0.1/8"]\n', '[shop] client_networks = ["10.0.0.1/8"]: must be networks'),
    (SHOP + "tls = true\n", "[shop] tls: needs tls_ca_file"),
    (SHOP + 'tls = "true"\n', '[shop] tls = "true": must be true or false'),
    (SHOP + "tls = 1\n", "[shop] tls = 1: must be true or false"),
    (SHOP + 'tls_name = "a.example"\n', "[shop] tls_name: needs tls = true"),
    (SHOP + 'tls_ca_file = "/a b"\n', '[shop] tls_ca_file = "/a b": must be an absolute path'),
    (SHOP + 'health = "redis"\n', "[shop] health: redis needs mode tcp"),
    (PG + 'health = "ldap"\n', '[pg] health = "ldap": must be one of http, tcp, pgsql, redis, mysql, smtp'),
    (PG + 'health_user = "a b"\n', '[pg] health_user = "a b": must be up to 32 letters'),
    (SHOP + "backups = 2026-11-26\n", '[shop] backups = "2026-11-26": must be first or all'),
    (SHOP + "retries = 2026-11-26T10:00:00Z\n", '[shop] retries = "2026-11-26 10:00:00+00:00": must be a whole number'),
    (
        SHOP + "split = {v1 = inf, v2 = 10:00:00}\n",
        '[shop] split = {"v1": Infinity, "v2": "10:00:00"}: must be a table',
    ),
    (SHOP + 'backups = "\\u007f\\n\u00e9"\n', '[shop] backups = "\\u007f\\n\\u00e9": must be first or all'),
    (SHOP + 'colour = "red"\n', "[shop] colour: there is no such key"),
    (SHOP + '"a\\nb" = 1\n', "[shop] a\\nb: there is no such key"),
    (SHOP + 'name = "x"\n', "[shop] name: there is no such key"),
    ('[pg]\nmode = "tcp"\n', "[pg] bind: mode tcp needs the address and port"),
    (PG + 'routes = ["/x"]\n', "[pg] routes: needs mode http"),
    (PG + 'cookie = "SRV"\n', "[pg] cookie: needs mode http"),
    (PG + 'balance = "uri"\n', "[pg] balance: uri needs mode http"),
    (PG.replace(":5432", ":80"), "[pg] bind = :80: SERF_HAPROXY_FRONTEND_BIND is there"),
    (PG.replace(":5432", "10.0.0.1:1936"), "[pg] bind = 10.0.0.1:1936: SERF_HAPROXY_STATS_BIND is there"),
    (SHOP + 'stick = "source"\n', "[shop] stick: needs mode tcp; name a cookie instead"),
    (PG + 'stick = "cookie"\n', '[pg] stick = "cookie": must be source, or empty'),
    (PG + "stick_size = 99\n", "[pg] stick_size = 99: must be a whole number, 100 to 1000000"),
    (PG + "stick_expire_s = 1.5\n", "[pg] stick_expire_s = 1.5: must be a whole number, 10 to 604800"),
    (PG.replace("5432", "7947") + 'stick = "source"\n', "[pg] bind = :7947: SERF_HAPROXY_PEERS_PORT is there"),
    (SHOP + 'cookie_key = "x"\n', "[shop] cookie_key: there is no such key"),
    (SHOP + "redirect_https = 1\n", "[shop] redirect_https = 1: must be true or false"),
    (SHOP + 'redirect_https = "on"\n', '[shop] redirect_https = "on": must be true or false'),
    (SHOP + "redirect_https = true\n", "[shop] redirect_https: needs the setting SERF_HAPROXY_HTTPS_BIND"),
    (SHOP + "hsts_max_age_s = -1\n", "[shop] hsts_max_age_s = -1: must be a whole number"),
    (PG + "hsts_max_age_s = 1\n", "[pg] hsts_max_age_s: needs mode http"),
    (PG + "redirect_https = true\n", "[pg] redirect_https: needs"),
    (SHOP + 'sni = ["a.test"]\n', "[shop] sni: needs mode tcp"),
    (PG + 'sni = ["/a"]\n', '[pg] sni = ["/a"]: must be a list of hosts'),
    (PG + 'sni = ["a.test/b"]\n', '[pg] sni = ["a.test/b"]: must be a list of hosts'),
    (PG + "sni = []\n", "[pg] sni = []: must be a list of hosts"),
    ('[nodes]\nsni = ["a.test"]\n', "[nodes] sni: nodes is the default service"),
    ("[Shop]\n", "[Shop] is no name of a service"),
    ("[web]\n", "[web] is the name of another section"),
    ("shop = 1\n", "[shop] must be a table"),
    ('[nodes]\nmode = "tcp"\nbind = ":1"\n', "[nodes] mode: nodes is the default service"),
    (SHOP + "scale = 3\n", "[shop] scale: must be a table: [shop.scale], and its keys below"),
    (SCALED + 'max = 0\nexecutor = "docker"\n', "[shop] scale.max = 0: must be a whole number, 1 to 1000"),
    (SCALED + "maximum = 3\n", "[shop] scale.maximum: there is no such key"),
    (SCALED + "max = 3\n", "[shop] scale.executor: it is needed: one of command, docker"),
    (SCALED + 'executor = "docker"\nmax = 3\n', "[shop] scale.template: executor docker needs it: up to 128"),
    (SCALED + DOCKER + 'unit = "app@"\n', "[shop] scale.unit: executor docker has no such key; it is one of systemd"),
    (SCALED + DOCKER + 'peaks = ["Mon 8-9 min 2"]\n', "[shop] scale.peaks = ['Mon 8-9 min 2']: must be a list"),
    (SCALED + DOCKER + 'peaks = ["daily 00:00-24:00 min 4"]\n', "[shop] scale.peaks: min 4: must be at most max"),
    (SCALED + DOCKER + 'time_zone = "CET"\n', "[shop] scale.time_zone = 'CET': must be UTC, or a name such as"),
    (SCALED + DOCKER + 'time_zone = "Europe/Nowhere"\n', "[shop] scale.time_zone = Europe/Nowhere: this machine does"),
    (SCALED + DOCKER + "min = 4\n", "[shop] scale.max = 3: must be at least min, which is 4"),
    (SCALED + DOCKER + "sticky_s = 9\ndrain_limit_s = 5\n", "[shop] scale.sticky_s = 9: must be at most drain_limit_s"),
    (
        SCALED + COMMAND.replace("{slot}", "x") + 'stop = ["rm", "{slot}"]\n',
        "[shop] scale.start: one of its arguments must contain {slot} or",
    ),
    (SCALED + COMMAND + 'stop = "rm {slot}"\n', "[shop] scale.stop = 'rm {slot}': must be a list: a program"),
    (SHOP + "[shop.scale]\n" + DOCKER, "[shop] scale: needs server_maxconn, how many requests a server takes at once"),
    (PG + "server_maxconn = 5\n[pg.scale]\nmin = 0\n" + DOCKER, "[pg] scale.min = 0: needs mode http"),
]


@pytest.mark.parametrize(("text", "said"), FAULTY)
def test_each_fault_is_one_line_with_file_table_and_key(text: str, said: str) -> None:
    """A fault is one printable line that begins with file, table and key, and says what becomes of the service."""
    services = read(text)
    assert services.faults[0].startswith(f"{PATH}: {said}")
    assert services.faults[0].endswith(("; it is left out", "; it is as the settings say"))
    assert all(fault.isprintable() and fault.isascii() for fault in services.faults)
    assert [service.name for service in services.listed] == [DEFAULT_SERVICE]
    others = read(text + '[other]\nroutes = ["/other"]\n')
    assert [service.name for service in others.listed] == [DEFAULT_SERVICE, "other"]


@pytest.mark.parametrize(
    ("key", "value"), [("retries", "0x" + "f" * 5000), ("split" + ".a" * 3000, "1")], ids=["digits", "tables"]
)
def test_a_value_that_python_cannot_print_is_a_fault(key: str, value: str) -> None:
    """A number of thousands of digits, or thousands of tables in each other, is one short line as any other fault.

    From Python 3.13 on such tables can be printed: their beginning is then told.
    """
    (fault,) = read(SHOP + f"{key} = {value}\n").faults
    assert re.match(
        re.escape(f"{PATH}: [shop] {key.partition('.')[0]} = ") + r"(\(too long\)|\{.*\.\.\.): must be a", fault
    )
    assert len(fault) < 300


def test_a_table_needs_a_port_of_its_own() -> None:
    """The port at which balancers share tables is told where another listener of theirs has it."""
    (fault,) = read(PG + 'stick = "source"\n', peers_port=1936).faults
    assert fault.startswith(f"{PATH}: [pg] stick: SERF_HAPROXY_STATS_BIND has the port of SERF_HAPROXY_PEERS_PORT")
    assert read(PG, peers_port=1936).faults == ()


def test_all_faults_of_a_table_are_told() -> None:
    """Two wrong keys of a table are two lines."""
    faults = read(SHOP + "x = 1\ny = 2\n").faults
    assert [fault.partition("] ")[2][:1] for fault in faults] == ["x", "y"]


@pytest.mark.parametrize(
    ("one", "two", "said"),
    [
        (SHOP, SHOP.replace("[shop]", "[cart]"), "routes: shop.example.com leads to service shop"),
        (SHOP, SHOP.replace("[shop]", "[cart]").replace("shop.e", "SHOP.e"), "routes: shop.example.com leads to"),
        (PG, PG.replace("[pg]", "[redis]"), "bind = :5432: service pg is there"),
        (PG, PG.replace("[pg]", "[redis]") + 'sni = ["a"]\n', "to share it, give sni to both, redis and pg"),
        (PG + 'sni = ["a"]\n', PG.replace("[pg]", "[redis]") + 'sni = ["b", "A"]\n', "sni: a leads to service pg"),
        (
            PG + 'sni = ["a"]\n',
            PG.replace("[pg]", "[redis]").replace(":5432", "*:5432") + 'sni = ["b"]\n',
            "bind = *:5432: service pg is there; to share it, write :5432",
        ),
        (
            PG,
            PG.replace("[pg]", "[redis]").replace(":5432", "10.0.0.1:5432"),
            "bind = 10.0.0.1:5432: service pg is there",
        ),
        *(
            (PG.replace(":5432", one), PG.replace("[pg]", "[redis]").replace(":5432", two), "service pg is there")
            for one, two in (
                ("[::1]:5432", "[0:0::1]:05432"),
                ("127.0.0.1:5432", "[::ffff:127.0.0.1]:5432"),
                ("127.0.0.1:5432", "[0::0]:5432"),
                ("[fd00::A]:5432", "[FD00:0:0::a]:5432"),
                ("*:5432", "[::ffff:0.0.0.0]:5432"),
            )
        ),
        *(
            (
                f'[one]\nroutes = ["{one}"]\ncookie = "SRV"\n',
                f'[two]\nroutes = ["{two}"]\ncookie = "SRV"\n',
                "cookie = SRV: service one has a cookie of this name for the same host; choose another name",
            )
            for one, two in (
                ("a.test/x", "A.test/y"),
                ("a.test/x", "/y"),
                ("*.test", "a.test/x"),
                ("a.b.test/x", "*.test/z"),
                ("*.b.test/x", "*.test/z"),
                ("/x", "*.test/z"),
            )
        ),
    ],
)
def test_of_two_services_that_contradict_the_earlier_one_is_kept(one: str, two: str, said: str) -> None:
    """The service that was in force keeps its route or listener, wherever the new one stands in the file."""
    kept = read(one)
    for text in (one + two, two + one):
        services = read(text, dict(kept.tables))
        assert services.listed == kept.listed
        assert services.tables == kept.tables
        assert said in services.faults[0]
        assert services.faults[0].endswith("; it is left out")
    assert len(read(one + two).listed) == 2


def test_services_share_a_listener_by_host() -> None:
    """Several services of mode tcp may have one listener, if each names hosts of its own."""
    services = read(PG + 'sni = ["B.x", "*.a"]\n' + PG.replace("[pg]", "[redis]") + 'sni = ["c"]\n')
    assert services.faults == ()
    assert [service.sni for service in services.listed] == [(), ("*.a", "b.x"), ("c",)]


def test_services_may_swap_their_routes() -> None:
    """What two services change at the same time is compared as it will be."""
    cart = '[cart]\nroutes = ["/cart"]\n'
    before = read(SHOP + cart)
    after = read('[shop]\nroutes = ["/cart"]\n[cart]\nroutes = ["shop.example.com"]\n', dict(before.tables))
    assert after.faults == ()
    assert {service.name: service.routes for service in after.listed if service.routes} == {
        "shop": ("/cart",),
        "cart": ("shop.example.com",),
    }


@pytest.mark.parametrize(
    ("routes", "more", "kept"),
    [
        ('["/shop", "/api"]', 'slowstart_s = "3s"\n', {"shop": ("/shop",), "api": ("/api", "api.test")}),
        ('["/api"]', "x = 1\n", {"shop": ("/shop",), "api": ("/api", "api.test")}),
        ('["/shop", "/api"]', "", {"shop": ("/api", "/shop"), "api": ("api.test",)}),
    ],
)
def test_a_wrong_table_loses_nothing_to_another_one(routes: str, more: str, kept: dict[str, tuple[str, ...]]) -> None:
    """What a service has while its table is wrong cannot be taken by another one, which then stays as it was, too."""
    before = read('[shop]\nroutes = ["/shop"]\n[api]\nroutes = ["/api", "api.test"]\n')
    text = f'[shop]\nroutes = {routes}\n[api]\nroutes = ["api.test"]\n{more}'
    after = read(text, dict(before.tables))
    assert {service.name: service.routes for service in after.listed if service.routes} == kept
    assert all(fault.endswith("; it goes on as it was before") for fault in after.faults)
    assert len(after.faults) == (2 if more else 0)


def test_a_chain_of_moves_is_undone_as_a_whole() -> None:
    """Where the last of three services cannot move, those that would take its place and theirs stay too."""
    table = '[{}]\nmode = "tcp"\nbind = ":{}"\n'
    before = read(table.format("a", 1001) + table.format("b", 1002) + table.format("c", 1003))
    after = read(table.format("a", 1002) + table.format("b", 1003) + table.format("c", 80), dict(before.tables))
    assert after.listed == before.listed
    assert len(after.faults) == 3
    moved = read(table.format("a", 1002) + table.format("b", 1003) + table.format("c", 1001), dict(before.tables))
    assert moved.faults == ()
    assert [service.bind for service in moved.listed if service.bind] == [":1002", ":1003", ":1001"]


@pytest.mark.parametrize("text", [None, "", "# [shop]\n"])
def test_a_file_that_is_missing_or_empty_ends_no_service(text: str | None) -> None:
    """Services go on until the operator says that there are none any more, by a file with the default service alone."""
    before = read(SHOP + PG)
    after = read(text, dict(before.tables))
    assert (after.listed, after.tables, after.are_named) == (before.listed, before.tables, True)
    (fault,) = after.faults
    what = "is missing" if text is None else "has no table"
    assert fault == (
        f"{PATH} {what}; to end all services, write [nodes] into it; all services go on as they were before"
    )
    ended = read("[nodes]\n", dict(before.tables))
    assert ended.names == {DEFAULT_SERVICE}
    assert ended.faults == ()
    assert read(text, dict(ended.tables)).faults == ()
    assert read(None, dict(ended.tables)) == read(None)


def test_of_a_long_list_the_wrong_value_is_named() -> None:
    """A line that shows only the beginning of the list would not tell which route is wrong."""
    routes = [*(f"shop{number}.example.com" for number in range(20)), "shop.example.com:80"]
    (fault,) = read(f"[shop]\nroutes = {json.dumps(routes)}\n").faults
    assert fault.startswith(f'{PATH}: [shop] routes has "shop.example.com:80": must be a list of routes: ')
    (fault,) = read(f"{SHOP}networks = {['10.0.0.0/8', '10.0.0.1/8']}\n").faults
    assert fault.startswith(f'{PATH}: [shop] networks has "10.0.0.1/8": must be ')


def test_services_of_different_hosts_may_have_one_cookie() -> None:
    """A browser keeps the cookies of two hosts apart."""
    shop, api = '[shop]\nroutes = ["shop.test"]\n', '[api]\nroutes = ["*.api.test", "api.test"]\n'
    assert read(f'{shop}cookie = "SRV"\n{api}cookie = "SRV"\n').faults == ()
    assert read(f'{shop}cookie = "A"\n{api}cookie = "B"\n', cookie="C").faults == ()
    assert read(f'{shop}cookie = "C"\n', cookie="C").faults == ()
    for wide, narrow in (("/y", "a.test"), ("*.test", "a.test"), ("*.test/z", "a.b.test"), ("*.test/z", "*.b.test")):
        one, other = f'[one]\nroutes = ["{wide}"]\n', f'[two]\nroutes = ["{narrow}"]\n'
        assert read(f'{one}cookie = "SRV"\n{other}cookie = "SRV"\n').faults == (), (wide, narrow)
    for route in ("/shop", "shop.test/cart", "*.test/cart"):
        (fault,) = read(f'[shop]\nroutes = ["{route}"]\ncookie = "C"\n', cookie="C").faults
        assert "service nodes has a cookie of this name for the same host" in fault


def test_a_service_that_becomes_wrong_goes_on_as_it_was() -> None:
    """Its last good table counts, and stays the last good one, also from a copy in JSON; the others follow the file."""
    before = read(SHOP + PG)
    good = json.loads(json.dumps(before.tables))
    after = read(SHOP + 'balance = "x"\n' + PG.replace("5432", "5433"), good)
    assert len(after.faults) == 1
    assert after.faults[0].endswith("; it goes on as it was before")
    assert after.tables["shop"] == before.tables["shop"]
    assert [(one.name, one.bind) for one in after.listed] == [("nodes", ""), ("pg", ":5433"), ("shop", "")]


@pytest.mark.parametrize("text", ["[shop", "x = 1e", "[a]\n[a]\n", "x = " + "9" * 5000, "a." * 2000 + "b = [", "\0"])
def test_while_the_file_is_wrong_all_services_go_on(text: str) -> None:
    """A file that is not TOML is one fault, and changes no service."""
    before = read(SHOP + PG)
    after = read(text, dict(before.tables))
    assert (after.listed, after.tables) == (before.listed, before.tables)
    assert len(after.faults) == 1
    assert after.faults[0].startswith(f"{PATH}: ")
    assert after.faults[0].endswith("; all services go on as they were before")
    assert read_from(Source(PATH, SETTINGS, before.tables), None, "cannot read it").listed == before.listed


def test_a_file_that_could_never_be_read_names_no_service() -> None:
    """Without a table that was ever in force, a file that is wrong changes no more than an absent one."""
    for services in (read("[shop"), read_from(Source(PATH, SETTINGS), None, "cannot read it")):
        assert services._replace(faults=()) == read(None)
        assert len(services.faults) == 1


def test_a_remembered_table_that_is_wrong_is_left_out() -> None:
    """What the state directory remembers is checked like the file: other settings may have made it wrong."""
    services = read("[pg]\n", {"pg": {"mode": "tcp", "bind": ":5432", "balance": 7}})
    assert [service.name for service in services.listed] == ["nodes"]
    assert services.faults[-1].endswith("; it is left out")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
WORDS = st.sampled_from(["http", "tcp", ":5432", "/a", "a.b", "80", "10.0.0.0/8", "200", "uri", "HEAD"])
TABLES = st.dictionaries(st.sampled_from([*KEYS, "x"]), VALUES | WORDS | st.lists(WORDS, max_size=3), max_size=5)


@given(st.dictionaries(st.sampled_from(["shop", "pg", "nodes", "web", "X", ""]), TABLES | VALUES, max_size=4))
def test_no_remembered_table_raises(tables: dict[str, Any]) -> None:
    """Any JSON as the remembered tables, while the file cannot be read, gives services and printable faults."""
    services = read_from(Source(PATH, SETTINGS, tables), None, "cannot read it")
    assert DEFAULT_SERVICE in services.names
    assert all(fault.isprintable() for fault in services.faults)
    assert list(services.listed) == sorted(services.listed, key=lambda service: service.name)
    assert set(services.tables) <= set(tables)
    hash(services.listed)


@given(st.text(max_size=200))
def test_no_text_raises(text: str) -> None:
    """Any text as the file gives services."""
    assert DEFAULT_SERVICE in read(text).names


def test_routes_are_sorted_by_precision() -> None:
    """A host is more precise than a wildcard, a wildcard than none; then the longer host, then the longer path."""
    texts = ["/", "/a/b", "/a", "*.b.c", "*.a.b.c", "*.b.c/x", "b.c", "b.c/y", "a.b.c"]
    routes = [route.text for route in sort_routes((text, "shop") for text in texts[1:])]
    assert routes == ["/a", "/a/b", "*.b.c", "*.b.c/x", "*.a.b.c", "b.c", "b.c/y", "a.b.c"]


@pytest.mark.parametrize(
    "text", ["", "/", "*", "*.", "a..b", "//a", "a/b?c", "a b", "http://a", "a:80", "é", "a\n", "*a.b", "-a.b", "a.-b"]
)
def test_wrong_routes_are_refused(text: str) -> None:
    """A text that is neither a host nor a path is no route."""
    with pytest.raises(ValueError):  # noqa: PT011 - the caller says what is allowed
        read_route(text)


@given(st.text(max_size=300))
def test_a_route_has_one_form(text: str) -> None:
    """A text is refused, or its route's text is read as the same route again."""
    try:
        route = read_route(text)
    except ValueError:
        return
    assert read_route(route.text) == route
    assert set(" \"'\\#{}$\n\t,").isdisjoint(route.text)


def test_a_table_says_how_a_service_scales() -> None:
    """Slots are named like the service where nothing else is said; without the table nothing scales."""
    scale = find(SCALED + DOCKER + "min = 0\n", "shop").scale
    assert scale is not None
    assert (scale.executor, scale.min, scale.max, scale.slots, scale.target) == ("docker", 0, 3, "shop-", 0.7)
    assert find(SHOP, "shop").scale is None
    composed = find(SCALED + 'executor = "compose"\nmax = 2\nproject = "p"\nslots = "s"\n', "shop").scale
    assert composed is not None
    assert (composed.container, composed.slots) == ("shop", "s")


@pytest.mark.parametrize(("slots", "is_taken"), [("shop-", True), ("shop-1", True), ("shop-x", False), ("shop", False)])
def test_no_two_services_have_one_slot(slots: str, is_taken: bool) -> None:
    """The slots of two services never have the same names."""
    other = f'[api]\nroutes = ["/api"]\nserver_maxconn = 5\n[api.scale]\nslots = "{slots}"\n{DOCKER}'
    faults = read(SCALED + DOCKER + other).faults
    said = "the servers of service"
    assert [said in fault for fault in faults] == [True] * is_taken, faults
