"""What bpf(2)'s room does without a kernel: tables, names, positions, and the words of its errors."""

from __future__ import annotations

import errno

import pytest

from nkform.kernel import bpf, bpf_links, bpf_maps
from nkform.kernel.bpf import BpfError, Layout
from nkform.kernel.bpf_links import After, AttachType, Before
from nkform.kernel.bpf_programs import VerifierError, last_useful_line


def test_a_layout_is_read_and_written_by_name() -> None:
    layout = Layout("example", ("a", "I"), ("", "4x"), ("b", "Q"), ("name", "4s"))
    assert layout.size == 20
    assert layout.offsets() == {"a": 0, "b": 8, "name": 16}
    buffer = layout.fill(1, 2, b"xyz")
    assert layout.getter("b")(buffer) == 2
    layout.setter("b")(buffer, 3)
    assert layout.reader("name", "b")(buffer) == (b"xyz\0", 3)


@pytest.mark.parametrize(
    ("layout", "offsets"),
    [
        (bpf_links.LINK_CREATE, {"flags": 12, "tcx.relative_fd": 16, "tcx.expected_revision": 24}),
        (bpf_links.PROG_QUERY, {"prog_ids": 16, "count": 24, "link_ids": 40, "revision": 56}),
        (bpf_links.LINK_INFO, {"id": 4, "prog_id": 8, "tcx.ifindex": 16, "tcx.attach_type": 20}),
        (bpf_maps.MAP_INFO, {"name": 24, "btf_id": 64, "map_extra": 80}),
    ],
)
def test_offsets_are_those_of_the_header(layout: Layout, offsets: dict[str, int]) -> None:
    assert {name: layout.offsets()[name] for name in offsets} == offsets


@pytest.mark.parametrize(
    ("name", "kept"),
    [("guard", b"guard"), ("a-b/c", b"a_b_c"), ("x" * 20, b"x" * 15), (".rodata", b".rodata"), ("é", b"_")],
)
def test_object_names_become_what_the_kernel_takes(name: str, kept: bytes) -> None:
    assert bpf.object_name(name) == kept


@pytest.mark.parametrize("kind", [Before, After])
def test_a_position_has_one_anchor(kind: type[Before | After]) -> None:
    with pytest.raises(ValueError, match="relative to one"):
        kind()
    with pytest.raises(ValueError, match="relative to one"):
        kind(link_id=1, prog_id=2)
    assert kind(link_id=1) != kind(prog_id=1)


def test_an_error_says_what_was_asked_and_what_it_means() -> None:
    error = bpf.error(errno.ESTALE, "attach program 5", {errno.ESTALE: "the chain was changed"})
    assert str(error) == "attach program 5: Stale file handle: the chain was changed (ESTALE)"
    assert (error.errno, error.asked, error.feature) == (errno.ESTALE, "attach program 5", "")


def test_an_error_names_the_version_that_brings_what_is_missing() -> None:
    error = BpfError(errno.EINVAL, "attach program 5", "something else", AttachType.TCX_INGRESS.feature)
    assert str(error) == "attach program 5: Invalid argument: needs tcx links: Linux 6.6 (EINVAL)"
    assert AttachType.NETKIT_PEER.feature == "netkit (CONFIG_NETKIT): Linux 6.7"


LOG = """\
func#0 @0
0: R1=ctx(off=0,imm=0) R10=fp0
0: (95) exit
R0 !read_ok
processed 1 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""


def test_a_verifiers_log_is_led_by_the_line_that_tells() -> None:
    error = VerifierError(errno.EACCES, "load program guard", LOG)
    assert error.last_line == "R0 !read_ok"
    assert error.log == LOG
    assert str(error) == (
        "load program guard: Permission denied: R0 !read_ok (the verifier's log has 4 more lines) (EACCES)"
    )


REPORT = """\
0: R1=ctx() R10=fp0
0: (95) exit
R0 !read_ok

Verification failed: Register Type Safety: Unreadable register

Suggestion:
  Initialize R0 on every path before this instruction.

processed 1 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""


def test_the_report_of_younger_kernels_does_not_hide_that_line() -> None:
    assert last_useful_line(REPORT) == ("R0 !read_ok", 6)
    assert last_useful_line(REPORT[REPORT.index("Verif") :])[0].startswith("Verification failed: Register Type Safety")


@pytest.mark.parametrize(
    ("log", "line", "others"), [("", "", 0), ("only\n\n", "only", 0), ("processed 3 insns", "", 1)]
)
def test_short_logs(log: str, line: str, others: int) -> None:
    assert last_useful_line(log) == (line, others)


@pytest.mark.parametrize(("kind", "room"), [(bpf_maps.MapType.HASH, 12), (bpf_maps.MapType.PERCPU_ARRAY, 16)])
def test_per_cpu_values_are_padded(kind: int, room: int) -> None:
    info = bpf_maps.MapInfo(1, kind, "m", 4, 12, 1, 0, 0, 0, 0)
    assert info.room == room * (bpf_maps.possible_cpus() if kind in bpf_maps.PERCPU else 1)
