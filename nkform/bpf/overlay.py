"""What a compiler can read: the texts of a program, in a file system in place of the real one, and no clock.

The texts lie in memory (memfd_create(2)), where nobody can exchange them, and are what the digest was made of. clang
finds them, and nothing else, through its virtual file system (`-ivfsoverlay` with `fallthrough: false`, in LLVM's
RedirectingFileSystem): whatever else an `#include` names, wherever that leads, is not there. Compiling needs no folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from nkform.bpf.render import Rendered
from nkform.bpf.texts import library, library_texts
from nkform.kernel.descriptors import close, in_memory
from nkform.problem import Position

LIBRARY_ROOT = "/nkform"
TEMPLATE_ROOT = "/template"
"""The folders that a compiler sees. Absolute, as virtual files have to be; no program knows what is real there."""

INCLUDES = (f"-I{LIBRARY_ROOT}", f"-I{TEMPLATE_ROOT}")

NO_CLOCK = ("-Wno-builtin-macro-redefined", "-U__DATE__", "-U__TIME__", "-U__TIMESTAMP__")
"""What takes from a compiler the macros that are another text each time: no digest covers the time. A warning that is
made an error would not do, since a program can turn it off."""


def virtual_files(rendered: Rendered) -> dict[str, str]:
    """The texts that the program may include, by the path that a compiler knows them by."""
    shared = {
        f"{LIBRARY_ROOT}/{name}": text
        for name, text in library_texts().items()
        if name.endswith(".h") and (rendered.engine == "bcc" or not name.startswith("bcc/"))
    }
    return shared | {f"{TEMPLATE_ROOT}/{name}": text for name, text in rendered.template.headers.items()}


def real_place(rendered: Rendered, name: str, line: int, column: int) -> Position | None:
    """A place in a header, by the path that a compiler knows it by, with its line's text as it was compiled."""
    text = virtual_files(rendered).get(name)
    if text is None:
        return None
    path = PurePosixPath(name)
    base = library() if path.is_relative_to(LIBRARY_ROOT) else rendered.template.folder
    lines = text.split("\n")
    shown = lines[line - 1] if 0 < line <= len(lines) else ""
    return Position(str(base / path.relative_to(path.parents[-2])), line, column, shown)


class Overlay:
    """The files that a compiler can see, by path. Close it.

    `fds` are the file descriptors that the compiler must inherit.
    """

    def __init__(self, texts: Mapping[str, str]) -> None:
        self.fds: list[int] = []
        try:
            roots = [
                {"name": name, "type": "file", "external-contents": fd_path(self.add(text.encode()))}
                for name, text in texts.items()
            ]
            # The options of clang/docs and llvm/include/llvm/Support/VirtualFileSystem.h. JSON is YAML too.
            said = {
                "version": 0,
                "case-sensitive": "true",
                "use-external-names": "false",
                "fallthrough": "false",
                "roots": roots,
            }
            self.flags: Sequence[str] = ("-ivfsoverlay", fd_path(self.add(json.dumps(said).encode())))
        except BaseException:
            self.close()
            raise

    def add(self, data: bytes) -> int:
        """A file in memory, its position at the beginning; its descriptor is closed with the overlay."""
        self.fds.append(in_memory(data))
        return self.fds[-1]

    def close(self) -> None:
        close(*self.fds)
        self.fds = []

    def __enter__(self) -> Overlay:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def fd_path(fd: int) -> str:
    """A path by which a process reads a file that it has open (proc(5))."""
    return f"/proc/self/fd/{fd}"
