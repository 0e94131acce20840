"""Settings: defaults, the environment, the TOML file, and invalid values."""

import dataclasses
import ipaddress
import os
import tomllib
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serf_haproxy.errors import SettingsError
from serf_haproxy.settings import (
    SETTINGS_FILE,
    Settings,
    describe_unknown,
    load,
    load_settings,
    load_with_origins,
    unknown_variables,
    variable,
)
from serf_haproxy.settings.schema import format_settings, make_schema

FIELDS = {field.name: field for field in dataclasses.fields(Settings)}


def load_one(name: str, text: str) -> object:
    """Return the value of one setting, read from its variable."""
    return getattr(load_settings({variable(name): text}), name)


def load_faults(environ: dict[str, str]) -> list[str]:
    """Return the lines of the error that these variables cause."""
    with pytest.raises(SettingsError) as caught:
        load_settings(environ)
    return str(caught.value).splitlines()


def load_file(tmp_path: Path, text: str | bytes, **environ: str) -> Settings:
    """Return the settings from a TOML file and these variables."""
    path = tmp_path / "settings.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_settings({SETTINGS_FILE: str(path), **environ})


def test_empty_environment_gives_the_defaults() -> None:
    """Without variables, every setting has its default."""
    assert load_settings({}) == Settings()
    assert load_settings({"PATH": "/bin", "SERF_EVENT": "member-join"}) == Settings()


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_has_metadata(name: str) -> None:
    """Each setting has a description, an allowed range, and a default that its kind can parse."""
    metadata = FIELDS[name].metadata
    assert metadata["doc"]
    assert metadata["kind"].allowed
    assert metadata["kind"].read(metadata["default"]) == getattr(Settings(), name)


@pytest.mark.parametrize("name", FIELDS)
def test_default_can_be_set_explicitly(name: str) -> None:
    """Setting a variable to the default's text changes nothing."""
    assert load_settings({variable(name): FIELDS[name].metadata["default"]}) == Settings()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("nodes_dir", "/srv/nodes", "/srv/nodes"),
        ("nodes_dir", "/srv/é,=@+~%-_.", "/srv/é,=@+~%-_."),
        ("template_path", "/t.j2", "/t.j2"),
        ("haproxy_bin", "/opt/haproxy-3.0/sbin/haproxy", "/opt/haproxy-3.0/sbin/haproxy"),
        ("rpc_addr", "serf.internal:7373", ("serf.internal", 7373)),
        ("rpc_addr", "[::1]:7373", ("::1", 7373)),
        ("rpc_timeout_s", "0.1", 0.1),
        ("rpc_timeout_s", "60", 60.0),
        ("quiet_s", "0", 0.0),
        ("default_port", "1", 1),
        ("default_port", "65535", 65535),
        ("roles", "web", ("web",)),
        ("roles", "web, api web", ("api", "web")),
        ("frontend_bind", ":8080", ":8080"),
        ("frontend_bind", "*:8080", "*:8080"),
        ("frontend_bind", "127.0.0.1:8080", "127.0.0.1:8080"),
        ("frontend_bind", "[::1]:8080", "[::1]:8080"),
        ("https_bind", ":443", ":443"),
        ("redirect_https", "off", False),
        ("hsts_max_age_s", "31536000", 31536000),
        ("certificate_copies_dir", "/srv/a-b_c.d+e", "/srv/a-b_c.d+e"),
        ("balance", "leastconn", "leastconn"),
        ("health_path", "/health?full=1", "/health?full=1"),
        ("cookie", "SRV_1-x", "SRV_1-x"),
    ],
)
def test_variable_sets_a_setting(name: str, text: str, value: object) -> None:
    """A variable with an allowed text sets its setting."""
    assert load_one(name, text) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("nodes_dir", "nodes"),
        ("nodes_dir", "/with blank"),
        ("nodes_dir", "/with\nline"),
        ("runtime_socket", "/run/a#b"),
        ("runtime_socket", '/run/"a'),
        ("runtime_socket", "/run/'a"),
        ("runtime_socket", "/run/a\\"),
        ("runtime_socket", "/run/$HOME"),
        ("runtime_socket", "/run/a\u2028b"),
        ("template_path", "t.j2"),
        ("haproxy_bin", "haproxy -V"),
        ("haproxy_bin", "haproxy;id"),
        ("rpc_addr", "7373"),
        ("rpc_addr", ":7373"),
        ("rpc_addr", "127.0.0.1"),
        ("rpc_addr", "127.0.0.1:0"),
        ("rpc_addr", "127.0.0.1:65536"),
        ("rpc_addr", "::1:7373"),
        ("rpc_timeout_s", "0.09"),
        ("rpc_timeout_s", "60.1"),
        ("rpc_timeout_s", "five"),
        ("rpc_timeout_s", "nan"),
        ("rpc_timeout_s", "inf"),
        ("quiet_s", "-0.1"),
        ("default_port", "0"),
        ("default_port", "65536"),
        ("default_port", "80.0"),
        ("default_port", "-1"),
        ("default_port", "1" + "0" * 400),
        ("roles", "web;api"),
        ("roles", "web\tfoo/bar"),
        ("frontend_bind", "80"),
        ("frontend_bind", ":0"),
        ("frontend_bind", "localhost:80"),
        ("frontend_bind", ": 80"),
        ("frontend_bind", ":\n80"),
        ("frontend_bind", ":8_0"),
        ("frontend_bind", ":80 ssl"),
        ("frontend_bind", "fe80::1%x evil:80"),
        ("frontend_bind", "[127.0.0.1]:80"),
        ("frontend_bind", "[::1:80"),
        ("https_bind", "443"),
        ("https_port", "0"),
        ("hsts_max_age_s", "-1"),
        ("certificate_copies_dir", "/a;b"),
        ("certificate_copies_dir", "/a,b"),
        ("redirect_https", "true"),
        ("balance", "roundrobin2"),
        ("balance", "url_param x"),
        ("health_path", "health"),
        ("health_path", "/a b"),
        ("health_path", "/#"),
        ("cookie", "a b"),
        ("cookie", "a;b"),
    ],
)
def test_invalid_value_is_an_error(name: str, text: str) -> None:
    """A text that is not allowed is an error of one line with the variable, the text and the allowed values."""
    expected = f"{variable(name)}={text!a}: must be {FIELDS[name].metadata['kind'].allowed}"
    assert load_faults({variable(name): text}) == [expected]


