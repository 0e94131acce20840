"""Executors: what starts and stops servers. Each fills and empties slots, which have names, and may do so twice."""

from collections.abc import Mapping
from typing import Protocol

from serf_haproxy.errors import SystemFault
from serf_haproxy.services.scaling import Scale


class ExecutorFault(SystemFault):
    """An executor did not do what it was told; the text says what it said. It may work the next time."""


class Executor(Protocol):
    """What fills and empties the slots of one service; any method may raise `ExecutorFault`.

    Methods may be called from several threads, and wait no longer than `act_limit_s` of the service.
    """

    def list_filled(self) -> Mapping[str, bool]:
        """Return the slots that are filled in any way, and whether what is in each runs."""

    def start(self, slot: str) -> None:
        """Start a server in a slot; nothing happens where one runs."""

    def stop(self, slot: str) -> None:
        """Let the server in a slot leave, finish and end; nothing happens where there is none."""


def list_slots(scale: Scale) -> list[str]:
    """Return the names of all slots of a service, the first ones to be filled first."""
    return [f"{scale.slots}{number}" for number in range(1, scale.max + 1)]


def is_slot(scale: Scale, name: str) -> bool:
    """Return whether a name is one that a slot of the service has, or had when `max` was greater."""
    number = name.removeprefix(scale.slots)
    return name.startswith(scale.slots) and number.isascii() and number.isdecimal() and not number.startswith("0")


def find_number(scale: Scale, slot: str) -> str:
    """Return the number of a slot."""
    return slot.removeprefix(scale.slots)
