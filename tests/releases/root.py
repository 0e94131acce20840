"""A root directory with a minimal Debian, and commands that run there as on a machine of its own."""

import os
import shutil
import subprocess
from pathlib import Path

from containers.engine import need, run

REPOSITORY = Path(__file__).parents[2]
_PACKAGES = "make,git,ca-certificates"  # what README.md asks for; Python comes with `make`, as on a new machine
_MAKE_S = 900.0
_COPIED = (
    "etc/resolv.conf",
    "etc/hosts",
    "etc/pip.conf",
    "etc/ssl/certs/ca-certificates.crt",
    "root/.config/pip/pip.conf",
)
_KEPT = ("PIP_", "SSL_", "REQUESTS_", "http", "no_proxy")  # how this machine reaches a package index

# A mount namespace with a root of its own, not chroot: `setns`, which the tests' private mounts use, leaves a chroot.
_ENTER = """
set -e
mount --make-rprivate /
mount --bind "$1" "$1"
cd "$1"
mkdir -p old opt src
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
mount -t tmpfs tmpfs tmp
mount -t tmpfs -o exec tmpfs run
mount --rbind -o ro /opt opt
mount --bind "$2" src
mount -o remount,bind,ro src
pivot_root . old
cd /
umount -l /old
exec bash -c "$3"
"""


class Root:
    """A minimal Debian in a directory.

    Args:
        release: The name of a Debian release, such as trixie.
        directory: Where to make it.
    """

    def __init__(self, release: str, directory: Path) -> None:
        need("mmdebstrap")
        self._directory = directory / release
        argv = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={_PACKAGES}", release, self._directory]
        subprocess.run(argv, check=True, timeout=_MAKE_S)
        for name in _COPIED:
            if (source := Path("/", name)).exists():
                target = self._directory / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
        self.run("git clone --quiet /src /root/serf-haproxy", 60)

    def run(self, command: str, timeout_s: float) -> str:
        """Run a shell command there; return its output.

        Raises:
            AssertionError: Its exit code is not 0.
            subprocess.TimeoutExpired: It was killed with all that it started.
        """
        kept = {name: value for name, value in os.environ.items() if name.startswith(_KEPT)}
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        git = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
        argv = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "bash", "-c", _ENTER, "enter"]
        words = [*argv, str(self._directory), str(REPOSITORY), f"cd /root; {command}"]
        return run(words, timeout_s, kept | git | {"HOME": "/root", "PATH": path, "LANG": "C.UTF-8"})