def test_all_errors_are_reported_together() -> None:
    """All invalid settings are reported, also those of the file, and no valid one."""
    faults = load_faults(
        {
            "SERF_HAPROXY_DEFAULT_PORT": "http",
            "SERF_HAPROXY_BALANCE": "fair",
            "SERF_HAPROXY_QUIET_S": "0.5",
            "SERF_HAPROXY_SETTINGS_FILE": "/nonexistent/settings.toml",
        }
    )
    assert len(faults) == 3
    assert faults[0].startswith("SERF_HAPROXY_SETTINGS_FILE='/nonexistent/settings.toml': ")
    assert any(
        fault.startswith("SERF_HAPROXY_DEFAULT_PORT='http': must be a whole number, 1 to 65535") for fault in faults
    )
    assert any(
        fault.startswith("SERF_HAPROXY_BALANCE='fair': must be one of roundrobin, leastconn") for fault in faults
    )


def test_longest_wait_is_not_shorter_than_the_quiet_time() -> None:
    """Two settings that are valid alone and invalid together are one error that names both."""
    (fault,) = load_faults({"SERF_HAPROXY_QUIET_S": "3", "SERF_HAPROXY_MAX_WAIT_S": "2.5"})
    assert fault == "SERF_HAPROXY_MAX_WAIT_S=2.5: must be at least SERF_HAPROXY_QUIET_S (3)"


def test_errors_of_two_settings_are_reported_beside_errors_of_one() -> None:
    """The error of two settings is reported with others, but not when one of the two is invalid itself."""
    other = {"SERF_HAPROXY_DEFAULT_PORT": "http"}
    faults = load_faults({"SERF_HAPROXY_QUIET_S": "3"} | other)
    assert [fault.partition("=")[0] for fault in faults] == ["SERF_HAPROXY_DEFAULT_PORT", "SERF_HAPROXY_MAX_WAIT_S"]
    assert len(load_faults({"SERF_HAPROXY_QUIET_S": "3", "SERF_HAPROXY_MAX_WAIT_S": "soon"} | other)) == 2


@pytest.mark.parametrize("name", FIELDS)
def test_empty_variable_counts_as_unset(name: str, tmp_path: Path) -> None:
    """An empty variable leaves the default or the file's value."""
    assert load_settings({variable(name): ""}) == Settings()
    assert load_file(tmp_path, "default_port = 8080", SERF_HAPROXY_DEFAULT_PORT="").default_port == 8080


