"""What a session tells of programs that run, from what was observed of them and what is on record."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from nkform.model import Attached, Device, Endpoint, Explanation, Hook, Node
from nkform.namespace_key import ROOT
from nkform.observe import explanations, node, record, runs
from nkform.observe.contents import filled_hook
from nkform.observe.runs import Run
from nkform.results import ProgramStatus, Status
from nkform.session import node as sessions
from nkform.session import observed
from nkform.session.status import status

COUNT = Attached(7, 3, "count", digest="d1", ours=True)
GONE = Attached(8, 4, "gone", digest="d2", ours=True)
STRANGE = Attached(9, 5, "mine", digest="d3", ours=True, loaded=5)
OTHERS = Attached(10, 6, "tracer")
FILTER = Attached(11, 1, "guard", digest="d4", ours=True)

EXPLAINED = (
    Explanation("d1", "counters", at=(("v0", "ingress", "count"),)),
    Explanation("d4", "no-such-template", folder="/nowhere", builtin=False, at=(("v0", "ingress", "guard"),)),
)


def live() -> Node:
    hook = Hook(linked=(COUNT, GONE, STRANGE, OTHERS), filters=(FILTER,))
    peer = Endpoint("eth0", "web", {"up": False})
    device = Device("v0", "veth", {}, primary=Endpoint("v0", ROOT, {"up": True}), peer=peer, hooks={"ingress": hook})
    return Node("box", devices={"v0": device})


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Mapping[str, runs.Names]]:
    """By the names of programs, what of their maps was asked for."""
    found: dict[str, Mapping[str, runs.Names]] = {}

    def read(entry: Attached, maps: Mapping[str, runs.Names]) -> Run | None:
        found[entry.name] = maps
        return None if entry.name == "gone" else Run(f"nk_{entry.name}", entry.program_id, 90, {})

    monkeypatch.setattr(runs, "read", read)
    monkeypatch.setattr(record, "read", lambda _: None)
    monkeypatch.setattr(explanations, "read", lambda _: EXPLAINED)
    monkeypatch.setattr(node, "observe", lambda *_: live())
    monkeypatch.setattr(sessions, "pending", lambda: None)
    return found


def told() -> Status:
    return status(None, "box")  # type: ignore[arg-type]


def test_programs_are_told_as_they_are(asked: dict[str, Mapping[str, runs.Names]]) -> None:
    found = told()
    (device,) = found.devices
    assert (found.node, found.applied, device.name, device.peer, device.up) == ("box", None, "v0", "eth0 in web", False)
    count, strange, others, guard = device.hooks["ingress"]
    assert isinstance(count, ProgramStatus)
    assert (count.name, count.template, count.digest) == ("count", "counters", "d1")
    assert isinstance(strange, ProgramStatus)
    assert strange.digest == ""  # what runs there is not what was loaded
    assert others == "tracer"
    assert isinstance(guard, ProgramStatus)
    assert guard.template == "no-such-template"


def test_numbers_are_read_where_the_template_is_known(asked: dict[str, Mapping[str, runs.Names]]) -> None:
    told()
    assert list(asked) == ["count", "gone", "mine", "guard"]
    assert [name for name, maps in asked.items() if maps] == ["count"]
    ((keys, fields),) = asked["count"].values()
    assert "packets" in (*keys, *fields)


def test_maps_are_read_of_programs_whose_templates_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each template is read once, and one that is gone has none."""
    known = explanations.Known(
        (
            Explanation("d1", "prefix_filter", at=(("v0", "ingress", "count"),)),
            Explanation("d4", "no-such-template", folder="/nowhere", builtin=False, at=(("v0", "ingress", "guard"),)),
        )
    )
    seen: dict[str, list[str]] = {}

    def fill(hook: Hook, of: object) -> Hook:
        assert callable(of)
        seen.update({entry.name: sorted(of(entry)) for entry in hook.ours})
        return hook

    monkeypatch.setattr("nkform.observe.contents.filled_hook", fill)
    assert observed._with_contents(live(), known) == live()
    assert seen == {"count": ["prefixes"], "gone": [], "mine": [], "guard": []}
    assert callable(filled_hook)
