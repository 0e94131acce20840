"""A model: whatever happens to a cluster, in whatever order, what is decided keeps some promises.

The model is a cluster, a simulated HAProxy that runs what was decided, and applications that are well or ill. Serf may
say anything of them. After each step the decision is made and its promises are checked.
"""

import dataclasses

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from serf_haproxy.policy.admission import Policy, Rules
from serf_haproxy.policy.damping import FlapRules
from serf_haproxy.policy.decide import decide
from serf_haproxy.policy.decision import Decision, State
from serf_haproxy.policy.guard import GuardRules
from serf_haproxy.policy.proof import Secret
from serf_haproxy.policy.server import Server
from serf_haproxy.policy.snapshot import Snapshot, View
from serf_haproxy.serf.events import ALIVE, FAILED, LEFT, make_member
from serf_haproxy.serf.nodes import NodeFile
from serf_haproxy.services import DEFAULT_SERVICE, Key
from serf_haproxy.system.network import read_networks, read_ports

S = 1_000_000_000
NAMES = ("web1", "web2", "web3", "web4", "web5", "web6")
NODES = st.sampled_from(NAMES)
GOOD = Rules(
    80,
    balancer_roles=("lb",),
    self_name="lb1",
    drain_timeout_s=30,
    failed_grace_s=10,
    guard=GuardRules(0.5, 60, 3600),
    flaps=FlapRules(6, 60),
    binds=(("", 80),),
)
MISTAKES: tuple[dict[str, object], ...] = (
    {"balancer_roles": ("lb", "web")},
    {"roles": ("webb",)},
    {"default_port": 81},
    {"failed_grace_s": 0.0},
    {"drain_timeout_s": 0.0},
    {"guard": GuardRules(0.5, 60, 0)},
    {"guard": GuardRules(1.0, 1, 3600)},
    {"flaps": FlapRules(1, 600)},
    {"policy": Policy(networks=read_networks("10.9.0.0/16"))},
    {"policy": Policy(ports=read_ports("443"))},
    {"policy": Policy(secrets=(Secret(b"correct horse battery staple"),))},
)


@dataclasses.dataclass
class Seen:
    """A server in the simulated HAProxy."""

    server: Server
    is_up: bool