def test_file_sets_settings(tmp_path: Path) -> None:
    """The file may use strings, numbers, and lists of words."""
    settings = load_file(tmp_path, 'balance = "first"\ndefault_port = 8080\nquiet_s = 0.5\nroles = ["web", "api"]')
    assert settings == Settings().replace(balance="first", default_port=8080, quiet_s=0.5, roles=("api", "web"))


def test_environment_wins_over_the_file(tmp_path: Path) -> None:
    """The environment overrides the file, even when the file's value is invalid."""
    settings = load_file(tmp_path, 'default_port = 0\nbalance = "first"', SERF_HAPROXY_DEFAULT_PORT="9090")
    assert (settings.default_port, settings.balance) == (9090, "first")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("default_prot = 1", "'default_prot' in {path}: there is no such setting"),
        ("SERF_HAPROXY_DEFAULT_PORT = 1", "'SERF_HAPROXY_DEFAULT_PORT' in {path}: there is no such setting"),
        ("[roles]\nweb = 1", "roles in {path}=\"{{'web': 1}}\": must be words"),
        ("default_port = 0", "default_port in {path}='0': must be a whole number, 1 to 65535"),
        ("default_port = true", "default_port in {path}='on': must be a whole number, 1 to 65535"),
        ("quiet_s = inf", "quiet_s in {path}='inf': must be 0 to 10 seconds"),
        ("default_port = ", "SERF_HAPROXY_SETTINGS_FILE='{path}': "),
        (b"\xff\xfe", "SERF_HAPROXY_SETTINGS_FILE='{path}': "),
    ],
)
def test_invalid_file_is_an_error(tmp_path: Path, text: str | bytes, words: str) -> None:
    """An unknown key, an invalid value and a file that is not TOML are errors that name the file."""
    with pytest.raises(SettingsError) as caught:
        load_file(tmp_path, text)
    assert str(caught.value).startswith(words.format(path=tmp_path / "settings.toml"))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("what", ["FIFO", "deep", "huge"])
def test_a_file_that_cannot_be_settings_is_an_error_at_once(tmp_path: Path, what: str) -> None:
    """A FIFO is not waited for, tables in each other end no program, and a huge file does not take all memory."""
    path = tmp_path / "settings.toml"
    if what == "FIFO":
        os.mkfifo(path)
    elif what == "deep":
        path.write_text("x = " + "[" * 3000 + "]" * 3000)
    else:
        with path.open("wb") as file:
            file.truncate(2**20 + 1)
    said = {"FIFO": "it is not a regular file", "deep": "its tables are too deep", "huge": "longer than 1048576 bytes"}
    (fault,) = load_faults({SETTINGS_FILE: str(path)})
    assert str(path) in fault
    assert said[what] in fault


@pytest.mark.parametrize(
    ("binds", "said"),
    [
        ({"https_bind": ":80"}, "SERF_HAPROXY_HTTPS_BIND=:80: SERF_HAPROXY_FRONTEND_BIND is there (:80); "),
        (
            {"stats_bind": "127.0.0.1:080"},
            "SERF_HAPROXY_STATS_BIND=127.0.0.1:080: SERF_HAPROXY_FRONTEND_BIND is there ",
        ),
        ({"web_bind": "127.0.0.1:80"}, "SERF_HAPROXY_WEB_BIND=127.0.0.1:80: SERF_HAPROXY_FRONTEND_BIND is there "),
        ({"https_bind": "[::]:1936"}, "SERF_HAPROXY_HTTPS_BIND=[::]:1936: SERF_HAPROXY_STATS_BIND is there (:1936); "),
    ],
)
def test_two_listeners_at_one_place_are_an_error(binds: dict[str, str], said: str) -> None:
    """HAProxy would open both, and each client would get the one or the other."""
    (fault,) = load_faults({variable(name): bind for name, bind in binds.items()})
    assert fault.startswith(said)
    apart = {"frontend_bind": "10.0.0.1:443", "https_bind": "10.0.0.2:443", "stats_bind": "[::1]:443"}
    assert load_settings({variable(name): bind for name, bind in apart.items()}).stats_bind == "[::1]:443"


def test_certificates_and_their_copies_need_two_directories() -> None:
    """In one directory each copy would be a further file of the operator's, of which there would be a copy."""
    names = variable("certificates_dir"), variable("certificate_copies_dir")
    (fault,) = load_faults(dict(zip(names, ("/srv/tls", "/srv//tls/"), strict=True)))
    assert fault.startswith(f"{names[1]}=/srv//tls/: {names[0]} is this directory too; ")


