"""The executors docker and compose, with a real engine and its real API."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import workers
from containers.engine import Engine
from serf_haproxy.autoscale.containers import SERVICE_LABEL, SLOT_LABEL, Containers
from serf_haproxy.autoscale.executor import ExecutorFault
from serf_haproxy.services.scaling import Scale

# Workers of the tests share the engine.
SEA = f"sea{workers.NUMBER}-"
SLOT, OTHER = f"{SEA}1", f"{SEA}2"


@pytest.fixture
def socket_path(engine: Engine) -> str:
    """Return the socket of the engine."""
    return engine.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")


@pytest.fixture
def networks(engine: Engine) -> Iterator[tuple[str, str]]:
    """Yield two networks."""
    names = (f"{SEA}inner", f"{SEA}outer")
    try:
        for name in names:
            engine("network", "create", f"--label={engine.label}", name)
        yield names
    finally:
        engine.remove_all()


@pytest.fixture
def executor(engine: Engine, networks: tuple[str, str], socket_path: str) -> Iterator[Containers]:
    """Yield an executor whose template is a container that has never run."""
    inner, outer = networks
    words = ["create", f"--name={SEA}template", f"--label={engine.label}", f"--network={inner}", "--network-alias=crew"]
    words += ["--publish=127.0.0.1::80", "--env=SECRET=known", "--read-only", "--memory=64m", "--stop-timeout=7"]
    engine(*words, "--label=kind=boat", "--entrypoint=sleep", "serf-haproxy-test/webapp", "1000")
    engine("network", "connect", "--alias=deck", outer, f"{SEA}template")
    scale = Scale(executor="docker", max=3, slots=SEA, template=f"{SEA}template", socket=socket_path)
    yield Containers(SEA[:-1], scale)
    for slot in (SLOT, OTHER):
        engine("rm", "--force", "--volumes", slot, is_checked=False)


def inspect(engine: Engine, name: str) -> dict[str, Any]:
    """Return what the engine says of a container."""
    found: dict[str, Any] = json.loads(engine("inspect", name))[0]
    return found


def test_a_server_is_a_copy_of_the_template(engine: Engine, executor: Containers, networks: tuple[str, str]) -> None:
    """A copy has image, environment, limits and networks of the template; its name is the slot, and it has no port."""
    assert executor.list_filled() == {}
    executor.start(SLOT)
    copy, template = inspect(engine, SLOT), inspect(engine, f"{SEA}template")
    assert copy["State"]["Running"]
    assert (copy["Config"]["Hostname"], copy["Image"]) == (SLOT, template["Image"])
    assert "SECRET=known" in copy["Config"]["Env"]
    assert copy["Config"]["Labels"]["kind"] == "boat"
    assert (copy["HostConfig"]["ReadonlyRootfs"], copy["HostConfig"]["Memory"]) == (True, 64 * 2**20)
    assert (copy["Config"]["StopTimeout"], copy["HostConfig"]["PortBindings"] or {}) == (7, {})
    joined = copy["NetworkSettings"]["Networks"]
    assert set(joined) == set(networks)
    assert "crew" in joined[networks[0]]["Aliases"]
    assert "deck" in joined[networks[1]]["Aliases"]
    assert template["Id"][:12] not in joined[networks[0]]["Aliases"]
    assert executor.list_filled() == {SLOT: True}


def test_starting_and_stopping_twice_is_once(engine: Engine, executor: Containers) -> None:
    """Each may be repeated; a container that has ended is listed, and gives way to a new one."""
    executor.start(SLOT)
    first = inspect(engine, SLOT)["Id"]
    executor.start(SLOT)
    assert inspect(engine, SLOT)["Id"] == first
    engine("kill", SLOT)
    engine("wait", SLOT)
    assert executor.list_filled() == {SLOT: False}
    executor.start(SLOT)
    assert inspect(engine, SLOT)["Id"] != first
    executor.start(OTHER)
    for _ in range(2):
        executor.stop(SLOT)
        assert executor.list_filled() == {OTHER: True}


def test_no_other_container_is_touched(engine: Engine, executor: Containers) -> None:
    """A container with the name of a slot that has not our labels is neither started, stopped nor removed."""
    words = ("create", f"--name={SLOT}", f"--label={engine.label}", "--entrypoint=sleep", "serf-haproxy-test/webapp")
    number = engine(*words, "1000").strip()
    assert executor.list_filled() == {}
    for act in (executor.start, executor.stop):
        with pytest.raises(ExecutorFault, match=f"a container {SLOT} that was not made for this slot; rename it"):
            act(SLOT)
    found = inspect(engine, SLOT)
    assert (found["Id"], found["State"]["Status"]) == (number, "created")
    engine("rm", SLOT)


def test_a_start_that_fails_leaves_nothing(engine: Engine, executor: Containers, socket_path: str) -> None:
    """A copy that cannot start is removed, and the fault has the engine's words."""
    words = ("create", f"--name={SEA}broken", f"--label={engine.label}", "--entrypoint=/nonexistent")
    engine(*words, "serf-haproxy-test/webapp")
    scale = Scale(executor="docker", max=3, slots=SEA, template=f"{SEA}broken", socket=socket_path)
    with pytest.raises(ExecutorFault, match=f"cannot start {SLOT}: 400, .*/nonexistent"):
        Containers(SEA[:-1], scale).start(SLOT)
    assert executor.list_filled() == {}
    missing = Containers(SEA[:-1], Scale(max=3, slots=SEA, template=f"{SEA}none", socket=socket_path))
    with pytest.raises(
        ExecutorFault, match=f"no container {SEA}none to copy; make it with 'docker create --name {SEA}none"
    ):
        missing.start(SLOT)


