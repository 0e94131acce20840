"""Certificates: from the operator's directory to HAProxy's listener, without a reload. The files come first."""

import contextlib
import logging
import time
from collections.abc import Iterable, Mapping

from serf_haproxy.config.certificates import Certificate, find_original, find_shared, name_copies, read_certificate
from serf_haproxy.control.certificate_files import CertificateFiles, Found
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
        self._shared: frozenset[str] = frozenset()  # one line for each file that names a host of an earlier one
        self._tried: dict[str, str] = {}  # copies that are not in the crt-list: why HAProxy refuses them
        self._recalled: dict[str, Certificate] = {}  # what is in copies whose files are wrong now
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
        copies, refused = self._settle(found, before, present, trusted)
        faults: list[str] = []
        for name in sorted({**found.certificates, **found.faults}):
            if fault := found.faults.get(name) or refused.get(name, ""):
                then = "its last good content goes on" if name in copies else "it is left out"
                faults.append(f"{self._files.directory}/{printable(name)}: {fault}; {then}")
            else:
                faults += self._find_warning(name, found.certificates[name])
        return faults, frozenset(copies.values())

    def _settle(
        self, found: Found, before: Mapping[str, str], present: Present, trusted: frozenset[str]
    ) -> tuple[dict[str, str], dict[str, str]]:
        """Return the copies that HAProxy should have, and why it refuses files, each by file; write what is new.

        A copy is named after others too, so all are named anew when one is refused.

        Args:
            found: What the directory has.
            before: The copies in the crt-list that are there, by file.
            present: What there is.
            trusted: Copies that HAProxy has accepted.
        """
        old = {name: one for name in before if name in found.faults and (one := self._recall(before[name]))}
        usable, refused, there = found.certificates | old, dict[str, str](), set(present.copies)
        named: set[str] = set()
        while True:
            copies = name_copies(usable)
            named |= {*copies.values()}
            new = [name for name, copy in copies.items() if copy not in trusted]
            self._write([name for name in new if copies[name] not in self._tried], copies, usable, there)
            wrong = self._try([copies[name] for name in new])
            if not wrong:
                break
            for name in [name for name in new if copies[name] in wrong]:
                refused.setdefault(name, wrong[copies[name]])
                del usable[name]
                if name in before and name not in old and (one := self._recall(before[name])):
                    old[name] = usable[name] = one
        self._write(list(copies), copies, usable, there)
        self._tried = {copy: words for copy, words in self._tried.items() if copy in named}
        self._recalled = {copy: one for copy, one in self._recalled.items() if copy in before.values()}
        self._tell_shared(usable)
        return copies, refused

    def _write(
        self, names: Iterable[str], copies: Mapping[str, str], usable: Mapping[str, Certificate], there: set[str]
    ) -> None:
        """Write the copies of files that are not there, and note that they are."""
        for name in names:
            if copies[name] not in there:
                self._copies.write(copies[name], usable[name].pem)
                there.add(copies[name])

    def _recall(self, copy: str) -> Certificate | None:
        """Return what a copy has; None where it is damaged."""
        if copy not in self._recalled:
            with contextlib.suppress(SystemFault, ValueError):
                self._recalled[copy] = read_certificate(self._copies.read(copy))
        return self._recalled.get(copy)

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

    def _tell_shared(self, usable: Mapping[str, Certificate]) -> None:
        """Log which files name a host of an earlier one, once: it may be meant so."""
        shared = frozenset(
            f"{self._files.directory}/{name}: it names {printable(host)}, for which clients get {first}, the first "
            "file in the order of names; leave the host in one of them"
            for name, host, first in find_shared(usable)
        )
        for line in sorted(shared - self._shared)[:_SHOWN_COUNT]:
            log.warning("%s", line)
        self._shared = shared

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
