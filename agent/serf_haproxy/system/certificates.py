"""Files with certificates of authorities: what HAProxy can load of them."""

import functools
import re

from serf_haproxy.errors import SystemFault
from serf_haproxy.system.files import read_text

FILE_BYTES = 2**20  # a bundle of all public authorities has a quarter of that

_BLOCK = re.compile(r"-----BEGIN ((?:X509 )?CERTIFICATE)-----[A-Za-z0-9+/=\s]*-----END \1-----", re.ASCII)
_BEGIN = re.compile(r"-----BEGIN (?:[A-Z0-9]+ )?CERTIFICATE-----")
_WRONG = "must be a PEM file with certificates"


def read_authorities(path: str) -> str:
    """Return the certificates of a file as PEM text, without comments, keys and whatever else is there.

    Raises:
        ValueError: HAProxy could not load them; the text says why.
    """
    try:
        text = read_text(path, FILE_BYTES)
    except SystemFault as error:
        raise ValueError(f"cannot be read: {str(error).removeprefix(f'cannot read {path}: ')}") from error
    if text is None:
        raise ValueError("there is no such file; put it there, or name another one")
    return _select_certificates(text)


def find_first_end(path: str) -> float | None:
    """Return when the first certificate of an authority in a file ends, seconds since the epoch; None for none."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=read_authorities(path))
    except ValueError:  # another line tells it
        return None
    ends_s = [ssl.cert_time_to_seconds(str(one["notAfter"])) for one in context.get_ca_certs()]
    return float(min(ends_s)) if ends_s else None


@functools.lru_cache(maxsize=16)  # each pass reads the files, and most find them as they were
def _select_certificates(text: str) -> str:
    import ssl

    blocks = [match[0] for match in _BLOCK.finditer(text)]
    if not blocks or len(blocks) != len(_BEGIN.findall(text)):
        raise ValueError(_WRONG)
    pem = "\n".join(blocks) + "\n"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem)
    except ssl.SSLError as error:
        raise ValueError(_WRONG) from error
    return pem
