"""Random faults for a lab: faults of a balancer and its nodes, and which nodes are alive afterwards.

Each fault returns a description of what it did, or an empty text when it was not possible.
"""

# More than 250 lines: a flat list of twenty small faults is easiest to read in one place.

import collections
import contextlib
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import requests

import probe
from integration.cluster import Cluster
from integration.proxy import wait_for
from serf_haproxy.errors import SystemFault
from serf_haproxy.lab.balancer import DAEMON, SERVICES

LOST_MOST = 2  # of five nodes, so that all requests can be answered
PAUSE_S = (0.1, 1.5)
STOP_S = (0.1, 2.0)
AWAY_AFTER_S = 1.0  # a client may report a failure a little later
_BACK_S = 60.0
_SAMPLE_S = 0.2
GARBAGE = (b"", b"\0\xff\n", b"global\n    bogus\n", b"{", b"[1, 2", b"alive\tno-node\n")


class Chaos:
    """The faults that happen to a lab.

    Attributes:
        alive: The live nodes, each with the time since when it is alive.
        done: Time and description of each fault so far.
        started_s: The time from which those times count.
        longest_missing_s: The longest time for which HAProxy did not use a live node.
        longest_missing_of: Which node that was, and when the time ended.
    """

    def __init__(self, cluster: Cluster, chance: random.Random) -> None:
        self.started_s = time.monotonic()
        self.alive = {row["name"]: self.started_s for row in cluster.lab.status()["nodes"]}
        self.lost: list[str] = []
        self.done: list[tuple[float, str]] = []
        self.longest_missing_s = 0.0
        self.longest_missing_of = ""
        self._cluster = cluster
        self._chance = chance
        self._settings = cluster.settings
        self._away_s: list[tuple[float, float]] = []
        self._faults: list[Callable[[], str]] = [
            self.kill_service,
            self.stop_service,
            self.kill_logger,
            self.kill_worker,
            self.stop_worker,
            self.lose_node,
            self.lose_node,
            self.return_node,
            self.return_node,
            self.stop_serf_agent,
            self.change_tags,
            self.spoil_live_file,
            self.spoil_state_file,
            self.spoil_node_file,
            self.remove_node_file,
            self.remove_nodes_dir,
            self.remove_fifo,
            self.remove_socket,
            self.wake_for_nothing,
        ]

    def act(self) -> None:
        """Inject one fault and wait a little."""
        at_s = time.monotonic() - self.started_s
        said = self._chance.choice(self._faults)()
        if said:
            self.done.append((at_s, said))
        time.sleep(self._chance.uniform(*PAUSE_S))

    def story(self, until_s: float | None = None) -> str:
        """Return the latest faults, or the latest ones until a time, one a line."""
        done = [fault for fault in self.done if until_s is None or fault[0] <= until_s]
        return "\n".join(f"{at_s:8.2f} s  {said}" for at_s, said in done[-60:])

    def counts(self) -> str:
        """Return how often each kind of fault was injected."""
        kinds = collections.Counter(" ".join(said.split()[:2]) for _, said in self.done)
        return ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items()))

    def was_away(self, at_s: float) -> bool:
        """Return whether HAProxy was away at this time because of an injected fault."""
        return any(start_s <= at_s <= end_s for start_s, end_s in self._away_s)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Measure, for the length of the block, how long HAProxy lacks live nodes."""
        stopping = threading.Event()

        def watch() -> None:
            missing: dict[str, float] = {}
            while not stopping.wait(_SAMPLE_S):
                views, now_s = probe.read_servers(self._settings), time.monotonic()
                for name, since_s in list(self.alive.items()):
                    if views is not None and name in views and views[name].status.startswith("UP"):
                        begun_s = missing.pop(name, now_s)
                    else:
                        begun_s = missing.setdefault(name, now_s)
                    lasted_s = now_s - max(begun_s, since_s)
                    if lasted_s > self.longest_missing_s:
                        self.longest_missing_s = lasted_s
                        self.longest_missing_of = f"{name} at {now_s - self.started_s:.1f} s"
                for name in missing.keys() - self.alive.keys():
                    del missing[name]

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield
        finally:
            stopping.set()
            watcher.join()

    def kill_service(self) -> str:
        """Kill a supervised process; s6 starts it again."""
        service = self._chance.choice(SERVICES)
        with self._away() if service == "haproxy" else contextlib.nullcontext():
            self._signal(self._cluster.pid(service), signal.SIGKILL)
            if service == "haproxy":
                self._wait_back()
        return f"kill {service}"

    def stop_service(self) -> str:
        """Stop a supervised process for a while."""
        service, for_s = self._chance.choice(SERVICES), self._chance.uniform(*STOP_S)
        self._stop_for(self._cluster.pid(service), for_s)
        return f"stop {service} for {for_s:.2f} s"

    def kill_logger(self) -> str:
        """Kill the logger of a service."""
        tree = psutil.Process(int(self._cluster.balancer()["svscan_pid"])).children(recursive=True)
        loggers = sorted(process.pid for process in tree if _is_logger(process))
        if not loggers:
            return ""
        self._signal(self._chance.choice(loggers), signal.SIGKILL)
        return "kill logger"

    def kill_worker(self) -> str:
        """Kill HAProxy's worker; the master ends with it."""
        pid = self._worker_pid()
        if not pid:
            return ""
        with self._away():
            self._signal(pid, signal.SIGKILL)
            self._wait_back()
        return "kill worker"

    def stop_worker(self) -> str:
        """Stop HAProxy's worker for a while."""
        pid, for_s = self._worker_pid(), self._chance.uniform(*STOP_S)
        if not pid:
            return ""
        self._stop_for(pid, for_s)
        return f"stop worker for {for_s:.2f} s"

    def lose_node(self) -> str:
        """Have a node crash or leave, or kill one of its two processes."""
        how = self._chance.choice(("crash", "leave", "Serf agent", "application"))
        name = self._chance.choice(sorted(self.alive))
        if len(self.lost) >= LOST_MOST:
            return ""
        del self.alive[name]
        self.lost.append(name)
        row = self._cluster.node(name)
        if how == "crash":
            self._cluster.lab.crash(name)
        elif how == "leave":
            with contextlib.suppress(SystemFault):  # not dropped in time: its application goes on
                self._cluster.lab.leave(name, wait_s=10)
        else:
            # The other process keeps running. Without its Serf agent the node serves until Serf reports it as failed;
            # without its application it stays a member, until the whole node crashes a moment later.
            self._signal(int(row["serf_pid" if how == "Serf agent" else "app_pid"]), signal.SIGKILL)
            if how == "application":
                time.sleep(self._chance.uniform(*STOP_S))
                self._cluster.lab.crash(name)
        return f"lose {how} of {name}"

    def return_node(self) -> str:
        """Start a node again at its former address."""
        if not self.lost:
            return ""
        name = self.lost.pop(self._chance.randrange(len(self.lost)))
        row = self._cluster.node(name)
        self._cluster.lab.return_(name, row["address"], wait_s=0)
        self.alive[name] = time.monotonic()
        return f"return {name}"

    def stop_serf_agent(self) -> str:
        """Stop a node's Serf agent for a while."""
        name, for_s = self._chance.choice(sorted(self.alive)), self._chance.uniform(*STOP_S)
        self._stop_for(int(self._cluster.node(name)["serf_pid"]), for_s)
        return f"pause Serf agent of {name} for {for_s:.2f} s"

    def change_tags(self) -> str:
        """Change a node's weight."""
        name, weight = self._chance.choice(sorted(self.alive)), self._chance.randint(1, 9)
        self._cluster.lab.tags(name, {"weight": str(weight)})
        return f"tag {name} weight {weight}"

    def spoil_live_file(self) -> str:
        """Write garbage into haproxy.cfg or a file beside it."""
        end = self._chance.choice(("", ".good", ".state", ".candidate"))
        return self._spoil(Path(f"{self._settings.config_path}{end}"))

    def spoil_state_file(self) -> str:
        """Write garbage into a file in which the daemon keeps its state."""
        return self._spoil(
            Path(self._settings.state_dir, self._chance.choice(("last_pass.json", "flaps.json", "known.json")))
        )

    def spoil_node_file(self) -> str:
        """Write garbage into a node file."""
        name = self._chance.choice([*sorted(self.alive), "lb1"])
        return self._spoil(Path(self._settings.nodes_dir, name))

    def remove_node_file(self) -> str:
        """Remove a node file."""
        name = self._chance.choice(sorted(self.alive))
        with contextlib.suppress(FileNotFoundError):
            Path(self._settings.nodes_dir, name).unlink()
        return f"remove file of {name}"

    def remove_nodes_dir(self) -> str:
        """Remove the node directory."""
        shutil.rmtree(self._settings.nodes_dir, ignore_errors=True)
        return "remove nodes"

    def remove_fifo(self) -> str:
        """Remove the wake FIFO."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._settings.wake_fifo)
        return "remove FIFO"

    def remove_socket(self) -> str:
        """Remove one of HAProxy's sockets."""
        path = self._chance.choice((self._settings.master_socket, self._settings.runtime_socket))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        return f"remove {os.path.basename(path)}"

    def wake_for_nothing(self) -> str:
        """Have the daemon read its settings again."""
        self._cluster.control(DAEMON, "-h")
        return "SIGHUP daemon"

    def _spoil(self, path: Path) -> str:
        garbage = self._chance.choice(GARBAGE)
        with contextlib.suppress(FileNotFoundError):  # an earlier fault may have removed the directory
            path.write_bytes(garbage)
        return f"spoil {path.name} with {garbage!r}"

    @contextlib.contextmanager
    def _away(self) -> Iterator[None]:
        started_s = time.monotonic()
        try:
            yield
        finally:
            self._away_s.append((started_s, time.monotonic() + AWAY_AFTER_S))

    def _wait_back(self) -> None:
        """Wait until the frontend of the balancer answers again, with any status."""
        url = self._cluster.balancer()["frontend_url"]

        def answers() -> bool:
            with contextlib.suppress(requests.RequestException):
                return bool(requests.get(url, timeout=1, headers={"Connection": "close"}).status_code)
            return False

        time.sleep(0.05)  # the former worker may end a moment after its master
        wait_for(answers, "HAProxy is back", _BACK_S)

    def _worker_pid(self) -> int | None:
        with contextlib.suppress(psutil.Error):
            workers = psutil.Process(self._cluster.pid("haproxy")).children()
            return max(workers, key=lambda each: each.create_time()).pid if workers else None
        return None

    def _stop_for(self, pid: int, for_s: float) -> None:
        self._signal(pid, signal.SIGSTOP)
        time.sleep(for_s)
        self._signal(pid, signal.SIGCONT)

    def _signal(self, pid: int, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            if pid > 0:
                os.kill(pid, number)


def _is_logger(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):  # it has just ended
        return process.name() == "s6-log"
    return False
