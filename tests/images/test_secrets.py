"""The keys that the run script of the Serf agent writes for it, and those that it refuses before Serf does."""

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

S6_DIR = Path(__file__).parents[2] / "s6"
KEYS = [base64.b64encode(bytes(range(1, size + 1))).decode() for size in (16, 24, 32)]


def write(directory: Path, keys: str, **changes: str) -> tuple[int, str]:
    """Run the script with a file of gossip keys; return its exit code and its words."""
    service = directory / "serf"
    shutil.copytree(S6_DIR / "serf", service)
    shutil.copytree(S6_DIR / ".common", directory / ".common")
    (directory / "rpc").write_text("a-key-of-the-rpc\n")
    (directory / "keys").write_text(keys)
    environment = os.environ | {"SERF_ENCRYPT_KEY_FILE": str(directory / "keys"), "SERF_USER": ""} | changes
    argv = ["sh", "data/secrets", changes.get("SERF_RPC_AUTH_FILE", str(directory / "rpc"))]
    done = subprocess.run(argv, cwd=service, env=environment, capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("keys", [*([key] for key in KEYS), KEYS])
def test_keys_of_every_size_are_passed_on(tmp_path: Path, keys: list[str]) -> None:
    """Serf uses keys of 16, 24 and 32 bytes, one for each line; the first one is the one that it uses."""
    assert write(tmp_path, "".join(f"{key}\n" for key in keys)) == (0, "")
    assert json.loads((tmp_path / "serf/data/keyring.json").read_text()) == keys


@pytest.mark.parametrize("name", ["SERF_ENCRYPT_KEY_FILE", "SERF_RPC_AUTH_FILE"])
def test_a_file_that_cannot_be_read_is_told_with_its_setting(tmp_path: Path, name: str) -> None:
    """One line names the setting, the file and why, and the exit code is 100."""
    code, said = write(tmp_path, f"{KEYS[0]}\n", **{name: str(tmp_path / "nowhere")})
    assert (code, said) == (100, f"{name}: cannot read its file: {tmp_path}/nowhere: No such file or directory\n")


WRONG = {
    "too short": "YWJj",
    "of 17 bytes": base64.b64encode(bytes(17)).decode(),
    "too long": "A" * 5000,
    "without padding": KEYS[0].rstrip("="),
    "padded too much": f"{KEYS[1]}==",
    "padded inside": f"{KEYS[1][:10]}=={KEYS[1][12:]}",
    "of another alphabet": f"-_{KEYS[1][2:]}",
    "with a carriage return": f"{KEYS[2]}\r",
    "with a byte-order mark": f"\ufeff{KEYS[2]}",
    "a comment": f"#{KEYS[2]}",
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("before", ["", f"{KEYS[2]}\n"])
def test_a_key_that_serf_refuses_is_told_with_its_file(tmp_path: Path, wrong: str, before: str) -> None:
    """The exit code is 100, which ends a container at once; one line names the file and shows nothing of the key."""
    code, said = write(tmp_path, f"{before}{wrong}\n")
    assert (code, said.count("\n")) == (100, 1)
    assert said.startswith(f"{tmp_path}/keys: must ")
    assert KEYS[2] not in said
    assert wrong not in said
    assert not (tmp_path / "serf/data/keyring.json").exists()