def test_two_controllers_start_one_container(engine: Engine, executor: Containers) -> None:
    """Of two that start the same slot at the same moment both succeed, and one container runs."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as threads:
        for future in [threads.submit(executor.start, SLOT) for _ in range(4)]:
            future.result(60)
    deadline_s = time.monotonic() + 30
    while executor.list_filled() != {SLOT: True}:
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    assert len(engine("ps", "--all", "--quiet", f"--filter=label={SLOT_LABEL}={SLOT}").split()) == 1


def test_what_another_controller_is_just_making_is_left_alone(
    engine: Engine, executor: Containers, socket_path: str
) -> None:
    """Between its creation and its start a container counts as one that starts; one that stays so is made anew."""
    words = [f"--label={SERVICE_LABEL}={SEA[:-1]}", f"--label={SLOT_LABEL}={SLOT}", f"--label={engine.label}"]
    number = engine(
        "create", f"--name={SLOT}", *words, "--entrypoint=sleep", "serf-haproxy-test/webapp", "1000"
    ).strip()
    assert executor.list_filled() == {SLOT: True}
    executor.start(SLOT)
    assert inspect(engine, SLOT)["Id"] == number
    time.sleep(20)
    Containers(SEA[:-1], Scale(max=3, slots=SEA, template=f"{SEA}template", socket=socket_path, act_limit_s=20)).start(
        SLOT
    )
    assert engine("ps", "--all", "--quiet", "--no-trunc", f"--filter=id={number}") == ""


def test_a_template_on_the_hosts_network_is_refused(engine: Engine, executor: Containers, socket_path: str) -> None:
    """Copies in one network would all have the same ports."""
    words = ("create", f"--name={SEA}host", f"--label={engine.label}", "--network=host", "--entrypoint=sleep")
    engine(*words, "serf-haproxy-test/webapp", "1")
    scale = Scale(executor="docker", max=3, slots=SEA, template=f"{SEA}host", socket=socket_path)
    with pytest.raises(ExecutorFault, match="has the network host, where all copies have the same ports"):
        Containers(SEA[:-1], scale).start(SLOT)
    assert executor.list_filled() == {}


def test_an_engine_that_is_away_is_told(tmp_path: Path) -> None:
    """A missing socket, and one on which no answer comes, are faults that name it."""
    import socket

    scale = Scale(executor="docker", max=3, slots=SEA, template="t", socket=f"{tmp_path}/none")
    with pytest.raises(ExecutorFault, match=f"no answer of the engine at {tmp_path}/none: No such file"):
        Containers(SEA[:-1], scale).list_filled()
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(f"{tmp_path}/s")
        silent.listen()
        from serf_haproxy.autoscale.engine import Engine as Api

        with pytest.raises(ExecutorFault, match="gave no answer in 0.2 s"):
            Api(f"{tmp_path}/s").ask("GET", ("containers", "json"), 0.2)


def test_a_project_of_compose_lends_its_container(engine: Engine, networks: tuple[str, str], socket_path: str) -> None:
    """A copy belongs to the project and service of the container that Compose has made, with a number of its own."""
    labels = {"project": "fleet", "service": "boat", "container-number": "1", "oneoff": "False"}
    words = [f"--label=com.docker.compose.{key}={value}" for key, value in labels.items()]
    words += [f"--label={engine.label}", f"--network={networks[0]}", "--entrypoint=sleep"]
    engine("create", "--name=fleet_boat_1", *words, "serf-haproxy-test/webapp", "1000")
    scale = Scale(executor="compose", max=3, slots=SEA, project="fleet", container="boat", socket=socket_path)
    executor = Containers(SEA[:-1], scale)
    try:
        executor.start(SLOT)
        executor.start(OTHER)
        copied = inspect(engine, SLOT)["Config"]["Labels"]
        assert {key: copied[f"com.docker.compose.{key}"] for key in labels} == labels | {"container-number": "1001"}
        assert executor.list_filled() == {SLOT: True, OTHER: True}
    finally:
        executor.stop(SLOT)
        executor.stop(OTHER)
    engine("rm", "--force", "fleet_boat_1")
    with pytest.raises(
        ExecutorFault, match="the project fleet has no container of its service boat to copy; start one"
    ):
        executor.start(SLOT)
