"""A live node as a spec: what `show` prints, and what plans empty against the node that it was read from."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from nkform.attributes import ATTRIBUTES
from nkform.listing import enumerated
from nkform.model import Attached, Attrs, Device, Endpoint, Explanation, Hook, Node, Route
from nkform.namespace_key import ROOT, OfPath, OfPid, Root, is_unnamed, meant_by
from nkform.problem import Problem

Told = Callable[[str, str, Attached], Explanation | None]
"""What a program at a device and a hook was made of."""

GENERATED = "default"


def unexplained(node: Node, told: Told) -> list[Problem]:
    """Programs of which it is not known what they were made of: `show` cannot print them."""
    entries = [each for each in _ours(node) if each[2].strange or told(*each) is None]
    return [_foreign(*each) if each[2].strange else _unknown(*each) for each in entries]


def _ours(node: Node) -> Iterator[tuple[str, str, Attached]]:
    """Our programs, each with its device and its hook."""
    for device in node.devices.values():
        for name, hook in device.hooks.items():
            for entry in hook.ours:
                yield device.name, name, entry


def engines(node: Node, told: Told) -> tuple[str, ...]:
    """What compiled the programs of a node: the engine of most of them first."""
    found = [explanation.engine for each in _ours(node) if (explanation := told(*each)) and explanation.engine]
    return tuple(sorted(dict.fromkeys(found), key=found.count, reverse=True))


def several(engines: tuple[str, ...]) -> list[Problem]:
    """A spec has one engine, and the digests of programs that another one compiled differ."""
    if len(engines) < 2:
        return []
    made = " and ".join(engines)
    return [
        Problem(
            "NK0609",
            f"the programs were compiled by {made}, and a spec names one engine: {engines[0]} is shown",
            hint="`nkform apply` without --target compiles all of them by one",
            severity="warning",
        )
    ]


def _foreign(device: str, hook: str, entry: Attached) -> Problem:
    return Problem(
        "NK0440",
        f"{entry.name} at {hook} of {device} is left out: in its place runs program {entry.program_id}, which nkform "
        "did not load",
        hint=f"`bpftool prog show id {entry.program_id}` shows what it is; `nkform apply` puts the program back",
        severity="warning",
    )


def _unknown(device: str, hook: str, entry: Attached) -> Problem:
    return Problem(
        "NK0607",
        f"{entry.name} at {hook} of {device} is left out: there is no record of the template that it was made from",
        hint="`nkform apply` of its spec puts it on record again",
        severity="warning",
    )


def as_spec(node: Node, told: Told, engine: str = "") -> dict[str, Any]:
    """The node as the data of a spec file; what the kernel gives any new device is left out.

    `engine`: the one to name, if any.
    """
    return escaped(as_data(node, told, engine))


def escaped(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The data of a spec as a file has it, with no text that it would take for a variable."""
    return {key: _plain(value) for key, value in spec.items()}


def as_data(node: Node, told: Told, engine: str = "") -> dict[str, Any]:
    """As `as_spec`, with texts as they are meant."""
    spec: dict[str, Any] = {"version": 1, "node": node.name, **({"engine": engine} if engine else {})}
    node = node.with_devices({name: d for name, d in node.devices.items() if not _is_out_of_reach(d)})
    keys = {d.peer.namespace for d in node.devices.values() if d.peer and ":" not in d.peer.namespace} - {ROOT}
    owned = {name for name, namespace in node.namespaces.items() if namespace.owner == node.name}
    if keys or owned:
        spec["namespaces"] = {name: {"create": True} if name in owned else {} for name in sorted(keys | owned)}
    shown = [d for d in node.devices.values() if d.owner == node.name or any(hook.ours for hook in d.hooks.values())]
    programs = _Programs(told)
    devices = {device.name: {**_device(device), **programs.chains(device)} for device in shown}
    if programs.folders:
        spec["templates"] = sorted(programs.folders)
    if programs.declared:
        spec["programs"] = programs.declared
    return {**spec, "devices": devices}


