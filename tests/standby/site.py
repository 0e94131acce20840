"""Two balancers with keepalived, two web applications and a client, each in a network namespace of its own.

A namespace is that of a process which waits, so it ends with it. All are joined by a bridge in the client's. Addresses
are those of 192.0.2.0/24, which is for examples: no packet leaves the namespaces.
"""

import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from integration import debian
from integration.proxy import wait_for
from serf_haproxy.haproxy.arrivals import QUESTION, read_arrivals
from serf_haproxy.haproxy.runtime import Runtime
from serf_haproxy.haproxy.socket import ask
from serf_haproxy.lab import programs

ROOT = Path(__file__).parents[2]
ADDRESS = "192.0.2.100"
CLIENT = "192.0.2.254"
WEBS = {"web1": "192.0.2.11", "web2": "192.0.2.12"}
BALANCERS = {"lb1": "192.0.2.1", "lb2": "192.0.2.2"}
EXAMPLE = ROOT / "images" / "examples" / "keepalived" / "keepalived.conf"
CHECK = "/opt/serf-haproxy/handlers/ready_for_traffic"
_STOP_S = 40.0


class Space:
    """A network namespace with one interface, eth0."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"], start_new_session=True)
        here = os.readlink("/proc/self/ns/net")
        wait_for(lambda: os.readlink(f"/proc/{self.pid}/ns/net") != here, "a network namespace")
        self.run("ip", "link", "set", "lo", "up")

    @property
    def pid(self) -> int:
        """The process whose namespace it is."""
        return self._holder.pid

    @property
    def enter(self) -> list[str]:
        """The words before those of a command that is to run inside.

        It comes before all else on this machine, since it stands for a machine of its own: with too little time the
        client itself would lose requests.
        """
        return ["nice", "-n", "-10", "nsenter", f"--net=/proc/{self.pid}/ns/net", "--"]

    def run(self, *words: str) -> str:
        """Run a command inside; return its output."""
        done = subprocess.run([*self.enter, *words], capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, f"{self.name}: {' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def plug_in(self, switch: "Space", *addresses: str) -> None:
        """Join the bridge of another namespace."""
        self.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", self.name, "netns", str(switch.pid))
        switch.run("ip", "link", "set", self.name, "master", "br0", "up")
        for address in addresses:
            self.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
        self.run("ip", "link", "set", "eth0", "up")

    def end(self) -> None:
        """End the namespace."""
        self._holder.kill()
        self._holder.wait()


class Balancer:
    """One balancer: the s6 tree with HAProxy, the daemon and Serf, and keepalived beside it."""

    def __init__(self, name: str, space: Space, directory: Path, programs_dir: Path) -> None:
        self.name, self.space, self.home, self._programs_dir = name, space, directory / name, programs_dir
        self.scan = self.home / "service"
        self.home.mkdir()
        for part in ("nodes", "state", "log"):
            (self.home / part).mkdir()
        # A copy, which a test can replace by another version.
        self.haproxy_path = Path(shutil.copy2(shutil.which("haproxy") or "haproxy", self.home / "haproxy"))
        shutil.copytree(ROOT / "s6", self.scan, ignore=shutil.ignore_patterns("supervise", "event", "rpc-key.random*"))
        home = str(self.home)
        self.environ = programs.base_environ({}) | {
            "SERF_HAPROXY_SETTINGS_FILE": os.devnull,
            "SERF_HAPROXY_NODES_DIR": f"{home}/nodes",
            "SERF_HAPROXY_WAKE_FIFO": f"{home}/wake",
            "SERF_HAPROXY_STATE_DIR": f"{home}/state",
            "SERF_HAPROXY_CONFIG_PATH": f"{home}/haproxy.cfg",
            "SERF_HAPROXY_SERVICES_FILE": f"{home}/services.toml",
            "SERF_HAPROXY_CERTIFICATE_COPIES_DIR": f"{home}/copies",
            "SERF_HAPROXY_MASTER_SOCKET": f"{home}/master.sock",
            "SERF_HAPROXY_RUNTIME_SOCKET": f"{home}/admin.sock",
            "SERF_HAPROXY_HAPROXY_BIN": f"{home}/haproxy",
            "SERF_HAPROXY_SERVICE_DIR": f"{home}/service/haproxy",
            "SERF_HAPROXY_RPC_AUTH_FILE": f"{home}/service/daemon/rpc-auth",
            "SERF_HAPROXY_BALANCER_NAME": name,
            "SERF_NODE": name,
            "SERF_BIND": f"{BALANCERS[name]}:7946",
            "SERF_JOIN": " ".join(f"{address}:7946" for address in WEBS.values()),
            "SERF_TAGS": "role=balancer",
            "SERF_HANDLER": str(ROOT / "handlers" / "member_event"),
            "SERF_ORDER_HANDLER": str(ROOT / "handlers" / "order_event"),
            "LOG_DIR": f"{home}/log",
            "HANDOVER_S": "4",
        }
        self.runtime = Runtime(f"{home}/admin.sock", f"{home}/master.sock")
        self.tree: subprocess.Popen[bytes] | None = None
        self.keepalived: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the tree."""
        for service in ("haproxy", "daemon", "serf"):
            with contextlib.suppress(FileNotFoundError):
                (self.scan / service / "supervise" / "status").unlink()
        with (self.home / "svscan.log").open("ab") as log:
            argv = [*self.space.enter, "s6-svscan", str(self.scan)]
            self.tree = subprocess.Popen(argv, env=self.environ, cwd=self.home, stdout=log, stderr=log)

    def stop(self) -> None:
        """Stop the tree gracefully, and wait until it has ended."""
        if self.tree and self.tree.poll() is None:
            self.tree.terminate()
            self.tree.wait(_STOP_S)

    def start_keepalived(self) -> None:
        """Start keepalived with the example's configuration."""
        conf = self.home / "keepalived.conf"
        text = EXAMPLE.read_text().replace(CHECK, self.make_check()).replace("router_id lb1", f"router_id {self.name}")
        # Tests run below /tmp, which all may write to, and keepalived rightly trusts no script there.
        conf.write_text(self._exchange(text.replace("    enable_script_security\n", "")))
        argv = [
            *self.space.enter,
            str(self._programs_dir / "usr/sbin/keepalived"),
            "-n",
            "-l",
            "-D",
            "-P",
            "-f",
            str(conf),
        ]
        argv += [f"--pid={self.home}/keepalived.pid", f"--vrrp_pid={self.home}/vrrp.pid"]
        with (self.home / "keepalived.log").open("ab") as log:
            environ = self.environ | find_libraries(self._programs_dir)
            self.keepalived = subprocess.Popen(argv, env=environ, stdout=log, stderr=log, start_new_session=True)

    def keep_connections(self) -> None:
        """Have connections that the other balancer still has stay with it, as the example does."""
        for line in EXAMPLE.with_name("60-serf-haproxy-address.conf").read_text().splitlines():
            name, is_setting, value = line.partition(" = ")
            if is_setting:
                self.space.run("sh", "-c", f"echo {value} > /proc/sys/{name.replace('.', '/')}")
        self.space.run("ip", "address", "add", f"{ADDRESS}/32", "dev", "lo")
        rules = self.home / "connections.nft"
        rules.write_text(self._exchange(EXAMPLE.with_name("connections.nft").read_text()))
        library_path = "LD_LIBRARY_PATH={LD_LIBRARY_PATH}".format(**find_libraries(self._programs_dir))
        self.space.run("env", library_path, str(self._programs_dir / "usr/sbin/nft"), "-f", str(rules))

    def _exchange(self, text: str) -> str:
        """Return an example's text, which is for the first balancer, for this one."""
        if self.name == "lb1":
            return text
        words = dict(zip(BALANCERS.values(), reversed(BALANCERS.values()), strict=True))
        return re.sub(r"192\.0\.2\.[12]\b", lambda found: words[found[0]], text)

    def kill(self) -> None:
        """End everything at once."""
        self.stop_keepalived(signal.SIGKILL)
        self.space.run("ip", "address", "flush", "dev", "eth0", "to", f"{ADDRESS}/32")
        for process in list_marked(f"LOG_DIR={self.home}/log"):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if self.tree:
            self.tree.wait(_STOP_S)

    def stop_keepalived(self, number: int = signal.SIGTERM) -> None:
        """Stop keepalived."""
        if self.keepalived and self.keepalived.poll() is None:
            family = [self.keepalived, *psutil.Process(self.keepalived.pid).children(recursive=True)]
            for process in family if number == signal.SIGKILL else family[:1]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(number)
            self.keepalived.wait(_STOP_S)

    def look(self, *options: str) -> tuple[int, str]:
        """Return what the check says."""
        done = subprocess.run([self.make_check(), *options], capture_output=True, text=True, check=False, timeout=10)
        return done.returncode, done.stdout.strip()

    def is_trusted(self) -> bool:
        """Return whether keepalived has seen both of its scripts succeed last."""
        said = (self.home / "keepalived.log").read_text(errors="replace").rpartition("Startup complete")[2]
        states = dict(re.findall(r"VRRP_Script\((\w+)\) (\w+)", said))
        return states == {"serves": "succeeded", "current": "succeeded"}

    def count_connections(self) -> int:
        """Return how many connections clients have opened."""
        answer = ask(self.runtime.socket_path, QUESTION, 5)
        return sum(read_arrivals(answer).values())

    def has_address(self) -> bool:
        """Return whether the address is here."""
        return f" {ADDRESS}/" in self.space.run("ip", "-4", "-o", "address", "show", "dev", "eth0")

    def ask_by(self, *argv: str) -> None:
        """Run a program with the balancer's settings that should find it ready."""
        subprocess.run(argv, env=self.environ, stdout=subprocess.DEVNULL, check=True, timeout=60)

    def pid(self, service: str) -> int:
        """Return the process id of a service.

        Raises:
            AssertionError: It does not run: a signal to -1, which s6 says then, would go to every process there is.
        """
        pid = self.find_pid(service)
        assert pid > 1, f"{service} of {self.name} does not run"
        return pid

    def find_pid(self, service: str) -> int:
        """Return the process id of a service, -1 while it does not run."""
        argv = ["s6-svstat", "-o", "pid", str(self.scan / service)]
        return int(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)

    def worker_pid(self) -> int:
        """Return the process id of HAProxy's worker."""
        (worker,) = psutil.Process(self.pid("haproxy")).children()
        return int(worker.pid)

    def control(self, service: str, *words: str) -> None:
        """Run s6-svc for a service."""
        subprocess.run(["s6-svc", *words, str(self.scan / service)], check=True, timeout=60)

    def command(self, *words: str) -> str:
        """Run `serf-haproxy` with the balancer's settings; return its output."""
        argv = [*self.space.enter, str(Path(sys.executable).with_name("serf-haproxy")), *words]
        done = subprocess.run(argv, env=self.environ, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def make_check(self) -> str:
        """Return the path of a script that runs the check with the environment of this balancer."""
        path = self.home / "check"
        if not path.exists():
            words = f"SERF_HAPROXY_WAKE_FIFO='{self.home}/wake' exec '{ROOT}/handlers/ready_for_traffic'"
            path.write_text(f'#!/bin/sh\n{words} "$@"\n')
            path.chmod(0o755)
        return str(path)


def find_libraries(programs_dir: Path) -> dict[str, str]:
    """Return the environment by which unpacked programs find their libraries."""
    found = [*programs_dir.glob("usr/lib/*-linux-gnu"), *programs_dir.glob("lib/*-linux-gnu")]
    return {"LD_LIBRARY_PATH": ":".join(map(str, found))}


class Found(NamedTuple):
    """What the clients saw.

    Attributes:
        count: Requests.
        faults: When each one that failed began, monotonic clock, and what happened.
        gap_s: The longest time without an answer, seconds.
        slowest_s: The longest time that an answer took.
    """

    count: int
    faults: tuple[tuple[float, str], ...]
    gap_s: float
    slowest_s: float


class Load:
    """Requests of the client at a constant rate, until `end`."""

    def __init__(self, space: Space, rate: float, limit_s: float = 120.0) -> None:
        argv = [*space.enter, sys.executable, str(Path(__file__).with_name("generator.py")), ADDRESS, "80"]
        argv += [f"{rate:g}", f"{limit_s:g}"]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def end(self) -> Found:
        """End it, and return what was seen."""
        told, _ = self._process.communicate(timeout=60)
        seen = json.loads(told)
        ends = sorted(began_s + took_s for began_s, took_s, fault in seen if not fault)
        gaps = [two - one for one, two in itertools.pairwise(ends)]
        faults = tuple((began_s, fault) for began_s, _, fault in seen if fault)
        return Found(
            len(seen), faults, max(gaps, default=0.0), max((took for _, took, fault in seen if not fault), default=0.0)
        )


class Watch:
    """Notes when a balancer has the address, seconds after a moment of the monotonic clock."""

    def __init__(self, balancer: Balancer, began_s: float) -> None:
        self._balancer, self._began_s = balancer, began_s
        self._moved_s: float | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def end(self) -> float | None:
        """Return when it was; None for never."""
        self._ended.set()
        self._thread.join()
        return self._moved_s

    def _run(self) -> None:
        while self._moved_s is None and not self._ended.wait(0.05):
            if self._balancer.has_address():
                self._moved_s = time.monotonic() - self._began_s


class Site:
    """The whole.

    Attributes:
        client: The namespace of the clients.
        balancers: The two balancers.
    """

    def __init__(
        self, directory: Path, stack: contextlib.ExitStack, packages: tuple[str, ...] = ("keepalived", "nftables")
    ) -> None:
        self._directory, self._stack = directory, stack
        programs_dir = directory / "programs"
        programs_dir.mkdir()
        for package in packages:
            debian.unpack_all(programs_dir, package)
        self.client = self._make_space("client")
        self.client.run("ip", "link", "add", "br0", "type", "bridge")
        self.client.run("ip", "address", "add", f"{CLIENT}/24", "dev", "br0")
        self.client.run("ip", "link", "set", "br0", "up")
        web = self._make_space("web")
        web.plug_in(self.client, *WEBS.values())
        for number, (name, address) in enumerate(WEBS.items()):
            self._start_web(web, name, address, 7373 + number)
        self.balancers = []
        for name, address in BALANCERS.items():
            space = self._make_space(name)
            space.plug_in(self.client, address)
            self.balancers.append(balancer := Balancer(name, space, directory, programs_dir))
            stack.callback(self._end_balancer, balancer)
            balancer.start()
        for balancer in self.balancers:
            wait_for(lambda one=balancer: one.look()[0] == 0, lambda one=balancer: f"{one.name}: {one.look()}")
            if "keepalived" in packages:
                balancer.keep_connections()
                balancer.start_keepalived()
        if "keepalived" in packages:
            wait_for(lambda: self.find_owner() is not None, "a balancer has the address")

    def find_owner(self) -> Balancer | None:
        """Return the balancer that has the address; None where not exactly one has it."""
        owners = [one for one in self.balancers if one.has_address()]
        return owners[0] if len(owners) == 1 else None

    def order(self) -> tuple[Balancer, Balancer]:
        """Return the balancer that has the address, and the other one."""
        wait_for(lambda: self.find_owner() is not None, "one balancer has the address")
        owner = self.find_owner()
        assert owner
        return owner, next(one for one in self.balancers if one is not owner)

    @contextlib.contextmanager
    def cut(self, balancer: Balancer) -> Iterator[None]:
        """Cut the network of a balancer for the length of a block, without it noticing."""
        self.client.run("ip", "link", "set", balancer.name, "nomaster")
        try:
            yield
        finally:
            self.client.run("ip", "link", "set", balancer.name, "master", "br0")

    def _make_space(self, name: str) -> Space:
        space = Space(name)
        self._stack.callback(space.end)
        return space

    def _start_web(self, space: Space, name: str, address: str, rpc_port: int) -> None:
        app = Path(__file__).with_name("application.py")
        argv = ["serf", "agent", f"-node={name}", f"-bind={address}:7946", f"-rpc-addr=127.0.0.1:{rpc_port}"]
        argv += ["-tag", "role=web", "-tag", "port=3000", "-profile=lan"]
        argv += [f"-retry-join={one}:7946" for one in WEBS.values() if one != address]
        with (self._directory / f"{name}.log").open("wb") as log:
            for words in ([sys.executable, str(app), address, "3000"], argv):
                process = subprocess.Popen([*space.enter, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
                self._stack.callback(process.wait)
                self._stack.callback(process.kill)

    def _end_balancer(self, balancer: Balancer) -> None:
        balancer.kill()


def list_marked(word: str) -> list[psutil.Process]:
    """Return the processes with a variable of this value."""
    found: list[Any] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if word.encode() in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0"):
                found.append(process)
    return found


@contextlib.contextmanager
def running_site(directory: Path) -> Iterator[Site]:
    """Run a site for the length of a block."""
    with contextlib.ExitStack() as stack:
        yield Site(directory, stack)
