"""The services that scale, as the services file that is in force names them, each with its pilot."""

import logging
from collections.abc import Mapping
from typing import Any

from serf_haproxy.autoscale.choice import make_executor
from serf_haproxy.autoscale.hands import Hands
from serf_haproxy.autoscale.notes import read_kept
from serf_haproxy.autoscale.orders import Orders, Standing
from serf_haproxy.autoscale.pilot import Pilot
from serf_haproxy.autoscale.rules import make_rules
from serf_haproxy.control.state import State
from serf_haproxy.services.file import Source, Table, read_from
from serf_haproxy.services.service import Service
from serf_haproxy.settings import Settings

log = logging.getLogger("serf-haproxy")


class Fleet:
    """The pilots.

    Args:
        settings: The settings.
        state: The state directory, which has the tables of the services file that are in force.
        orders: The autoscaler's orders.
        notes: What the process before has left behind.

    Attributes:
        pilots: The pilots, by service.
    """

    def __init__(self, settings: Settings, state: State, orders: Orders, notes: Mapping[str, Any]) -> None:
        self._settings, self._state, self._orders = settings, state, orders
        self._notes = notes
        self._tables: Mapping[str, Table] | None = None
        self.pilots: dict[str, Pilot] = {}

    def follow(self, now_s: float) -> list[str]:
        """Take over what the services file says; return a line for each service that scales from now on, or no more.

        Raises:
            SystemFault: The state directory cannot be read.
        """
        tables = self._state.read_services()
        if tables == self._tables:
            return []
        source = Source(self._settings.services_file, self._settings, tables)
        listed = read_from(source, None, "as it is in force").listed if tables else ()
        before, self.pilots, self._tables = self.pilots, {}, tables
        lines = []
        for service in listed:
            former = before.pop(service.name, None)
            pilot = self._make(service, former, now_s)
            if pilot is None:
                lines += [f"service {service.name} scales no more"] if former else []
                continue
            self.pilots[service.name] = pilot
            if pilot is not former:
                limits = f"{pilot.rules.min} to {pilot.rules.max} servers"
                lines.append(f"service {service.name} scales: {limits} of {pilot.rules.capacity:g} requests each")
        return lines + [f"service {name} scales no more" for name in before]

    def release(self, standing: Standing) -> None:
        """Put servers back into service whose service scales no more, for example because the file has changed.

        Nothing would finish their drain, and one of them may be the last server.

        Raises:
            SystemFault: An order cannot be given.
        """
        for slot in standing.ours:
            if not any(pilot.has(slot) for pilot in self.pilots.values()):
                self._orders.undo(slot)
                log.info("%s", f"{slot} goes back into service: no service scales it any more")

    def _make(self, service: Service, former: Pilot | None, now_s: float) -> Pilot | None:
        rules = make_rules(service)
        if rules is None or service.scale is None:
            return None
        if former is not None and (former.scale, former.rules) == (service.scale, rules):
            return former
        executor = make_executor(service.name, service.scale)
        hands = Hands(executor, former.hands if former else None)
        pilot = Pilot(service.name, service.scale, rules, hands, self._orders)
        kept = read_kept(self._notes, service.name, now_s)
        pilot.slots, pilot.served, pilot.counts = kept.slots, set(kept.served), dict(kept.counts)
        pilot.start_s = kept.start_s
        if former is not None:  # other rules: what is seen stays
            pilot.memory, pilot.slots, pilot.served = former.memory, former.slots, former.served
            pilot.counts, pilot.start_s = former.counts, former.start_s
        return pilot
