"""The operator's directory of certificates. A file that has not changed is not read again."""

import os
from typing import NamedTuple

from serf_haproxy.config.certificates import FILE_BYTES, NAME, Certificate, read_certificate
from serf_haproxy.errors import SystemFault
from serf_haproxy.settings import variable
from serf_haproxy.system.files import find_stamp, read_text

FILE_COUNT = 2000  # a directory with more files is surely the wrong one


class Found(NamedTuple):
    """What is in the operator's directory.

    Attributes:
        certificates: The files that can be read, by name.
        faults: What is wrong with the others, by name.
    """

    certificates: dict[str, Certificate]
    faults: dict[str, str]


class _Content(NamedTuple):
    """What a file had when it was read.

    Attributes:
        stamp: Device, inode, size and change time before that; None where they would not show a further change.
        certificate: None where HAProxy cannot use it.
        fault: Why not.
    """

    stamp: tuple[int, ...] | None
    certificate: Certificate | None
    fault: str = ""


class CertificateFiles:
    """The files of the operator's directory.

    Args:
        directory: The directory.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._contents: dict[str, _Content] = {}

    def read(self) -> Found:
        """Return what the directory has; raise SystemFault where it cannot be read."""
        try:
            names = list_files(self.directory)
        except OSError as error:
            remedy = f"make it readable for this user, or set {variable('certificates_dir')}"
            raise SystemFault(f"cannot read {self.directory}: {error.strerror}; {remedy}") from error
        if len(names) > FILE_COUNT:
            raise SystemFault(f"{self.directory} has more than {FILE_COUNT} files; leave only the certificates there")
        found = Found({}, {})
        before, self._contents = self._contents, {}
        for name in names:
            if not NAME.fullmatch(name):
                found.faults[name] = "is no name of a certificate; use letters, digits, _ . - and end it with .pem"
                continue
            content = _read_file(os.path.join(self.directory, name), before.get(name))
            if content is None:  # it was removed a moment ago
                continue
            self._contents[name] = content
            if content.certificate:
                found.certificates[name] = content.certificate
            else:
                found.faults[name] = content.fault
        return found


def list_files(directory: str) -> list[str]:
    """Return the names of the files that count; those with a dot in front are being written. Raises OSError."""
    return sorted(name for name in os.listdir(directory) if not name.startswith("."))


def _read_file(path: str, before: _Content | None) -> _Content | None:
    """Return the content of a file, from memory where it has not changed; None where there is no file."""
    stamp = find_stamp(path)
    if before and stamp and before.stamp == stamp:
        return before
    try:
        text = read_text(path, FILE_BYTES)
        if text is None:
            is_link = os.path.islink(path)
            return _Content(None, None, "is a link that leads to no file; renew the link") if is_link else None
        return _Content(stamp, read_certificate(text))
    except SystemFault as error:
        is_long = "longer than" in str(error)
        remedy = f"make it a {'shorter' if is_long else 'regular'} file that this user may read"
        # Its directory may be what is to be changed, so it is tried again.
        reason = str(error).partition(": ")[2].partition(";")[0]
        return _Content(None, None, f"cannot be read: {reason}; {remedy}")
    except ValueError as error:
        return _Content(stamp, None, str(error))
