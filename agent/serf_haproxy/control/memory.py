"""What a pass keeps in memory for the next one."""

from serf_haproxy.control.aftermath import Aftermath
from serf_haproxy.control.edges import Edges
from serf_haproxy.control.hasten import Ground, make_ground
from serf_haproxy.control.health import Silence
from serf_haproxy.control.outcome import Outcome
from serf_haproxy.control.rendering import Renderer
from serf_haproxy.control.vetting import Vetting
from serf_haproxy.policy.decision import Decision
from serf_haproxy.policy.judgement import Memo
from serf_haproxy.policy.partial import make_basis
from serf_haproxy.policy.snapshot import Snapshot
from serf_haproxy.serf.events import Member
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

    def end_ground(self) -> list[tuple[str, Member]]:
        """Note that a pass begins; return what was corrected in node files ahead of it: status and member."""
        early, self.ground = self.ground.recorded if self.ground else [], None
        return early

    def keep_ground(
        self, outcome: Outcome, snapshot: Snapshot, decision: Decision, settings: Settings, edges: Edges
    ) -> None:
        """Keep that on which a few members can be decided until the next pass."""
        text = edges.config_file.read_live() if outcome.is_in_force else None
        if text is not None:
            basis = make_basis(snapshot, decision, self.memo)
            self.ground = make_ground(outcome, basis, settings, text, self.renderer.parser)

    def remember(self, served: str, decision: Decision) -> None:
        """Keep what the state directory has of the servers' node files."""
        self.served = served, [server.name for server in decision.servers]
