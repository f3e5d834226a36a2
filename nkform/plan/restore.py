"""Going back: a node as it was, as if a spec declared it, and the plan that leads there. Pure.

It needs to know nothing of what happened since; so it takes back a run that was killed anywhere, and can itself be
killed and run again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from nkform.attributes import BY_NAME
from nkform.dataclass import dataclass, replace
from nkform.model import (
    Address,
    After,
    Attached,
    Attrs,
    Device,
    Endpoint,
    First,
    Hook,
    Last,
    Namespace,
    Node,
    Position,
)
from nkform.namespace_key import ROOT, OfPath, OfPid, meant_by
from nkform.plan.actions import (
    Action,
    AddRoute,
    Backend,
    DeleteNamespace,
    DeletePair,
    MoveEnd,
    SetChain,
    SetMark,
    chain_of,
)
from nkform.plan.chain_steps import among
from nkform.plan.changes import Change, Operation, Plan
from nkform.plan.compare import FieldChange, is_raised
from nkform.plan.parts import NOTHING, Name, Without
from nkform.plan.plan import build
from nkform.plan.replacement import Names

OLD_PAIR = "the old pair is still there, and takes over again"


def declared(before: Node, live: Node) -> Node:
    """The node as it was, as a spec would have it; what was not ours and is not ours now is left out."""
    namespaces = {
        name: Namespace(name, create=found.owner == before.name, cookie=found.cookie, alias=found.alias)
        for name, found in before.namespaces.items()
        if name != ROOT and (found.owner == before.name or name in live.namespaces)
    }
    devices = {
        name: _declared(device, live.devices.get(name))
        for name, device in before.devices.items()
        if _concerns(device, live.devices.get(name), before.name)
    }
    return Node(before.name, namespaces, devices, explained=before.explained)


def plan(before: Node, live: Node, features: Collection[str], without: Without = NOTHING) -> Plan:
    """What leads back, but for what is to be left alone. Raises NkformError where something of others is in the way."""
    live = _without_others(before, live)
    desired, live = without.trim(declared(before, live), live)
    aside = [each for name in desired.devices if (each := _set_aside(before.devices[name], before, live))]
    live = _with_names_back(aside, live)
    readopt = [*_devices_unmarked(desired, before, live), *_namespaces_let_go(desired, before, live)]
    found = build(desired, live, features=features, resolved=desired.devices, aim="before", readopt=readopt)
    freed = [
        name
        for name, device in before.devices.items()
        if name in desired.devices and not device.traits.programs_only and device.owner is None
    ]
    marks = tuple(SetMark(ROOT, name, False, alias=before.devices[name].alias) for name in freed)
    changes = tuple(_brief(change) for change in _marked(found.changes, freed, before))
    found = replace(found, changes=changes, actions=(*found.actions, *marks))
    found = _among_others(found, before, live, desired)
    return _taking_over(found, aside, Names(desired.devices, live)) if aside else found


def _without_others(before: Node, live: Node) -> Node:
    """The node as it is, without namespaces that a key leads to by now: another process may have that number."""
    known = {key: space.cookie for key, space in before.namespaces.items() if isinstance(meant_by(key), OfPid | OfPath)}
    spaces = {k: space for k, space in live.namespaces.items() if not known.get(k) or space.cookie in (0, known[k])}
    return replace(live, namespaces=spaces)


def _among_others(plan: Plan, before: Node, live: Node, desired: Node) -> Plan:
    """The plan in which programs of ours that stood between programs of others do so again: a position says that a
    chain is beside them, and not that one is in it."""
    anew = {change.name for change in plan.changes if change.operation in ("create", "replace")}
    exact: dict[tuple[str, str], SetChain] = {}
    for name, device in desired.devices.items():
        now_device = live.devices.get(name)
        for hook, was in before.devices[name].hooks.items() if now_device and name not in anew else ():
            assert now_device is not None
            now = now_device.hooks.get(hook, Hook())
            backend: Backend = "tc" if was.legacy else "link"
            there, entries = (now.filters, was.filters) if was.legacy else (now.linked, was.linked)
            if not _is_split(entries) or len([entry for entry in there if entry.ours]) != len(now.ours):
                continue
            if steps := among(entries, there, backend):
                own = replace(device, index=now_device.index) if device.traits.programs_only else device
                exact[name, hook] = SetChain(own, hook, now, chain_of(was), tuple(steps), backend, now.revision)
    if not exact:
        return plan
    kept = [a for a in plan.actions if not (isinstance(a, SetChain) and (a.device.name, a.hook) in exact)]
    told = {change.name for change in plan.changes if change.kind == "device"}
    more = [
        Change("update", "device", name, (FieldChange(("programs", hook, "position"), "elsewhere", "as before"),))
        for name, hook in exact
        if name not in told
    ]
    return replace(plan, changes=(*plan.changes, *more), actions=(*kept, *exact.values()))


def _is_split(entries: Sequence[Attached]) -> bool:
    """Whether a program of others stands between two of ours."""
    ours = [place for place, entry in enumerate(entries) if entry.ours]
    return bool(ours) and max(ours) - min(ours) >= len(ours)


@dataclass(frozen=True, slots=True)
class _Aside:
    """A pair that a replacement has set aside, and that is still there: as it was (`before`), as it is (`live`), and
    the new pair, which has its names (None: nothing has them)."""

    before: Device
    live: Device
    new: Device | None


def _set_aside(device: Device, before: Node, live: Node) -> _Aside | None:
    """Only a pair that is there under its own name, or is gone for good, has nothing that waits beside it."""
    there = live.devices.get(device.name)
    if device.peer is None or not device.index or (there is not None and there.index == device.index):
        return None
    if there is not None and there.owner != live.name:
        return None  # somebody else's has the name
    ours = [other for other in live.devices.values() if other.owner == live.name and other.peer is not None]
    places = {(end.namespace, end.name) for end in device.ends}
    for other in ours:
        if other.index == device.index:
            new = (
                each
                for each in ours
                if each.name not in before.devices
                and each is not other
                and places & {(e.namespace, e.name) for e in each.ends}
            )
            return _Aside(device, other, there or next(new, None))
    return None


def _with_names_back(aside: Collection[_Aside], live: Node) -> Node:
    """The node as it is once these pairs have their names again, and the new ones are gone."""
    devices, spaces = dict(live.devices), dict(live.namespaces)
    for each in aside:
        del devices[each.live.name]
        if each.new is not None:
            devices.pop(each.new.name, None)
    for each in aside:
        ends = [replace(now, name=was.name) for now, was in zip(each.live.ends, each.before.ends, strict=True)]
        hooks = {name: _recognised(hook, each.before.hooks.get(name, Hook())) for name, hook in each.live.hooks.items()}
        devices[each.before.name] = replace(
            each.live, name=each.before.name, primary=ends[0], peer=ends[1], hooks=hooks
        )  # fmt: skip
        for now, end in zip(each.live.ends, ends, strict=True):
            if end.namespace in spaces:
                links = {name: ours for name, ours in spaces[end.namespace].links.items() if name != now.name}
                spaces[end.namespace] = replace(spaces[end.namespace], links={**links, end.name: True})
    return replace(live, devices=devices, namespaces=spaces)


def _recognised(hook: Hook, was: Hook) -> Hook:
    """A hook with the links of ours that are those from before: their pins go by the name that the device had."""
    known = {(entry.place, entry.program_id): entry for entry in was.linked if entry.ours}
    return replace(hook, linked=tuple(known.get((entry.place, entry.program_id), entry) for entry in hook.linked))


def _taking_over(plan: Plan, aside: Collection[_Aside], names: Names) -> Plan:
    """The plan in which these pairs take over again from the new ones, which go once the old ones are complete: both
    have every address and route for a moment, as when the new ones took over (replacement.py). In a bridge there must
    be no two of them: there the new ones go first. Namespaces go last of all: a new peer may be in one."""
    first: list[Action] = []
    last: list[Action] = []
    changes = list(plan.changes)
    for each in aside:
        name, new = each.before.name, each.new
        if new is not None and any(end.master for end in (*new.ends, *each.before.ends)):
            first.append(DeletePair(new))
        elif new is not None:
            ends = [names.spare(end, "n") for end in new.ends]
            first += [_renamed(end, spare, name) for end, spare in zip(new.ends, ends, strict=True)]
            last.append(DeletePair(replace(new, primary=ends[0], peer=ends[1])))
        pairs = zip(each.live.ends, each.before.ends, strict=True)
        first += [_renamed(now, was, name) for now, was in pairs if now.name != was.name]
        differing = [change for change in changes if (change.kind, change.name) == ("device", name)]
        changes = [change for change in changes if change not in differing]
        fields = tuple(field for change in differing for field in change.fields)
        operation: Operation = "replace" if new else "update"
        changes.append(Change(operation, "device", name, fields, OLD_PAIR, new or each.live, each.before))
    both = {each.before.name for each in aside}
    actions = (
        replace(action, beside=True) if isinstance(action, AddRoute) and action.end.device in both else action
        for action in plan.actions
    )
    ordered = sorted((*actions, *last), key=lambda action: isinstance(action, DeleteNamespace))
    return replace(plan, changes=tuple(changes), actions=(*first, *ordered))


def _renamed(end: Endpoint, to: Endpoint, device: str) -> MoveEnd:
    """A new name leaves all the rest as it is."""
    return MoveEnd(Endpoint(end.name, end.namespace), Endpoint(to.name, end.namespace), device)


def _concerns(device: Device, live: Device | None, node: str) -> bool:
    """Whether a device is to be restored: ours, one that was adopted since, or one of others with programs of ours,
    the very one: another device may have its name by now."""
    if device.traits.programs_only:
        return live is not None and live.index == device.index
    return device.owner == node or (device.owner is None and live is not None and live.owner == node)


def _devices_unmarked(desired: Node, before: Node, live: Node) -> Iterator[Name]:
    for name in desired.devices:
        if _lost_its_mark(before.devices[name], live.devices.get(name), before):
            yield "device", name


def _namespaces_let_go(desired: Node, before: Node, live: Node) -> Iterator[Name]:
    """Those that were ours and are the same ones still, but nobody's."""
    for name in desired.namespaces:
        old, now = before.namespaces.get(name), live.namespaces.get(name)
        if old is None or now is None:
            continue
        if old.owner == before.name and now.owner is None and now.cookie == old.cookie != 0:
            yield "namespace", name


