"""Given a node's state as data, this is what `status` and `doctor` print of it, and what their JSON says."""

from __future__ import annotations

import io
import json
from datetime import datetime

import pytest

from nkform.plan.compare import FieldChange
from nkform.plan.drift import Difference, by_object
from nkform.report import state_text, status_text
from nkform.report.colour import Paint, wanted
from nkform.report.drift_text import as_dict, clock, moment, said
from nkform.results import DeviceStatus, Finding, LastApplied, Pending, ProgramStatus, Status

PLAIN, COLOURED = Paint(False), Paint(True)
WHEN = 1_700_000_000.0
MTU = Difference("device", "lxc-web", "update", FieldChange(("mtu",), 1400, 1500))
LOST = Difference("device", "lxc-db", "create")
STRAY = Difference("device", "old", "destroy")
ADDRESS = Difference("device", "lxc-web", "update", FieldChange(("peer", "addresses"), None, "10.0.0.2/32"))
EXTRA = Difference("device", "lxc-web", "update", FieldChange(("addresses",), "10.0.0.9/32", None))
UP = Difference("device", "lxc-web", "update", FieldChange(("up",), False, True))
TEXT = Difference("device", "lxc-web", "update", FieldChange(("owner",), "", "w"))
NO_SPACE = Difference("namespace", "a", "update", problem="there is no namespace a")

COUNT = ProgramStatus(
    "count", "counters", "link", 4, 9, "abc", "nk_counters", 10, 1255,
    {"totals": {"ipv4": {"packets": 3, "bytes": 252}, "ipv6": {"packets": 0, "bytes": 0}}},
)  # fmt: skip
SWAPPED = ProgramStatus("guard", "", "tc", 1, 12, "", "evil", 0, 0, {})
WEB = DeviceStatus(
    "lxc-web", "netkit", "eth0 in web", True, {"peer": [COUNT, "tracer"], "primary": []}, [(MTU, WHEN), (UP, None)]
)
ETH0 = DeviceStatus("eth0", "external", "", False, {"ingress": [SWAPPED]})


def test_status_says_what_devices_and_programs_do() -> None:
    text = status_text.render(Status("w", [WEB, ETH0], LastApplied(WHEN, [(LOST, None)])), PLAIN)
    assert text.splitlines() == [
        "node w: 2 devices",
        "  lxc-web (netkit, peer eth0 in web): up",
        f"    drift: mtu 1400 on the node, 1500 in the spec since {moment(WHEN)}",
        "    drift: up false on the node, true in the spec",
        "    peer",
        "      count (counters): link 4, program 9, digest abc, 10 runs, 125 ns each",
        "        ipv4: 3 packets, 252 bytes",
        "      tracer (not nkform's)",
        "  eth0 (external): down",
        "    ingress",
        "      guard: tc 1, program 12, which is `evil` and not what nkform loaded",
        "  device lxc-db: drift: not on the node, in the spec",
    ]


def test_status_says_so_where_nothing_is_on_record() -> None:
    text = status_text.render(Status("w", [], None), PLAIN)
    assert text == (
        "node w: 0 devices\ndrift: unknown, there is no record of the last apply here; `nkform apply` makes one\n"
    )  # fmt: skip


def test_status_begins_with_what_waits_to_be_confirmed() -> None:
    at = f"the apply of {clock(WHEN)} on w"
    told = {
        Pending("w", WHEN, 16.4): f"{at} waits to be confirmed: it goes back in 17 s",
        Pending("w", WHEN, 0): f"nobody confirmed {at}: it goes back now",
        Pending("w", WHEN, 0, ("no", "never")): f"nobody confirmed {at}, and not all could go back: no; never",
    }
    text = status_text.render(Status("w", [], None, tuple(told)), PLAIN)
    assert text.splitlines()[:3] == list(told.values())
    data = json.loads(status_text.render_json(Status("w", [], None, tuple(told))))
    waits = {"node": "w", "applied": "2023-11-14T22:13:20.000+00:00", "seconds_left": 16.4, "problems": []}
    assert data["pending"][0] == waits
    assert data["pending"][2]["problems"] == ["no", "never"]


def test_colour_adds_to_the_text_and_takes_nothing_from_it() -> None:
    for applied in (None, LastApplied(WHEN, [(LOST, None)])):
        coloured = status_text.render(Status("w", [WEB, ETH0], applied), COLOURED)
        assert "\x1b[32mup\x1b[0m" in coloured
        assert "\x1b[31mdown\x1b[0m" in coloured
        for code in ("31", "32", "33", "0"):
            coloured = coloured.replace(f"\x1b[{code}m", "")
        assert coloured == status_text.render(Status("w", [WEB, ETH0], applied), PLAIN)


