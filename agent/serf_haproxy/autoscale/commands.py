"""Executors that run programs: those of the operator, and systemctl. No shell reads their arguments."""

from collections.abc import Mapping, Sequence

from serf_haproxy.autoscale.executor import ExecutorFault, find_number, is_slot
from serf_haproxy.errors import SystemFault
from serf_haproxy.serf.printing import printable
from serf_haproxy.services.scaling import PLACE, SLOT, Scale
from serf_haproxy.system.processes import OUTPUT_BYTES, run

_SHOWN = 200
_LIST_S = 10.0
_RUNS = ("active", "activating", "reloading")  # states of a unit; one that fails or stops is no server


class Commands:
    """The executor `command`: programs of the operator.

    Args:
        scale: How the service scales.
    """

    def __init__(self, scale: Scale) -> None:
        self._scale = scale

    def list_filled(self) -> Mapping[str, bool]:
        """Return the slots that the operator's program prints, one on each line; other lines are left out."""
        said = _run(self._scale.list, min(_LIST_S, self._scale.act_limit_s))
        if len(said.encode()) >= OUTPUT_BYTES:  # what is cut off would count as slots without a server
            program = printable(self._scale.list[0], _SHOWN)
            raise ExecutorFault(f"{program} prints more than {OUTPUT_BYTES} bytes, so what runs is not known")
        return {name: True for name in map(str.strip, said.splitlines()) if is_slot(self._scale, name)}

    def start(self, slot: str) -> None:
        """Run the operator's program that starts a server."""
        _run(self._fill_in(self._scale.start, slot), self._scale.act_limit_s)

    def stop(self, slot: str) -> None:
        """Run the operator's program that stops a server."""
        _run(self._fill_in(self._scale.stop, slot), self._scale.act_limit_s)

    def _fill_in(self, argv: Sequence[str], slot: str) -> list[str]:
        number = find_number(self._scale, slot)
        return [word.replace(SLOT, slot).replace(PLACE, number) for word in argv]


class Units:
    """The executor `systemd`: instances of a template unit on this host, such as app@1.service.

    Args:
        scale: How the service scales.
    """

    def __init__(self, scale: Scale) -> None:
        self._scale = scale

    def list_filled(self) -> Mapping[str, bool]:
        """Return the slots whose units are loaded, and whether each runs."""
        options = ("--all", "--plain", "--no-legend", "--no-pager", "--full")
        said = self._systemctl(
            min(_LIST_S, self._scale.act_limit_s), "list-units", *options, f"{self._scale.unit}*.service"
        )
        rows = [line.split() for line in said.splitlines()]
        found = {}
        for unit, _, active, *_ in (row for row in rows if len(row) >= 4):
            number = unit.removeprefix(self._scale.unit).removesuffix(".service")
            if active != "inactive" and is_slot(self._scale, slot := f"{self._scale.slots}{number}"):
                found[slot] = active in _RUNS
        return found

    def start(self, slot: str) -> None:
        """Start the unit of a slot."""
        self._systemctl(self._scale.act_limit_s, "start", self._name(slot))

    def stop(self, slot: str) -> None:
        """Stop the unit of a slot, and forget that it failed."""
        self._systemctl(self._scale.act_limit_s, "stop", self._name(slot))
        self._systemctl(_LIST_S, "reset-failed", f"{self._scale.unit}{find_number(self._scale, slot)}*.service")

    def _name(self, slot: str) -> str:
        return f"{self._scale.unit}{find_number(self._scale, slot)}.service"

    def _systemctl(self, limit_s: float, *words: str) -> str:
        return _run(("systemctl", "--no-ask-password", *words), limit_s)


def _run(argv: Sequence[str], limit_s: float) -> str:
    try:
        completed = run(argv, limit_s)
    except SystemFault as error:
        raise ExecutorFault(str(error)) from error
    if completed.status:
        last = next((line for line in reversed(completed.output.splitlines()) if line.strip()), "it says nothing")
        said = printable(last.strip(), _SHOWN)
        raise ExecutorFault(f"{printable(' '.join(argv), _SHOWN)} ended with {completed.status}: {said}")
    return completed.output
