"""Pins in a BPF file system of the test's own: names, folders, lists, renames, and what is refused."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from nkform.kernel import bpf, bpffs
from nkform.kernel.bpf import BpfError
from nkform.kernel.bpf_maps import MapType, map_create
from nkform.kernel.bpffs import Pin
from nkform.kernel.descriptors import Owned
from nkform.kernel.error import KernelError
from tests.live.helpers.bpf_programs import program

SOMEBODY = 12345


@pytest.fixture
def base(tmp_path: Path) -> Iterator[str]:
    """A bpffs of its own."""
    folder = tmp_path / "bpf"
    folder.mkdir()
    bpffs.mount(str(folder))
    yield str(folder)
    ctypes.CDLL(None).umount2(os.fsencode(folder), 2)


@pytest.fixture
def prog() -> Iterator[int]:
    with Owned(program(name="pinned")) as fd:
        yield fd


def put(fd: int, pin: Pin, base: str) -> None:
    bpf.pin(fd, bpffs.prepare(pin, base))


A = Pin("worker-1", "eth0.100", "ingress", "guard.1f2e")
B = Pin("worker-1", "eth0.100", "ingress", "arp.77")
C = Pin("worker-1", "lxc", "peer", "guard.1f2e")
OTHER = Pin("worker-2", "lxc", "peer", "guard.1f2e")


def test_a_bpffs_is_told_from_other_folders(base: str, tmp_path: Path) -> None:
    assert bpffs.is_mounted(base)
    assert not bpffs.is_mounted(str(tmp_path))
    assert not bpffs.is_mounted("/nowhere")
    assert Path(base).stat().st_mode & 0o777 == 0o700
    bpffs.require(base)
    with pytest.raises(KernelError, match=rf"use the bpffs at {tmp_path}: .*: mount it: mount -t bpf -o mode=700 bpf"):
        bpffs.require(str(tmp_path))
    with pytest.raises(KernelError, match=r"mount a bpffs at /nowhere: .*: the folder does not exist"):
        bpffs.mount("/nowhere")


def test_pins_are_listed_by_node(base: str, prog: int) -> None:
    assert list(bpffs.pins("worker-1", base)) == []
    assert bpffs.nodes(base) == ()
    for pin in (A, B, C, OTHER):
        put(prog, pin, base)
    assert set(bpffs.pins("worker-1", base)) == {A, B, C}
    assert set(bpffs.pins("worker-2", base)) == {OTHER}
    assert bpffs.nodes(base) == ("worker-1", "worker-2")
    assert Path(A.path(base)).parent.stat().st_mode & 0o777 == 0o700
    with Owned(bpf.get(A.path(base))) as again:
        assert bpf.kind(again) == "program"


def test_a_pin_goes_with_the_folders_that_it_leaves_empty(base: str, prog: int) -> None:
    for pin in (A, B, OTHER):
        put(prog, pin, base)
    assert bpffs.remove(A, base)
    assert set(bpffs.pins("worker-1", base)) == {B}
    assert not bpffs.remove(A, base)
    assert bpffs.remove(B, base)
    assert bpffs.nodes(base) == ("worker-2",)
    assert bpffs.remove(OTHER, base)
    assert not Path(base, bpffs.FOLDER).exists()
    assert not bpffs.remove(OTHER, base)


def test_a_pin_is_renamed_in_one_step(base: str, prog: int) -> None:
    put(prog, A, base)
    bpffs.rename(A, C, base)
    assert list(bpffs.pins("worker-1", base)) == [C]
    with pytest.raises(KernelError, match="rename the pin") as caught:
        bpffs.rename(A, B, base)
    assert caught.value.errno == errno.ENOENT
    assert not Path(A.path(base)).parent.exists(), "the folder made for it is gone again"


def test_a_rename_replaces_what_has_the_name(base: str, prog: int) -> None:
    with Owned(map_create(MapType.ARRAY, 4, 8, 1, "other")) as other:
        put(prog, A, base)
        put(other, B, base)
    bpffs.rename(A, B, base)
    assert list(bpffs.pins("worker-1", base)) == [B]
    with Owned(bpf.get(B.path(base))) as fd:
        assert bpf.kind(fd) == "program"


def test_what_nkform_never_named_is_left_alone(base: str, prog: int) -> None:
    put(prog, A, base)
    folder = Path(A.path(base)).parent
    bpf.pin(prog, folder / "%zz")
    (folder.parent / "%zz").mkdir()
    assert list(bpffs.pins("worker-1", base)) == [A]
    bpffs.remove(A, base)
    assert (folder / "%zz").exists()


def link_elsewhere(place: Path) -> None:
    elsewhere = place.parent / "elsewhere"
    place.rename(elsewhere)
    place.symlink_to(elsewhere)


def give_away(place: Path) -> None:
    os.chown(place, SOMEBODY, -1)


def open_up(place: Path) -> None:
    place.chmod(0o777)


@pytest.mark.parametrize("level", [0, 1, 2, 3], ids=["hook", "device", "node", "nkform"])
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (link_elsewhere, "it is a symbolic link, which nkform never made"),
        (give_away, f"it belongs to user {SOMEBODY}"),
        (open_up, "mode 777: others could write to it"),
    ],
)
def test_only_plain_folders_of_ours_are_used(spoil: object, said: str, level: int, base: str, prog: int) -> None:
    put(prog, A, base)
    place = Path(A.folders(base)[level])
    assert callable(spoil)
    spoil(place)
    for use in (lambda: bpffs.prepare(A, base), lambda: bpffs.prepare(B, base), lambda: bpffs.remove(A, base)):
        with pytest.raises(KernelError, match=f"use folder {place}: .*{said}"):
            use()
    with pytest.raises(KernelError, match=said):
        list(bpffs.pins("worker-1", base))


def test_a_pin_in_place_of_a_folder_is_refused(base: str, prog: int) -> None:
    Path(base, bpffs.FOLDER).mkdir(0o700)
    bpf.pin(prog, f"{base}/nkform/worker-1")
    with pytest.raises(KernelError, match="it is a file, which nkform never made"):
        bpffs.prepare(A, base)
    with pytest.raises(KernelError, match="it is a file"):
        list(bpffs.pins("worker-1", base))


def test_errors_of_pins_say_what_is_wrong(base: str, prog: int, tmp_path: Path) -> None:
    put(prog, A, base)
    path = A.path(base)
    cases = (
        (lambda: bpf.pin(prog, path), errno.EEXIST, "the name is taken"),
        (lambda: bpf.pin(prog, f"{base}/a.b"), errno.EPERM, "the name has a dot in it"),
        (lambda: bpf.pin(prog, f"{base}/no/x"), errno.ENOENT, "the folder does not exist"),
        (lambda: bpf.pin(prog, tmp_path / "x"), errno.EPERM, "the folder is not in a bpffs"),
        (lambda: bpf.pin(0, f"{base}/x"), errno.EINVAL, "the file descriptor is none of a BPF program"),
        (lambda: bpf.get(f"{base}/x"), errno.ENOENT, "there is no such pin"),
        (lambda: bpf.get("/etc/passwd"), errno.EACCES, "it is no pin of a BPF object"),
    )
    for use, number, said in cases:
        with pytest.raises(BpfError, match=said) as caught:
            use()
        assert caught.value.errno == number
