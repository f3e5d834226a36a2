"""bpf(2): the system call itself, its errors, and what all its objects share: file descriptors, ids, info and pins.

Links are in bpf_links.py, maps in bpf_maps.py, programs in bpf_programs.py; each command is one function there, and
each structure one Layout, which a live test compares with the running kernel's own BTF. Nothing else knows a command's
number or an offset. Objects are plain file descriptors, which the kernel makes close-on-exec; whoever gets one closes
it.

Source of commands and layouts: include/uapi/linux/bpf.h (enum bpf_cmd, union bpf_attr).
"""

from __future__ import annotations

import ctypes
import errno
import operator
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from enum import IntEnum
from functools import lru_cache
from typing import Any

from nkform.kernel.error import KernelError

SYSCALL_NUMBERS = {
    "x86_64": 321,
    "aarch64": 280,
    "riscv64": 280,
    "loongarch64": 280,
    "ppc64le": 361,
    "ppc64": 361,
    "s390x": 351,
    "i686": 357,
    "armv7l": 386,
}
"""__NR_bpf by machine: asm/unistd.h of each architecture."""

ENOTSUPP = 524
"""A kernel-internal errno (include/linux/errno.h) that bpf(2) lets out; it leaves this room as EOPNOTSUPP."""

NAME_BYTES = 16
"""BPF_OBJ_NAME_LEN: an object's name and its NUL."""


class Command(IntEnum):
    """enum bpf_cmd, as far as it is used."""

    MAP_CREATE = 0
    MAP_LOOKUP_ELEM = 1
    MAP_UPDATE_ELEM = 2
    MAP_DELETE_ELEM = 3
    MAP_GET_NEXT_KEY = 4
    PROG_LOAD = 5
    OBJ_PIN = 6
    OBJ_GET = 7
    PROG_TEST_RUN = 10
    PROG_GET_NEXT_ID = 11
    MAP_GET_NEXT_ID = 12
    PROG_GET_FD_BY_ID = 13
    MAP_GET_FD_BY_ID = 14
    OBJ_GET_INFO_BY_FD = 15
    PROG_QUERY = 16
    BTF_LOAD = 18
    MAP_FREEZE = 22
    MAP_LOOKUP_BATCH = 24
    MAP_UPDATE_BATCH = 26
    MAP_DELETE_BATCH = 27
    LINK_CREATE = 28
    LINK_UPDATE = 29
    LINK_GET_FD_BY_ID = 30
    LINK_GET_NEXT_ID = 31
    ENABLE_STATS = 32
    LINK_DETACH = 34


class BpfError(KernelError):
    """bpf(2) refused: errno, what was asked, and in `extack` what that errno means for this request.

    `feature` names what the kernel lacks and the version that brings it, where that was found to be the reason.
    """

    def __init__(self, number: int, asked: str, meaning: str = "", feature: str = "") -> None:
        super().__init__(number, asked, f"needs {feature}" if feature else meaning)
        self.feature = feature


class Layout:
    """A kernel structure as a table: its fields in order, each with its name and its format (struct module).

    A field without a name is padding. `source` is the structure's name in include/uapi/linux/bpf.h.
    """

    def __init__(self, source: str, *fields: tuple[str, str]) -> None:
        self.source = source
        self.fields = fields
        self.struct = struct.Struct("=" + "".join(form for _, form in fields))
        self.size = self.struct.size
        self._array = ctypes.c_char * self.size
        self._pack = self.struct.pack_into

    def offsets(self) -> dict[str, int]:
        """Each field's offset in bytes."""
        found, place = {}, 0
        for name, form in self.fields:
            if name:
                found[name] = place
            place += struct.calcsize("=" + form)
        return found

    def fill(self, *values: int | bytes) -> Buffer:
        """The structure in memory that the kernel may read and write."""
        buffer = self._array()
        self._pack(buffer, 0, *values)
        return buffer

    def reader(self, *names: str) -> Callable[[Buffer], tuple[Any, ...]]:
        """A function that reads these fields, in this order."""
        order = [name for name, _ in self.fields if name]
        pick = operator.itemgetter(*map(order.index, names))
        unpack = self.struct.unpack_from
        return lambda buffer: pick(unpack(buffer))

    def getter(self, name: str) -> Callable[[Buffer], int]:
        """A function that reads one number."""
        unpack, place = self._one(name).unpack_from, self.offsets()[name]
        return lambda buffer: int(unpack(buffer, place)[0])

    def setter(self, name: str) -> Callable[[Buffer, int], None]:
        """A function that writes one number."""
        pack, place = self._one(name).pack_into, self.offsets()[name]
        return lambda buffer, value: pack(buffer, place, value)

    def _one(self, name: str) -> struct.Struct:
        return struct.Struct("=" + dict(self.fields)[name])


