"""The executor of operators' own programs."""

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from serf_haproxy.autoscale.commands import Commands, Units
from serf_haproxy.autoscale.executor import ExecutorFault, is_slot, list_slots
from serf_haproxy.services.scaling import Scale


def make(directory: Path, **keys: object) -> Commands:
    """Return an executor whose slots are files of a directory."""
    directory.mkdir(exist_ok=True)
    words: dict[str, object] = {
        "executor": "command",
        "max": 3,
        "slots": "web-",
        "start": ("touch", f"{directory}/{{slot}}"),
        "stop": ("rm", "-f", f"{directory}/{{slot}}"),
        "list": ("ls", str(directory)),
    }
    return Commands(Scale(**(words | keys)))  # type: ignore[arg-type]


def test_slots_have_names_with_numbers() -> None:
    """The names of slots are the beginning and the numbers from 1 to max; a greater number is a slot that was."""
    scale = Scale(max=3, slots="web-")
    assert list_slots(scale) == ["web-1", "web-2", "web-3"]
    names = ["web-1", "web-17", "web-", "web-01", "web-0", "web-x", "web-1x", "other-1", "web-²"]
    assert [name for name in names if is_slot(scale, name)] == ["web-1", "web-17"]


def test_starting_and_stopping_twice_is_once(tmp_path: Path) -> None:
    """Each may be repeated, and the list shows the slots alone."""
    executor = make(tmp_path / "slots")
    (tmp_path / "slots" / "README").touch()
    for _ in range(2):
        executor.start("web-2")
        assert executor.list_filled() == {"web-2": True}
    for _ in range(2):
        executor.stop("web-2")
        assert executor.list_filled() == {}


def test_no_shell_reads_an_argument(tmp_path: Path) -> None:
    """Arguments reach the program as they are, and a placeholder may stand anywhere in one."""
    executor = make(tmp_path, start=("touch", f"{tmp_path}/$(id); {{number}} *{{slot}}"))
    executor.start("web-3")
    assert os.listdir(tmp_path) == ["$(id); 3 *web-3"]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("sh", "-c", "echo first; echo 'no room \033[31m' >&2; exit 3", "{slot}"), r"ended with 3: no room \\x1b"),
        (("false", "{slot}"), "false web-1 ended with 1: it says nothing"),
        (("/nonexistent/program", "{slot}"), "cannot start /nonexistent/program"),
    ],
)
def test_a_failure_is_told(tmp_path: Path, argv: tuple[str, ...], said: str) -> None:
    """A program that fails or is missing is named with its last line, of which no control character is left."""
    with pytest.raises(ExecutorFault, match=said):
        make(tmp_path, start=argv).start("web-1")


def test_a_program_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    """After the limit the whole session of a program is killed."""
    script = f"sleep 1000 & echo $! >{tmp_path}/pid; wait"
    executor = make(tmp_path, start=("sh", "-c", script, "{slot}"), act_limit_s=1)
    with pytest.raises(ExecutorFault, match="gave no result in 1 s and was killed"):
        executor.start("web-1")
    pid = int((tmp_path / "pid").read_text())
    deadline_s = time.monotonic() + 20
    while is_running(pid):
        if time.monotonic() > deadline_s:
            os.kill(pid, signal.SIGKILL)
            pytest.fail("the child outlives the program")
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    """Return whether a process exists, and is no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_endless_output_is_bounded(tmp_path: Path) -> None:
    """A list without an end is given up at its time limit, and one of which a part would be missing is none."""
    with pytest.raises(ExecutorFault, match="no result in 1 s"):
        make(tmp_path, list=("yes", "web-1"), act_limit_s=1).list_filled()
    script = "echo web-1; head -c {} /dev/zero; echo; echo web-2"
    assert make(tmp_path, list=("sh", "-c", script.format(1000000))).list_filled() == {"web-1": True, "web-2": True}
    for size_bytes in (1048565, 3000000, 100000000):  # the first one cuts off a part of a name
        with pytest.raises(ExecutorFault, match="sh prints more than 1048576 bytes, so what runs is not known"):
            make(tmp_path, list=("sh", "-c", script.format(size_bytes))).list_filled()


def test_systemctl_without_systemd_is_told() -> None:
    """Where systemd does not run, or systemctl is missing, the fault says so."""
    if Path("/run/systemd/system").exists():
        pytest.skip("systemd runs here")
    with pytest.raises(ExecutorFault, match="systemctl"):
        Units(Scale(executor="systemd", max=3, slots="app-", unit="app@")).list_filled()
