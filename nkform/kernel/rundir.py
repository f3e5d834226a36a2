"""Small files below /run/nkform/<node>: what may vanish at reboot, and nothing that a diff depends on.

The folders must be ours alone: whoever could write there could lie to us, and a symbolic link would lead elsewhere.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

from nkform.kernel.netlink import KernelError

RUN = Path("/run/nkform")
FOLDER_MODE = 0o700
FILE_MODE = 0o600


def _open_folder(path: Path) -> int:
    """A folder of ours, made if it is not there. Raises KernelError (EPERM: somebody else could write there)."""
    asked = f"use the folder {path}"
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, FOLDER_MODE)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise KernelError(error.errno or errno.EIO, asked) from error
    state = os.fstat(fd)
    if state.st_uid != os.geteuid() or stat.S_IMODE(state.st_mode) & 0o022:
        os.close(fd)
        raise KernelError(errno.EPERM, asked, "it does not belong to us, or others may write there")
    return fd


def _folder(node: str, base: Path) -> int:
    os.close(_open_folder(base))
    return _open_folder(base / node)


def read(node: str, name: str, base: Path = RUN) -> str | None:
    """A file's text; None where there is none. Raises KernelError for a folder that cannot be trusted."""
    if not (base / node).is_dir():
        return None
    folder = _folder(node, base)
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KernelError(error.errno or errno.EIO, f"read {base / node / name}") from error
    finally:
        os.close(folder)
    with os.fdopen(fd, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def write(node: str, name: str, text: str, base: Path = RUN) -> None:
    """Puts a file in place, whole or not at all. Raises KernelError."""
    folder = _folder(node, base)
    draft = f".{name}.{os.getpid()}"
    try:
        fd = os.open(
            draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE, dir_fd=folder
        )
        with os.fdopen(fd, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
        os.rename(draft, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError as error:
        raise KernelError(error.errno or errno.EIO, f"write {base / node / name}") from error
    finally:
        os.close(folder)
