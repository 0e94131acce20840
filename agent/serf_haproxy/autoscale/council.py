"""The balancers of a cluster, as the autoscaler needs them: who decides, and the load of all together.

The balancer decides whose name comes first among those that are alive and have proved themselves. It asks the others
for their loads by a query of Serf. Two that both believe to be first, after a partition, fill the same slots.
"""

import logging
import os
from collections.abc import Mapping
from typing import NamedTuple

from serf_haproxy.autoscale.wire import Load, format_loads, parse_loads
from serf_haproxy.control.edges import find_serf
from serf_haproxy.control.order_secrets import OrderSecrets
from serf_haproxy.control.rules import read_secret_file
from serf_haproxy.errors import SerfFault, SystemFault
from serf_haproxy.policy.answer_wire import Question, decode, encode
from serf_haproxy.policy.peers import has_proved, list_others
from serf_haproxy.serf import nodes
from serf_haproxy.serf.answers import DEMAND
from serf_haproxy.serf.events import ALIVE
from serf_haproxy.serf.query import Query
from serf_haproxy.settings import Settings, variable
from serf_haproxy.system.files import write_quickly
from serf_haproxy.system.moments import time_ms

log = logging.getLogger("serf-haproxy")

FRESH_MS = 5000  # older loads do not count
_ASK_S = 1.0
_ANSWER_S = 0.8  # how long answers are awaited
_PAUSES_S = (1.0, 2.0, 5.0)  # while the Serf agent does not answer
_MOST, _EARLIER = 16, 2  # balancers that are asked by the one that decides, and by another one
_SCAN_S = 5.0  # how often the node directory is read though it seems unchanged
_TELL_S = 60.0


class Heard(NamedTuple):
    """What one balancer said last: its loads, and when, by the monotonic clock."""

    loads: Mapping[str, Load]
    at_s: float


class Council:
    """The balancers.

    Args:
        settings: The settings.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._secrets = OrderSecrets(settings)
        self._query: Query | None = None
        self._heard: dict[str, Heard] = {}
        self._since_s: dict[str, float] = {}
        self._ask_at_s = 0.0
        self._failure_count = 0
        self._scanned: tuple[int, float] = (0, -_SCAN_S)
        self._told_s: dict[str, float] = {}
        self.others: tuple[str, ...] = ()
        self.fault = ""

    def find_others(self, self_name: str, now_s: float) -> None:
        """Find the other balancers that are alive, from the node files; they are in `others` then.

        Raises:
            SystemFault: The node directory or the secret of the proofs cannot be read.
        """
        try:
            stamp = os.stat(self._settings.nodes_dir).st_mtime_ns
        except OSError as error:
            raise SystemFault(
                f"cannot read {self._settings.nodes_dir}: {error.strerror}; does the daemon run?"
            ) from error
        if stamp == self._scanned[0] and now_s < self._scanned[1] + _SCAN_S:
            return
        files = list_others(nodes.load(self._settings.nodes_dir)[0], self._settings.balancer_roles, self_name)
        path = self._settings.proof_secret_file
        secrets = read_secret_file(path, variable("proof_secret_file")) if path else ()
        alive = [name for name, file in files.items() if file.status == ALIVE]
        self.others = tuple(sorted(name for name in alive if not secrets or has_proved(secrets, name, files[name])))
        self._scanned = stamp, now_s
        self._heard = {name: heard for name, heard in self._heard.items() if name in self.others}
        self._since_s = {name: self._since_s.get(name, now_s) for name in self.others}

    def is_first(self, self_name: str, now_s: float) -> bool:
        """Return whether this balancer decides: none before it has answered for some seconds, while it was asked."""
        earlier = [name for name in self.others if name < self_name]
        is_silent = all(
            now_s - max(self._since_s[name], self._heard[name].at_s if name in self._heard else 0) > FRESH_MS / 1e3
            for name in earlier
        )
        return bool(self_name) and is_silent

    def list_missing(self, now_s: float) -> list[str]:
        """Return the balancers that are alive and have not said their loads in the last seconds."""
        return [name for name in self.others if not self._is_fresh(name, now_s)]

    def find_loads(self, service: str, now_s: float) -> dict[str, Load]:
        """Return the loads of a service at the other balancers that have just said them."""
        fresh = {name: self._heard[name].loads for name in self.others if self._is_fresh(name, now_s)}
        return {name: loads[service] for name, loads in fresh.items() if service in loads}

    def publish(self, self_name: str, loads: Mapping[str, Load]) -> None:
        """Write this balancer's loads where the handler of queries finds them."""
        text = encode(Question(DEMAND, "", self_name), format_loads(loads), time_ms(), self._secrets.read())
        write_quickly(os.path.join(self._settings.answers_dir, "demand"), text)

    def ask(self, self_name: str, now_s: float) -> None:
        """Ask the others, if that is due, or those that come first where another one decides; answers come later."""
        if self._query is not None or not self.others or now_s < self._ask_at_s:
            return
        self._ask_at_s = now_s + _ASK_S
        earlier = [name for name in self.others if name < self_name][:_EARLIER]
        asked = self.others[:_MOST] if self.is_first(self_name, now_s) else earlier
        try:
            self._query = Query(find_serf(self._settings), DEMAND, b"", asked, _ANSWER_S)
            self._failure_count = 0
        except SerfFault as error:
            self._complain(f"the loads of other balancers are not known: {error}", now_s)
            self._ask_at_s = now_s + _PAUSES_S[min(self._failure_count, len(_PAUSES_S) - 1)]
            self._failure_count += 1
        self.look(now_s)  # answers may have come with what accepts the query

    def watched(self) -> list[Query]:
        """Return the connection of a query; give it to `look` when it turns readable."""
        return [self._query] if self._query else []

    def look(self, now_s: float) -> None:
        """Read answers."""
        if self._query is None:
            return
        try:
            answers, is_done = self._query.read_answers()
        except SerfFault:
            answers, is_done = [], True
        if is_done:
            self.close()
        for node, payload in answers:
            if node in self.others:
                self._hear(node, payload, now_s)

    def close(self) -> None:
        """Close the connection of a query."""
        if self._query is not None:
            self._query.close()
        self._query = None

    def _hear(self, node: str, payload: bytes, now_s: float) -> None:
        try:
            said = decode(payload, Question(DEMAND, "", node), self._secrets.read(), time_ms(), FRESH_MS)
            self._heard[node] = Heard(parse_loads(said.text), now_s)
        except (ValueError, SystemFault) as error:
            self._complain(f"the load of {node} does not count: {error}", now_s)

    def _is_fresh(self, name: str, now_s: float) -> bool:
        heard = self._heard.get(name)
        return heard is not None and now_s - heard.at_s <= FRESH_MS / 1e3

    def _complain(self, text: str, now_s: float) -> None:
        if now_s - self._told_s.get(text[:40], -_TELL_S) >= _TELL_S:
            self._told_s[text[:40]] = now_s
            log.warning("%s", text)
