"""libbpf, the system's, by ctypes: an object file → a program whose references to maps are resolved.

Only what that takes is bound. libbpf opens, relocates and loads the first program made of an object; the caller keeps
the instructions and makes further ones with bpf(2) itself (bpf_programs.py), at a tenth of the cost.

Functions and their meaning: libbpf.h of libbpf 1.x.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Mapping, Sequence

from nkform.dataclass import dataclass
from nkform.kernel.bpf import BpfError
from nkform.kernel.bpf_programs import VerifierError
from nkform.kernel.error import KernelError

LIBRARY = "libbpf.so.1"
LOG_BYTES = 1 << 20
_MESSAGES = 50

LIBBPF_WARN = 0


class LibbpfMissingError(KernelError):
    """The system has no libbpf of version 1, or one that lacks a function."""

    def __init__(self, reason: str) -> None:
        super().__init__(errno.ENOENT, f"load {LIBRARY}", reason)


@dataclass(frozen=True, slots=True)
class Map:
    """A map as an object file defines it; sizes in bytes. `internal` are those that libbpf makes of data sections."""

    name: str
    fd: int
    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    btf_key_type_id: int
    btf_value_type_id: int
    internal: bool


_PRINT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)

# name: (result, arguments)
_P, _I, _U, _S, _Z = ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32, ctypes.c_char_p, ctypes.c_size_t
_FUNCTIONS: Mapping[str, tuple[object, Sequence[object]]] = {
    "libbpf_set_print": (_P, (_P,)),
    "libbpf_version_string": (_S, ()),
    "bpf_object__open_mem": (_P, (_P, _Z, _P)),
    "bpf_object__load": (_I, (_P,)),
    "bpf_object__close": (None, (_P,)),
    "bpf_object__btf_fd": (_I, (_P,)),
    "bpf_object__find_program_by_name": (_P, (_P, _S)),
    "bpf_object__next_map": (_P, (_P, _P)),
    "bpf_program__set_log_buf": (_I, (_P, _P, _Z)),
    "bpf_program__insns": (_P, (_P,)),
    "bpf_program__insn_cnt": (_Z, (_P,)),
    "bpf_map__name": (_S, (_P,)),
    "bpf_map__fd": (_I, (_P,)),
    "bpf_map__type": (_I, (_P,)),
    "bpf_map__key_size": (_U, (_P,)),
    "bpf_map__value_size": (_U, (_P,)),
    "bpf_map__max_entries": (_U, (_P,)),
    "bpf_map__map_flags": (_U, (_P,)),
    "bpf_map__btf_key_type_id": (_U, (_P,)),
    "bpf_map__btf_value_type_id": (_U, (_P,)),
    "bpf_map__pin_path": (_S, (_P,)),
    "bpf_map__is_internal": (ctypes.c_bool, (_P,)),
    "bpf_map__set_initial_value": (_I, (_P, _P, _Z)),
}


class Library:
    """The shared library, opened once; raises LibbpfMissingError."""

    def __init__(self) -> None:
        try:
            library = ctypes.CDLL(LIBRARY, use_errno=True)
            self.c = {name: getattr(library, name) for name in _FUNCTIONS}
            libc = ctypes.CDLL(None)
        except (OSError, AttributeError) as error:
            raise LibbpfMissingError(str(error)) from None
        for name, (result, arguments) in _FUNCTIONS.items():
            self.c[name].restype = result
            self.c[name].argtypes = arguments
        self._format = libc.vsnprintf
        self._format.argtypes = (_P, _Z, _S, _P)
        self.messages: list[str] = []
        self._printer = _PRINT(self._print)  # must live as long as libbpf may call it
        self.c["libbpf_set_print"](ctypes.cast(self._printer, _P))

    @property
    def version(self) -> str:
        return str(self.c["libbpf_version_string"]().decode())

    def open(self, data: bytes, asked: str) -> Object:
        """Opens an object file in memory. Raises BpfError for what is none."""
        self.messages.clear()
        handle = self.c["bpf_object__open_mem"](data, len(data), None)
        if not handle:
            raise self.failure(ctypes.get_errno() or errno.EINVAL, asked)
        return Object(self, handle, asked)

    def failure(self, number: int, asked: str) -> BpfError:
        """An error with the last that libbpf said about it."""
        said = [message for message in self.messages if message]
        return BpfError(number, asked, said[-1].removeprefix("libbpf: ") if said else "")

    def _print(self, level: int, form: bytes, arguments: int) -> int:
        """Takes libbpf's warnings; nothing of them goes to the terminal."""
        if level == LIBBPF_WARN and len(self.messages) < _MESSAGES:
            buffer = ctypes.create_string_buffer(1024)
            self._format(buffer, len(buffer), form, arguments)
            self.messages.append(buffer.value.decode(errors="replace").strip())
        return 0


