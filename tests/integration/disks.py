"""Small disks that a test can fill or lock; only this process and its children see them.

They need root: a process cannot leave a user namespace again, and a process with threads cannot create one.
"""

import contextlib
import ctypes
import fcntl
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

CLONE_NEWNS, CLONE_FS = 0x00020000, 0x00000200  # linux/sched.h
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18  # linux/mount.h
MNT_DETACH = 2
FIFREEZE, FITHAW = 0xC0045877, 0xC0045878  # linux/fs.h
SIZE_BYTES = 256 * 1024

_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def private_mounts() -> Iterator[None]:
    """Run a block in a mount namespace that this thread and its children share.

    The namespace ends with its last process, so even a killed test leaves no mounts behind.
    """
    before = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    work_dir = os.getcwd()
    try:
        _must(_libc.unshare(CLONE_NEWNS), "create a mount namespace, which needs root (sudo make test)")
        try:
            _must(_libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None), "make the mounts private")
            yield
        finally:
            # A thread that began meanwhile shares the working directory, and the kernel then refuses the return.
            _must(_libc.unshare(CLONE_FS), "take an own working directory")
            _must(_libc.setns(before, CLONE_NEWNS), "return to the previous mount namespace")
            os.chdir(work_dir)
    finally:
        os.close(before)


class Disk:
    """A tmpfs on a directory, inside `private_mounts`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        options = f"size={SIZE_BYTES},mode=755".encode()
        _must(_libc.mount(b"none", os.fsencode(directory), b"tmpfs", 0, options), f"mount a tmpfs on {directory}")

    def fill(self) -> None:
        """Fill the disk."""
        with contextlib.suppress(OSError), (self.directory / "ballast.log").open("wb", buffering=0) as file:
            while True:
                file.write(b"\0" * 4096)

    def clear(self) -> None:
        """Free the space that `fill` used."""
        (self.directory / "ballast.log").unlink()

    def lock(self) -> None:
        """Make the disk read-only by a mount on top: with files open for writing it cannot be remounted."""
        path = os.fsencode(self.directory)
        _must(_libc.mount(path, path, None, MS_BIND, None), "mount the disk once more")
        _must(_libc.mount(b"none", path, None, MS_REMOUNT | MS_BIND | MS_RDONLY, None), "lock the disk")

    def unlock(self) -> None:
        """Make the disk writable again."""
        self.remove()

    def remove(self) -> None:
        """Unmount the topmost mount."""
        _must(_libc.umount2(os.fsencode(self.directory), MNT_DETACH), f"unmount {self.directory}")


class SlowDisk:
    """An ext4 file system on a directory, inside `private_mounts`, that can be made to hang."""

    def __init__(self, directory: Path, image: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        image.write_bytes(b"")
        os.truncate(image, 16 * 2**20)
        subprocess.run(["mkfs.ext4", "-q", image], check=True, timeout=60)
        subprocess.run(["mount", "-o", "loop", image, directory], check=True, timeout=60)

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """Block all writes to the disk for the duration of a block."""
        fd = os.open(self._directory, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(fd, FIFREEZE, 0)
            try:
                yield
            finally:
                fcntl.ioctl(fd, FITHAW, 0)
        finally:
            os.close(fd)

    def remove(self) -> None:
        """Unmount the disk and detach its loop device."""
        subprocess.run(["umount", "--lazy", self._directory], check=True, timeout=60)


def _must(result: int, what: str) -> None:
    if result:
        raise AssertionError(f"cannot {what}: {os.strerror(ctypes.get_errno())}")