def test_misspelt_variables_are_reported() -> None:
    """A variable with the prefix SERF_HAPROXY_ that is not a setting is reported; no setting is."""
    environ = {variable(name): "" for name in FIELDS} | {SETTINGS_FILE: "", "SERF_EVENT": "", "PATH": ""}
    assert unknown_variables(environ) == {}
    misspelt = {"SERF_HAPROXY_PORT": "", "SERF_HAPROXY_default_port": "", "SERF_HAPROXY_": ""}
    assert list(unknown_variables(environ | misspelt)) == sorted(misspelt)


def test_a_misspelt_name_has_a_neighbour(tmp_path: Path) -> None:
    """The nearest name is said, for a variable and for a key of the file."""
    environ = {"SERF_HAPROXY_BALENCE": "first", "SERF_HAPROXY_XYZ": "1"}
    assert describe_unknown(environ) == [
        "SERF_HAPROXY_BALENCE: there is no such setting; did you mean SERF_HAPROXY_BALANCE?",
        "SERF_HAPROXY_XYZ: there is no such setting; see `serf-haproxy settings`",
    ]
    with pytest.raises(SettingsError, match="'balence' in .*: there is no such setting; did you mean balance"):
        load_file(tmp_path, 'balence = "first"')


def test_the_file_has_a_default_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file at the default place counts while no variable names another one; without it there is none."""
    path = tmp_path / "settings.toml"
    monkeypatch.setattr(load, "DEFAULT_FILE", str(path))
    assert load_settings({}) == Settings()
    path.write_text('balance = "first"\nhints = false\n')
    assert load_settings({}) == load_settings({SETTINGS_FILE: ""}) == Settings().replace(balance="first", hints=False)
    assert load_settings({SETTINGS_FILE: "/dev/null"}) == Settings()
    assert load_settings({"SERF_HAPROXY_BALANCE": "random"}).balance == "random"


def test_printed_settings_are_a_settings_file(tmp_path: Path) -> None:
    """What `settings` prints sets the same, says where each comes from, and fits the schema."""
    environ = {"SERF_HAPROXY_ROLES": "web,api", "SERF_HAPROXY_QUIET_S": "0.5", SETTINGS_FILE: "/dev/null"}
    loaded = load_with_origins(environ)
    text = format_settings(loaded, has_origins=True)
    assert load_file(tmp_path, text) == loaded.settings
    assert 'roles = "web,api"  # SERF_HAPROXY_ROLES' in text.splitlines()
    assert "quiet_s = 0.5  # SERF_HAPROXY_QUIET_S" in text.splitlines()
    assert 'balance = "roundrobin"  # default' in text.splitlines()
    jsonschema.validate(tomllib.loads(text), make_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"balence": "first"}, make_schema())


@given(st.text("0123456789:[].%*abf \n_#x", max_size=20))
def test_bind_is_one_word_of_address_and_port(text: str) -> None:
    """An accepted bind address is one word: nothing, a star or an IP address, then a port."""
    try:
        bind = load_one("stats_bind", text)
    except SettingsError:
        return
    host, _, port = str(bind).rpartition(":")
    assert port.isdecimal()
    assert host in ("", "*") or ipaddress.ip_address(host.strip("[]")).compressed


def test_settings_cannot_be_changed() -> None:
    """Settings are frozen; `replace` returns a changed copy."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().default_port = 1  # type: ignore[misc]
    assert Settings().replace(default_port=1).default_port == 1


def test_a_master_socket_leaves_room_for_the_socket_beside_it() -> None:
    """HAProxy binds a socket under a longer name first, so its path may have 97 bytes, and this one five fewer."""
    assert load_settings({"SERF_HAPROXY_MASTER_SOCKET": "/" + "m" * 91}).master_socket.endswith("m")
    with pytest.raises(SettingsError, match="MASTER_SOCKET.*at most 92 bytes"):
        load_settings({"SERF_HAPROXY_MASTER_SOCKET": "/" + "m" * 92})


def test_a_redirect_needs_a_place_with_https() -> None:
    """Redirects need a listener with TLS, or a proxy in front that has one and is believed."""
    redirect = {variable("redirect_https"): "on"}
    with pytest.raises(SettingsError, match=r"SERF_HAPROXY_REDIRECT_HTTPS=on: needs SERF_HAPROXY_HTTPS_BIND"):
        load_settings(redirect)
    assert load_settings(redirect | {variable("https_bind"): ":443"}).redirect_https
    behind = {variable("forwarded_for"): "append", variable("trusted_proxies"): "10.0.0.0/8"}
    assert load_settings(redirect | behind).redirect_https
