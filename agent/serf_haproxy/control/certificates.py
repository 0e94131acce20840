"""Certificates: from the operator's directory to HAProxy's listener, without a reload. The files come first."""

import contextlib
import logging
import time

from serf_haproxy.config.certificates import Certificate, find_original
from serf_haproxy.control.certificate_files import CertificateFiles
from serf_haproxy.errors import HaproxyFault, SystemFault
from serf_haproxy.haproxy.certificates import CertificateCopies, LoadedCertificates, Present
from serf_haproxy.haproxy.runtime import Runtime
from serf_haproxy.serf.printing import printable
from serf_haproxy.settings import Settings

log = logging.getLogger("serf-haproxy")

_SHOWN_COUNT = 10
_MISFIT = "inconsistencies between private key and certificate"


class Certificates:
    """The certificates of the HTTPS listener.

    Args:
        settings: The settings.
    """

    def __init__(self, settings: Settings) -> None:
        self.ends: dict[str, int] = {}  # when each good certificate of the directory ends, seconds since the epoch
        self._files = CertificateFiles(settings.certificates_dir)
        self._bind = settings.https_bind
        self._copies = CertificateCopies(settings.certificate_list, settings.haproxy_bin, settings.check_timeout_s)
        self._tried: dict[str, str] = {}  # copies that are not in the crt-list: why HAProxy refuses them
        self._is_clean = False
        self._has_filled = False

    def prepare(self) -> None:
        """Make what HAProxy needs to check a configuration and to reload: directory and crt-list, without lost copies.

        Where the crt-list is empty or copies were lost, `refresh` comes at once, since HAProxy may be about to load
        them. That is tried once, because a trial may be slow and the servers wait meanwhile. Faults are told by the
        `refresh` that comes after the servers.
        """
        if not self._bind:
            return
        with contextlib.suppress(SystemFault):
            present = self._copies.prepare()
            if present.lost:
                self._copies.write_list(present.listed - present.lost)
            elif present.listed:
                self._has_filled = False
                return
            if not self._has_filled:
                self._has_filled = True
                self.refresh(None)

    def refresh(self, runtime: Runtime | None, trusts_copies: bool = True) -> tuple[str, ...]:
        """Bring copies, crt-list and HAProxy to what the directory has.

        A file that is wrong changes nothing: its last good content goes on.

        Args:
            runtime: HAProxy's runtime socket; None where HAProxy does not answer or is not to be changed.
            trusts_copies: Whether HAProxy has accepted the copies in the crt-list. `boot` has them tried again, since
                it may be another HAProxy, and removes none, since it holds no lock and a pass may be writing.

        Returns:
            One line for each fault.
        """
        if not self._bind:
            return ()
        try:
            present = self._copies.prepare()
            if not self._is_clean:
                self._copies.clean_up()
                self._is_clean = True
            faults, wanted = self._choose(present, present.listed if trusts_copies else frozenset())
            if wanted != present.listed:
                self._copies.write_list(wanted)
            complaints = _change(LoadedCertificates(runtime, self._copies), wanted) if runtime else []
            if trusts_copies:
                self._copies.keep(wanted)
        except SystemFault as error:
            return (f"certificates stay as they were: {error}",)
        return (*faults, *complaints)

    def _choose(self, present: Present, trusted: frozenset[str]) -> tuple[list[str], frozenset[str]]:
        """Return the faults, and the copies that HAProxy should have; write those that are new.

        Args:
            present: What there is.
            trusted: Copies that HAProxy has accepted.
        """
        before = {find_original(copy): copy for copy in sorted(present.listed - present.lost)}
        try:
            found = self._files.read()
        except SystemFault as error:
            return [f"{error}; the certificates before go on"], self._keep(before, trusted)
        self.ends = {name: int(one.until_s) for name, one in found.certificates.items()}
        if not any(name.endswith(".pem") for name in (*found.certificates, *found.faults)):
            then = "those before go on" if before else f"until then every TLS handshake at {self._bind} is refused"
            remedy = "put one there for each host: NAME.pem with certificate, chain and key"
            fault = f"{self._files.directory} has no certificates; {remedy}; {then}"
            return [fault], self._keep(before, trusted)
        copies = {name: one.name_copy(name) for name, one in found.certificates.items()}
        for name, copy in copies.items():
            if copy not in present.copies and not self._tried.get(copy):
                self._copies.write(copy, found.certificates[name].pem)
        refused = self._try([copy for copy in copies.values() if copy not in trusted])
        wanted: dict[str, str] = {}
        faults: list[str] = []
        for name in sorted({**copies, **found.faults}):
            copy = copies.get(name, "")
            fault = found.faults.get(name) or refused.get(copy, "")
            kept = before.get(name)
            if fault:
                then = "its last good content goes on" if kept else "it is left out"
                faults.append(f"{self._files.directory}/{printable(name)}: {fault}; {then}")
                copy = kept or ""
            else:
                faults += self._find_warning(name, found.certificates[name])
            wanted |= {name: copy} if copy else {}
        self._tried = {copy: words for copy, words in self._tried.items() if copy in copies.values()}
        return faults, self._keep(wanted, trusted | frozenset(copies.values()))

    def _keep(self, copies: dict[str, str], trusted: frozenset[str]) -> frozenset[str]:
        """Return those of the copies that HAProxy accepts."""
        refused = self._try([copy for copy in copies.values() if copy not in trusted])
        return frozenset(copy for copy in copies.values() if copy not in refused)

    def _try(self, copies: list[str]) -> dict[str, str]:
        """Have HAProxy try copies; return those that it refuses, each with the reason.

        Most often it takes all of them at once. Otherwise those that it refuses are found by bisection.
        """
        groups = [[copy for copy in copies if copy not in self._tried]]
        while groups:
            group = groups.pop()
            words = self._copies.check(group) if group else None
            if words is None:
                self._tried |= dict.fromkeys(group, "")
            elif len(group) == 1:
                self._tried[group[0]] = self._explain(group[0], words)
            else:
                groups += [group[: len(group) // 2], group[len(group) // 2 :]]
        return {copy: self._tried[copy] for copy in copies if self._tried[copy]}

    def _explain(self, copy: str, words: str) -> str:
        if _MISFIT in words:
            return "its key does not fit its first certificate; put the certificate of this key first, then the chain"
        own = words.replace(self._copies.locate(copy), find_original(copy))
        return f"HAProxy refuses it: {printable(own, 300)}; make it anew"

    def _find_warning(self, name: str, certificate: Certificate) -> list[str]:
        now_s = time.time()
        if certificate.until_s < now_s:
            said = f"it expired on {_format_day(certificate.until_s)}; renew it"
        elif certificate.from_s > now_s:
            said = f"it is not valid before {_format_day(certificate.from_s)}; see whether the clock is right"
        else:
            return []
        return [f"{self._files.directory}/{name}: {said}; it is used all the same"]


def _change(loaded: LoadedCertificates, wanted: frozenset[str]) -> list[str]:
    """Bring HAProxy to these copies; return a line where it did not obey."""
    before = loaded.read()
    if before is None or before == wanted:
        return []
    try:
        complaints = loaded.change(wanted - before, before - wanted)
    except HaproxyFault as error:
        complaints = [str(error)]
    after = loaded.read()
    if after == wanted:
        log.info("%s", f"certificates changed at run time: {_describe(before, wanted)}")
        return []
    said = printable("; ".join(complaints[:3]) or "it did not obey", 300)
    missing = _describe(after or frozenset(), wanted)
    return [f"HAProxy does not take certificates at run time ({said}): {missing}; they count from its next reload"]


def _describe(old: frozenset[str], new: frozenset[str]) -> str:
    """Return which certificates are new (+), gone (-) or different (~)."""
    before, after = ({find_original(copy) for copy in copies} for copies in (old, new))
    changed = {find_original(copy) for copy in old ^ new}
    signs = [("~" if name in before & after else "+" if name in after else "-") + name for name in sorted(changed)]
    return " ".join(signs[:_SHOWN_COUNT]) + (" and more" if signs[_SHOWN_COUNT:] else "")


def _format_day(at_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%MZ", time.gmtime(at_s))
