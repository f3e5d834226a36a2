"""Merged data → the desired node of the model.

The data obeys the schema, or the parts that do not have been taken out (None, in a list): `broken` are their paths,
about whose absence nothing is said. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from nkform.attributes import BY_NAME, may_have
from nkform.dataclass import dataclass, field
from nkform.document import names
from nkform.document.inet import Prefix
from nkform.document.scalars import quoted
from nkform.kinds import AUTO, ONLY_PAIRS, KindName, kind_of
from nkform.model import IPV6_MIN_MTU, ComputedFor, Device, Endpoint, Namespace, Node, Route, Value
from nkform.namespace_key import ROOT, OfPath, OfPid, key_of
from nkform.nearest import nearest
from nkform.problem import Path, Problem
from nkform.spec.decode_end import decode_end
from nkform.spec.decode_programs import Declared
from nkform.spec.meaning import Seen, Where
from nkform.spec.merge import Data, defaults_for, merge_defaults

Report = Callable[[str, str, Path, str], None]

_MANY = 200


@dataclass
class Context:
    """What decoding a part needs to know of the whole. With `complete` unset, part of the spec could not be read."""

    report: Report
    warn: Report
    seen: Seen
    broken: Collection[Path]
    namespaces: Mapping[str, Any]
    programs: Declared
    complete: bool
    count: Callable[[], int]
    """How many problems were found so far."""
    strangers: Collection[Path] = ()
    """The mappings with keys that nkform does not know: these may mean what seems to be missing."""
    routes: dict[tuple[tuple[str, Any], ...], tuple[Route, Prefix, Prefix | None]] = field(default_factory=dict)
    """Routes in which nothing is wrong, with destination and gateway, by what was given."""

    def patient(self) -> bool:
        """Whether so few problems were found that looking for the best advice does not take too long."""
        return self.count() < _MANY


def decode(
    data: Data, broken: Collection[Path], where: Where, *, complete: bool, strangers: Collection[Path] = ()
) -> tuple[Node, list[Problem]]:
    """The node, and all that is wrong with it (errors and warnings). `strangers`: see `Context`."""
    problems: list[Problem] = []

    def report(code: str, message: str, path: Path, hint: str) -> None:
        problems.append(Problem(code, message, path=path, hint=hint))

    def warn(code: str, message: str, path: Path, hint: str) -> None:
        problems.append(Problem(code, message, path=path, hint=hint, severity="warning"))

    declared = data.get("namespaces", {})
    programs = Declared(data.get("programs", {}), report, broken, complete=complete and ("programs",) not in broken)
    context = Context(
        report, warn, Seen(report, where), broken, declared, programs, complete, lambda: len(problems), strangers
    )  # fmt: skip
    for key, example in (("version", "version: 1"), ("node", "node: worker-1")):
        if key not in data and (key,) not in broken and complete:
            report("NK0202", f"the spec needs `{key}`", (), f"add a line: {example}")
    node = data.get("node", "")
    if node and (fault := names.node_fault(node)):
        report("NK0206", f"{quoted(node)} {fault}", ("node",), "")
    namespaces = {name: _namespace(name, given or {}, context) for name, given in declared.items()}
    defaults = data.get("defaults", {})
    by_kind: dict[str, Data] = {}
    devices: dict[str, Device] = {}
    for name, given in data.get("devices", {}).items():
        kind = given.get("kind") or defaults.get("kind", AUTO.name)
        if kind not in by_kind:
            by_kind[kind] = {} if kind_of(kind).programs_only else defaults_for(kind, defaults)
        devices[name] = _device(name, kind, merge_defaults(by_kind[kind], given), context)
    context.seen.gateways()
    return Node(node, namespaces, devices), problems


def _namespace(name: str, given: Mapping[str, Any], context: Context) -> Namespace:
    if fault := names.netns_fault(name):
        context.report("NK0302", f"{quoted(name)} {fault}", ("namespaces", name), names.NETNS_RULE)
    create, optional = given.get("create", False), given.get("optional", False)
    if create and optional:
        hint = "leave out one of the two"
        context.report(
            "NK0324",
            f"namespace {quoted(name)} is made by nkform: it cannot be absent",
            ("namespaces", name, "optional"),
            hint,
        )
    return Namespace(name, create=create, optional=optional)


def _device(name: str, kind: KindName, data: Data, context: Context) -> Device:
    path = ("devices", name)
    if fault := names.ifname_fault(name):
        context.report("NK0301", f"the device's name {quoted(name)} {fault}", path, names.IFNAME_RULE)
    context.seen.end(ROOT, name, path)
    chains = context.programs.chains(kind, data.get("programs") or {}, (*path, "programs"))
    attach = data.get("attach", "auto")
    if kind_of(kind).programs_only:
        optional = data.get("optional", False)
        return Device(name, kind, {}, Endpoint(name), chains=chains, attach=attach, optional=optional)
    traits = kind_of(kind)
    if data.get("optional"):
        hint = "only devices of others (`kind: external`) may be absent"
        hint += "; for a pair, say so of its namespace" if traits.has_peer else ""
        message = f"the {traits.noun} {quoted(name)} is made by nkform: it cannot be absent"
        context.report("NK0324", message, (*path, "optional"), hint)
    if "peer" in data and not traits.has_peer:
        context.report("NK0207", f"{traits.said} has no `peer`", (*path, "peer"), ONLY_PAIRS)
        data = {key: value for key, value in data.items() if key != "peer"}

    own: dict[str, Value] = {}
    near: dict[str, Value] = {}
    far: dict[str, Value] = {}
    given = data.get("peer") or {}
    for key, value in data.items():
        row = BY_NAME.get(key)
        if row is None:
            continue
        if not may_have(row, kind):
            _not_for(key, kind, (*path, key), context)
        meant = _value(key, value, (*path, key), context)
        (own if row.place == "device" else near)[key] = meant
        if row.place == "pair" or (row.inherit and key not in given):
            far[key] = meant
    for key, value in given.items():
        row = BY_NAME.get(key)
        if row is not None:
            if not may_have(row, kind):
                _not_for(key, kind, (*path, "peer", key), context)
            far[key] = _value(key, value, (*path, "peer", key), context)

    _check_mac(kind, data, path, context)
    _check_mtu(data, path, context)
    primary = decode_end(name, ROOT, attrs=near, data=data, path=path, context=context)
    peer = _peer(data, far, path, context) if traits.has_peer else None
    return Device(name, kind, own, primary, peer, chains, attach)


def _peer(data: Data, attrs: dict[str, Value], path: Path, context: Context) -> Endpoint | None:
    where = (*path, "peer")
    given = data.get("peer")
    silent = where in context.broken or (*where, "name") in context.broken or not context.complete
    silent = silent or path in context.strangers or where in context.strangers
    if given is None:
        if not silent:
            message = f"the device {quoted(str(path[1]))} needs a `peer`"
            context.report("NK0202", message, path, "add peer: {name: eth0}")
        return None
    name = given.get("name")
    if name is None and not silent:
        context.report("NK0202", "`peer` needs a `name`", where, "for example name: eth0")
    namespace = _namespace_key(given.get("namespace", ROOT), where, context)
    if _is_anywhere(where, context):
        namespace = f"?{path[1]}"  # what else is there cannot be in its way
    if name is not None:
        if fault := names.ifname_fault(name):
            context.report("NK0301", f"the device's name {quoted(name)} {fault}", (*where, "name"), names.IFNAME_RULE)
        context.seen.end(namespace, name, (*where, "name"))
    return decode_end(name or "", namespace, attrs=attrs, data=given, path=where, context=context)


def _is_anywhere(peer: Path, context: Context) -> bool:
    """Whether the namespace of a peer is not known: what says so is wrong, or may be under a key that is."""
    places = [(*end, "namespace") for end in (peer, ("defaults", "peer"))]
    unclear = any(place in context.broken or place in context.strangers for place in places)
    return unclear or any(place[:-1] in context.strangers for place in places)


def _namespace_key(value: Any, peer: Path, context: Context) -> str:
    """The model's key of a namespace that a peer names."""
    where = (*peer, "namespace")
    if isinstance(value, dict):
        if "pid" in value:
            return key_of(OfPid(value["pid"]))
        path = value.get("path", "/")
        if fault := names.path_fault(path):
            context.report(
                "NK0302",
                f"the path {quoted(path)} {fault}",
                (*where, "path"),
                "for example /proc/4711/ns/net",
            )
        return key_of(OfPath(path))
    name = str(value)
    if name != ROOT and name not in context.namespaces and ("namespaces", name) not in context.broken:
        if fault := names.netns_fault(name):
            hint = "write {path: …} or {pid: …} for a namespace without a name" if "/" in name or ":" in name else ""
            context.report("NK0302", f"the namespace's name {quoted(name)} {fault}", where, hint)
        elif context.complete and ("namespaces",) not in context.broken:
            near = nearest(name, context.namespaces) if context.patient() else None
            hint = f"did you mean {near}? Otherwise " if near else ""
            hint += f"declare it:\nnamespaces:\n  {name}: {{create: true}}"
            context.report("NK0305", f"no namespace {quoted(name)} is declared", where, hint)
    return name


