"""Plans that are kept in a file and carried out later: what they were made from, and whether that still holds. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from nkform import serial
from nkform.dataclass import dataclass, fields, is_dataclass, replace
from nkform.model import Node
from nkform.plan.actions import Action
from nkform.plan.changes import Plan
from nkform.problem import NkformError, Problem, fail

FORMAT = "nkform-plan"
SHOWN = 8
"""How many differences a refusal names."""


@dataclass(frozen=True, slots=True)
class Basis:
    """What a plan was made from: enough to make it again, and to tell whether it still would be the same.

    `nkform` is the version, `place` the boot and network namespace, `when` seconds since 1970, `files` the spec's,
    `spec` its digest, `desired` what it declares. `templates`, `engine` and `objects` are where programs come from;
    `adopt` and `targets` the options of those names, `expedite` the spec's key. `live` is the node as it was, as far as
    the plan depends on it, revisions of chains included. `given`: the SHA-256 of the objects that were built elsewhere.
    """

    nkform: str
    place: str
    when: float
    files: tuple[str, ...]
    spec: str
    desired: Node
    templates: tuple[str, ...]
    engine: str
    objects: str
    adopt: bool
    targets: tuple[str, ...]
    live: Node
    expedite: bool = True
    given: str = ""


@dataclass(frozen=True, slots=True)
class Saved:
    """A plan out of a file."""

    basis: Basis
    actions: tuple[Action, ...]


def relevant(live: Node) -> Node:
    """The live node without what no plan depends on: devices of others that come and go beside ours."""
    namespaces = {key: replace(found, links={}) for key, found in live.namespaces.items()}
    return replace(live, namespaces=namespaces, root_devices={}, astray=0)


def write(document: Mapping[str, Any], basis: Basis) -> str:
    """The text of a plan file: a plan's JSON, what it was made from, and a checksum over both."""
    data = json.loads(serial.dumps({"format": FORMAT, **document, "basis": basis}))
    return json.dumps({**data, "checksum": _checksum(data)}, indent=1) + "\n"


def _checksum(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def is_plan(text: str) -> bool:
    """Whether a file holds a plan, whole or not, rather than a spec."""
    return text.lstrip().startswith("{") and f'"format": "{FORMAT}"' in text[:200]


def read(text: str, name: str) -> Saved:
    """Raises NkformError for a plan that is not as it was written."""
    try:
        data = json.loads(text)
        found = data.pop("checksum", None)
        if found == _checksum(data):
            actions = serial.read_any(tuple[Action, ...], data["actions"])
            return Saved(serial.read(Basis, data["basis"]), actions)
        told = "it was changed after it was made"
    except RecursionError:
        told = "it nests too deep"
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        told = str(error)
    message = f"{name} is not a plan that nkform wrote, or it was changed: {told}"
    raise fail("NK0621", message, hint="plan again: nkform plan -o FILE")


def check_origin(basis: Basis, version: str, place: str) -> None:
    """Raises NkformError for a plan that was made elsewhere."""
    if basis.nkform != version:
        what = f"nkform {basis.nkform} made this plan, and this is {version}"
    elif basis.place != place:
        what = "this plan was made on another machine, in another network namespace, or before a reboot"
    else:
        return
    raise fail("NK0622", what, hint="plan again")


def check_live(basis: Basis, live: Node) -> None:
    """Raises NkformError, saying what changed, if the node is not as it was when the plan was made."""
    if found := _in_words(basis.live, live, "when the plan was made"):
        *first, last = (Problem("NK0620", f"stale plan: {text}") for text in found)
        raise NkformError(*first, replace(last, hint="plan again"))


def check_agreed(before: Node, after: Node, shown: Plan, now: Plan) -> None:
    """Raises NkformError if a plan is not the one that was shown and agreed to, saying what changed meanwhile."""
    if shown.actions == now.actions:
        return
    told = [Problem("NK0517", text) for text in _in_words(before, after, "when the plan was shown")]
    refusal = "the node changed after its plan was shown: nothing was done"
    raise NkformError(Problem("NK0517", refusal, hint="run the same command again, and look at its plan"), *told)


def check_objects(shown: str, now: str) -> None:
    """Raises NkformError if the objects that were built elsewhere are others than when the plan was shown."""
    if shown != now:
        raise fail(
            "NK0517",
            "the compiled objects that the plan needs changed after it was shown: nothing was done",
            hint="run the same command again, and look at its plan",
        )


def check_plan(saved: Saved, plan: Plan) -> None:
    """Raises NkformError if the same spec and node now give another plan."""
    if saved.actions != plan.actions:
        raise fail(
            "NK0623",
            "the same spec and node give another plan now: its templates or the kernel have changed",
            hint="plan again",
        )


def check_given(basis: Basis, given: str) -> None:
    """Raises NkformError if the objects that were built elsewhere are others now."""
    if basis.given != given:
        raise fail(
            "NK0623", f"the compiled objects in {basis.objects} are others than those that were planned with",
            hint="plan again",
        )  # fmt: skip


def differences(
    before: object, after: object, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], object, object]]:
    """Where two objects of the model differ: path, before and after; None stands for what is not there."""
    if before == after:
        return
    some, others = _parts(before), _parts(after)
    if some is None or others is None or type(before) is not type(after):
        yield path, before, after
        return
    for name in {**some, **others}:
        yield from differences(some.get(name), others.get(name), (*path, name))


def _parts(value: object) -> dict[str, object] | None:
    if isinstance(value, Mapping):
        return {str(key): item for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value) if field.compare}
    return None


def _in_words(before: Node, after: Node, when: str) -> list[str]:
    """In what a node is not what it was: some of it in a sentence each, and how much more there is."""
    found = list(dict.fromkeys(_told(*each, when) for each in differences(relevant(before), relevant(after))))
    more = len(found) - SHOWN
    return [*found[:SHOWN], f"{more} more differences"] if more > 0 else found


def _told(path: tuple[str, ...], before: object, after: object, when: str) -> str:
    """One difference, by the names of a spec."""
    kind = {"devices": "device", "namespaces": "namespace"}.get(path[0])
    if kind is None or len(path) < 2:
        return f"{'.'.join(path)} was {_said(before)} {when}, and is {_said(after)}"
    what = f"{kind} {path[1]}" if path[1] else "the namespace that nkform runs in"
    match path[2:]:
        case ():
            return (
                f"{what} did not exist {when}, and exists now"
                if before is None
                else f"{what} existed {when}, and is gone"
            )
        case (*_, "index" | "cookie"):
            return f"{what} is not the one that it was {when}: another one has its name"
        case ("hooks", hook, "revision"):
            return f"the programs at the hook {hook} of {what} are not those that they were {when}"
        case rest:
            names = [_OF_SPECS.get(step, step) for step in rest]
            key = ".".join(name for name in names if name)
            return f"{key} of {what} was {_said(before)} {when}, and is {_said(after)}"


_OF_SPECS = {"primary": "", "attrs": "", "hooks": "programs", "linked": "", "filters": ""}
"""What a spec calls parts of a device; nothing where it has their contents one level up."""


def _said(value: object) -> str:
    """A value in a few words."""
    if value is None:
        return "not there"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_said, value))}]"
    for name in ("text", "to", "name"):
        if hasattr(value, name):
            return str(getattr(value, name))
    return str(value)
