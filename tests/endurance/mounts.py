"""Mounts small disks that only the process that asks, and those it starts, can see."""

import ctypes
import os
from pathlib import Path

_NEW_MOUNTS, _NEW_USER = 0x20000, 0x10000000
_DETACHED = 2
_READ_ONLY, _REMOUNT, _RECURSIVE, _PRIVATE = 1, 32, 1 << 14, 1 << 18


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _mount(source: str, target: Path, kind: str, flags: int, options: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    _checked(libc.mount(source.encode(), str(target).encode(), kind.encode(), flags, options.encode()))


def private_mounts() -> None:
    """Mounts of this process are seen by nobody else from here on. Raises OSError where that is not allowed."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        _checked(libc.unshare(_NEW_MOUNTS))
    else:
        _checked(libc.unshare(_NEW_USER | _NEW_MOUNTS))
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _mount("none", Path("/"), "", _RECURSIVE | _PRIVATE, "")


def mount_small_disk(target: Path, size_bytes: int) -> None:
    """An empty file system of this size at an existing folder."""
    _mount("none", target, "tmpfs", 0, f"size={size_bytes}")


def unmount(target: Path) -> None:
    """Take the file system away; whoever still has files open there goes on with them."""
    libc = ctypes.CDLL(None, use_errno=True)
    _checked(libc.umount2(str(target).encode(), _DETACHED))


def remount(target: Path, size_bytes: int, read_only: bool = False) -> None:
    """Give the file system another size, or take away or give back the right to write there."""
    _mount("none", target, "tmpfs", _REMOUNT | (_READ_ONLY if read_only else 0), f"size={size_bytes}")