def _lost_its_mark(device: Device, live: Device | None, before: Node) -> bool:
    """Whether a device was ours and is the same one still, but nobody's: an adoption was taken back, say."""
    return live is not None and device.owner == before.name and live.owner is None and live.index == device.index != 0


def _declared(device: Device, live: Device | None) -> Device:
    hooks = live.hooks if live else {}
    chains = {
        name: replace(chain_of(hook), position=_position(hook, hooks.get(name, Hook())))
        for name, hook in device.hooks.items()
        if hook.ours
    }
    return replace(
        device,
        attrs=_not_raised(device, live) if device.enslaved and live else device.attrs,
        primary=_own(device.primary, live.primary) if live else device.primary,
        peer=_own(device.peer, live.peer) if live and device.peer else device.peer,
        chains=chains,
        attach="tc" if device.hooks_legacy else "auto",
        hooks={},
    )


def _not_raised(device: Device, live: Device) -> Attrs:
    """Without what a bridge had raised of its port, and has let go since: the pair need not be made anew."""
    now, was = live.attrs, device.attrs
    return {n: v for n, v in was.items() if not is_raised(BY_NAME[n], now.get(n), v, enslaved=device.enslaved)}


def _own(end: Endpoint, live: Endpoint | None) -> Endpoint:
    """Without the addresses of others, which stay where their device does, but for those that are ours by now."""
    over = {address.text for address in live.addresses if address.ours} if live else set()
    taken = [each.gone for each in end.taken if isinstance(each.gone, Address) and each.gone not in end.addresses]
    back = [each for each in (*end.addresses, *taken) if each.ours or (each.text in over and not each.apart)]
    return replace(end, addresses=tuple(back))


