"""Folders that others could write to, and missing capabilities, are refused before anything is touched."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from nkform.kernel import bpffs
from tests.live.helpers.chain_sites import TCX_INGRESS
from tests.live.helpers.netstate import differences, netstate_snapshot
from tests.live.helpers.processes import Process
from tests.live.helpers.support import Node, links, needs
from tests.live.test_pairs import veth
from tests.live.test_runs import changed


def _other_owner(folder: Path) -> None:
    os.chown(folder, 65534, 65534)


def _open_to_all(folder: Path) -> None:
    folder.chmod(0o777)


def _a_link(folder: Path) -> None:
    elsewhere = folder.with_name(f"{folder.name}-elsewhere")
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)


def _a_file(folder: Path) -> None:
    folder.rename(folder.with_name(f"{folder.name}-elsewhere"))
    folder.touch()


@pytest.mark.parametrize("spoil", [_other_owner, _open_to_all, _a_link, _a_file])
@pytest.mark.parametrize("where", ["/run/nkform", "/run/nkform/w"])
def test_a_folder_that_others_could_write_to_is_refused(node: Node, spoil: Callable[[Path], None], where: str) -> None:
    import shutil

    node.apply(veth())
    before = netstate_snapshot()
    folder = Path(where)
    spoil(folder)
    try:
        error = node.refused(changed(), command="apply")
        assert where in error
        assert differences(before, netstate_snapshot()) == []
    finally:
        for path in (folder, folder.with_name(f"{folder.name}-elsewhere")):
            if path.is_symlink() or path.is_file():
                path.unlink()
            else:
                shutil.rmtree(path, ignore_errors=True)


def test_what_is_written_is_for_its_owner_alone(node: Node) -> None:
    node.apply(veth())
    node.apply(changed())
    for path in Path("/run/nkform").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
        assert path.stat().st_uid == 0


@needs("tcx")
@pytest.mark.parametrize("top", [bpffs.FOLDER, bpffs.HELD])
def test_a_folder_of_pins_that_others_could_write_to_is_refused(node: Node, top: str) -> None:
    node.apply(TCX_INGRESS.spec(["count"]))
    before = netstate_snapshot()
    folder = Path(bpffs.BASE, top)
    folder.mkdir(exist_ok=True)
    os.chown(folder, 65534, 65534)
    try:
        assert str(folder) in node.refused(TCX_INGRESS.spec(["guard", "count"]), command="apply")
    finally:
        if folder.exists():  # an empty one of programs that are held is cleared away
            os.chown(folder, 0, 0)
    assert differences(before, netstate_snapshot()) == []


def test_a_missing_capability_is_named_before_anything_is_touched(node: Node) -> None:
    node.write(veth())

    def drop() -> None:
        import ctypes

        for capability in (12, 21):  # CAP_NET_ADMIN, CAP_SYS_ADMIN; PR_CAPBSET_DROP is 24
            ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)
        _set_capabilities(~(1 << 12 | 1 << 21))

    run = Process("apply", "-y", str(node.path), prepare=drop)
    assert run.ended() == 1
    assert "NK0601" in run.said
    assert "CAP_NET_ADMIN" in run.said
    assert "CAP_SYS_ADMIN" in run.said
    assert links() == set()


def _set_capabilities(mask: int) -> None:
    """capset(2), with version 3 of its header (include/uapi/linux/capability.h)."""
    import ctypes
    import struct

    libc = ctypes.CDLL(None, use_errno=True)
    header = ctypes.create_string_buffer(struct.pack("=Ii", 0x20080522, 0))
    data = ctypes.create_string_buffer(24)
    assert libc.capget(header, data) == 0
    old = struct.unpack("=6I", data.raw[:24])
    low = [value & mask & 0xFFFFFFFF for value in old[:3]]
    data = ctypes.create_string_buffer(struct.pack("=6I", *low, *old[3:]))
    assert libc.capset(header, data) == 0, os.strerror(ctypes.get_errno() or errno.EINVAL)
