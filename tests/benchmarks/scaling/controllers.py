"""The laws under study: ours, and those of HPA and Knative as their documentation describes them.

- HPA: https://kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/
- Knative: https://knative.dev/docs/serving/autoscaling/kpa-specific/ and the settings of its `config-autoscaler`
"""

import math
from collections import deque

from scaling.service import Servers, Shape
from serf_haproxy.autoscale.amount import Sight, judge
from serf_haproxy.autoscale.law import look
from serf_haproxy.autoscale.reading import Memory, Reading
from serf_haproxy.autoscale.scaling import Scaling
from serf_haproxy.autoscale.slots import Tally


class Ours:
    """The law of this project, in its defaults: `judge`, which counts servers; `choose` says which ones they are."""

    name = "serf-haproxy"

    def __init__(self, shape: Shape, **rules: float) -> None:
        self.scaling = Scaling(shape.least, shape.most, shape.maxconn, shape.target, **rules)  # type: ignore[arg-type]
        self.memory = Memory()
        self.shape = shape
        self.starting_s: list[float] = []

    def decide(self, now_s: float, demand: int, servers: Servers) -> tuple[int, int, int]:
        """Return what `Controller.decide` says."""
        self.starting_s = self.starting_s[len(self.starting_s) - servers.starting :]  # the first ones have joined
        starting_s = tuple(self.starting_s)
        tally = Tally(servers.serving, servers.starting, servers.draining, sum(servers), starting_s=starting_s)
        reading = Reading(now_s, demand, work_s=self.shape.service_s, start_s=self.shape.start_s)
        self.memory = look(self.scaling, reading, tally, self.memory)
        verdict = judge(Sight(self.scaling, reading, tally, self.memory))
        if verdict.more < 0:
            return 0, 0, -verdict.more
        self.starting_s += [now_s] * verdict.startable
        return min(verdict.more, servers.draining), verdict.startable, 0


class Average:
    """The mean of a demand over the last seconds."""

    def __init__(self, count: int) -> None:
        self.values: deque[int] = deque(maxlen=count)
        self.sum = 0

    def add(self, value: int) -> None:
        """Add the demand of a step."""
        if len(self.values) == self.values.maxlen:
            self.sum -= self.values[0]
        self.values.append(value)
        self.sum += value

    @property
    def mean(self) -> float:
        """The mean of what has been added."""
        return self.sum / len(self.values)


class Knative:
    """Knative's autoscaler: means over 60 s, and over 6 s in a panic, looked at every 2 s."""

    name = "Knative"
    ends_starts = True  # Kubernetes ends pods that are not ready first

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.stable, self.panic = (Average(round(span_s / shape.step_s)) for span_s in (60, 6))
        self.every = max(1, round(2 / shape.step_s))
        self.step = 0
        self.panic_s: float | None = None
        self.panic_pods = 0

    def decide(self, now_s: float, demand: int, servers: Servers) -> tuple[int, int, int]:
        """Return what `Controller.decide` says."""
        self.stable.add(demand)
        self.panic.add(demand)
        self.step += 1
        if self.step % self.every:
            return 0, 0, 0
        ready = max(1, servers.serving)
        most, least = math.ceil(1000 * ready), ready // 2
        stable = min(most, max(least, math.ceil(self.stable.mean / self.shape.capacity)))
        panic = min(most, max(least, math.ceil(self.panic.mean / self.shape.capacity)))
        if panic >= 2 * ready:
            if self.panic_s is None:
                self.panic_pods = 0
            self.panic_s = now_s
        elif self.panic_s is not None and now_s > self.panic_s + 60:
            self.panic_s = None
        wanted = stable
        if self.panic_s is not None:
            self.panic_pods = max(self.panic_pods, stable, panic, servers.serving)
            wanted = self.panic_pods
        return _move(self.shape, servers, wanted)


class HPA:
    """Kubernetes' autoscaler: a mean over 15 s, looked at every 15 s, with the behaviour that it has by default."""

    name = "HPA"
    ends_starts = True

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.every = max(1, round(15 / shape.step_s))
        self.demand = Average(self.every)
        self.proposals: deque[int] = deque(maxlen=20)  # of 300 s
        self.step = 0

    def decide(self, now_s: float, demand: int, servers: Servers) -> tuple[int, int, int]:  # noqa: ARG002
        """Return what `Controller.decide` says."""
        self.demand.add(demand)
        self.step += 1
        if self.step % self.every:
            return 0, 0, 0
        have = servers.serving + servers.starting
        ratio = self.demand.mean / self.shape.capacity / max(1, have)
        proposal = have if abs(ratio - 1) <= 0.1 else math.ceil(self.demand.mean / self.shape.capacity)
        self.proposals.append(proposal)
        wanted = min(proposal, max(2 * have, have + 4)) if proposal > have else min(have, max(self.proposals))
        return _move(self.shape, servers, wanted)


def _move(shape: Shape, servers: Servers, wanted: int) -> tuple[int, int, int]:
    """Return the change to so many servers; Kubernetes never takes an ending pod back."""
    wanted = min(shape.most, max(shape.least, wanted))
    more = wanted - servers.serving - servers.starting
    return 0, max(0, more), max(0, -more)