def _plain(value: Any) -> Any:
    """The data with no text that a spec would take for a variable, be it a name, a path or a parameter."""
    match value:
        case str():
            return value.replace("${", "$${")
        case dict():
            return {_plain(key): _plain(each) for key, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
    return value


def unwritable(node: Node) -> list[Problem]:
    """Names that no spec can say, since they are no text; they are shown spelled out."""
    ends = [(device.name, end) for device in node.devices.values() for end in device.ends]
    return [
        Problem(
            "NK0608",
            f"an end of {device} is called {_text(end.name)}: that is not UTF-8 text, so a spec cannot name it",
            hint="`nkform apply` of its spec gives it its name again",
            severity="warning",
        )
        for device, end in ends
        if _text(end.name) != end.name
    ]


def out_of_reach(node: Node) -> list[Problem]:
    """Devices whose peers are where no spec can say."""
    return [
        Problem(
            "NK0616",
            f"{device.name} is left out: its peer is in a network namespace that has no name, and no process is in it",
            hint=f"give the namespace a name; `nkform apply` of what is shown would delete {device.name}",
            severity="warning",
        )
        for device in node.devices.values()
        if _is_out_of_reach(device)
    ]


def left_out(node: Node) -> list[Problem]:
    """What no spec can say: routes that nkform does not make or that may be of others, and marks that are gone."""
    found = []
    for device in node.devices.values():
        for end in device.ends if not _is_out_of_reach(device) else ():
            what = f"of {_text(end.name)}, an end of {device.name},"
            if strange := [route for route in end.routes if route.message]:
                found.append(_left_out(f"routes {what} are left out, since nkform makes none like them", strange))
            if doubtful := [route for route in end.routes if not route.ours]:
                why = "since the kernel does not tell whose they are"
                found.append(_left_out(f"IPv6 next hops {what} are left out, {why}", doubtful))
    unmarked = [name for name, space in node.namespaces.items() if space.owner == node.name and not space.marked]
    found += [_left_out(f"the mark on the `lo` of the namespace {name} is gone", ()) for name in unmarked]
    return found


def _left_out(told: str, routes: Sequence[Route]) -> Problem:
    return Problem(
        "NK0619",
        f"{told}: {enumerated([route.text for route in routes])}" if routes else told,
        hint="a spec cannot say that; `nkform plan` of what is shown may say that it will be mended",
        severity="warning",
    )


def _is_sayable(route: Route) -> bool:
    """Whether a spec can have a route: it has nothing that nkform does not set, and is known to be ours."""
    return route.ours and not route.message


def _is_out_of_reach(device: Device) -> bool:
    return device.peer is not None and is_unnamed(device.peer.namespace)


def _text(name: str) -> str:
    """A name as a spec has it: bytes that are no text (PEP 383) are spelled out."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


class _Programs:
    """The programs of all chains, each declared once; parameters stand where they are used."""

    def __init__(self, told: Told) -> None:
        self._told = told
        self.declared: dict[str, dict[str, Any]] = {}
        self.folders: set[str] = set()

    def chains(self, device: Device) -> dict[str, Any]:
        found = {
            name: self._chain(device.name, name, hook)
            for name, hook in device.hooks.items()
            if hook.ours and name not in _closed(device)
        }
        legacy = {"attach": "tc"} if device.hooks_legacy else {}
        return {**legacy, **({"programs": found} if found else {})}

    def _chain(self, device: str, name: str, hook: Hook) -> Any:
        known = [entry for entry in hook.ours if not entry.strange]
        entries = [
            self._entry(entry, explanation)
            for entry in known
            if (explanation := self._told(device, name, entry)) and entry.name != GENERATED
        ]
        if any(entry.name == GENERATED for entry in known):
            return {"default": "drop", "chain": entries}
        return entries

    def _entry(self, entry: Attached, explanation: Explanation) -> Any:
        template = explanation.template
        if not explanation.builtin:
            self.folders.add(explanation.folder.rpartition("/")[0])
        name = entry.name
        number = 2
        while self.declared.setdefault(name, {"template": template})["template"] != template:
            name, number = f"{entry.name}-{number}", number + 1
        params = {**explanation.params, **_entries(entry)}
        used: dict[str, Any] = {"use": name}
        if name != entry.name:
            used["as"] = entry.name
        if params:
            used["params"] = dict(params)
        return used if len(used) > 1 else name


def _entries(entry: Attached) -> dict[str, list[Any]]:
    """What the program's maps hold now, as the parameters that fill them."""
    return {name: [item for each in some for item in each.entries] for name, some in entry.contents.items()}


def _device(device: Device) -> dict[str, Any]:
    if device.traits.programs_only:
        return {"kind": device.kind}
    peer = device.peer
    closed = _closed(device)
    found = {
        "kind": device.kind,
        **({"policy": "blackhole"} if "primary" in closed else {}),
        **_attrs(device.attrs, ("device",), device.kind),
        **_attrs(device.primary.attrs, ("pair", "end"), device.kind),
        **_rest(device.primary),
    }
    if peer is not None:
        inherited = {
            a.name for a in ATTRIBUTES if a.inherit and peer.attrs.get(a.name) == device.primary.attrs.get(a.name)
        }
        values = {key: value for key, value in peer.attrs.items() if key not in inherited}
        found["peer"] = {
            "name": _text(peer.name),
            **_namespace(peer.namespace),
            **({"policy": "blackhole"} if "peer" in closed else {}),
            **_attrs(values, ("end",), device.kind),
            **_not_inherited(device.primary.attrs, peer.attrs, device.kind),
            **_rest(peer),
        }
    return found


def _closed(device: Device) -> set[str]:
    """The hooks at which a program of ours stands in for the policy of an end, with no other beside it."""
    if device.traits.policy != "program":
        return set()
    return {name for name, hook in device.hooks.items() if [e.name for e in hook.ours if not e.strange] == [GENERATED]}


def _namespace(key: str) -> dict[str, Any]:
    match meant_by(key):
        case Root():
            return {}
        case OfPid(pid):
            return {"namespace": {"pid": pid}}
        case OfPath(path):
            return {"namespace": {"path": path}}
        case _:
            return {"namespace": key}


def _not_inherited(primary: Attrs, peer: Attrs, kind: str) -> dict[str, Any]:
    """What the peer has as any new device has it, and would take from the primary if nothing was said."""
    return {
        attr.name: peer[attr.name]
        for attr in ATTRIBUTES
        if attr.inherit
        and attr.place == "end"
        and kind in attr.kinds
        and attr.name in peer
        and primary.get(attr.name, attr.usual) not in (attr.default, attr.usual, peer[attr.name])
    }


def _attrs(values: Attrs, places: tuple[str, ...], kind: str) -> dict[str, Any]:
    return {
        attr.name: values[attr.name]
        for attr in ATTRIBUTES
        if attr.place in places
        and kind in attr.kinds
        and attr.name in values
        and values[attr.name] not in (attr.default, attr.usual)
    }


def _rest(end: Endpoint) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if addresses := [address.text for address in end.addresses if address.ours]:
        found["addresses"] = addresses
    if routes := [_route(route) for route in end.routes if _is_sayable(route)]:
        found["routes"] = routes
    if end.sysctl:
        found["sysctl"] = _sysctls(end.sysctl)
    return found


def _sysctls(values: Mapping[str, str]) -> dict[str, dict[str, int | str]]:
    found: dict[str, dict[str, int | str]] = {}
    for key, value in values.items():
        family, _, name = key.partition(".")
        found.setdefault(family, {})[name] = int(value) if re.fullmatch("-?[0-9]{1,20}", value) else value
    return found


def _route(route: Route) -> dict[str, Any]:
    usual = {
        "via": None,
        "onlink": False,
        "src": None,
        "metric": 1024 if ":" in route.to else 0,
        "table": 254,
        "mtu": 0,
    }
    found = {key: value for key in usual if (value := getattr(route, key)) != usual[key]}
    return {"to": route.to, **found}
