"""Whether the files of a directory have changed. A look takes a `stat` for each file, and reads none."""

import os

from serf_haproxy.control.certificates import FILE_COUNT


class Watch:
    """Looks at a directory again and again.

    Links are followed: what they lead to may change, as in directories that a container engine or an ACME client fills.

    Args:
        directory: The directory; it may be missing.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._seen = self._look()

    def has_changed(self) -> bool:
        """Return whether a file was added, removed, replaced or written since the last look."""
        before, self._seen = self._seen, self._look()
        return self._seen != before

    def _look(self) -> object:
        try:
            names = sorted(os.listdir(self._directory))[: FILE_COUNT + 1]
        except OSError as error:
            return error.errno
        return [(name, _describe(os.path.join(self._directory, name))) for name in names if not name.startswith(".")]


def _describe(path: str) -> object:
    try:
        found = os.stat(path)
    except OSError as error:
        return error.errno
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_mode, found.st_uid, found.st_gid