class Cluster(RuleBasedStateMachine):
    """A cluster in which anything may happen."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ns = 1_000_000 * S
        self.rules = GOOD
        self.files: dict[str, NodeFile] = {}
        self.well: set[str] = set(NAMES)  # endpoints answer for these nodes
        self.haproxy: dict[Key, Seen] = {}
        self.answers = True
        self.before = Snapshot(0, GOOD, {})
        self.decision = Decision({}, {}, (), {}, {}, {}, None)

    def write(self, name: str, status: str, **tags: str) -> None:
        """Write a node file."""
        member = make_member(name, f"10.0.0.{name[3:]}", {"role": "web"} | tags)
        self.files[name] = NodeFile(status, member, self.now_ns)

    def snapshot(self) -> Snapshot:
        """Return what a pass would read now."""
        view = View()
        if self.answers:
            up = {key: seen.server.endpoint for key, seen in self.haproxy.items() if seen.is_up}
            down = frozenset(key for key, seen in self.haproxy.items() if not seen.is_up)
            view = View(down=down, up=up)
        return Snapshot(
            self.now_ns,
            self.rules,
            dict(self.files),
            flaps=self.decision.flaps,
            unfit=self.decision.unfit,
            known=self.decision.known,
            view=view,
        )

    def run(self) -> None:
        """Make a pass: decide, and let HAProxy run what was decided. A new or moved server starts as down."""
        self.before = self.snapshot()
        self.decision = decide(self.before)
        haproxy = {}
        for server in self.decision.servers:
            seen = self.haproxy.get(server.key)
            is_up = seen is not None and seen.server.endpoint == server.endpoint and seen.is_up
            haproxy[server.key] = Seen(server, is_up)
        self.haproxy = haproxy

    def check(self) -> None:
        """Let HAProxy's health checks see who is well: an application listens at port 80 of its node alone."""
        for (_, name), seen in self.haproxy.items():
            seen.is_up = name in self.well and seen.server.endpoint == f"10.0.0.{name[3:]}:80"

    @initialize(count=st.integers(1, 6))
    def begin(self, count: int) -> None:
        """Begin with nodes that serve."""
        for name in NAMES[:count]:
            self.write(name, ALIVE)
        self.run()
        self.check()
        self.run()

    def step(self, seconds: float = 0.5) -> None:
        """Let time pass, make a pass, and check that it loses no last server that is up; then let HAProxy check."""
        self.now_ns += int(seconds * S)
        up = {name for (_, name), seen in self.haproxy.items() if seen.is_up}
        self.run()
        serving = {name for (_, name), seen in self.haproxy.items() if seen.is_up and seen.server.weight != 0}
        if up and self.answers and not self.rules.guard.released_ns:
            assert serving, f"none of {sorted(up)} gets requests"
        self.check()

    @rule(names=st.sets(NODES, min_size=1), tags=st.sampled_from([{}, {"weight": "7"}]))
    def join(self, names: set[str], tags: dict[str, str]) -> None:
        """Let nodes join, or come back."""
        for name in names:
            self.write(name, ALIVE, **tags)
        self.step()

    @rule(names=st.sets(NODES, min_size=1), status=st.sampled_from([FAILED, LEFT, "leaving"]))
    def lose(self, names: set[str], status: str) -> None:
        """Let Serf say that nodes failed or left, which is true or not."""
        for name in names & self.files.keys():
            file = self.files[name]
            self.files[name] = NodeFile(status, file.member, self.now_ns)
        self.step()

    @rule(names=st.sets(NODES, min_size=1))
    def reap(self, names: set[str]) -> None:
        """Let Serf forget nodes."""
        for name in names:
            self.files.pop(name, None)
        self.step()

    @rule(
        names=st.sets(NODES, min_size=1),
        tags=st.sampled_from(
            [{"drain": "true"}, {"weight": "0"}, {"port": "x"}, {"port": "81"}, {"role": "lb"}, {"role": "db"}]
        ),
    )
    def set_tags(self, names: set[str], tags: dict[str, str]) -> None:
        """Change tags of nodes."""
        for name in names & self.files.keys():
            self.write(name, self.files[name].status, **tags)
        self.step()

    @rule(names=st.sets(NODES))
    def heal_and_harm(self, names: set[str]) -> None:
        """Let these applications be well, and no other."""
        self.well = names
        self.check()
        self.step()

    @rule(seconds=st.sampled_from([-86400.0, -60.0, 0.1, 5.0, 11.0, 31.0, 61.0, 3601.0, 90000.0]))
    def jump(self, seconds: float) -> None:
        """Let time pass, or set the clock back."""
        self.step(seconds)

    @rule(mistake=st.sampled_from(MISTAKES))
    def make_a_mistake(self, mistake: dict[str, object]) -> None:
        """Change a setting."""
        self.rules = GOOD._replace(**mistake)
        self.step()

    @rule()
    def correct_the_mistake(self) -> None:
        """Restore the settings, and forget the order of an operator."""
        self.rules = GOOD
        self.step()

    @rule(answers=st.booleans())
    def let_haproxy_answer(self, answers: bool) -> None:
        """Let HAProxy answer or not."""
        self.answers = answers
        self.step()

    @precondition(lambda self: self.decision.notable)
    @rule()
    def release(self) -> None:
        """Let an operator release what is held."""
        self.rules = self.rules._replace(guard=self.rules.guard._replace(released_ns=self.now_ns))
        self.step()

    @invariant()
    def has_one_entry_for_every_node(self) -> None:
        """Find one entry for every node, and those of last servers that Serf has forgotten."""
        kept = {key for key, entry in self.decision.entries.items() if entry.state is State.LAST}
        assert self.decision.entries.keys() - kept == {(DEFAULT_SERVICE, name) for name in self.before.files} - kept
        assert self.decision.servers == tuple(
            entry.server for entry in self.decision.entries.values() if entry.server is not None
        )

    @invariant()
    def repeats_itself(self) -> None:
        """Decide the same again."""
        assert decide(self.before) == self.decision

    @invariant()
    def takes_every_fit_member(self) -> None:
        """Find a server for each living, fit member that is not damped."""
        for name, file in self.before.files.items():
            if file.status != ALIVE or dict(file.member.tag_values()) not in (
                {"role": "web"},
                {"role": "web", "weight": "7"},
            ):
                continue
            if self.rules == GOOD:
                entry = self.decision.entries[DEFAULT_SERVICE, name]
                assert entry.state in (State.SERVING, State.DAMPED, State.LAST)
                assert (entry.server is None) == (entry.state is State.DAMPED)

    @rule()
    def settle(self) -> None:
        """With unchanged health and members, passes come to rest within a few rounds."""
        saved = self.haproxy, self.decision, self.before, self.now_ns
        seen = []
        for _ in range(6):
            self.haproxy = {key: Seen(one.server, one.is_up) for key, one in self.haproxy.items()}
            self.check()
            self.run()
            seen.append(self.decision.servers)
        assert seen[-1] == seen[-2] == seen[-3], seen
        self.haproxy, self.decision, self.before, self.now_ns = saved


TestCluster = Cluster.TestCase
TestCluster.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