Buffer = ctypes.Array[ctypes.c_char]

OBJ = Layout("bpf_attr", ("pathname", "Q"), ("bpf_fd", "I"), ("file_flags", "I"))
GET_ID = Layout("bpf_attr", ("start_id", "I"), ("next_id", "I"), ("open_flags", "I"))
INFO = Layout("bpf_attr.info", ("bpf_fd", "I"), ("info_len", "I"), ("info", "Q"))
_next_id = GET_ID.getter("next_id")


def _system_call() -> ctypes._NamedFuncPointer:
    function = ctypes.CDLL(None, use_errno=True).syscall
    function.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_ulong)
    function.restype = ctypes.c_long
    return function


_syscall = _system_call()
_number = SYSCALL_NUMBERS.get(os.uname().machine, -1)


def call(command: int, attr: Buffer, size: int) -> int:
    """The bare system call: what it returns, or the negative errno. Raises nothing, so that callers explain errors."""
    result: int = _syscall(_number, command, attr, size)
    if result >= 0:
        return result
    number = ctypes.get_errno()
    return -errno.EOPNOTSUPP if number == ENOTSUPP else -number


def room(size: int) -> Buffer:
    """Memory of that many bytes for the kernel to write to."""
    return (ctypes.c_char * size)()


def memory(data: bytes) -> Buffer:
    """A copy of some bytes that has an address."""
    return (ctypes.c_char * len(data)).from_buffer_copy(data)


address = ctypes.addressof


@lru_cache(maxsize=256)
def object_name(text: str) -> bytes:
    """A name as the kernel takes one for programs and maps: 15 bytes, letters, digits, `_` and `.`."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "_.") else "_" for c in text)
    return kept.encode()[: NAME_BYTES - 1]


def name_of(field: bytes) -> str:
    """The text of a fixed-size name."""
    return field.split(b"\0", 1)[0].decode(errors="replace")


PRIVILEGE = "this takes root (CAP_BPF and CAP_NET_ADMIN)"
_COMMON: Mapping[int, str] = {
    errno.EPERM: PRIVILEGE,
    errno.EBADF: "the file descriptor is not open, or is none of the right kind of object",
    errno.EBADFD: "the file descriptor is not open, or is none of a BPF object",
    errno.ENOMEM: "the kernel is out of memory, or the control group's limit is reached",
    errno.EMFILE: "too many open files: `ulimit -n`",
    errno.ENOSYS: "this kernel was built without CONFIG_BPF_SYSCALL, or this processor is unknown here",
}


def error(number: int, asked: str, meanings: Mapping[int, str], feature: str = "") -> BpfError:
    """The error for an errno (positive), explained by what it means for the request, else by what it always means."""
    return BpfError(number, asked, meanings.get(number, _COMMON.get(number, "")), feature)


# --- ids --------------------------------------------------------------------------------


def _fd_by_id(command: Command, kind: str, number: int) -> int:
    fd = call(command, GET_ID.fill(number, 0, 0), GET_ID.size)
    if fd < 0:
        raise error(-fd, f"open BPF {kind} {number}", {errno.ENOENT: f"there is no {kind} with this id"})
    return fd


def prog_fd(prog_id: int) -> int:
    """A program by id. Raises BpfError (ENOENT)."""
    return _fd_by_id(Command.PROG_GET_FD_BY_ID, "program", prog_id)


def map_fd(map_id: int) -> int:
    """A map by id. Raises BpfError (ENOENT)."""
    return _fd_by_id(Command.MAP_GET_FD_BY_ID, "map", map_id)


def link_fd(link_id: int) -> int:
    """A link by id. Raises BpfError (ENOENT)."""
    return _fd_by_id(Command.LINK_GET_FD_BY_ID, "link", link_id)


def _ids(command: Command, kind: str) -> Iterator[int]:
    last = 0
    while True:
        attr = GET_ID.fill(last, 0, 0)
        result = call(command, attr, GET_ID.size)
        if result == -errno.ENOENT:
            return
        if result < 0:
            raise error(-result, f"list the BPF {kind}s", {})
        last = _next_id(attr)
        yield last


def prog_ids() -> Iterator[int]:
    """The ids of all programs of the system, ascending."""
    return _ids(Command.PROG_GET_NEXT_ID, "program")


def map_ids() -> Iterator[int]:
    """The ids of all maps of the system, ascending."""
    return _ids(Command.MAP_GET_NEXT_ID, "map")


def link_ids() -> Iterator[int]:
    """The ids of all links of the system, ascending."""
    return _ids(Command.LINK_GET_NEXT_ID, "link")


# --- info -------------------------------------------------------------------------------


def read_info(fd: int, info: Buffer, kind: str) -> None:
    """Has the kernel fill in an object's info; what this kernel does not know stays zero. Raises BpfError."""
    result = call(Command.OBJ_GET_INFO_BY_FD, INFO.fill(fd, len(info), address(info)), INFO.size)
    if result < 0:
        meanings = {errno.EINVAL: f"the file descriptor is of another kind than a BPF {kind}"}
        raise error(-result, f"read the info of a BPF {kind}", meanings)