class Object:
    """An open object file; close it."""

    def __init__(self, library: Library, handle: int, asked: str) -> None:
        self._c = library.c
        self._library = library
        self._handle = handle
        self._asked = asked

    def __enter__(self) -> Object:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the object and all its file descriptors."""
        if self._handle:
            self._c["bpf_object__close"](self._handle)
            self._handle = 0

    def maps(self) -> tuple[Map, ...]:
        """Its maps; their file descriptors are there once it is loaded."""
        found, handle = [], self._next(None)
        while handle:
            found.append(self._map(handle))
            handle = self._next(handle)
        return tuple(found)

    def pinned(self) -> tuple[str, ...]:
        """The paths at which libbpf would pin its maps when it is loaded, or take maps that are pinned there."""
        found, handle = [], self._next(None)
        while handle:
            if path := self._c["bpf_map__pin_path"](handle):
                found.append(path.decode(errors="replace"))
            handle = self._next(handle)
        return tuple(found)

    def has(self, function: str) -> bool:
        """Whether it has a program of that name."""
        return bool(self._c["bpf_object__find_program_by_name"](self._handle, function.encode()))

    def set_initial_value(self, name: str, data: bytes) -> None:
        """Fills a data section before loading. Raises BpfError (EINVAL: its size is another)."""
        handle = self._next(None)
        while handle and self._c["bpf_map__name"](handle) != name.encode():
            handle = self._next(handle)
        result = self._c["bpf_map__set_initial_value"](handle, data, len(data)) if handle else -errno.ENOENT
        if result < 0:
            raise BpfError(
                -result, self._asked, f"its section {name} is missing or of another size than {len(data)} bytes"
            )

    def load(self, function: str) -> bytes:
        """Loads the object and returns the instructions of one of its programs as the kernel got them.

        Raises VerifierError, or BpfError.
        """
        program = self._c["bpf_object__find_program_by_name"](self._handle, function.encode())
        if not program:
            raise BpfError(errno.ENOENT, self._asked, f"it has no program {function}")
        log = ctypes.create_string_buffer(LOG_BYTES)
        self._c["bpf_program__set_log_buf"](program, log, LOG_BYTES)
        result = self._c["bpf_object__load"](self._handle)
        if result < 0:
            said = log.value.decode(errors="replace").strip()
            raise VerifierError(-result, self._asked, said) if said else self._library.failure(-result, self._asked)
        count = self._c["bpf_program__insn_cnt"](program)
        return ctypes.string_at(self._c["bpf_program__insns"](program), count * 8)

    def btf_fd(self) -> int:
        """A file descriptor of one's own for its type information, or -1."""
        fd = int(self._c["bpf_object__btf_fd"](self._handle))
        return os.dup(fd) if fd >= 0 else -1

    def _next(self, handle: int | None) -> int | None:
        found: int | None = self._c["bpf_object__next_map"](self._handle, handle)
        return found

    def _map(self, handle: int) -> Map:
        ask = self._c
        return Map(
            name=ask["bpf_map__name"](handle).decode(),
            fd=ask["bpf_map__fd"](handle),
            type=ask["bpf_map__type"](handle),
            key_size=ask["bpf_map__key_size"](handle),
            value_size=ask["bpf_map__value_size"](handle),
            max_entries=ask["bpf_map__max_entries"](handle),
            flags=ask["bpf_map__map_flags"](handle),
            btf_key_type_id=ask["bpf_map__btf_key_type_id"](handle),
            btf_value_type_id=ask["bpf_map__btf_value_type_id"](handle),
            internal=bool(ask["bpf_map__is_internal"](handle)),
        )
