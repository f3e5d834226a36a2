"""The folders of tests/plan: the node of a live.yaml, that node after a plan, and plans in short lines. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from zlib import crc32

import yaml

from nkform import model as m
from nkform.attributes import ATTRIBUTES
from nkform.bpf.programs import Programs
from nkform.dataclass import fields, replace
from nkform.device_sysctls import STABLE_SECRET
from nkform.features import FEATURES
from nkform.plan import actions as act
from nkform.plan import chains
from nkform.plan.addresses import Listed
from nkform.plan.changes import Change, Plan
from nkform.plan.plan import is_legacy, meaning
from nkform.plan.replacement import with_masters
from nkform.plan.resolve import needed_features
from nkform.problem import NkformError
from nkform.spec import loads

USUAL = {row.name: (row.default, row.usual) for row in ATTRIBUTES}
COPIED = 65536
"""The kernel copies sizes of at most so many bytes to their twins."""


class Kernel:
    """What a live.yaml says of a node; `said` is what a spec cannot say (tests/plan/README.md)."""

    def __init__(self, desired: m.Node, live: Mapping[str, Any], programs: Programs) -> None:
        self.desired, self.node, self.said = desired, desired.name, live.get("observed", {})
        spec = {"version": 1, "node": self.node, **{key: live[key] for key in live if key != "observed"}}
        self.spec = programs.declared(loads(yaml.safe_dump(spec, sort_keys=False)).node)
        probed = {name for node in (desired, self.spec) for name in needed_features(node) if "refuses:" not in name}
        self.features = ({*FEATURES, *self.said.get("refuses", ())} | probed) - {*self.said.get("lacks", ())}
        self.meant, problems = meaning(self.spec, m.Node(self.node), features=self.features, programs=programs)
        assert all(problem.severity != "error" for problem in problems), problems

    def of(self, what: str, name: str) -> dict[str, Any]:
        return {key: tuple(v) if isinstance(v, list) else v for key, v in self.said.get(what, {}).get(name, {}).items()}

    # --- the node of a live.yaml ---

    def live(self) -> m.Node:
        """What a look at the kernel finds, given what the spec wants."""
        wanted = self.desired.devices
        found = {name: self.found(self.meant[name], 10 * place) for place, name in enumerate(sorted(self.meant), 1)}
        seen = [name for name in found if name in wanted or found[name].owner == self.node or found[name].hooks]
        named = {*self.desired.namespaces, m.ROOT, *(end.namespace for d in wanted.values() for end in d.ends)}
        keys = {*self.spec.namespaces, *self.said.get("namespaces", ())}
        keys |= {end.namespace for device in found.values() for end in device.ends}
        some = [self.space(key) for key in sorted(keys - {"root"} | {m.ROOT})]
        spaces = {space.name: space for space in some if space.name in named or space.owner == self.node}
        devices = {name: found[name] for name in dict.fromkeys((*wanted, *seen)) if name in seen}
        taken = {name: tuple(self.coming(device, found.get(name))) for name, device in wanted.items()}
        root_devices = {name: m.RootDevice(*room) for name, room in self.said.get("rooms", {}).items()}
        node = m.Node(self.node, self.linked(spaces, found), devices, root_devices, taken=taken)
        more = {key: self.said[key] for key in ("home", "occupied", "covered") if key in self.said}
        return replace(node, **more)

    def space(self, key: str) -> m.Namespace:
        ours = key in self.spec.namespaces and self.spec.namespaces[key].create
        space = m.Namespace(key, owner=self.node if ours else None, cookie=crc32(key.encode()))
        return replace(space, **self.of("namespaces", key or "root"))

    def linked(self, spaces: Mapping[str, m.Namespace], devices: Mapping[str, m.Device]) -> dict[str, m.Namespace]:
        """The namespaces with the names of all that is in them."""
        links = {key: dict(self.of("namespaces", key or "root").get("links", {})) for key in spaces}
        for end, owner in [(end, device.owner) for device in devices.values() for end in device.ends]:
            links.get(end.namespace, {})[end.name] = owner is not None
        return {key: replace(space, links=links[key]) for key, space in spaces.items()}

    def found(self, device: m.Device, index: int) -> m.Device:
        wanted, made = self.desired.devices.get(device.name, device), self.after(device, None, anew=False)
        ends = [self.end(*both, index) for both in zip(made.ends, (*wanted.ends, device.ends[-1]), strict=False)]
        hooks = {name: self.hook(f"{device.name} {name}", hook) for name, hook in made.hooks.items()}
        made = replace(made, primary=ends[0], peer=ends[1] if ends[1:] else None, index=index, hooks=hooks)
        made = replace(made, enslaved=ends[0].master is not None, **self.of("devices", device.name))
        return made if made.owner == self.node or made.traits.programs_only else replace(made, hooks={})

    def end(self, end: m.Endpoint, wanted: m.Endpoint, index: int) -> m.Endpoint:
        more = self.of("ends", _text(end))
        others = more.pop("others", ())
        more |= {"master": m.Master(**more["master"])} if "master" in more else {}
        more |= {"leaning": tuple(m.Upper(**each) for each in more["leaning"])} if "leaning" in more else {}
        unsaid = {*wanted.sysctl} - {*end.sysctl, STABLE_SECRET} if wanted.name == end.name else ()
        assert not unsaid, f"live.yaml has to say what {unsaid} of {end.name} are"
        addresses = tuple(Listed(replace(address, ours=address.text not in others) for address in end.addresses))
        taken = tuple(taken_by(others, wanted))
        return replace(end, addresses=addresses, taken=taken, index=index + bool(end.namespace), **more)

    def coming(self, device: m.Device, found: m.Device | None) -> Iterator[m.Taken]:
        """What others have where an end is still to come."""
        for side, end in enumerate(device.ends):
            if found is None or _text(end) not in map(_text, found.ends):
                others = self.of("ends", _text(end)).get("others", ())
                yield from (replace(each, side=side) for each in taken_by(others, end))

    def hook(self, where: str, made: m.Hook) -> m.Hook:
        """`ours`, among the names of others, stands for all of the chain."""
        swapped, entries = self.said.get("swapped", ()), list[m.Attached]()
        for name in self.said.get("hooks", {}).get(where, ["ours"]):
            theirs = m.Attached(900 + len(entries), 900 + len(entries), name)
            ours = [replace(each, loaded=1) if f"{where} {each.name}" in swapped else each for each in made.ours]
            entries += ours if name == "ours" else [theirs]
        filters = [m.Attached(950, 950, name) for name in self.said.get("filters", {}).get(where, ())]
        linked, filters = ([], [*filters, *entries]) if made.legacy else (entries, filters)
        return m.Hook(tuple(linked), tuple(filters), 1)

    # --- the node after a plan ---

    def applied(self, plan: Plan, live: m.Node) -> m.Node:
        """The live node once a plan is carried out."""
        spaces, devices = dict(live.namespaces), dict(live.devices)
        for change in [change for change in plan.changes if change.kind == "device"]:
            # What is not among the plan's devices is one of others that the spec does not name any more.
            device, found = plan.devices.get(change.name) or devices[change.name], devices.pop(change.name, None)
            if change.operation != "destroy":
                devices[change.name] = self.after(device, found, anew=change.operation in ("create", "replace"))
        for action in plan.actions:
            match action:
                case act.CreateNamespace(name):
                    spaces[name] = m.Namespace(name, owner=self.node, cookie=crc32(name.encode()))
                case act.DeleteNamespace(name):
                    del spaces[name]
                case act.SetMark(name, "lo", marked):
                    spaces[name] = replace(spaces[name], owner=self.node if marked else None, marked=True)
                case act.SetMark(_, name, False):
                    devices[name] = replace(devices[name], owner=None)
        order = dict.fromkeys((*live.devices, *sorted(devices)))
        devices = {name: devices[name] for name in order if name in devices}
        return replace(live, namespaces=self.linked(spaces, devices), devices=devices, taken={})

    def after(self, device: m.Device, found: m.Device | None, *, anew: bool) -> m.Device:
        device = with_masters(device, found) if anew and found else device
        there = (*(found.ends if found else ()), None, None)
        ends = [self.end_after(device, side, there[side], anew=anew) for side in range(len(device.ends))]
        attrs, hooks = ({}, {}) if anew or not found else (found.attrs, found.hooks)
        return replace(
            device,
            attrs={**self.usual(device.kind, "device"), **attrs, **device.attrs},
            primary=ends[0],
            peer=ends[1] if ends[1:] else None,
            chains={},
            attach="auto",
            owner=None if device.traits.programs_only else self.node,
            index=ends[0].index,
            hooks={n: self.hook_after(device, n, hooks.get(n, m.Hook())) for n in device.traits.hooks},
        )

    def usual(self, kind: str, *places: str) -> dict[str, Any]:
        """What a new device has without being told."""
        rows = [row for row in ATTRIBUTES if kind in row.kinds and row.place in places and row.usual is not None]
        return {row.name: row.usual for row in rows if row.feature is None or row.feature in self.features}

    def end_after(self, device: m.Device, side: int, was: m.Endpoint | None, *, anew: bool) -> m.Endpoint:
        end = device.ends[side]
        old = was.attrs if was and not anew else {}
        attrs = self.usual(device.kind, "pair", "end") | {**old, **end.attrs}
        if was and anew and device.attrs.get("mode") != "l3" and "mac" in was.attrs:
            attrs = {"mac": was.attrs["mac"], **attrs}
        for size, twin in [(row.name, row.twin) for row in ATTRIBUTES if row.twin]:
            value = end.attrs.get(size, old.get(size))
            if value != old.get(size) and isinstance(value, int) and value <= COPIED:
                attrs[twin] = end.attrs.get(twin, value)
        lost = {row.name for row in ATTRIBUTES if row.feature in self.said.get("lacks", ())}
        made = replace(end, attrs={key: value for key, value in attrs.items() if key not in lost}, index=500 + side)
        if was is None or was.namespace != end.namespace:
            return replace(made, addresses=tuple(Listed(end.addresses)))
        gone = [each.gone for each in was.taken]
        others = [address for address in was.addresses if not address.ours and address not in gone]
        if anew:
            return replace(made, addresses=tuple(Listed((*end.addresses, *others))))
        addresses, sysctl = tuple(Listed((*others, *end.addresses))), {**was.sysctl, **end.sysctl}
        return replace(
            was, name=end.name, attrs=made.attrs, addresses=addresses, routes=end.routes, sysctl=sysctl, taken=()
        )

    def hook_after(self, device: m.Device, name: str, was: m.Hook) -> m.Hook:
        chain, legacy = device.chains.get(name, m.Chain()), is_legacy(device, self.features)
        ours = [m.Attached(700 + n, 700 + n, p.name, p.digest, True, p.contents) for n, p in enumerate(chain.programs)]
        entries = was.filters if legacy else was.linked
        linked, filters = ([each for each in some if not each.ours] for some in (was.linked, was.filters))
        others = filters if legacy else linked
        at = next((place for place, entry in enumerate(entries) if entry.ours), len(others))
        if at == len(entries) or chains.misplaced(entries, chain.position):
            anchor = chains.anchor_place(others, getattr(chain.position, "program", ""))
            at = 0 if chain.position == m.First() else len(others) if anchor is None else anchor
            at += isinstance(chain.position, m.After) and anchor is not None
        others[at:at] = ours
        return m.Hook(tuple(linked), tuple(filters), 1)


def taken_by(others: Any, wanted: m.Endpoint) -> Iterator[m.Taken]:
    """What of others stands where the spec wants something, in the words of nkform.observe.taken."""
    for each in others:
        said = {"to": each} if isinstance(each, str) else each
        to, holder = said["to"], said.get("holder", "")
        same = [a for a in wanted.addresses if a.text == to or (":" in to and m.host(a) == m.host(m.Address(to)))]
        address, route = same[0] if same else None, next((r for r in wanted.routes if r.to == to), None)
        if address or "why" in said:
            gone, holder = m.Address(to, ours=False) if "why" not in said else None, holder or f"{to} (static)"
            yield m.Taken(holder, address, route, gone, blocking=True, why=said.get("why", ""))
        elif route:
            theirs = m.Route(to, said.get("via"), metric=route.metric, table=route.table)
            holder = f"{theirs.text} dev {said.get('dev', wanted.name)} (static)"
            mine = None if "dev" in said else replace(theirs, message="00")
            yield m.Taken(holder, None, route, mine, ahead=True, blocking=True)


# --- plans in short lines ---


def told(plan: Plan) -> dict[str, Any]:
    """A plan as its plan.yaml has it."""
    warnings = [f"{problem.code} {problem.message}" for problem in plan.warnings]
    found = {"changes": [_change(change) for change in plan.changes], "actions": [line(a) for a in plan.actions]}
    return {**found, "warnings": warnings} if warnings else found


def refused(error: NkformError) -> dict[str, Any]:
    """What a plan.yaml has where there is no plan."""
    return {"errors": [f"{problem.code} {problem.message}" for problem in error.problems]}


def _change(change: Change) -> dict[str, Any]:
    rows = []
    for each in change.fields:
        before, after, way = _text(each.before), _text(each.after), ", by replacement" * each.forces_replacement
        how = "changed" if before == after else f"{before} -> {after}"
        how = f"{before} removed" if each.after is None else f"{after} added" if each.before is None else how
        rows.append(f"{'.'.join(each.path)} {how}{way}")
    reason = {"reason": change.reason} if change.reason else {}
    return {change.operation: f"{change.kind} {change.name}", **reason, **({"fields": rows} if rows else {})}


def line(action: act.Action) -> str:
    """An action in words: its name, what it is about, and what of it is not as usual."""
    words = [re.sub("(?<!^)(?=[A-Z])", " ", type(action).__name__).lower()]
    for name in [each.name for each in fields(action) if each.name not in ("cookie", "revision", "index", "steps")]:
        value = getattr(action, name)
        if name == "up":
            words[0] = "bring up" if value else "take down"
        elif name == "marked" or value is True:
            words.append(name if value else f"not {name}")
        elif name in ("before", "after"):
            words.append(("-> " if name == "after" else "") + _text(value))
        elif name == "device" and not isinstance(action, act.CreatePair | act.DeletePair):
            words += [value.primary.name] if isinstance(value, m.Device) else []
        elif _text(value) not in ("False", "root", "none", "", "[]"):
            words += [name] * (name in ("own", "peer", "inherit_maps_from")) + [_text(value)]
    return " ".join(words) + (f" ({', '.join(_steps(action))})" if isinstance(action, act.SetChain) else "")


def _steps(action: act.SetChain) -> Iterator[str]:
    """What a chain is changed by."""
    named = {entry.place: entry.name for entry in (*action.before.linked, *action.before.filters)}
    names = [program.name for program in action.after.programs]
    for step in action.steps:
        match step:
            case act.Attach(_, name, _, act.AfterNew(number)):
                yield f"attach {name} after {names[number]}"
            case act.Attach(_, name, _, act.AfterEntry(entry)):
                yield f"attach {name} after {named[entry.place]}"
            case act.Attach(_, name, _, act.BeforeEntry(entry)):
                yield f"attach {name} before {named[entry.place]}"
            case act.Attach(_, name, _, where):
                words = {m.First(): "first", m.Last(): "last", act.BeforeClosing(): "before what drops"}
                yield f"attach {name} {words[where]}"
            case act.Update(_, name) | act.Detach(_, m.Attached(name=name)):
                yield f"{type(step).__name__.lower()} {name}"
            case _:
                yield type(step).__name__.lower()


def _text(value: Any) -> str:
    """Any part of an action or of a change, without what is another one in each run."""
    match value:
        case str() | bool() | int():
            return "program" if re.fullmatch("[0-9a-f]{16}", str(value)) else str(value) or "root"
        case act.End() | m.Endpoint():
            return f"{value.name} in {value.namespace}" if value.namespace else value.name
        case m.Device(_, kind, attrs, primary, m.Endpoint() as peer):
            some = [{k: v for k, v in each.items() if v not in USUAL[k]} for each in (attrs, primary.attrs, peer.attrs)]
            parts = kind, _text(some[0]), _text(primary), _text(some[1]), "and", _text(peer), _text(some[2])
            return " ".join(part for part in parts if part)
        case m.Device(_, kind, attrs, primary):
            some = {k: v for k, v in {**attrs, **primary.attrs}.items() if v not in USUAL[k]}
            return f"{kind} {_text(primary)} {_text(some)}".rstrip()
        case m.Hook():
            return f"[{', '.join(entry.name for entry in (*value.linked, *value.filters))}]"
        case m.Chain():
            where = f" {chains.describe(value.position)}" if value.position else ""
            return f"[{', '.join(program.name for program in value.programs)}]{where}"
        case m.MapContents():
            return f"{value.map} [{', '.join(map(str, value.entries))}]"
        case m.Address() | m.Route():
            return value.text + ("" if value.ours else " (of others)")
        case Mapping():
            return ", ".join(f"{key} {_text(each)}" for key, each in value.items())
        case (str() | None, str()):
            return " -> ".join(map(str, value))
        case tuple():
            return ", ".join(map(_text, value))
    return str(getattr(value, "name", value)).lower()
