"""What is read of a file with certificates of authorities."""

import os
import re
from pathlib import Path

import pytest

from integration.recorder import CERTIFICATE
from serf_haproxy.system.certificates import FILE_BYTES, read_authorities

BLOCK = re.findall("-----BEGIN CERTIFICATE.*?END CERTIFICATE-----\n", CERTIFICATE.read_text(), re.DOTALL)[0]
OTHER = CERTIFICATE.with_name("other.pem").read_text()
WRONG = "must be a PEM file with certificates"


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (BLOCK, BLOCK),
        (f"# Zertifizierungsstelle Köln\n{BLOCK}junk\n{OTHER}", BLOCK + OTHER),
        (CERTIFICATE.read_text(), BLOCK),
        (BLOCK + BLOCK, BLOCK + BLOCK),
        (BLOCK.replace("CERTIFICATE", "X509 CERTIFICATE"), BLOCK.replace("CERTIFICATE", "X509 CERTIFICATE")),
    ],
    ids=["one", "comments", "a key beside it", "twice", "the old words"],
)
def test_only_certificates_are_read(tmp_path: Path, text: str, read: str) -> None:
    """Comments in any encoding, keys and other text are left out: what is read is copied to where all can read it."""
    path = tmp_path / "ca.pem"
    path.write_text(text, encoding="latin-1")
    assert read_authorities(str(path)) == read


@pytest.mark.parametrize(
    "text",
    ["", "x", BLOCK[:200], BLOCK + BLOCK[:200], BLOCK.replace("M", "N", 3), BLOCK.replace("\n", " "), "\0" * 9],
    ids=["empty", "text", "cut", "second cut", "damaged", "one line", "zeros"],
)
def test_what_haproxy_would_refuse_is_wrong(tmp_path: Path, text: str) -> None:
    """A file without certificates, or with one that is damaged, is refused as a whole."""
    path = tmp_path / "ca.pem"
    path.write_text(text)
    with pytest.raises(ValueError, match=WRONG):
        read_authorities(str(path))


def test_what_is_no_file_of_certificates_takes_no_time(tmp_path: Path) -> None:
    """A FIFO, a directory, a device and a file that is too long are refused without a wait; so are hostile ones."""
    fifo, long = tmp_path / "fifo", tmp_path / "long"
    os.mkfifo(fifo)
    long.write_bytes(b"-" * (FILE_BYTES + 1))
    for path in (fifo, tmp_path, Path("/dev/zero"), long):
        with pytest.raises(ValueError, match="cannot be read: "):
            read_authorities(str(path))
    begin = "-----BEGIN CERTIFICATE-----\n"
    long.write_text(begin * (FILE_BYTES // len(begin)))
    with pytest.raises(ValueError, match=WRONG):
        read_authorities(str(long))
    with pytest.raises(ValueError, match="there is no such file"):
        read_authorities(str(tmp_path / "missing"))
