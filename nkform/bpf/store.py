"""A folder of compiled objects, by key: safe against builders at the same time, and against objects of other people.

Whoever can plant an object here can run code in the kernel. So the folder and all above it must belong to root or to
us, and nobody else may write there (kernel/folder.py). An object is put in place whole (rename), and its SHA-256 beside
it tells damage.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nkform.kernel.folder import Folder, UntrustedError, of_user
from nkform.problem import NkformError, Problem

MAX_OBJECT = 16 << 20
MAX_OBJECTS = 2048
"""Objects kept; beyond that the ones that were not used for longest go."""

_UNTRUSTED = "who writes there could run code in the kernel; take a folder of your own, or mend its owner and mode"
_KEY = re.compile(r"[0-9a-f]{64}")


def checksum(data: bytes | None) -> str:
    """The SHA-256 of an object; "-" of none."""
    return "-" if data is None else hashlib.sha256(data).hexdigest()


def default_path() -> Path:
    """Where objects are kept: for all of the machine where we are root, else in the user's own cache."""
    return of_user(Path("/var/cache/nkform/objects"), "nkform/objects")


class Store:
    """A folder of objects. `create` makes it (mode 0700) where it does not exist. Raises NkformError if it cannot be
    trusted."""

    def __init__(self, path: Path, *, create: bool = True) -> None:
        self.path = path
        try:
            self._folder = Folder(path, create=create)
        except UntrustedError as error:
            raise NkformError(
                Problem("NK0733", f"cannot trust the folder {error.folder}: {error}", hint=_UNTRUSTED)
            ) from None
        except OSError as error:
            raise NkformError(
                Problem("NK0733", f"cannot use the folder of objects {path}: {error.strerror or error}")
            ) from None

    def close(self) -> None:
        self._folder.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, key: str) -> bytes | None:
        """An object, or None: it is not there, or what is there is damaged."""
        about = self.about(key)
        if about is None:
            return None
        data = self._folder.read(f"{key}.o", MAX_OBJECT)
        if data is None or hashlib.sha256(data).hexdigest() != about.get("sha256"):
            return None
        self._folder.note_use(f"{key}.o")
        return data

    def about(self, key: str) -> Mapping[str, Any] | None:
        """What was noted of an object when it was put here."""
        text = self._folder.read(f"{_checked(key)}.json", 1 << 16)
        try:
            about = json.loads(text) if text is not None else None
        except (ValueError, RecursionError):
            return None
        return about if isinstance(about, dict) else None

    def put(self, key: str, data: bytes, about: Mapping[str, str]) -> None:
        """Stores an object, whole or not at all. Raises OSError."""
        noted = json.dumps({**about, "sha256": hashlib.sha256(data).hexdigest()}, indent=1).encode() + b"\n"
        self._folder.write(f"{_checked(key)}.o", data)
        self._folder.write(f"{key}.json", noted)
        self._prune()

    def lock(self, key: str) -> contextlib.AbstractContextManager[None]:
        """One builder of an object at a time; a builder that dies gives the lock back."""
        return self._folder.lock(f"{_checked(key)}.lock")

    def note(self, name: str) -> bytes | None:
        """A small thing remembered beside the objects."""
        return self._folder.read(f"{_checked(name)}.note", 1 << 12)

    def set_note(self, name: str, text: bytes) -> None:
        self._folder.write(f"{_checked(name)}.note", text)

    def _prune(self) -> None:
        objects = [name for name in self._folder.names() if name.endswith(".o")]
        if len(objects) <= MAX_OBJECTS:
            return
        with contextlib.suppress(FileNotFoundError):
            objects.sort(key=self._folder.used)
            for name in objects[: len(objects) - MAX_OBJECTS]:
                self._folder.remove(name.removesuffix(".o") + ".json")
                self._folder.remove(name)


def _checked(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise ValueError(f"{key!r} is no key")
    return key