def _value(key: str, value: Any, path: Path, context: Context) -> Value:
    """The model's value of an attribute."""
    if key == "mac":
        mac: str = value.lower()
        first = int(mac[:2], 16)
        if len(mac) != 17 or first & 1 or mac == "00:00:00:00:00:00":
            what = "a multicast address" if first & 1 else "no address"
            context.report("NK0307", f"the MAC {quoted(value)} is {what}", path, "for example 02:00:00:00:00:01")
        return mac
    if isinstance(value, dict):
        devices = tuple(value.get("for") or ())
        earlier: set[str] = set()
        for index, device in enumerate(devices):
            if device is None:
                continue
            if fault := names.ifname_fault(device):
                context.report("NK0301", f"the device's name {quoted(device)} {fault}", (*path, "for", index), "")
            if device in earlier:
                context.report("NK0315", f"{quoted(device)} is named twice", (*path, "for", index), "name it once")
            earlier.add(device)
            if device == path[1]:
                what = f"the {key} of a device cannot be computed from its own"
                context.report("NK0315", what, (*path, "for", index), "")
        return ComputedFor(devices)
    return value  # type: ignore[no-any-return]


def _not_for(key: str, kind: str, path: Path, context: Context) -> None:
    kinds = " and ".join(sorted(BY_NAME[key].kinds))
    context.report(
        "NK0306",
        f"`{key}` is for {kinds} only, and this device is a {kind}",
        path,
        f"take it out, or write kind: {' or '.join(sorted(BY_NAME[key].kinds))}",
    )


