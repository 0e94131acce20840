"""A machine with systemd as process 1: namespaces of its own over an overlay of this root, which is thrown away.

Its /tmp, /run, /var, /dev, /proc, network and control group are its own, so nothing that systemd cleans or starts is
this machine's. It needs root.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from integration import debian
from integration.proxy import wait_for

_CGROUPS = (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# The units of this machine's own services are hidden; systemd must not change the kernel's settings, which all share.
_SCRIPT = r"""
set -eu
base=$1 group=$2 source=$3 path=$4 layer=$5 lower=/
mount -t tmpfs tmpfs "$base"
umask 022
mkdir "$base/upper" "$base/work" "$base/root"
chmod 755 "$base/upper"
if [ -n "$layer" ]; then
    cp -a "$layer" "$base/layer"
    lower=$base/layer:/
fi
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$base/upper,workdir=$base/work" "$base/root"
cd "$base/root"
for directory in tmp run var; do mount -t tmpfs -o mode=755 tmpfs $directory; done
chmod 1777 tmp
mkdir -p var/lib/haproxy mnt
mount --bind "$source" mnt
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs dev
for device in null:3 zero:5 full:7 random:8 urandom:9; do mknod -m 666 dev/${device%:*} c 1 ${device#*:}; done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ip link set lo up
cp -a /var/lib/dpkg var/lib/dpkg
rm -f usr/sbin/policy-rc.d
rm -rf etc/fstab etc/systemd/system etc/serf-haproxy etc/haproxy etc/sysctl.d
mkdir -p etc/systemd/system
cp -R "$source/etc/haproxy" etc/haproxy
: > etc/machine-id
printf '[Unit]\nRequires=basic.target\nAfter=basic.target\n' > etc/systemd/system/bare.target
mkdir .old
pivot_root . .old
umount -l /.old
# As on a machine that systemd starts: a service's credentials are mounted for all.
mount --make-rshared /
exec env -i container=lab "PATH=$path" \
    setpriv --bounding-set -sys_module,-sys_rawio,-sys_time,-syslog,-mac_admin /lib/systemd/systemd --unit=bare.target
"""


class Machine:
    """The machine.

    Attributes:
        pid: Its process 1, as this machine sees it.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def enter(self, *words: str, has_network: bool = False) -> subprocess.CompletedProcess[str]:
        """Run a program inside and return what it did; `has_network`: with this machine's network."""
        spaces = ["--mount", "--pid", "--ipc", "--uts", "--cgroup", *([] if has_network else ["--net"])]
        argv = ["nsenter", f"--target={self.pid}", *spaces, "--wd", "--", *words]
        environment = {name: text for name, text in os.environ.items() if name.startswith("PIP_")} | {"PATH": _PATH}
        return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=600)

    def run(self, script: str, *, has_network: bool = False) -> str:
        """Run a script of a shell inside; return its output.

        Raises:
            AssertionError: One of its commands failed.
        """
        done = self.enter("/bin/sh", "-euc", script, has_network=has_network)
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}{self.read_journal()}"
        return done.stdout

    def show(self, unit: str, name: str) -> str:
        """Return a property of a unit."""
        return self.enter("systemctl", "show", "--value", "--property", name, unit).stdout.strip()

    def wait_active(self, *units: str) -> None:
        """Wait until units are active."""
        for unit in units:
            wait_for(lambda name=unit: self.show(name, "ActiveState") == "active", self.read_journal, 120)

    def read_journal(self, *words: str) -> str:
        """Return the last lines of the journal."""
        return self.enter("journalctl", "--no-pager", "--lines=80", *words).stdout


@contextlib.contextmanager
def running_machine(directory: Path, source: Path) -> Iterator[Machine]:
    """Run a machine for the duration of a block.

    Args:
        directory: An empty directory, for its root.
        source: Is mounted at /mnt; its etc/haproxy becomes the machine's.
    """
    group = next(path for path in _CGROUPS if (path / "cgroup.procs").exists()) / f"serf-haproxy-{os.getpid()}"
    group.mkdir()
    spaces = ["--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup"]
    flags = [*spaces, "--propagation=private", "--fork", "--kill-child"]
    enter = f'echo $$ > "{group}/cgroup.procs"; exec "$@"'
    argv = [
        "sh",
        "-euc",
        enter,
        "sh",
        "unshare",
        *flags,
        "sh",
        "-euc",
        _SCRIPT,
        "sh",
        *map(str, (directory, group, source, _PATH, _find_layer(directory))),
    ]
    log = directory.with_name(f"{directory.name}.log")
    with open(log, "wb") as output:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)
    try:
        yield _wait(process, log)
    finally:
        process.kill()  # with it ends process 1, and with that all others
        process.wait(60)
        wait_for(lambda: _remove(group), "the control group is empty")


def _find_layer(directory: Path) -> str:
    """Return a directory with Debian's systemd, which lies above this root, where that lacks it; else an empty text."""
    if Path("/lib/systemd/systemd").exists():
        return ""
    layer = directory.with_name(f"{directory.name}-systemd")
    layer.mkdir()
    debian.unpack_all(layer, "systemd")
    for name in ("bin", "lib", "sbin"):  # links to the same below /usr
        if (layer / name).is_dir():
            shutil.copytree(layer / name, layer / "usr" / name, symlinks=True, dirs_exist_ok=True)
            shutil.rmtree(layer / name)
    return str(layer)


def _wait(process: "subprocess.Popen[bytes]", log: Path) -> Machine:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    states: Sequence[str] = ("running", "degraded")

    def is_up() -> bool:
        assert process.poll() is None, log.read_text()
        words = children.read_text().split()
        return bool(words) and Machine(int(words[0])).enter("systemctl", "is-system-running").stdout.strip() in states

    assert shutil.which("nsenter"), "util-linux is missing"
    wait_for(is_up, log.read_text, 120)
    return Machine(int(children.read_text().split()[0]))


def _remove(group: Path) -> bool:
    with contextlib.suppress(OSError):
        for path in sorted((one for one in group.rglob("*") if one.is_dir()), reverse=True):
            path.rmdir()
        group.rmdir()
    return not group.exists()
