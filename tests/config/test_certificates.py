"""Certificates as text: what is read of a file, and what HAProxy gets."""

import re
import ssl
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.certificates import make_pair
from serf_haproxy.config.certificates import (
    Certificate,
    find_original,
    find_shared,
    format_list,
    is_copy,
    list_additions,
    list_removals,
    name_copies,
    parse_list,
    read_certificate,
)

PAIR = make_pair("shop.test", days=30)
MADE_S = time.time()
OTHER = make_pair("other.test")
COPY = "shop.test.0123456789abcdef.pem"


def test_only_the_blocks_count() -> None:
    """Text between the blocks, blank lines and line ends do not change the copy's name; the content does."""
    plain = read_certificate(PAIR.certificate + PAIR.key)
    noisy = read_certificate(f"Subject: x\n\n{PAIR.certificate}\n\nBag\n{PAIR.key}".replace("\n", "\r\n"))
    assert plain == noisy
    assert "\n\n" not in plain.pem
    assert "\r" not in plain.pem
    assert plain.name_copy("shop.pem") != read_certificate(OTHER.certificate + OTHER.key).name_copy("shop.pem")
    assert is_copy(plain.name_copy("shop.test.pem"))
    assert not is_copy("shop.test.pem")
    assert find_original(plain.name_copy("shop.test.pem")) == "shop.test.pem"


def test_key_and_certificate_may_stand_in_any_order() -> None:
    """A key in front is read as one behind."""
    assert (
        read_certificate(PAIR.key + PAIR.certificate).until_s == read_certificate(PAIR.certificate + PAIR.key).until_s
    )


def test_the_validity_is_that_of_the_first_certificate() -> None:
    """Begin and end are what OpenSSL reads."""
    certificate = read_certificate(PAIR.certificate + OTHER.certificate + PAIR.key)
    assert certificate.from_s == pytest.approx(MADE_S, abs=300)
    # OpenSSL asks for the time twice.
    assert certificate.until_s == pytest.approx(certificate.from_s + 30 * 86400, abs=5)
    assert ssl.cert_time_to_seconds("Jan  1 00:00:00 2026 GMT") < certificate.from_s


def test_the_places_are_the_hosts_that_haproxy_serves() -> None:
    """Alternative names and the common name count, in lower case; another kind of key is another place."""
    several = make_pair("Shop.test", "*.B.test")
    kinds = {kind for kind, _ in read_certificate(several.certificate + several.key).places}
    assert {host for _, host in read_certificate(several.certificate + several.key).places} == {"shop.test", "*.b.test"}
    assert kinds == {kind for kind, _ in read_certificate(PAIR.certificate + PAIR.key).places}
    other = make_pair("shop.test", kind=["rsa:2048"])
    assert kinds.isdisjoint(kind for kind, _ in read_certificate(other.certificate + other.key).places)


def test_a_copy_is_named_after_earlier_ones_for_its_hosts() -> None:
    """Only later files for a host get another copy when an earlier one changes, and the first file is told."""

    def read(*hosts: str) -> Certificate:
        pair = make_pair(*hosts)
        return read_certificate(pair.certificate + pair.key)

    files = {"c.pem": read("c.test", "a.test"), "b.pem": read("b.test"), "a.pem": read("a.test")}
    files["d.pem"] = read("c.test")
    before = name_copies(files)
    assert (before["a.pem"], before["b.pem"]) == (files["a.pem"].name_copy("a.pem"), files["b.pem"].name_copy("b.pem"))
    assert list(find_shared(files)) == [("c.pem", "a.test", "a.pem"), ("d.pem", "c.test", "c.pem")]
    after = name_copies(files | {"a.pem": read("a.test")})
    assert {name for name in files if before[name] != after[name]} == {"a.pem", "c.pem", "d.pem"}
    after = name_copies(files | {"d.pem": read("c.test")})
    assert {name for name in files if before[name] != after[name]} == {"d.pem"}
    assert all(map(is_copy, after.values()))


@pytest.mark.parametrize("time_text", [b"0230120000", b"0101250000", b"1301120000", b"0101126000", b"0100120000"])
def test_a_time_that_does_not_exist_is_refused(time_text: bytes) -> None:
    """There is no 30 February, no hour 25 and no month 13."""
    der = bytearray(ssl.PEM_cert_to_DER_cert(PAIR.certificate))
    found = re.search(rb"\x17\x0d[0-9]{2}([0-9]{10})Z", der)  # an UTCTime of 13 bytes: YYMMDDhhmmssZ
    assert found
    der[found.start(1) : found.end(1)] = time_text
    with pytest.raises(ValueError, match="its first certificate cannot be read; write it again"):
        read_certificate(ssl.DER_cert_to_PEM_cert(bytes(der)) + PAIR.key)


@given(
    st.text(max_size=300) | st.binary(max_size=300).map(lambda data: f"{PAIR.key}-----BEGIN CERTIFICATE-----{data!r}")
)
def test_no_text_raises_anything_else(text: str) -> None:
    """Any text is refused with one printable line that shows nothing of it."""
    with pytest.raises(ValueError, match=r"; [a-z ]+") as caught:
        read_certificate(text)
    assert str(caught.value).isprintable()


@given(st.integers(0, 600), st.integers(0, 255))
def test_no_changed_byte_raises_anything_else(at: int, value: int) -> None:
    """A certificate with one other byte is read, or refused with the same line."""
    der = bytearray(ssl.PEM_cert_to_DER_cert(PAIR.certificate))
    der[at % len(der)] = value
    try:
        read_certificate(ssl.DER_cert_to_PEM_cert(bytes(der)) + PAIR.key)
    except ValueError as error:
        assert str(error) == "its first certificate cannot be read; write it again"  # noqa: PT017 - it may be read


def test_a_list_names_paths() -> None:
    """What the file has, and what the runtime socket says of it, is read as the same copies."""
    text = format_list("/copies", [COPY, "a.0123456789abcdef.pem"])
    assert text == f"/copies/a.0123456789abcdef.pem\n/copies/{COPY}\n"
    assert parse_list(text) == {COPY, "a.0123456789abcdef.pem"}
    assert parse_list(f"Name: HAProxy\n# /copies/list\n/copies/{COPY}\n/etc/other.pem\n\n") == {COPY}


def test_copies_are_listed_in_the_order_of_their_files() -> None:
    """The digest in the name does not decide: `a.b.pem` is before `a.pem`."""
    names = ["a.b.ffffffffffffffff.pem", "a.0000000000000000.pem", "b.0000000000000000.pem"]
    assert format_list("/c", names[::-1]).split() == [f"/c/{name}" for name in names]


def test_commands_name_the_list_and_the_copy() -> None:
    """An addition has the content as a payload that an empty line ends; a removal frees the memory too."""
    pem = read_certificate(PAIR.certificate + PAIR.key).pem
    first, second = list_additions("/c/list", f"/c/{COPY}", pem)
    assert first == f"new ssl cert /c/{COPY}; set ssl cert /c/{COPY} <<\n{pem}"
    assert second == f"commit ssl cert /c/{COPY}; add ssl crt-list /c/list /c/{COPY}"
    assert list_removals("/c/list", f"/c/{COPY}") == f"del ssl crt-list /c/list /c/{COPY}; del ssl cert /c/{COPY}"
