"""Programs: loading, the verifier's words, what the kernel knows of one, running one on a packet."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator

import pytest

from nkform.kernel import bpf, bpf_programs
from nkform.kernel.bpf import BpfError
from nkform.kernel.bpf_maps import MapType, map_create, map_info, map_lookup
from nkform.kernel.bpf_programs import VerifierError, btf_load, enable_stats, prog_info, prog_load
from nkform.kernel.descriptors import Owned
from tests.live.helpers.bpf_programs import (
    DROP,
    EXIT,
    NEXT,
    PASS,
    call,
    counter,
    instruction,
    load_map,
    move,
    program,
    returns,
)

PACKET = bytes(12) + b"\x08\x00" + bytes(50)


@pytest.fixture
def count() -> Iterator[int]:
    with Owned(map_create(MapType.ARRAY, 4, 8, 1, "count")) as fd:
        yield fd


def counted(map_fd: int) -> int:
    return int.from_bytes(map_lookup(map_fd, bytes(4)) or b"", "little")


def test_a_program_says_what_it_is(count: int) -> None:
    with Owned(counter(count, name="counts.all-of-the-packets")) as fd:
        info = prog_info(fd)
        assert (info.name, info.type, info.map_ids) == (
            "counts.all_of_t",
            bpf_programs.SCHED_CLS,
            (map_info(count).id,),
        )
        assert len(info.tag) == 16
        assert info.load_time > 0
        assert info.xlated_len > 0
        assert info.verified_insns > 0
        assert info.id in set(bpf.prog_ids())
        with Owned(bpf.prog_fd(info.id)) as again:
            assert prog_info(again) == info


def test_a_program_with_many_maps_names_all() -> None:
    fds = [map_create(MapType.ARRAY, 4, 8, 1, f"m{number}") for number in range(64)]
    try:
        code = b"".join(load_map(1, fd) for fd in fds) + returns(NEXT)
        with Owned(prog_load(code, "many")) as fd:
            assert set(prog_info(fd).map_ids) == {map_info(each).id for each in fds}
    finally:
        for fd in fds:
            with Owned(fd):
                pass


@pytest.mark.parametrize("verdict", [NEXT, PASS, DROP])
def test_a_program_runs_on_a_packet(verdict: int) -> None:
    with Owned(program(verdict)) as fd:
        result = bpf_programs.test_run(fd, PACKET)
        assert (result.retval, result.data, result.ctx) == (verdict, PACKET, b"")
        assert result.duration_ns >= 0


def test_a_run_can_be_repeated(count: int) -> None:
    with Owned(counter(count)) as fd:
        bpf_programs.test_run(fd, PACKET, repeat=1000)
    assert counted(count) == 1000


MARK = 8
"""Offset of `mark` in struct __sk_buff, include/uapi/linux/bpf.h."""


def test_a_run_takes_and_returns_a_context() -> None:
    code = move(2, 0x77) + instruction(0x63, 1, 2, offset=MARK) + returns(PASS)  # ctx->mark = 0x77
    context = bytearray(192)
    struct.pack_into("=I", context, MARK, 0x11)
    with Owned(prog_load(code, "mark")) as fd:
        after = bpf_programs.test_run(fd, PACKET, bytes(context)).ctx
    assert struct.unpack_from("=I", after, MARK) == (0x77,)


@pytest.mark.parametrize("length", [40, 3000])
def test_a_packet_may_become_longer(length: int) -> None:
    change_tail = 38  # bpf_skb_change_tail(skb, length, flags)
    code = move(2, len(PACKET) + length) + move(3, 0) + call(change_tail) + returns(PASS)
    with Owned(prog_load(code, "longer")) as fd:
        assert bpf_programs.test_run(fd, PACKET).data == PACKET + bytes(length)


def test_a_packet_needs_a_header() -> None:
    with (
        Owned(program(name="p")) as fd,
        pytest.raises(BpfError, match=r"run program \d+ \(p\) on a packet of 3") as caught,
    ):
        bpf_programs.test_run(fd, b"abc")
    assert caught.value.errno == errno.EINVAL
    assert "at least an Ethernet header (14 bytes)" in str(caught.value)


def test_statistics_count_while_they_are_on() -> None:
    with Owned(program()) as fd:
        bpf_programs.test_run(fd, PACKET, repeat=5)
        assert prog_info(fd).run_cnt == 0
        with Owned(enable_stats()):
            bpf_programs.test_run(fd, PACKET, repeat=5)
            assert prog_info(fd).run_cnt == 5
        bpf_programs.test_run(fd, PACKET, repeat=5)
        assert prog_info(fd).run_cnt == 5


def test_the_verifiers_last_word_comes_first() -> None:
    with pytest.raises(VerifierError, match=r"load program bad: .*: R0 !read_ok \(the verifier's log has") as caught:
        prog_load(EXIT, "bad")
    assert caught.value.last_line == "R0 !read_ok"
    assert "processed" in caught.value.log


def test_a_long_log_is_fetched_whole() -> None:
    code = b"".join(move(1, number) for number in range(20000)) + EXIT
    with pytest.raises(VerifierError, match="R0 !read_ok") as caught:
        prog_load(code, "long")
    assert len(caught.value.log) > bpf_programs.LOG_BYTES
    assert "19999: (b7) r1 = 19999" in caught.value.log
    assert "\n9: (b7) r1 = 9" in caught.value.log


def test_what_the_verifier_never_saw() -> None:
    with pytest.raises(
        BpfError, match=r"load program none: .*: it has more instructions than the kernel takes"
    ) as caught:
        prog_load(b"", "none")
    assert caught.value.errno == errno.E2BIG
    with pytest.raises(BpfError, match=r"load program odd: .*: the kernel refused it before the verifier saw it"):
        prog_load(returns(0), "odd", 9999)


def test_bad_type_information_is_explained() -> None:
    with pytest.raises(VerifierError, match=r"load type information .*: btf_header not found"):
        btf_load(b"nonsense")


def test_no_descriptor_is_inherited(count: int) -> None:
    with Owned(program()) as prog, Owned(enable_stats()) as stats, Owned(bpf.prog_fd(prog_info(prog).id)) as again:
        assert not any(os.get_inheritable(fd) for fd in (prog, stats, again, count))


def test_type_information_is_loaded_and_used() -> None:
    strings = b"\0int\0"
    types = struct.pack("=IIII", 1, 1 << 24, 4, 1 << 24 | 32)  # INT `int`, signed, 32 bits
    data = struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings)) + types + strings
    with (
        Owned(btf_load(data)) as btf,
        Owned(map_create(MapType.ARRAY, 4, 4, 1, "typed", btf_fd=btf, btf_key_type_id=1, btf_value_type_id=1)) as fd,
    ):
        info = map_info(fd)
        assert (info.btf_key_type_id, info.btf_value_type_id) == (1, 1)
        assert info.btf_id > 0
