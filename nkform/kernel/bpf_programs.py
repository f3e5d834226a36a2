"""Programs: loading, what the kernel knows of one, running one on a packet of ours, and its type information (BTF).

Layouts and numbers: include/uapi/linux/bpf.h.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Mapping, Sequence

from nkform.dataclass import dataclass
from nkform.kernel import bpf
from nkform.kernel.bpf import BpfError, Buffer, Command, Layout

SCHED_CLS = 3
"""BPF_PROG_TYPE_SCHED_CLS: the type of all programs at tcx, netkit and clsact."""

INSTRUCTION_BYTES = 8
LOG_BYTES = 1 << 16
LOG_BYTES_MAX = 1 << 26
"""The kernel takes more than a verifier has ever said."""

LOAD_TRIES = 5
"""A verifier that is interrupted by a signal says EAGAIN."""

BPF_STATS_RUN_TIME = 0
PACKET_ROOM = 256
"""Bytes that a program may make a packet of a test run longer by."""

PROG_LOAD = Layout(
    "bpf_attr",
    ("prog_type", "I"),
    ("insn_cnt", "I"),
    ("insns", "Q"),
    ("license", "Q"),
    ("log_level", "I"),
    ("log_size", "I"),
    ("log_buf", "Q"),
    ("kern_version", "I"),
    ("prog_flags", "I"),
    ("prog_name", "16s"),
    ("prog_ifindex", "I"),
    ("expected_attach_type", "I"),
    ("prog_btf_fd", "I"),
    ("func_info_rec_size", "I"),
    ("func_info", "Q"),
    ("func_info_cnt", "I"),
    ("line_info_rec_size", "I"),
    ("line_info", "Q"),
    ("line_info_cnt", "I"),
    ("attach_btf_id", "I"),
    ("attach_prog_fd", "I"),
    ("core_relo_cnt", "I"),
    ("fd_array", "Q"),
)
TEST_RUN = Layout(
    "bpf_attr.test",
    ("prog_fd", "I"),
    ("retval", "i"),
    ("data_size_in", "I"),
    ("data_size_out", "I"),
    ("data_in", "Q"),
    ("data_out", "Q"),
    ("repeat", "I"),
    ("duration", "I"),
    ("ctx_size_in", "I"),
    ("ctx_size_out", "I"),
    ("ctx_in", "Q"),
    ("ctx_out", "Q"),
)
BTF_LOAD = Layout(
    "bpf_attr",
    ("btf", "Q"),
    ("btf_log_buf", "Q"),
    ("btf_size", "I"),
    ("btf_log_size", "I"),
    ("btf_log_level", "I"),
)
ENABLE_STATS = Layout("bpf_attr.enable_stats", ("type", "I"))
PROG_INFO = Layout(
    "bpf_prog_info",
    ("type", "I"),
    ("id", "I"),
    ("tag", "8s"),
    ("jited_prog_len", "I"),
    ("xlated_prog_len", "I"),
    ("jited_prog_insns", "Q"),
    ("xlated_prog_insns", "Q"),
    ("load_time", "Q"),
    ("created_by_uid", "I"),
    ("nr_map_ids", "I"),
    ("map_ids", "Q"),
    ("name", "16s"),
    ("ifindex", "I"),
    ("", "4x"),  # a bit for gpl_compatible
    ("netns_dev", "Q"),
    ("netns_ino", "Q"),
    ("nr_jited_ksyms", "I"),
    ("nr_jited_func_lens", "I"),
    ("jited_ksyms", "Q"),
    ("jited_func_lens", "Q"),
    ("btf_id", "I"),
    ("func_info_rec_size", "I"),
    ("func_info", "Q"),
    ("nr_func_info", "I"),
    ("nr_line_info", "I"),
    ("line_info", "Q"),
    ("jited_line_info", "Q"),
    ("nr_jited_line_info", "I"),
    ("line_info_rec_size", "I"),
    ("jited_line_info_rec_size", "I"),
    ("nr_prog_tags", "I"),
    ("prog_tags", "Q"),
    ("run_time_ns", "Q"),
    ("run_cnt", "Q"),
    ("recursion_misses", "Q"),
    ("verified_insns", "I"),
)


class VerifierError(BpfError):
    """The verifier (or the check of a BTF) refused: `log` is all that it said, `last_line` the line that says why."""

    def __init__(self, number: int, asked: str, log: str) -> None:
        self.log = log
        self.last_line, others = last_useful_line(log)
        rest = f" (the verifier's log has {others} more lines)" if others else ""
        super().__init__(number, asked, f"{self.last_line}{rest}")


_STATISTICS = ("processed ", "verification time ", "stack depth ", "insns processed ")


_REPORT = "Verification failed: "
"""Linux 7.3 ends with a report of many lines, which begins so; the line before is what older kernels say last."""


def last_useful_line(log: str) -> tuple[str, int]:
    """The line of a verifier's log that says why, and how many lines are left out.

    That is the last one before the report and the statistics.
    """
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    reports = [place for place, line in enumerate(lines) if line.startswith(_REPORT)]
    until = max(reports[0], 1) if reports else len(lines)
    telling = [line for line in lines[:until] if not line.startswith(_STATISTICS)]
    return (telling[-1], len(lines) - 1) if telling else ("", len(lines))


@dataclass(frozen=True, slots=True)
class ProgInfo:
    """A loaded program. Times in ns: `load_time` since boot; `run_time_ns` and `run_cnt` grow only while statistics are
    on (enable_stats). Lengths in bytes. `btf_id` is 0 where it has no type information."""

    id: int
    type: int
    tag: str
    name: str
    map_ids: tuple[int, ...]
    load_time: int
    btf_id: int
    run_time_ns: int
    run_cnt: int
    recursion_misses: int
    verified_insns: int
    jited_len: int
    xlated_len: int


@dataclass(frozen=True, slots=True)
class TestRun:
    """What a program made of a packet: its verdict (NEXT is -1), the packet and the context (struct __sk_buff) after
    it, and the mean time of one run in ns."""

    __test__ = False  # no test class, whatever pytest thinks

    retval: int
    data: bytes
    duration_ns: int
    ctx: bytes


def prog_load(
    insns: bytes,
    name: str,
    type: int = SCHED_CLS,
    license: str = "GPL",
    *,
    btf_fd: int = 0,
    expected_attach_type: int = 0,
    log_level: int = 0,
    prog_flags: int = 0,
    fd_array: Sequence[int] = (),
    func_info: bytes = b"",
    func_info_rec_size: int = 8,
    line_info: bytes = b"",
    line_info_rec_size: int = 16,
) -> int:
    """Loads instructions (struct bpf_insn, 8 bytes each). The verifier's log is fetched only after a failure.

    Raises VerifierError, or BpfError where the verifier had nothing to say.
    """
    code = bpf.memory(insns)
    terms = bpf.memory(license.encode() + b"\0")
    fds = bpf.memory(struct.pack(f"={len(fd_array)}i", *fd_array))
    functions, lines = bpf.memory(func_info), bpf.memory(line_info)

    def attempt(level: int, log: Buffer | None) -> int:
        attr = PROG_LOAD.fill(
            type,
            len(insns) // INSTRUCTION_BYTES,
            bpf.address(code),
            bpf.address(terms),
            level,
            len(log) if log is not None else 0,
            bpf.address(log) if log is not None else 0,
            0,
            prog_flags,
            bpf.object_name(name),
            0,
            expected_attach_type,
            btf_fd,
            func_info_rec_size if func_info else 0,
            bpf.address(functions) if func_info else 0,
            len(func_info) // func_info_rec_size,
            line_info_rec_size if line_info else 0,
            bpf.address(lines) if line_info else 0,
            len(line_info) // line_info_rec_size,
            0,
            0,
            0,
            bpf.address(fds) if fd_array else 0,
        )
        return bpf.call(Command.PROG_LOAD, attr, PROG_LOAD.size)

    return _verified(attempt, log_level or 1, f"load program {name or 'without a name'}", _LOAD_MEANINGS)


_LOAD_MEANINGS: Mapping[int, str] = {
    errno.E2BIG: "it has more instructions than the kernel takes (a million), or none",
    errno.EINVAL: "the kernel refused it before the verifier saw it: the program type or its flags",
    errno.EACCES: bpf.PRIVILEGE,
}


def load_drop(name: str) -> int:
    """A program that drops all packets, made without a compiler: `r0 = 2; exit` (TCX_DROP, NETKIT_DROP).

    Raises BpfError.
    """
    return prog_load(struct.pack("=BBhiBBhi", 0xB7, 0, 0, 2, 0x95, 0, 0, 0), name)


def btf_load(data: bytes) -> int:
    """Loads type information. Raises VerifierError, or BpfError."""
    types = bpf.memory(data)

    def attempt(level: int, log: Buffer | None) -> int:
        size, place = (len(log), bpf.address(log)) if log is not None else (0, 0)
        attr = BTF_LOAD.fill(bpf.address(types), place, len(data), size, level)
        return bpf.call(Command.BTF_LOAD, attr, BTF_LOAD.size)

    return _verified(attempt, 1, "load type information (BTF)", {errno.E2BIG: "it is larger than 16 MiB"})


def _verified(attempt: Callable[[int, Buffer | None], int], level: int, asked: str, meanings: Mapping[int, str]) -> int:
    """Has the kernel check something; after a failure again, with a log that is as long as it must be."""
    fd = -errno.EAGAIN
    for _ in range(LOAD_TRIES):
        if (fd := attempt(0, None)) != -errno.EAGAIN:
            break
    if fd >= 0:
        return fd
    size = LOG_BYTES
    while True:
        log = bpf.room(size)
        again = attempt(level, log)
        if again >= 0:
            return again
        if again != -errno.ENOSPC or size >= LOG_BYTES_MAX:
            break
        size *= 8
    said = log.value.decode(errors="replace").strip()
    if said:
        raise VerifierError(-fd, asked, said)
    raise bpf.error(-fd, asked, meanings)


_MAP_IDS = 64
_nr_map_ids = PROG_INFO.getter("nr_map_ids")
_set_nr_map_ids = PROG_INFO.setter("nr_map_ids")
_set_map_ids = PROG_INFO.setter("map_ids")
_read_prog_info = PROG_INFO.reader(
    "id",
    "type",
    "tag",
    "name",
    "load_time",
    "btf_id",
    "run_time_ns",
    "run_cnt",
    "recursion_misses",
    "verified_insns",
    "jited_prog_len",
    "xlated_prog_len",
)


def prog_info(prog_fd: int) -> ProgInfo:
    """What the kernel knows of a program. Raises BpfError."""
    size, count = 0, _MAP_IDS
    while count > size:
        size = count
        ids = bpf.room(4 * size)
        info = bpf.room(PROG_INFO.size)
        _set_nr_map_ids(info, size)
        _set_map_ids(info, bpf.address(ids))
        bpf.read_info(prog_fd, info, "program")
        count = _nr_map_ids(info)
    number, kind, tag, name, *rest = _read_prog_info(info)
    maps = struct.unpack_from(f"={count}I", ids)
    return ProgInfo(number, kind, tag.hex(), bpf.name_of(name), maps, *rest)


def prog_name(prog_fd: int) -> str:
    """What to call a program in an error: its id and name, or what there is instead."""
    try:
        info = prog_info(prog_fd)
    except BpfError:
        return f"file descriptor {prog_fd}, which is no program,"
    return f"program {info.id} ({info.name})" if info.name else f"program {info.id}"


_test_results = TEST_RUN.reader("retval", "data_size_out", "duration", "ctx_size_out")


def test_run(prog_fd: int, data: bytes, ctx: bytes = b"", repeat: int = 1) -> TestRun:  # noqa: PT028
    """Runs a program on a packet, which begins with its Ethernet header, and on a context if one is given.

    Nothing is attached and nothing is sent, but maps are changed. Raises BpfError.
    """
    packet, context_in, context = bpf.memory(data), bpf.memory(ctx), bpf.room(len(ctx))
    size = len(data) + PACKET_ROOM
    while True:
        out = bpf.room(size)
        attr = TEST_RUN.fill(
            prog_fd,
            0,
            len(data),
            size,
            bpf.address(packet),
            bpf.address(out),
            repeat,
            0,
            len(ctx),
            len(ctx),
            bpf.address(context_in) if ctx else 0,
            bpf.address(context) if ctx else 0,
        )
        result = bpf.call(Command.PROG_TEST_RUN, attr, TEST_RUN.size)
        verdict, length, duration, context_length = _test_results(attr)
        if result == -errno.ENOSPC and length > size:
            size = length
            continue
        if result < 0:
            raise bpf.error(-result, f"run {prog_name(prog_fd)} on a packet of {len(data)} bytes", _TEST_MEANINGS)
        return TestRun(verdict, out.raw[:length], duration, context.raw[:context_length])


_TEST_MEANINGS: Mapping[int, str] = {
    errno.EINVAL: "a packet has at least an Ethernet header (14 bytes), and a context's unsupported fields are 0",
    errno.EOPNOTSUPP: "programs of this type cannot be run on a packet",
    errno.EINTR: "a signal interrupted it",
    errno.ENOMEM: "the packet is too large",
}


def enable_stats() -> int:
    """Has the kernel count runs and run times of all programs until this file descriptor is closed. Raises BpfError."""
    fd = bpf.call(Command.ENABLE_STATS, ENABLE_STATS.fill(BPF_STATS_RUN_TIME), ENABLE_STATS.size)
    if fd < 0:
        raise bpf.error(-fd, "turn on run statistics of BPF programs", {})
    return fd