def _position(before: Hook, live: Hook) -> Position | None:
    """Where our programs stood among those of others, as far as those are still there."""
    entries = before.filters if before.legacy else before.linked
    ours = [place for place, entry in enumerate(entries) if entry.ours]
    others = [place for place, entry in enumerate(entries) if not entry.ours]
    if not ours or not others:
        return None
    if max(ours) < min(others):
        return First()
    if min(ours) > max(others):
        return Last()
    ahead = entries[ours[0] - 1].program_id if ours[0] else 0
    there = {entry.program_id for entry in (live.filters if before.legacy else live.linked)}
    return After(ahead) if ahead in there and max(ours) - min(ours) < len(ours) else None


def _marked(changes: tuple[Change, ...], freed: Collection[str], before: Node) -> tuple[Change, ...]:
    """The changes with those of ownership told."""
    owner = FieldChange(("owner",), before.name, None)
    told = [
        replace(change, fields=(owner, *change.fields)) if change.kind == "device" and change.name in freed else change
        for change in changes
    ]
    there = {change.name for change in changes if change.kind == "device"}
    told += [
        Change("update", "device", name, (owner,), after=before.devices[name]) for name in freed if name not in there
    ]
    return tuple(told)


def _brief(change: Change) -> Change:
    """Without the sysctls of an end that comes back from elsewhere: all of them are set, most to what they are."""
    told = (field for field in change.fields if not ("sysctl" in field.path and field.before is None))
    return replace(change, fields=tuple(told))
