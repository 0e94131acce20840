"""The executors `docker` and `compose`: each server is a container, a copy of a template.

A copy has the template's image, environment, limits, volumes and networks. Its name is that of the slot, and so is its
host name, by which its Serf agent calls its node. It publishes no port. Labels tell which containers are ours: no
other one is ever started, stopped or removed.
"""

import datetime
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from serf_haproxy.autoscale.engine import ABSENT, CONFLICT, UNCHANGED, Engine
from serf_haproxy.autoscale.executor import ExecutorFault, find_number, is_slot
from serf_haproxy.serf.printing import printable
from serf_haproxy.services.scaling import COMPOSE, Scale

SERVICE_LABEL, SLOT_LABEL = "serf-haproxy.service", "serf-haproxy.slot"
_PROJECT, _COMPOSE_SERVICE, _PLACE = (
    f"com.docker.compose.{name}" for name in ("project", "service", "container-number")
)
_FIRST_PLACE = 1000  # containers that Compose itself starts have lower numbers
_RUNS = ("running", "restarting")
_CREATED = "created"  # it has not been started yet: another controller may be about to
_ASK_S = 10.0
_STOP_S = 10  # an engine gives a container so long where it says nothing
_DROPPED = ("MacAddress", "Domainname")  # what two containers cannot both have, or what belongs to a host name

Inspected = Mapping[str, Any]


class Containers:
    """An executor with containers.

    Args:
        service: The service.
        scale: How it scales.
    """

    def __init__(self, service: str, scale: Scale) -> None:
        self._service, self._scale = service, scale
        self._engine = Engine(scale.socket)
        is_compose = scale.executor == COMPOSE
        self._find_template: Callable[[], Inspected] = self._find_composed if is_compose else self._find_named

    def list_filled(self) -> Mapping[str, bool]:
        """Return the slots that have a container, and whether it runs or is about to."""
        found = {}
        for one in self._list_labelled(f"{SERVICE_LABEL}={self._service}"):
            slot = one["Labels"].get(SLOT_LABEL, "")
            if is_slot(self._scale, slot):
                found[slot] = one.get("State") in (*_RUNS, _CREATED)
        return found

    def start(self, slot: str) -> None:
        """Make the container of a slot from the template and start it; one of ours that has ended goes first."""
        found = self._inspect(slot)
        if found is not None:
            self._refuse_foreign(found, slot)
            if found["State"].get("Status") in _RUNS or self._is_being_made(found):
                return
            self._remove(found["Id"])
        template = self._find_template()
        body, networks = copy(template, self._label(template, slot), slot)
        answer = self._engine.ask("POST", ("containers", "create"), self._scale.act_limit_s, {"name": slot}, body)
        self._engine.expect(answer, f"create {slot}", CONFLICT)
        if answer.status == CONFLICT:  # another controller was faster
            if (found := self._inspect(slot)) is not None:  # None: it is just being made
                self._refuse_foreign(found, slot)
            return
        number = answer.content["Id"]
        try:
            for network, endpoint in networks.items():
                joined = {"Container": number, "EndpointConfig": endpoint}
                answer = self._engine.ask("POST", ("networks", network, "connect"), _ASK_S, body=joined)
                self._engine.expect(answer, f"connect {slot} with the network {network}")
            answer = self._engine.ask("POST", ("containers", number, "start"), self._scale.act_limit_s)
            self._engine.expect(answer, f"start {slot}", UNCHANGED)
        except ExecutorFault:
            self._remove(number)
            raise

    def stop(self, slot: str) -> None:
        """Let the engine stop the container of a slot, with the time that the container asks for, and remove it."""
        found = self._inspect(slot)
        if found is None:
            return
        self._refuse_foreign(found, slot)
        limit_s = float(found["Config"].get("StopTimeout") or _STOP_S) + self._scale.act_limit_s
        answer = self._engine.ask("POST", ("containers", found["Id"], "stop"), limit_s)
        self._engine.expect(answer, f"stop {slot}", UNCHANGED, ABSENT)
        self._remove(found["Id"])

    def _is_being_made(self, found: Inspected) -> bool:
        """Return whether another controller may just be making a container: it is not for longer than a start takes."""
        created_s = datetime.datetime.fromisoformat(found["Created"]).timestamp()
        return found["State"].get("Status") == _CREATED and time.time() - created_s < self._scale.act_limit_s

    def _remove(self, number: str) -> None:
        answer = self._engine.ask(
            "DELETE", ("containers", number), self._scale.act_limit_s, {"force": "true", "v": "true"}
        )
        self._engine.expect(answer, f"remove {number[:12]}", ABSENT, CONFLICT)  # CONFLICT: it is being removed

    def _inspect(self, name: str) -> Inspected | None:
        answer = self._engine.ask("GET", ("containers", name, "json"), _ASK_S)
        if answer.status == ABSENT:
            return None
        return self._engine.expect_container(answer, name)

    def _list_labelled(self, *labels: str) -> list[dict[str, Any]]:
        query = {"all": "true", "filters": json.dumps({"label": list(labels)})}
        answer = self._engine.ask("GET", ("containers", "json"), _ASK_S, query)
        listed = self._engine.expect_list(answer, "list containers")
        return [one for one in listed if isinstance(one.get("Labels"), dict)]

    def _refuse_foreign(self, found: Inspected, slot: str) -> None:
        labels = (found.get("Config") or {}).get("Labels") or {}
        if (labels.get(SERVICE_LABEL), labels.get(SLOT_LABEL)) != (self._service, slot):
            remedy = f"rename it, or name other slots for the service {self._service}"
            raise ExecutorFault(f"there is a container {slot} that was not made for this slot; {remedy}")

    def _find_named(self) -> Inspected:
        found = self._inspect(self._scale.template)
        if found is None:
            remedy = f"make it with 'docker create --name {self._scale.template} ...'"
            raise ExecutorFault(f"there is no container {self._scale.template} to copy; {remedy}")
        return found

    def _find_composed(self) -> Inspected:
        project, name = self._scale.project, self._scale.container
        listed = self._list_labelled(f"{_PROJECT}={project}", f"{_COMPOSE_SERVICE}={name}")
        own = [one for one in listed if SLOT_LABEL not in one["Labels"]]
        for one in sorted(own, key=lambda each: (str(each["Labels"].get(_PLACE)), each["Id"])):
            if (found := self._inspect(one["Id"])) is not None:
                return found
        remedy = f"start one with 'docker compose -p {project} up -d {name}'"
        raise ExecutorFault(f"the project {project} has no container of its service {name} to copy; {remedy}")

    def _label(self, template: Inspected, slot: str) -> dict[str, str]:
        labels = dict(template["Config"].get("Labels") or {}) | {SERVICE_LABEL: self._service, SLOT_LABEL: slot}
        if _PLACE in labels:
            labels[_PLACE] = str(_FIRST_PLACE + int(find_number(self._scale, slot)))
        return labels


