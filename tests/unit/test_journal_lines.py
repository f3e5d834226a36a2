"""A journal as lines: what is written is read again, shared values are shared again, what is no journal is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from nkform.apply import lines
from nkform.apply.foreign_state import ForeignItem
from nkform.apply.journal import Entry
from nkform.model import Address, Device, Endpoint, Explanation, Namespace, Node, RootDevice

SYSCTLS = {"ipv4.rp_filter": "1", "ipv6.forwarding": "0"}
OTHERS = {"ipv4.rp_filter": "2"}


def device(number: int) -> Device:
    """A pair whose primary has sysctls like all others', and whose peer has them only on every second one."""
    peer = Endpoint(
        "eth0", f"n{number}", addresses=(Address(f"10.0.0.{number}/32"),), sysctl={} if number % 2 else OTHERS
    )
    return Device(f"v{number}", "veth", {}, Endpoint(f"v{number}", attrs={"mtu": 1400}, sysctl=dict(SYSCTLS)), peer)


def entry() -> Entry:
    devices = {f"v{number}": device(number) for number in range(4)}
    namespaces = {"": Namespace("", links={"v0": True}), "n0": Namespace("n0", owner="w")}
    explained = (Explanation("d1", "guard", {"prefixes": ["10.0.0.2/32"]}, at=(("v0", "peer", "g"),)),)
    before = Node("w", namespaces, devices, root_devices={"v0": RootDevice(1, 2)}, covered=True, explained=explained)
    others = (ForeignItem("n0", "eth0", "route", "00ff"),)
    return Entry("1", "here", "apply", 1.5, 7, 99, "t", before, 12, ("v9",), ("n9",), ("eth1",), others, False)


def test_what_is_written_is_read_again() -> None:
    added = ["3\n", '["n0","eth0","ipv4.rp_filter","1"]\n']
    read, more = lines.read(Entry, [*lines.written(entry()), *added])
    assert read == replace(entry(), before=replace(entry().before, root_devices={}))
    assert more == [3, ["n0", "eth0", "ipv4.rp_filter", "1"]]
    assert list(read.before.devices) == ["v0", "v1", "v2", "v3"]
    assert read.before.explained == entry().before.explained


def test_sysctls_that_are_alike_are_written_once_and_read_as_one_object() -> None:
    text = list(lines.written(entry()))
    assert sum('"ipv4.rp_filter":"1"' in line for line in text) == 1
    assert sum('"ipv4.rp_filter":"2"' in line for line in text) == 1
    devices = lines.read(Entry, text)[0].before.devices
    assert len({id(device.primary.sysctl) for device in devices.values()}) == 1


def test_a_line_that_was_cut_off_is_left_out() -> None:
    text = list(lines.written(entry()))
    assert lines.read(Entry, [*text, "3\n", '["n0","et'])[1] == [3]


@pytest.mark.parametrize("added", [[], ["3\n"]], ids=["at the end", "in the middle"])
def test_an_entry_of_which_lines_are_missing_is_refused(added: list[str]) -> None:
    """What is missing would count as not there before the run: going back would delete it."""
    text = list(lines.written(entry()))
    for kept in range(len(text)):
        with pytest.raises(ValueError, match=r"it is empty|its end is missing|expected a Entry"):
            lines.read(Entry, [*text[:kept], *added])
    for lost in range(1, len(text) - 1):
        with pytest.raises((ValueError, LookupError)):
            lines.read(Entry, [*text[:lost], *text[lost + 1 :], *added])


@pytest.mark.parametrize(
    "broken",
    [
        [],
        ["{}\n"],
        ["no JSON\n"],
        [json.dumps({"type": "Entry", "nkform": "0.1.0"}) + "\n"],
        [*list(lines.written(entry()))[:1], '{"type":"Problem"}\n'],
        [line for line in lines.written(entry()) if '"Sysctls"' not in line],
    ],
)
def test_what_is_no_journal_is_refused(broken: list[str]) -> None:
    with pytest.raises((ValueError, LookupError)):
        lines.read(Entry, broken)