_KINDS = {"bpf-prog": "program", "bpf-map": "map", "bpf_link": "link", "bpf-link": "link"}


def kind(fd: int) -> str:
    """What a file descriptor is: program, map or link; "" for anything else.

    The kernel's info does not tell: asked about a program, it answers for a program, whatever was expected.
    """
    return _KINDS.get(os.readlink(f"/proc/self/fd/{fd}").partition("anon_inode:")[2], "")


# --- pins -------------------------------------------------------------------------------


def pin(fd: int, path: str | os.PathLike[str]) -> None:
    """Gives a program, map or link a name in a bpffs; it lives on when its file descriptors are closed.

    Raises BpfError (EEXIST: the name is taken; EPERM: no bpffs, or a "." in the name; ENOENT: no such folder).
    """
    name = memory(os.fsencode(path) + b"\0")
    result = call(Command.OBJ_PIN, OBJ.fill(address(name), fd, 0), OBJ.size)
    if result < 0:
        raise error(-result, f"pin a BPF object as {os.fspath(path)}", _PIN_MEANINGS)


_PIN_MEANINGS: Mapping[int, str] = {
    errno.EEXIST: "the name is taken",
    errno.ENOENT: "the folder does not exist",
    errno.EPERM: "the folder is not in a bpffs, or the name has a dot in it, or " + PRIVILEGE,
    errno.EINVAL: "the file descriptor is none of a BPF program, map or link",
}


def get(path: str | os.PathLike[str]) -> int:
    """Opens a pinned object. Raises BpfError (ENOENT: no such pin; EACCES: a file, but no pin)."""
    name = memory(os.fsencode(path) + b"\0")
    fd = call(Command.OBJ_GET, OBJ.fill(address(name), 0, 0), OBJ.size)
    if fd < 0:
        raise error(-fd, f"open the pin {os.fspath(path)}", _GET_MEANINGS)
    return fd


_GET_MEANINGS: Mapping[int, str] = {
    errno.ENOENT: "there is no such pin",
    errno.EACCES: "it is no pin of a BPF object, or its permissions forbid it",
    errno.EPERM: "it is no pin of a BPF object, or " + PRIVILEGE,
    errno.ELOOP: "there are too many symbolic links in the path",
}
