"""`ask` and its RPC client, with a real Serf agent."""

import contextlib
import importlib.util
import io
import os
import shutil
import socket
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import ROOT, Serf, StartSerf

KEY = "a-secret_of.the+RPC"
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(), inner, max_size=20),
    max_leaves=20,
)


@pytest.fixture(scope="module")
def rpc() -> ModuleType:
    """Return the client's module."""
    spec = importlib.util.spec_from_file_location("s6_rpc", ROOT / "s6" / "serf" / "data" / "rpc.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def serf(start_serf: StartSerf, tmp_path_factory: pytest.TempPathFactory) -> Serf:
    """Return a Serf agent with a key."""
    config = tmp_path_factory.mktemp("ask") / "config.json"
    config.write_text(f'{{"rpc_auth": "{KEY}"}}')
    return start_serf("ask-node", f"-config-file={config}", "-tag", "role=web", "-tag", "odd=a b\n\x1b[1m")


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Return a directory with the scripts and the key."""
    for name in ("ask", "rpc.py"):
        shutil.copy(ROOT / "s6" / "serf" / "data" / name, tmp_path)
    (tmp_path / "rpc-auth").write_text(KEY + "\n")
    return tmp_path


def ask(data_dir: Path, serf: Serf, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run `ask`."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("SERF_")}
    environ["SERF_RPC_ADDR"] = "{}:{}".format(*serf.rpc)
    return subprocess.run([data_dir / "ask", *words], capture_output=True, text=True, check=False, env=environ)


def test_members_and_tags_are_shown_in_printable_text(data_dir: Path, serf: Serf) -> None:
    """A member is one line; blanks, line feeds and escapes in its tags are shown as text."""
    said = ask(data_dir, serf, "members", "-status=alive")
    assert said.stdout == f"ask-node  {serf.gossip}  alive  odd=a\\x20b\\n\\x1b[1m,role=web\n"
    assert ask(data_dir, serf, "members", "-status", "failed").stdout == ""
    assert ask(data_dir, serf, "tags", "-set", "drain=true", "-delete", "odd").returncode == 0
    assert ask(data_dir, serf, "members").stdout.endswith("  drain=true,role=web\n")
    ask(data_dir, serf, "tags", "-set", "odd=a b\n\x1b[1m", "-delete=drain")


@pytest.mark.parametrize("key", ["", "wrong\n"])
def test_a_wrong_key_is_refused(data_dir: Path, serf: Serf, key: str) -> None:
    """Without the key, or with another one, `ask` fails with 111 and one line."""
    (data_dir / "rpc-auth").write_text(key)
    said = ask(data_dir, serf, "members")
    assert (said.returncode, said.stdout, len(said.stderr.splitlines())) == (111, "", 1)


@pytest.mark.parametrize("words", [(), ("bogus",), ("tags",), ("tags", "-set", "x"), ("join",), ("members", "x")])
def test_a_wrong_command_line_is_refused(data_dir: Path, serf: Serf, words: tuple[str, ...]) -> None:
    """A wrong command line ends with 100 and the usage."""
    said = ask(data_dir, serf, *words)
    assert (said.returncode, said.stdout) == (100, "")
    assert "ask members" in said.stderr


class Wire:
    """A socket that has received some bytes, and after them an end."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def settimeout(self, _: float) -> None:
        """Do nothing."""

    def recv(self, count: int) -> bytes:
        """Return the next bytes."""
        return self._file.read(count)


def unpack(rpc: ModuleType, data: bytes) -> Any:
    """Read one value as the client does."""
    connection = rpc.Connection.__new__(rpc.Connection)
    connection._buffer, connection._socket = bytearray(), Wire(data)
    return connection._unpack(float("inf"), 0)


@given(value=VALUES)
def test_every_value_is_read_as_msgpack_reads_it(rpc: ModuleType, value: Any) -> None:
    """The decoder agrees with the library on every value that is not too deep."""
    try:
        assert unpack(rpc, msgpack.packb(value)) == value
    except rpc.Fault:
        assert depth(value) > 8


@given(data=st.binary(max_size=200))
def test_any_bytes_are_a_value_or_a_fault(rpc: ModuleType, data: bytes) -> None:
    """Any bytes come to a value, a fault, or the end of the connection."""
    with contextlib.suppress(rpc.Fault, ConnectionError):
        unpack(rpc, data)


def test_a_length_that_is_too_great_is_refused_at_once(rpc: ModuleType) -> None:
    """A list of four billion entries and a text of four gigabytes are faults, not memory."""
    for head in (b"\xdd", b"\xdf", b"\xdb", b"\xc6"):
        with pytest.raises(rpc.Fault):
            unpack(rpc, head + b"\xff" * 4 + b"\xc0" * 1000)


def test_no_answer_is_a_fault(rpc: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Serf agent that accepts and says nothing is a fault after the time limit."""
    monkeypatch.setattr(rpc, "TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(rpc.Fault):
        rpc.Connection(f"127.0.0.1:{silent.getsockname()[1]}", "")


def depth(value: Any) -> int:
    """Return how deep a value is nested."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)
