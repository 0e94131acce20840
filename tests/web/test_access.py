"""Who may ask."""

import base64
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from serf_haproxy.errors import SettingsError, SystemFault
from serf_haproxy.settings import Settings, load_settings
from serf_haproxy.web.access import Access
from serf_haproxy.web.request import Request

TOKEN = "a-token-of-24-characters"


def ask(access: Access, **headers: str) -> int:
    """Return the status code of a request's refusal; 200 where there is none."""
    refusal = access.refuse(Request("GET", ("metrics",), headers))
    return refusal.status if refusal else 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:1940", 200),
        ("localhost:1940", 200),
        ("LOCALHOST", 200),
        ("[::1]:1940", 200),
        ("[::1]", 200),
        ("evil.example:1940", 403),
        ("localhost.evil.example", 403),
        ("", 403),
    ],
)
def test_at_loopback_a_name_of_another_site_is_refused(host: str, status: int) -> None:
    """A page of another site whose name leads to loopback cannot read what is served there."""
    assert ask(Access(Settings(web_bind="127.0.0.1:1940")), host=host) == status


def test_a_unix_socket_asks_for_nothing() -> None:
    """Whoever can open the socket may ask; where it is forwarded to a port, no other site's name leads there."""
    access = Access(Settings(web_bind="/run/web.sock"))
    assert [ask(access, host=host) for host in ("localhost", "localhost:1940", "127.0.0.1:1940")] == [200] * 3
    assert [ask(access, host=host) for host in ("evil.example", "localhost.evil.example", "lb", "")] == [403] * 4


def test_the_token_is_asked_for(tmp_path: Path) -> None:
    """A bearer's token and a password count; a wrong one, none and a damaged one do not."""
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\nanother-token-for-a-while\n")
    access = Access(Settings(web_bind=":1940", web_token_file=str(path)))

    def basic(text: str) -> str:
        return "Basic " + base64.b64encode(text.encode()).decode()

    assert ask(access, authorization=f"Bearer {TOKEN}") == 200
    assert ask(access, authorization="bearer another-token-for-a-while") == 200
    assert ask(access, authorization=basic(f"anyone:{TOKEN}")) == 200
    for wrong in ("", "Bearer", "Bearer x", "Basic !", basic(TOKEN), basic("anyone:"), f"Digest {TOKEN}", TOKEN):
        assert ask(access, authorization=wrong) == 401
    assert ask(access) == 401
    path.write_text("a-new-token-of-24-characters\n")
    assert ask(access, authorization=f"Bearer {TOKEN}") == 401
    path.unlink()
    assert ask(access, authorization=f"Bearer {TOKEN}") == 503


@example("Basic ", "\xe9\xe9\xe9\xe9")
@given(st.sampled_from(["", "Basic ", "Bearer ", "Digest "]), st.text(st.characters(max_codepoint=255), max_size=60))
def test_no_authorization_does_more_than_be_refused(
    tmp_path_factory: pytest.TempPathFactory, scheme: str, text: str
) -> None:
    """Whatever a client shows as its token is refused with 401."""
    path = tmp_path_factory.getbasetemp() / "any-token"
    path.write_text(TOKEN)
    assert ask(Access(Settings(web_bind=":1940", web_token_file=str(path))), authorization=scheme + text) == 401


def test_a_missing_token_is_told_at_the_start(tmp_path: Path) -> None:
    """Without its file the process does not start."""
    with pytest.raises(SystemFault, match="SERF_HAPROXY_WEB_TOKEN_FILE"):
        Access(Settings(web_bind=":1940", web_token_file=str(tmp_path / "token")))


@pytest.mark.parametrize("bind", [":1940", "*:1940", "0.0.0.0:1940", "[::]:1940", "10.0.0.1:1940"])
def test_other_machines_are_asked_for_a_token(bind: str) -> None:
    """An address that other machines reach needs a file with a token."""
    environ = {"SERF_HAPROXY_WEB_BIND": bind}
    with pytest.raises(SettingsError, match="needs SERF_HAPROXY_WEB_TOKEN_FILE"):
        load_settings(environ)
    load_settings(environ | {"SERF_HAPROXY_WEB_TOKEN_FILE": "/etc/token"})


@pytest.mark.parametrize("bind", ["", "127.0.0.1:1940", "127.9.9.9:1", "[::1]:1940", "/run/serf-haproxy/web.sock"])
def test_this_machine_is_not(bind: str) -> None:
    """Loopback and a Unix socket need none."""
    load_settings({"SERF_HAPROXY_WEB_BIND": bind})
