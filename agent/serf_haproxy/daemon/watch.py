"""Whether files have changed that an operator writes. A look takes a `stat` for each file, and reads none."""

import os
from collections.abc import Iterable

from serf_haproxy.control.certificate_files import FILE_COUNT, list_files
from serf_haproxy.settings import Settings


class Watch:
    """Looks at files and directories again and again.

    A change counts when a second look finds nothing more: a file that is being written is left alone until then. Links
    are followed: what they lead to may change, as in directories that a container engine or an ACME client fills.

    Args:
        paths: The files, and the directories whose files count; each may be missing.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths = tuple(paths)
        self._further: frozenset[str] = frozenset()
        self._seen = self._told = self._look()

    def follow(self, paths: Iterable[str]) -> None:
        """Look at these files too, and no more at those of the call before; what they are now is no change."""
        further = frozenset(paths).difference(self._paths)
        if further == self._further:
            return
        self._further = further
        found = self._look()
        self._seen = {path: self._seen.get(path, found[path]) for path in found}
        self._told = {path: self._told.get(path, found[path]) for path in found}

    def has_changed(self) -> bool:
        """Return whether a file was added, removed, replaced or written since this was last true."""
        before, self._seen = self._seen, self._look()
        if self._seen != before or self._seen == self._told:
            return False
        self._told = self._seen
        return True

    def _look(self) -> dict[str, object]:
        paths = (*self._paths, *self._further)
        return {path: _list_files(path) if os.path.isdir(path) else _describe(path) for path in paths}


def _list_files(path: str) -> object:
    try:
        names = list_files(path)[: FILE_COUNT + 1]
    except OSError as error:
        return error.errno
    return [(name, _describe(os.path.join(path, name))) for name in names]


def _describe(path: str) -> object:
    try:
        found = os.stat(path)
    except OSError as error:
        return error.errno
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_mode, found.st_uid, found.st_gid


def make_watch(settings: Settings) -> Watch:
    """Return the watch over the operator's files that the settings name."""
    certificates = [settings.certificates_dir] if settings.https_bind else []
    template = [settings.template_path] if settings.template_path else []
    return Watch([settings.services_file, *template, *certificates])