def copy(template: Inspected, labels: Mapping[str, str], slot: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what makes a copy of a container, and the networks that the copy joins afterwards, by name.

    Args:
        template: The container, as the engine shows it.
        labels: The labels of the copy.
        slot: Its name.

    Raises:
        ExecutorFault: The template shares the network of its host or of another container.
    """
    config, host = dict(template["Config"]), dict(template["HostConfig"])
    mode = str(host.get("NetworkMode") or "default")
    if mode == "host" or mode.startswith(("container:", "ns:")):
        said = f"the container to copy has the network {printable(mode, 80)}, where all copies have the same ports"
        raise ExecutorFault(f"{said}; give it a network of its own")
    config |= {"Hostname": slot, "Image": template["Image"], "Labels": dict(labels)}
    for name in _DROPPED:
        config.pop(name, None)
    host |= {"PortBindings": {}, "PublishAllPorts": False, "ContainerIDFile": "", "Links": None, "AutoRemove": False}
    own = {template["Id"][:12], template["Config"].get("Hostname"), template["Name"].removeprefix("/")}
    networks = {
        name: {"Aliases": [alias for alias in endpoint.get("Aliases") or [] if alias not in own]}
        for name, endpoint in (template["NetworkSettings"].get("Networks") or {}).items()
        if name not in ("none", "bridge")
    }
    first = mode if mode in networks else next(iter(networks), None)
    ends = {} if first is None else {first: networks.pop(first)}
    if first is not None:
        host["NetworkMode"] = first
    return config | {"HostConfig": host, "NetworkingConfig": {"EndpointsConfig": ends}}, networks