def test_status_as_data() -> None:
    data = json.loads(status_text.render_json(Status("w", [WEB, ETH0], LastApplied(WHEN, [(LOST, None)]))))
    assert (data["node"], data["applied"]) == ("w", "2023-11-14T22:13:20.000+00:00")
    web, eth0 = data["devices"]
    assert (web["name"], web["kind"], web["peer"], web["up"]) == ("lxc-web", "netkit", "eth0 in web", True)
    assert web["hooks"]["peer"][0]["numbers"]["totals"]["ipv4"] == {"packets": 3, "bytes": 252}
    assert web["hooks"]["peer"][1] == "tracer"
    assert [(each["path"], each["node"], each["spec"]) for each in web["drift"]] == [
        (["mtu"], 1400, 1500),
        (["up"], False, True),
    ]
    assert eth0["drift"] == []
    assert [each["name"] for each in data["drift"]] == ["lxc-db"]
    data = json.loads(status_text.render_json(Status("w", [], None)))
    assert data == {"node": "w", "applied": None, "pending": [], "devices": [], "drift": []}


@pytest.mark.parametrize(
    ("difference", "text"),
    [
        (MTU, "mtu 1400 on the node, 1500 in the spec"),
        (LOST, "not on the node, in the spec"),
        (STRAY, "on the node, not in the spec"),
        (ADDRESS, "peer.addresses 10.0.0.2/32 not on the node, in the spec"),
        (EXTRA, "addresses 10.0.0.9/32 on the node, not in the spec"),
        (UP, "up false on the node, true in the spec"),
        (TEXT, 'owner "" on the node, w in the spec'),
        (NO_SPACE, "there is no namespace a"),
    ],
)
def test_a_difference_in_words_and_as_data(difference: Difference, text: str) -> None:
    assert said(difference) == text
    data = as_dict(difference, None)
    assert (data["kind"], data["name"], data["text"], data["since"]) == (
        difference.kind, difference.name, text, None,
    )  # fmt: skip
    assert data["path"] == list(difference.field.path if difference.field else ())


def test_since_when_is_the_local_clocks_to_read_and_utc_as_data() -> None:
    local = datetime.fromtimestamp(WHEN).strftime("%Y-%m-%d %H:%M")
    assert said(MTU, WHEN) == f"mtu 1400 on the node, 1500 in the spec since {local}"
    assert as_dict(MTU, WHEN)["since"] == "2023-11-14T22:13:20.000+00:00"


def test_differences_are_told_by_object_with_the_first_apply_that_had_the_value() -> None:
    since = {"device.lxc-web": {"": 1.0, "mtu": 7.0}, "device.lxc-db": {"": 2.0}}
    found = by_object([MTU, LOST, UP], since)
    assert found == {("device", "lxc-web"): [(MTU, 7.0), (UP, 1.0)], ("device", "lxc-db"): [(LOST, 2.0)]}


FINDINGS = [
    Finding("kernel", "ok", "Linux 7.3"),
    Finding("netkit", "missing", "no CONFIG_NETKIT", "a kernel with netkit, or kind: veth"),
    Finding("bcc", "unknown", "not looked for"),
]


def test_what_doctor_says() -> None:
    assert state_text.render(FINDINGS, PLAIN).splitlines() == [
        "ok       kernel  Linux 7.3",
        "missing  netkit  no CONFIG_NETKIT",
        "                 -> a kernel with netkit, or kind: veth",
        "unknown  bcc     not looked for",
    ]
    assert "\x1b[33mmissing\x1b[0m" in state_text.render(FINDINGS, COLOURED)
    assert json.loads(state_text.render_json(FINDINGS))[1] == {
        "name": "netkit", "state": "missing", "detail": "no CONFIG_NETKIT",
        "hint": "a kernel with netkit, or kind: veth",
    }  # fmt: skip


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colours_are_for_terminals_and_for_who_does_not_forbid_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    assert wanted(Terminal())
    assert not wanted(io.StringIO())
    assert not wanted(Terminal(), no_colour=True)
    monkeypatch.setenv("TERM", "dumb")
    assert not wanted(Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "")
    assert wanted(Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wanted(Terminal())
