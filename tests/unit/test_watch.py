"""What a watch decides: which notices matter, when it tries again, what it says."""

from __future__ import annotations

import json
import struct

import pytest

from nkform.kernel.bpf_links import AttachType
from nkform.kernel.monitor import Lost, Notice, Touched, decode
from nkform.observe.fingerprint import Fingerprint, Scope, matters
from nkform.plan.compare import FieldChange
from nkform.plan.drift import Difference
from nkform.plan.watch import (
    FOUGHT,
    LONGEST,
    Drifted,
    Event,
    Failed,
    Healed,
    Recovered,
    Reread,
    RetryBackoff,
    Settled,
    Stopped,
    Unapplied,
    Watching,
)
from nkform.problem import Position, Problem
from nkform.report.watch_text import line, line_json

SCOPE = Scope("w", frozenset({(None, "to-a"), (7, "eth0")}), ((3, AttachType.TCX_INGRESS),), {})
PULSE = Fingerprint(b"", frozenset({3}))
MTU = Difference("device", "to-a", "update", FieldChange(("mtu",), 1400, 1500))
OTHER_MTU = Difference("device", "to-a", "update", FieldChange(("mtu",), 1300, 1500))
GONE = Difference("device", "bee", "create")


@pytest.mark.parametrize(
    ("notice", "expected"),
    [
        (Lost(), True),
        (Touched(None, 3), True),
        (Touched(None, None), True),
        (Touched(None, 4), False),
        (Touched(None, 4, "to-a"), True),
        (Touched(None, 4, "docker0"), False),
        (Touched(None, 4, "stray", "nkform:w"), True),
        (Touched(None, 4, "stray", "nkform:v"), False),
        (Touched(7, 1), True),
        (Touched(8, 3, "to-a"), False),
    ],
)
def test_what_a_notice_is_about(notice: Notice, expected: bool) -> None:
    assert matters(notice, SCOPE, PULSE) is expected


def message(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def attribute(number: int, payload: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(payload), number) + payload + b"\0" * (-len(payload) % 4)


def test_messages_are_read_as_far_as_they_matter() -> None:
    ifinfo = struct.pack("=BxHiII", 0, 0, 5, 0, 0)
    datagram = b"".join([
        message(16, ifinfo + attribute(3, b"to-a\0") + attribute(20, b"nkform:w\0")),
        message(21, struct.pack("=BBBBI", 2, 32, 0, 0, 6)),
        message(24, b"\0" * 12 + attribute(4, struct.pack("=I", 7))),
        message(25, b"\0" * 12),
        message(44, struct.pack("=BxxxiIII", 0, 8, 0, 0, 0)),
        message(80, b"\0" * 4 + attribute(1, struct.pack("=i", -1))),
        message(88, b"\0" * 4),
    ])  # fmt: skip
    found = [(t.index, t.name, t.alias) for t in decode(datagram, len(datagram), 9)]
    assert found == [
        (5, "to-a", "nkform:w"), (6, "", ""), (7, "", ""), (None, "", ""), (8, "", ""), (-1, "", ""), (None, "", ""),
    ]  # fmt: skip


def test_pauses_grow_while_mending_fails() -> None:
    trouble = RetryBackoff()
    pauses = [trouble.failed((MTU,), 0.0) for _ in range(11)]
    assert pauses[:4] == [1.0, 2.0, 4.0, 8.0]
    assert pauses[-1] == LONGEST
    assert trouble.early((MTU,), LONGEST - 1)
    assert trouble.early((OTHER_MTU,), 1.0), "the same thing in another way"
    assert not trouble.early((MTU,), LONGEST)


def test_what_has_changed_since_is_tried_at_once() -> None:
    trouble = RetryBackoff()
    trouble.failed((MTU,), 0.0)
    assert not trouble.early((GONE,), 0.1)


def test_being_well_again_is_said_once() -> None:
    trouble = RetryBackoff()
    assert not trouble.over(())
    trouble.failed((MTU,), 0.0)
    assert not trouble.over((MTU,))
    assert trouble.over(())
    assert trouble.not_before is None
    assert not trouble.over(())


def test_who_puts_things_back_is_met_with_longer_pauses() -> None:
    trouble = RetryBackoff()
    now, pauses = 0.0, []
    for _ in range(4):
        trouble.mended((MTU,), now)
        assert trouble.fought((OTHER_MTU,), now + 0.1)
        assert not trouble.fought((GONE,), now + 0.1)
        pauses.append(trouble.failed((MTU,), now + 0.1))
        now += pauses[-1]
    assert pauses == [1.0, 2.0, 4.0, 8.0]
    trouble.mended((MTU,), now)
    assert not trouble.fought((MTU,), now + FOUGHT), "that is news again"
    assert trouble.failed((MTU,), now) == 1.0


PROBLEM = Problem("NK0412", "it is not nkform's", position=Position("a.yaml", 3, 5))
LINES: list[tuple[Event, str]] = [
    (Watching("w", 2), "watching 2 devices of w"),
    (Drifted(MTU), "device to-a: drift: mtu 1400 on the node, 1500 in the spec"),
    (Unapplied(MTU), "device to-a: not applied: mtu 1400 on the node, 1500 in the spec"),
    (Settled(MTU), "device to-a: mtu as in the spec again"),
    (Drifted(GONE), "device bee: drift: not on the node, in the spec"),
    (Settled(GONE), "device bee: there again"),
    (Drifted(Difference("device", "x", "update", problem="no namespace a")), "device x: drift: no namespace a"),
    (Healed(1), "mended by 1 action"),
    (Failed((PROBLEM,), 2.0), "a.yaml:3:5: NK0412: it is not nkform's; next try in 2 s"),
    (Recovered(), "all is well again"),
    (Reread(), "the spec has been read again"),
    (Stopped(), "stopped"),
]


@pytest.mark.parametrize(("event", "told"), LINES, ids=lambda value: type(value).__name__)
def test_lines(event: Event, told: str) -> None:
    assert line(event, 0.0) == f"1970-01-01T00:00:00.000+00:00 {told}"
    data = json.loads(line_json(event, 0.0))
    assert (data["time"], data["text"]) == ("1970-01-01T00:00:00.000+00:00", told)
    assert "\n" not in line_json(event, 0.0)
