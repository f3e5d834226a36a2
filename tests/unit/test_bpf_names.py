"""Names in the BPF file system: every name can be written so that bpffs takes it, and be read back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nkform.kernel.bpffs import NAME_BYTES, Pin, decode, encode


def _legal(name: bytes) -> bool:
    """What the kernel takes as a device's name: dev_valid_name(), net/core/dev.c."""
    return 0 < len(name) < 16 and name not in {b".", b".."} and not set(name) & set(b"/:\0 \t\n\v\f\r")


device_names = st.binary(min_size=1, max_size=15).filter(_legal).map(lambda name: name.decode(errors="surrogateescape"))


@given(device_names)
def test_a_device_name_survives(name: str) -> None:
    written = encode(name)
    assert decode(written) == name
    assert not set(written) & set("./\0")
    assert written.isascii()
    assert len(written) <= NAME_BYTES


@given(device_names, device_names)
def test_two_names_are_never_written_alike(one: str, other: str) -> None:
    assert (encode(one) == encode(other)) == (one == other)


@given(st.text(max_size=40))
def test_what_is_decoded_was_encoded(written: str) -> None:
    try:
        name = decode(written)
    except ValueError:
        return
    assert encode(name) == written


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("eth0", "eth0"),
        ("eth0.100", "eth0%2E100"),
        ("lxc_web-1", "lxc_web-1"),
        ("..", "%2E%2E"),
        ("100%", "100%25"),
        ("a/b", "a%2Fb"),
        ("müll", "m%C3%BCll"),
    ],
)
def test_names_stay_readable(name: str, written: str) -> None:
    assert encode(name) == written
    assert decode(written) == name


@pytest.mark.parametrize("written", ["", "a.b", "%2e", "%65th0", "%", "%2", "é"])
def test_names_of_others_are_told_apart(written: str) -> None:
    with pytest.raises(ValueError, match="pin"):
        decode(written)


@pytest.mark.parametrize("name", ["", "." * 86])
def test_a_name_that_cannot_be_written_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no name for a pin"):
        encode(name)


def test_the_path_says_whose_pin_it_is() -> None:
    pin = Pin("worker-1", "eth0.100", "ingress", "guard-1f2e")
    assert pin.path("/b") == "/b/nkform/worker-1/eth0%2E100/ingress/guard-1f2e"
    assert pin.folders("/b") == (
        "/b/nkform/worker-1/eth0%2E100/ingress",
        "/b/nkform/worker-1/eth0%2E100",
        "/b/nkform/worker-1",
        "/b/nkform",
    )
