"""What the handler answers to queries of Serf: files that the daemon writes after each pass, signed and dated.

    status, ready    an answer each
    nodes            for each node its answer, each line of it behind the node's name and a tab

They are dated anew while the daemon runs, so an answer that is old shows that it does not.
"""

import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence

from serf_haproxy.control.order_secrets import OrderSecrets
from serf_haproxy.control.outcome import ALONE, Outcome, Verdict
from serf_haproxy.errors import SystemFault
from serf_haproxy.policy.answer_wire import Question, encode
from serf_haproxy.policy.decision import Decision
from serf_haproxy.policy.proof import Secret
from serf_haproxy.policy.snapshot import Snapshot
from serf_haproxy.serf.answers import EXPLAIN, READY, STATUS
from serf_haproxy.serf.printing import printable
from serf_haproxy.services import Key
from serf_haproxy.settings import Settings
from serf_haproxy.system.files import write_quickly
from serf_haproxy.system.moments import time_ms

_FILES = {STATUS: "status", READY: "ready"}
_TEXT = 300  # characters
_RENEW_S = 5.0  # those that say whether the balancer is well
_RENEW_NODES_S = 120.0  # less than what counts as fresh, by more than clocks differ


class Replies:
    """The answers of a balancer, and what is kept to write only what is new."""

    def __init__(self) -> None:
        self._balancer = ""
        self._texts: dict[str, str] = {}  # by query
        self._nodes: dict[str, dict[str, str]] = {}  # lines by node and service
        self._line_count = 0
        self._blocks: dict[str, str] = {}  # what the file has, by node
        self._counted: tuple[object, object, str] = (None, None, "")
        self._settings: Settings | None = None
        self._secrets: OrderSecrets | None = None
        self._signed_by: tuple[Secret, ...] = ()
        self._renewed_s = self._renewed_nodes_s = -_RENEW_NODES_S
        self._is_complete = False

    def write(
        self, settings: Settings, snapshot: Snapshot, decision: Decision, outcome: Outcome, changed: Iterable[Key]
    ) -> tuple[str, ...]:
        """Write the answers that are new; return complaints.

        Args:
            settings: The settings.
            snapshot: What was read.
            decision: What was decided.
            outcome: What the pass came to.
            changed: About which nodes, and in which services, another entry was made than before.
        """
        secrets, complaints = self._read_secrets(settings)
        texts = {STATUS: self._describe(snapshot, decision, outcome), READY: _judge(snapshot, outcome)}
        signer = snapshot.rules.self_name, secrets
        is_whole = self._is_complete and signer == (self._balancer, self._signed_by)
        self._balancer, self._signed_by = signer
        stale, is_news = self._note(decision, changed), texts != self._texts
        self._texts, self._is_complete = texts, False
        try:
            if stale or not is_whole:
                self._sign_nodes(settings, stale if is_whole else self._nodes)
            if is_news or not is_whole:
                self._sign_texts(settings)
        except SystemFault as error:
            return (*complaints, f"queries of Serf are not answered: {error}")
        self._is_complete = True
        return complaints

    def tell_failure(self, settings: Settings, text: str) -> None:
        """Answer from now on that the last pass ended with an error."""
        if self._is_complete:
            self._texts = dict.fromkeys(self._texts, f"not ready: {printable(text, _TEXT)}")
            self._renewed_s = -_RENEW_S
            self.renew(settings)

    def renew(self, settings: Settings) -> None:
        """Date the answers anew where it is time: the handler takes answers for wrong whose file is old."""
        now_s = time.monotonic()
        if not self._is_complete or now_s - self._renewed_s < _RENEW_S:
            return
        try:
            self._sign_texts(settings)
            if now_s - self._renewed_nodes_s >= _RENEW_NODES_S:
                self._date_nodes(settings)
        except SystemFault:
            self._is_complete = False  # the next pass writes them again, and says what is wrong

    def _read_secrets(self, settings: Settings) -> tuple[tuple[Secret, ...], tuple[str, ...]]:
        """Return the secrets that sign, and complaints."""
        if self._secrets is None or settings is not self._settings:
            self._settings, self._secrets = settings, OrderSecrets(settings)
        try:
            return self._secrets.read(), ()
        except SystemFault as error:
            return (), (f"queries of Serf are answered unsigned: {error}",)

    def _note(self, decision: Decision, changed: Iterable[Key]) -> set[str]:
        """Keep a line for each entry; return the nodes of which one is new or gone."""
        stale = set()
        for service, node in changed:
            entry = decision.entries[service, node]
            # Most nodes have the same line: it is kept once.
            line = sys.intern(f"{service} {entry.outline}: {printable(entry.reason, _TEXT)}")
            lines = self._nodes.setdefault(node, {})
            if (before := lines.get(service)) != line:
                self._line_count += before is None
                lines[service] = line
                stale.add(node)
        if self._line_count != len(decision.entries):
            for node, lines in list(self._nodes.items()):
                gone = [service for service in lines if (service, node) not in decision.entries]
                for service in gone:
                    del lines[service]
                    stale.add(node)
                if not lines:
                    del self._nodes[node]
                    self._blocks.pop(node, None)
            self._line_count = len(decision.entries)
        return stale

    def _sign_texts(self, settings: Settings) -> None:
        for query, text in self._texts.items():
            self._write(settings, _FILES[query], self._sign(query, "", text))
        self._renewed_s = time.monotonic()

    def _sign_nodes(self, settings: Settings, nodes: Iterable[str]) -> None:
        """Sign the answers about some nodes, and write those about all."""
        for node in nodes:
            if lines := self._nodes.get(node):
                answer = self._sign(EXPLAIN, node, "\n".join(lines[service] for service in sorted(lines)))
                self._blocks[node] = "".join(f"{node}\t{line}\n" for line in answer.split("\n"))
        self._write_nodes(settings, is_whole=nodes is self._nodes)

    def _date_nodes(self, settings: Settings) -> None:
        """Date the answers about all nodes anew; without a secret, nothing else of them changes."""
        if self._signed_by:
            self._sign_nodes(settings, self._nodes)
            return
        date = f" {time_ms()}\n"
        self._blocks = {node: block.rpartition(" ")[0] + date for node, block in self._blocks.items()}
        self._write_nodes(settings, is_whole=True)

    def _write_nodes(self, settings: Settings, *, is_whole: bool) -> None:
        self._write(settings, "nodes", "".join(self._blocks.values()))
        if is_whole:
            self._renewed_nodes_s = time.monotonic()

    def _sign(self, query: str, subject: str, text: str) -> str:
        question = Question(query, subject, self._balancer)
        return encode(question, text, time_ms(), self._signed_by)

    def _write(self, settings: Settings, name: str, text: str) -> None:
        write_quickly(os.path.join(settings.answers_dir, name), text)

    def _describe(self, snapshot: Snapshot, decision: Decision, outcome: Outcome) -> str:
        """Return the balancer in short."""
        state = f"{snapshot.rules.self_name} {outcome.verdict}: {printable(outcome.reason, _TEXT)}"
        conditions = [f"{one.name.upper()} {printable(one.reason, _TEXT)}" for one in outcome.conditions]
        return "\n".join([state, *self._count(snapshot, decision), *conditions])

    def _count(self, snapshot: Snapshot, decision: Decision) -> Sequence[str]:
        """Return a line for each service: its servers, those that are up, and the nodes that do not simply serve."""
        up = snapshot.view.up
        if self._counted[0] != decision.entries or self._counted[1] != up:
            counts = Counter(server.service for server in decision.servers)
            ups = Counter(server.service for server in decision.servers if up and server.key in up)
            lines = []
            for service in counts.keys() | {key[0] for key in decision.notable}:
                states = Counter(str(entry.state) for key, entry in decision.notable.items() if key[0] == service)
                others = "".join(f", {count} {state}" for state, count in sorted(states.items()))
                seen = f"{ups[service]} up" if up is not None else "HAProxy does not answer"
                lines.append(f"{service}: {counts[service]} servers, {seen}{others}")
            self._counted = decision.entries, up, "\n".join(sorted(lines))
        return [self._counted[2]] if self._counted[2] else []


def find_fault(snapshot: Snapshot, outcome: Outcome) -> str:
    """Return why the balancer is not ready; "" where it is."""
    is_ready = outcome.is_in_force or outcome.verdict is Verdict.PAUSED
    fault = "HAProxy does not answer" if snapshot.running is None else "" if is_ready else outcome.reason
    return fault or ("it is alone" if outcome.has_condition(ALONE) else "")


def _judge(snapshot: Snapshot, outcome: Outcome) -> str:
    """Return "ready", or why the balancer is not."""
    fault = find_fault(snapshot, outcome)
    return f"not ready: {printable(fault, _TEXT)}" if fault else "ready"
