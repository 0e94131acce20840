"""Certificates made with openssl, and TLS clients that look at what they get."""

import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from serf_haproxy.system.network import split_endpoint

_FRAME = 9  # bytes of an HTTP/2 frame's header


class Pair(NamedTuple):
    """A certificate and its private key, each as PEM."""

    certificate: str
    key: str


CURVE = ("ec", "-pkeyopt", "ec_paramgen_curve:P-256")


def make_pair(*hosts: str, days: int = 30, kind: Sequence[str] = CURVE) -> Pair:
    """Return a certificate, signed with its own key, for these hosts; with negative days it has expired."""
    with tempfile.TemporaryDirectory() as directory:
        key, request, extensions, certificate = (f"{directory}/{name}" for name in ("key", "request", "ext", "cert"))
        names = ",".join(f"DNS:{host}" for host in hosts)
        Path(extensions).write_text(f"subjectAltName={names}\n")
        _openssl("req", "-newkey", *kind, "-nodes", "-keyout", key, "-subj", f"/CN={hosts[0]}", "-out", request)
        until = [*_list_times(days), "-extfile", extensions, "-out", certificate]
        _openssl("x509", "-req", "-in", request, "-signkey", key, *until)
        return Pair(Path(certificate).read_text(), Path(key).read_text())


def make_authority(days: int) -> str:
    """Return the certificate of an authority that ends in some days."""
    with tempfile.TemporaryDirectory() as directory:
        key, certificate = f"{directory}/key", f"{directory}/cert"
        made = ("-keyout", key, "-out", certificate, "-subj", "/CN=authority", "-days", str(days))
        _openssl("req", "-x509", "-newkey", *CURVE, "-nodes", *made)
        return Path(certificate).read_text()


def write_pair(path: Path, *hosts: str, days: int = 30) -> str:
    """Write a new certificate with its key to a file, at once as a hook should; return the certificate."""
    pair = make_pair(*hosts, days=days)
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(pair.certificate + pair.key)
    temporary.chmod(0o600)
    temporary.rename(path)
    return pair.certificate


def _list_times(days: int) -> list[str]:
    """Return openssl's options for a certificate that ends in some days, or has ended some days ago."""
    said = subprocess.run(["openssl", "x509", "-help"], check=True, capture_output=True, text=True).stderr
    if days >= 0 or "-not_after" not in said:
        return ["-days", str(days)]
    begin, end = (time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() + each * 86400)) for each in (days - 30, days))
    return ["-not_before", begin, "-not_after", end]  # openssl 3.4 and later refuse negative days


def _openssl(*argv: str) -> None:
    subprocess.run(["openssl", *argv], check=True, capture_output=True)


def connect(endpoint: str, host: str | None, protocols: Sequence[str] = (), first: bytes = b"") -> ssl.SSLSocket:
    """Make a TLS connection to a loopback endpoint and name a host; `first` is sent before the handshake."""
    address, port = split_endpoint(endpoint)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if protocols:
        context.set_alpn_protocols(list(protocols))
    connection = socket.create_connection((address, int(port)), 10)
    try:
        connection.sendall(first)
        return context.wrap_socket(connection, server_hostname=host)
    except BaseException:
        connection.close()
        raise


def see_certificate(endpoint: str, host: str | None) -> str | None:
    """Return the certificate that a client gets for a host; None when the handshake is refused."""
    try:
        with connect(endpoint, host) as connection:
            der = connection.getpeercert(binary_form=True)
            assert der
            return ssl.DER_cert_to_PEM_cert(der)
    except (ssl.SSLError, ConnectionError):
        return None


def get(connection: socket.socket, host: str, path: str = "/") -> str:
    """Send a request; return status line and headers of the answer."""
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    answer = b""
    while chunk := connection.recv(65536):
        answer += chunk
    return answer.partition(b"\r\n\r\n")[0].decode()


def get_with_h2(connection: ssl.SSLSocket, host: str) -> int:
    """Send a request over HTTP/2; return the status (RFC 9113; RFC 7541, appendix A)."""
    assert connection.selected_alpn_protocol() == "h2"
    fields = b"\x82\x87\x84\x41" + bytes([len(host)]) + host.encode()  # GET, https, /, the authority
    headers = len(fields).to_bytes(3) + b"\x01\x05" + (1).to_bytes(4) + fields
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5) + headers)
    with connection.makefile("rb") as answer:
        while len(head := answer.read(_FRAME)) == _FRAME:
            payload = answer.read(int.from_bytes(head[:3]))
            if head[3] == 1:
                return {0x88: 200, 0x89: 204, 0x8D: 404, 0x8E: 500}.get(payload[0], payload[0])
    raise AssertionError("no headers")
