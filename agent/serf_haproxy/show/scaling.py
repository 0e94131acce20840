"""What the autoscaler says of a service or of one of its slots, in one line."""

from collections.abc import Mapping
from typing import Any

from serf_haproxy.control.scaled import SILENT_S, Scaled
from serf_haproxy.show.words import format_span


def format_scaling(name: str, one: Mapping[str, Any]) -> str:
    """Return how a service scales now, and why.

    Args:
        name: The service.
        one: What the autoscaler says, as JSON has it.
    """
    if one["age_s"] > SILENT_S:
        return f"service {name} scales: its autoscaler has said nothing for {format_span(one['age_s'])}"
    floor = f", {one['floor']} at this time" if one["floor"] != one["min"] else ""
    limits = f"{one['have']} of {one['min']} to {one['max']} servers{floor}, {one['wanted']} wanted"
    moving = [f"{count} {state}" for state, count in one["slot_counts"].items() if count and state != "serving"]
    moving = [f" ({', '.join(moving)})"] if moving else []
    demand = f"{one['demand']} requests at once, {one['capacity']:g} for each server"
    return f"service {name} scales: {limits}{''.join(moving)}; {demand}: {_tell_why(one)}"


def find_slot(scaled: Mapping[str, Scaled], service: str, name: str) -> dict[str, Any] | None:
    """Return what the autoscaler says of a slot; None where no server of this name is one.

    Args:
        scaled: What it says of all services.
        service: The service; "" for any.
        name: The slot's name, which is that of its node.
    """
    for each, one in scaled.items():
        if service in ("", each) and name in one.slots:
            told = {"is_deciding": one.is_deciding, "why": one.why, "reason": one.reason}
            return {"service": each, "state": one.slots[name], "have": one.have, "wanted": one.wanted, **told}
    return None


def format_slot(slot: Mapping[str, Any]) -> str:
    """Return what the autoscaler says of a slot, as `find_slot` found it."""
    return f"{slot['state']}; {slot['have']} in service or starting, {slot['wanted']} wanted: {_tell_why(slot)}"


def _tell_why(one: Mapping[str, Any]) -> str:
    if one["is_deciding"]:
        return str(one["reason"])
    return one["why"] or "another balancer decides"
