"""What a pass keeps in memory for the next one."""

from serf_haproxy.control.aftermath import Aftermath
from serf_haproxy.control.edges import Edges
from serf_haproxy.control.facts import Facts
from serf_haproxy.control.hasten import Ground, make_ground
from serf_haproxy.control.health import Silence
from serf_haproxy.control.outcome import Outcome, Verdict
from serf_haproxy.control.rendering import Renderer
from serf_haproxy.control.replies import Replies
from serf_haproxy.control.vetting import Vetting
from serf_haproxy.policy.decision import Decision, Entry
from serf_haproxy.policy.judgement import Memo
from serf_haproxy.policy.partial import make_basis
from serf_haproxy.policy.peers import list_others
from serf_haproxy.policy.snapshot import Snapshot
from serf_haproxy.serf.events import ALIVE, Member
from serf_haproxy.serf.nodes import NodeFile
from serf_haproxy.services import Key
from serf_haproxy.settings import Settings


class Memory:
    """The memory of passes. It only saves time: a new one gives the same results.

    Attributes:
        files: The node files.
        served: What the state directory keeps of the servers' node files, and the nodes' names.
        missing: HAProxy's servers without a node file about which Serf was asked.
        emptied: Servers in maintenance whose idle connections have been closed.
        memo: The memo of decisions.
        renderer: The renderer, with its parser.
        silence: What was said of servers that have never come up.
        measured: The sections with measured weights as of the last pass; where a split shares the requests, the
            versions of the servers by name.
        vetting: Tries new and changed tables of the services file.
        aftermath: Tells what is new after each pass.
        ground: On what a few members can be decided ahead of the next pass; None where they cannot.
        hastened: The servers that HAProxy was given ahead of the present pass.
        replies: What queries of Serf are answered.
        facts: What the question is answered whether traffic should come here.
        balancers: The name of this balancer's node, "" while it is not known, and those of others that are alive.
    """

    def __init__(self) -> None:
        self.files: dict[str, NodeFile] = {}
        self.served: tuple[str, list[str]] = ("", [])
        self.missing: set[Key] = set()
        self.emptied: set[Key] = set()
        self.memo = Memo()
        self.renderer = Renderer()
        self.silence = Silence()
        self.measured: dict[str, dict[str, str]] = {}
        self.vetting = Vetting()
        self.aftermath = Aftermath()
        self.ground: Ground | None = None
        self.hastened: frozenset[Key] = frozenset()
        self.replies = Replies()
        self.facts = Facts()
        self.balancers: tuple[str, tuple[str, ...]] = ("", ())
        self._entries: dict[Key, Entry] = {}
        self._seen: object = None

    def end_ground(self) -> list[tuple[str, Member]]:
        """Note that a pass begins; return what was corrected in node files ahead of it: status and member."""
        ground, self.ground = self.ground, None
        self.hastened = frozenset(ground.basis.touched) if ground else frozenset()
        return ground.recorded if ground else []

    def keep_ground(
        self, outcome: Outcome, snapshot: Snapshot, decision: Decision, settings: Settings, edges: Edges
    ) -> None:
        """Keep that on which a few members can be decided until the next pass."""
        if not outcome.is_in_force:
            return
        text = snapshot.live if outcome.verdict is Verdict.UNCHANGED else edges.config_file.read_live()
        if text is not None:
            basis = make_basis(snapshot, decision, self.memo)
            self.ground = make_ground(outcome, basis, settings, text, self.renderer.parser)

    def remember(self, served: str, decision: Decision) -> None:
        """Keep what the state directory has of the servers' node files."""
        self.served = served, [server.name for server in decision.servers]

    def tell(
        self, settings: Settings, edges: Edges, snapshot: Snapshot, decision: Decision, outcome: Outcome
    ) -> tuple[str, ...]:
        """Tell of a pass what is new: add to the history, and write the answers; return complaints."""
        before, self._entries = self._entries, decision.entries
        changed = [key for key, entry in decision.entries.items() if before.get(key) is not entry]
        self._note_balancers(snapshot)
        complaints = self.aftermath.tell(edges, snapshot, decision, outcome, changed)
        complaints += self.replies.write(settings, snapshot, decision, outcome, changed)
        return complaints + self.facts.write(settings, edges, snapshot, outcome)

    def tell_failure(self, settings: Settings, text: str) -> None:
        """Tell that a pass ended with an error."""
        self.replies.tell_failure(settings, text)
        self.facts.tell_failure(settings, text)

    def _note_balancers(self, snapshot: Snapshot) -> None:
        roles, self_name = snapshot.rules.balancer_roles, snapshot.rules.self_name
        if (seen := (snapshot.files, roles, self_name)) != self._seen:
            self._seen = seen
            others = list_others(snapshot.files, roles, self_name)
            self.balancers = self_name, tuple(name for name, file in others.items() if file.status == ALIVE)
