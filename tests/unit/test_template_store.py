"""Given a folder of objects, nobody but its owner can put one there, and builders do not get in each other's way."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

from nkform.bpf.store import Store
from nkform.problem import NkformError

KEY, OTHER = "a" * 64, "b" * 64


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "objects"


def test_an_object_comes_back(folder: Path) -> None:
    with Store(folder) as store:
        assert store.get(KEY) is None
        store.put(KEY, b"object", {"clang": "14"})
    with Store(folder, create=False) as store:
        assert store.get(KEY) == b"object"
        assert dict(store.about(KEY) or {})["clang"] == "14"


def test_the_folder_is_for_its_owner_alone(folder: Path) -> None:
    Store(folder).close()
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_damaged_object_counts_as_missing(folder: Path) -> None:
    with Store(folder) as store:
        store.put(KEY, b"object", {})
        (folder / f"{KEY}.o").write_bytes(b"objekt")
        assert store.get(KEY) is None


def test_an_object_that_others_may_write_counts_as_missing(folder: Path) -> None:
    with Store(folder) as store:
        store.put(KEY, b"object", {})
        (folder / f"{KEY}.o").chmod(0o666)
        assert store.get(KEY) is None


def test_a_symbolic_link_counts_as_missing(folder: Path, tmp_path: Path) -> None:
    with Store(folder) as store:
        store.put(KEY, b"object", {})
        (folder / f"{KEY}.o").rename(tmp_path / "elsewhere")
        (folder / f"{KEY}.o").symlink_to(tmp_path / "elsewhere")
        assert store.get(KEY) is None


def refused(folder: Path) -> str:
    with pytest.raises(NkformError) as caught:
        Store(folder)
    assert caught.value.problems[0].code == "NK0733"
    return caught.value.problems[0].message


def test_a_folder_that_others_may_write_to_is_refused(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)
    assert "others could write" in refused(folder)


def test_a_folder_below_one_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    assert "others could write" in refused(tmp_path / "open" / "objects")


def test_a_symbolic_link_is_refused_as_the_folder(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "real")
    assert "symbolic link" in refused(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_folder_of_another_user_is_refused(folder: Path) -> None:
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    assert "belongs to user" in refused(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_an_object_of_another_user_counts_as_missing(folder: Path) -> None:
    with Store(folder) as store:
        store.put(KEY, b"object", {})
        os.chown(folder / f"{KEY}.o", 65534, 65534)
        assert store.get(KEY) is None


def test_given_objects_that_do_not_exist_are_told(folder: Path) -> None:
    with pytest.raises(NkformError, match="No such file"):
        Store(folder, create=False)


def test_names_that_are_no_keys_are_refused(folder: Path) -> None:
    with Store(folder) as store, pytest.raises(ValueError, match="no key"):
        store.get("../../etc/passwd")


def _build(folder: Path, counter: Path) -> None:
    with Store(folder) as store:
        for key in (KEY, OTHER):
            with store.lock(key):
                if store.get(key) is None:
                    with counter.open("a") as stream:
                        stream.write("x")
                    store.put(key, b"object " * 1000, {})


def test_many_builders_at_once_build_each_object_once(folder: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    builders = [context.Process(target=_build, args=(folder, tmp_path / "built")) for _ in range(12)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join(60)
    assert [builder.exitcode for builder in builders] == [0] * 12
    assert (tmp_path / "built").read_text() == "xx"
    assert sorted(file.suffix for file in folder.iterdir()) == [".json", ".json", ".o", ".o"]
