"""Tiny programs out of raw instructions, for tests of attaching: no compiler is needed.

Layout: struct bpf_insn, include/uapi/linux/bpf.h; opcodes: Documentation/bpf/standardization/instruction-set.rst.
"""

from __future__ import annotations

import struct

from nkform.kernel.bpf_programs import prog_load

NEXT, PASS, DROP = -1, 0, 2

_INSTRUCTION = struct.Struct("=BBhi")
PSEUDO_MAP_FD = 1


def instruction(code: int, dst: int = 0, src: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return _INSTRUCTION.pack(code, src << 4 | dst, offset, value)


EXIT = instruction(0x95)


def move(register: int, value: int) -> bytes:
    """A register becomes a number."""
    return instruction(0xB7, register, value=value)


def load_map(register: int, fd: int) -> bytes:
    """A register becomes a map."""
    return instruction(0x18, register, PSEUDO_MAP_FD, value=fd) + instruction(0)


def call(helper: int) -> bytes:
    return instruction(0x85, value=helper)


def returns(verdict: int) -> bytes:
    """The instructions that do nothing but return a verdict."""
    return move(0, verdict) + EXIT


def program(verdict: int = NEXT, name: str = "") -> int:
    """A loaded program that returns a verdict. Each call makes another program, with an id of its own."""
    return prog_load(returns(verdict), name)


def counter(map_fd: int, verdict: int = NEXT, name: str = "") -> int:
    """A loaded program that adds one to the first u64 of an array map, then returns a verdict."""
    code = (
        instruction(0x62, 10, offset=-4, value=0)  # *(u32 *)(r10 - 4) = 0
        + load_map(1, map_fd)
        + instruction(0xBF, 2, 10)  # r2 = r10
        + instruction(0x07, 2, value=-4)  # r2 += -4
        + call(1)  # bpf_map_lookup_elem
        + instruction(0x15, 0, offset=2)  # if r0 == 0 skip two
        + move(1, 1)
        + instruction(0xDB, 0, 1)  # lock *(u64 *)(r0 + 0) += r1
        + returns(verdict)
    )
    return prog_load(code, name)