def _check_mac(kind: KindName, data: Data, path: Path, context: Context) -> None:
    if kind_of(kind).link_layer != "mode" or data.get("mode", "l3") != "l3" or (*path, "mode") in context.broken:
        return
    layered = next(each for each in kind_of(kind).becomes if kind_of(each).link_layer == "mode")
    for where, end in ((path, data), ((*path, "peer"), data.get("peer") or {})):
        if "mac" in end:
            what = f"a {layered}" if kind == layered else f"a {layered}, which `kind: {kind}` may become,"
            reason = "mode l3" if "mode" in data else "mode l3, its default,"
            message = f"{what} has no MAC address in {reason}".rstrip(",")
            context.report("NK0307", message, (*where, "mac"), "write mode: l2, or take the mac out")


def _check_mtu(data: Data, path: Path, context: Context) -> None:
    """Of a number; what is computed is known on the node alone."""
    mtu = data.get("mtu")
    if not isinstance(mtu, int) or mtu >= IPV6_MIN_MTU:
        return
    for end in (data, data.get("peer") or {}):
        if six := _needs_ipv6(end, up=bool(end.get("up", data.get("up", True)))):
            hint = f"write mtu: {IPV6_MIN_MTU} or more, or take the IPv6 {six} out"
            context.report(
                "NK0312",
                f"with an MTU of {mtu} the kernel drops IPv6, which needs {IPV6_MIN_MTU}",
                (*path, "mtu"),
                hint,
            )
            return


def _needs_ipv6(end: Data, *, up: bool) -> str:
    """What of an end needs IPv6: "" if nothing does. One that is down has no routes."""
    if any(address and ":" in address for address in end.get("addresses", ())):
        return "addresses"
    if (end.get("sysctl") or {}).get("ipv6"):
        return "sysctls"
    texts = (route.get(key) for route in end.get("routes", ()) if route and up for key in ("to", "via", "src"))
    return "routes" if any(text and ":" in text for text in texts) else ""
