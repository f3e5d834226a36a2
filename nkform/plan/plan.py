"""The plan: what differs between the desired and the live node, and the actions that close the difference, in order.

Pure: desired, live and what the kernel can do come in; changes (for people) and actions (for apply/) come out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from nkform.dataclass import replace
from nkform.listing import enumerated
from nkform.macs import Macs, macs
from nkform.model import Chain, Device, Endpoint, Hook, Namespace, Node, Value
from nkform.namespace_key import ROOT
from nkform.nearest import nearest
from nkform.plan import chain_steps, chains, replacement, sources
from nkform.plan.actions import (
    Action,
    AddRoute,
    Backend,
    CreateNamespace,
    CreatePair,
    DeleteNamespace,
    DeletePair,
    DeleteRoute,
    End,
    MoveEnd,
    SetMap,
    SetMark,
    SetMaster,
    SetPolicy,
    SetSysctl,
    SetUp,
    WaitForCarrier,
    create,
    device_of,
    end_of,
    namespace_of,
)
from nkform.plan.beside_targets import beside_targets
from nkform.plan.changes import Aim, Change, Plan
from nkform.plan.collisions import collisions
from nkform.plan.compare import FieldChange, device_fields, end_actions, end_fields
from nkform.plan.contradictions import IPV6_MTU
from nkform.plan.losses import losses
from nkform.plan.moves import blocked_moves, in_order
from nkform.plan.parts import Name, absent
from nkform.plan.phases import Phases
from nkform.plan.preconditions import in_place, preconditions
from nkform.plan.reach import out_of_reach
from nkform.plan.resolve import resolve
from nkform.plan.root_after import root_after
from nkform.plan.routes import hops_behind
from nkform.problem import NkformError, Problem

GONE: Mapping[Aim, str] = {"spec": "it is not in the spec", "before": "it was not there before", "nothing": ""}
"""Why an object goes that is not desired, or a device of others loses its programs."""


class ProgramResolver(Protocol):
    """What tells the digests of a device's programs, and which of them its mode has no work for (nkform.bpf)."""

    def resolve(
        self,
        device: Device,
        features: Collection[str] | None = None,
        indexes: Mapping[str, int | None] | None = None,
        macs: Macs = (None, None),
    ) -> tuple[Device, list[Problem]]: ...

    def named(self, node: Node) -> set[str]:
        """The devices that parameters of a node's programs name."""


def build(
    desired: Node,
    live: Node,
    *,
    features: Collection[str] = (),
    programs: ProgramResolver | None = None,
    adopt: bool = False,
    targets: Collection[str] = (),
    resolved: Mapping[str, Device] | None = None,
    aim: Aim = "spec",
    readopt: Collection[Name] = (),
) -> Plan:
    """Compares and orders. Raises NkformError with all that cannot be.

    `programs` tells the digests of programs. `resolved` are the devices of an earlier plan of the same spec, where the
    spec's meaning has been worked out already. `aim`: what others have put in the place of an address or a route of
    ours is no obstacle to having it again as it was before. `readopt` are devices and namespaces that were ours and
    have lost their mark.
    """
    problems: list[Problem] = []
    desired = desired.at_home(live.home)
    spared, notes = absent(desired, live)
    desired, live = spared.trim(desired, live)
    if resolved is None:
        devices, problems = meaning(desired, live, features=features, programs=programs, targets=targets)
    else:
        devices = {name: device for name, device in resolved.items() if ("device", name) not in spared.names}
    for name, device in devices.items():
        if device.chains:
            legacy = is_legacy(device, features)
            problems += chains.preconditions(device, live.devices.get(name), legacy=legacy)
            if live.covered and not legacy:
                problems += chains.unpinned(device, live.devices.get(name, device))
    errors = [p for p in problems if p.severity == "error"]
    warnings = [*notes, *(p for p in problems if p.severity != "error")]
    errors += _unknown_targets([name for name in targets if ("device", name) not in spared.names], desired, live)
    wanted = _wanted_namespaces(desired, devices, bool(targets))
    errors += preconditions(desired.name, wanted, devices, live, adopt, readopt, goes_back=aim == "before")
    gone = _gone(desired, live, targets)
    errors += collisions(wanted, devices, live, gone)
    if targets:
        errors += beside_targets(devices, desired, live, gone)
    if aim != "before":
        errors += in_place(devices, live, adopt, gone)
        errors += out_of_reach(devices, live)
    if errors:
        raise NkformError(*errors)
    phases = Phases()
    changes = [*_namespace_changes(desired.name, wanted, live, phases)]
    for device in gone:
        phases.delete.append(DeletePair(device))
        changes.append(Change("destroy", "device", device.name, reason=GONE[aim], before=device))
    changes += _device_changes(desired.name, devices, live, phases, features)
    if changes:
        phases.close += hops_behind(devices, live)
        anew = {change.name for change in changes if change.kind == "device" and change.operation == "replace"}
        sources.give_again(devices, live, anew, phases)
    warnings += losses(changes)
    changes += _chains_left(desired, live, targets, phases, GONE[aim])
    if not targets:
        left, kept = _leftovers(desired, live, GONE[aim])
        changes += left
        warnings += kept
        phases.leave += [DeleteNamespace(change.name, live.namespaces[change.name].cookie) for change in left]
    if aim == "nothing":
        warnings += [_not_on_record(name, desired.name) for name in live.marked_only]
    return Plan(desired.name, tuple(changes), phases.ordered(), tuple(warnings), devices, aim)


def meaning(
    desired: Node,
    live: Node,
    *,
    features: Collection[str] = (),
    programs: ProgramResolver | None = None,
    targets: Collection[str] = (),
) -> tuple[dict[str, Device], list[Problem]]:
    """The devices of a spec as this node shall have them, and what is wrong with that or worth saying."""
    meant = resolve(desired, features, live.root_devices)
    devices = _aimed_at(meant.devices, targets)
    if meant.computed:
        going = [device.name for device in _gone(desired, live, targets)]
        meant = resolve(desired, features, root_after(devices, live, going))
        devices = _aimed_at(meant.devices, targets)
    problems = list(meant.problems)
    indexes = _indexes(desired, live) if programs is not None else {}
    for name, device in devices.items():
        if device.chains and programs is not None:
            found = live.devices.get(name)
            framing = found.framing if found else device.framing
            framed = device if framing == device.framing else replace(device, framing=framing)
            known = macs(desired.name, framed, found, features)
            devices[name], notes = programs.resolve(framed, features, indexes, known)
            problems += notes
    return devices, [problem for problem in problems if not chains.is_void(problem, devices)]


def _aimed_at(devices: Mapping[str, Device], targets: Collection[str]) -> dict[str, Device]:
    return {name: device for name, device in devices.items() if not targets or name in targets}


def _gone(desired: Node, live: Node, targets: Collection[str]) -> list[Device]:
    """Devices of ours that the spec does not name any more."""
    gone = (d for d in live.devices.values() if d.owner == desired.name and d.name not in desired.devices)
    return [device for device in gone if not targets or device.name in targets]


def _indexes(desired: Node, live: Node) -> dict[str, int | None]:
    """The devices that programs can name, with their ifindexes: of those that the spec makes, these come and go."""
    made: dict[str, int | None] = {
        end.name: None
        for d in desired.devices.values()
        if not d.traits.programs_only
        for end in d.ends
        if end.namespace == ROOT
    }
    return {name: room.index for name, room in live.root_devices.items()} | made


def _unknown_targets(targets: Collection[str], desired: Node, live: Node) -> Iterator[Problem]:
    for name in targets:
        if name not in desired.devices and name not in live.devices:
            near = nearest(name, sorted({*desired.devices, *live.devices}))
            hint = f"did you mean {near}?" if near else ""
            yield Problem("NK0407", f"--target {name}: neither the spec nor the node has such a device", hint=hint)


def _wanted_namespaces(desired: Node, devices: Mapping[str, Device], targeted: bool) -> dict[str, Namespace]:
    if not targeted:
        return dict(desired.namespaces)
    needed = {device.peer.namespace for device in devices.values() if device.peer}
    return {name: namespace for name, namespace in desired.namespaces.items() if name in needed}


def _namespace_changes(node: str, wanted: Mapping[str, Namespace], live: Node, phases: Phases) -> Iterator[Change]:
    for name, namespace in wanted.items():
        found = live.namespaces.get(name)
        if found is None:
            phases.namespaces.append(CreateNamespace(name, namespace.cookie))
            yield Change("create", "namespace", name, after=namespace)
        elif namespace.create != (found.owner == node) and (namespace.create or found.owner == node):
            alias = found.alias if namespace.create else namespace.alias
            phases.namespaces.append(SetMark(name, "lo", namespace.create, alias=alias))
            before, after = (None, node) if namespace.create else (node, None)
            yield Change("update", "namespace", name, (FieldChange(("owner",), before, after),))
        elif found.owner == node and not found.marked:
            phases.namespaces.append(SetMark(name, "lo", True, again=True))
            yield Change("update", "namespace", name, (FieldChange(("mark",), None, node),))


def left_in_place(namespace: str, others: Sequence[str]) -> Problem:
    """What to say of a namespace that should go and in which others have devices, of these names."""
    return Problem(
        "NK0416",
        f"namespace {namespace} is left in place: it holds devices that are not nkform's ({enumerated(others)})",
        hint="move or delete them, then run nkform again",
        severity="warning",
    )


def _not_on_record(namespace: str, node: str) -> Problem:
    """What to say of a namespace that destroying a node leaves, since its mark alone says that it is nkform's."""
    return Problem(
        "NK0418",
        f"namespace {namespace} is left in place: it carries the mark of {node}, but is not on record as nkform's",
        hint=f"whoever is root in it can write that mark; `ip netns delete {namespace}` if nobody needs it",
        severity="warning",
    )


def _leftovers(desired: Node, live: Node, reason: str) -> tuple[list[Change], list[Problem]]:
    """Namespaces of ours that are not declared any more; one that holds devices of others is left, and said."""
    changes, warnings = [], []
    for name, found in live.namespaces.items():
        if found.owner != desired.name or name in desired.namespaces:
            continue
        others = [link for link, ours in found.links.items() if not ours and link not in found.own]
        if others:
            warnings.append(left_in_place(name, others))
        else:
            changes.append(Change("destroy", "namespace", name, reason=reason, before=found))
    return changes, warnings


def _device_changes(
    node: str, devices: Mapping[str, Device], live: Node, phases: Phases, features: Collection[str]
) -> Iterator[Change]:
    compared = {
        name: tuple(fields(device, live.devices[name], legacy=is_legacy(device, features)))
        for name, device in devices.items()
        if name in live.devices
    }
    anew = {name for name, differing in compared.items() if any(f.forces_replacement for f in differing)}
    blocked = blocked_moves(devices, live, anew)
    names = replacement.Names(devices, live)
    going = {action.device.name for action in phases.delete if isinstance(action, DeletePair)}
    obstacles = replacement.obstacles(
        [name for name in devices if name in anew or name in blocked], devices, live, going
    )
    for name, device in devices.items():
        found = live.devices.get(name)
        legacy = is_legacy(device, features)
        if found is None:
            _schedule(create(device), phases)
            _attach(device, None, phases, legacy=legacy)
            _hold(device, phases)
            yield Change("create", "device", name, after=device)
        elif name in anew or name in blocked:
            obstacle = blocked.get(name) or obstacles.get(name, "")
            if obstacle:
                phases.delete.append(DeletePair(found))
                _schedule(create(replacement.with_masters(_keeping(device, found), found)), phases)
                _attach(device, None, phases, legacy=legacy)
            else:
                _beside(replacement.beside(_keeping(device, found), found, names), phases, legacy=legacy)
            _hold(device, phases)
            reason = _reason(compared[name], found, obstacle)
            yield Change("replace", "device", name, compared[name], reason, found, device)
        elif device.traits.programs_only:
            if compared[name]:
                _attach(device, found, phases, legacy=legacy)
                yield Change("update", "device", name, compared[name], before=found, after=device)
        elif compared[name] or found.owner != node:
            _update(device, found, node, phases)
            _attach(device, found, phases, legacy=legacy)
            _hold(device, phases)
            marked = () if found.owner == node else (FieldChange(("owner",), found.owner, node),)
            yield Change("update", "device", name, (*marked, *compared[name]), before=found, after=device)
    turns = {name: turn for turn, name in enumerate(in_order(devices, live, anew))} if phases.move else {}
    phases.move.sort(key=lambda action: turns.get(device_of(action) or "", 0))


def _hold(device: Device, phases: Phases) -> None:
    """Sets last what the kernel sets otherwise when an end or its other end comes up, or gets another MTU, and does so
    some time after the fact (net/ipv6/addrconf.c, addrconf_notify)."""
    for end in device.ends:
        if (value := end.sysctl.get(IPV6_MTU)) is not None:
            place = end_of(device.name, end)
            if all(each.attrs.get("up") for each in device.ends):
                phases.hold.append(WaitForCarrier(place))
            phases.hold.append(SetSysctl(place, IPV6_MTU, None, value))


def is_legacy(device: Device, features: Collection[str]) -> bool:
    """Whether a device's chains are filters of legacy tc: where tcx is missing or not wanted. netkit needs neither."""
    return device.traits.over_tcx and (device.attach == "tc" or "tcx" not in features)


def _reason(fields: Collection[FieldChange], found: Device, obstacle: str) -> str:
    """Why a device is made anew, and which of the two ways it will be."""
    forced = [".".join(field.path) for field in fields if field.forces_replacement]
    way = f"the old {found.traits.noun} goes first: {obstacle}" if obstacle else replacement.BESIDE
    return f"{', '.join(forced)} cannot change in place; {way}" if forced else way


def _beside(change: replacement.Replacement, phases: Phases, *, legacy: bool) -> None:
    """Files the actions of a replacement whose new pair is built while the old one works."""
    _schedule(replacement.build(change), phases)
    _attach(change.new, None, phases, legacy=legacy, inherit_maps_from=change.found.hooks)
    phases.carrier += replacement.wait_for_carrier(change)
    phases.switch += replacement.switch(change)
    phases.retire.append(replacement.retire(change))


def _attach(
    device: Device,
    live: Device | None,
    phases: Phases,
    *,
    legacy: bool,
    inherit_maps_from: Mapping[str, Hook] = MappingProxyType({}),
) -> None:
    """Chains of one device, those hooks first that have programs of ours to lose."""
    if device.traits.programs_only and live is not None:
        device = replace(device, index=live.index)  # it goes by its name otherwise, which others may give away
    for hook in device.traits.hooks:
        chain = device.chains.get(hook, Chain())
        found = live.hooks.get(hook, Hook()) if live else Hook()
        refills = chains.refills(found, chain, legacy=legacy)
        for program, now, shall in refills:
            phases.attach.append(SetMap(device, hook, program, now, shall))
        if not refills and not chains.is_converged(found, chain, legacy=legacy):
            backend: Backend = "tc" if legacy and chain.programs else "link"
            heir = inherit_maps_from.get(hook)
            closed = live is not None and (chains.drops_when_empty(device, hook) or chains.drops_when_empty(live, hook))
            revision = found.revision if live and hook in live.hooks else None  # else nobody has looked
            phases.attach.append(
                chain_steps.change(
                    device,
                    hook,
                    found,
                    chain,
                    backend=backend,
                    revision=revision,
                    inherit_maps_from=heir,
                    closed=closed,
                )
            )


def _chains_left(desired: Node, live: Node, targets: Collection[str], phases: Phases, reason: str) -> Iterator[Change]:
    """Programs of ours on devices of others that the spec does not name any more."""
    for name, found in live.devices.items():
        if found.traits.programs_only and name not in desired.devices and (not targets or name in targets):
            left = tuple(fields(found, found, legacy=found.hooks_legacy))
            if left:
                _attach(found, found, phases, legacy=found.hooks_legacy)
                yield Change("update", "device", name, left, reason, found, found)


def fields(desired: Device, live: Device, *, legacy: bool) -> Iterator[FieldChange]:
    """All that differs between a device as it shall be and as it is."""
    for hook in desired.traits.hooks:
        runs, chain = live.hooks.get(hook), desired.chains.get(hook)
        if runs or chain:
            yield from chains.fields(runs or Hook(), chain or Chain(), hook, legacy=legacy)
    if desired.traits.programs_only:
        return
    yield from device_fields(desired, live)
    yield from end_fields(desired.primary, live.primary, ())
    if desired.peer and live.peer:
        there = live.peer if desired.peer.namespace == live.peer.namespace else _moved(live.peer, desired.peer)
        yield from end_fields(desired.peer, there, ("peer",))


def _keeping(device: Device, found: Device) -> Device:
    """A replacement keeps the hardware addresses of the old device, so that neighbours need not learn new ones."""
    if device.attrs.get("mode", found.attrs.get("mode")) == "l3":
        return device

    def kept(end: Endpoint, old: Endpoint) -> Endpoint:
        mac = old.attrs.get("mac")
        return end if mac is None or "mac" in end.attrs else replace(end, attrs={**end.attrs, "mac": mac})

    peer = kept(device.peer, found.peer) if device.peer and found.peer else device.peer
    return replace(device, primary=kept(device.primary, found.primary), peer=peer)


def _moved(live: Endpoint, desired: Endpoint) -> Endpoint:
    """A live end as it is after a move: addresses, routes, sysctls and state are gone."""
    return replace(
        live,
        name=desired.name,
        namespace=desired.namespace,
        addresses=(),
        routes=(),
        taken=(),
        sysctl={},
        attrs={**live.attrs, "up": False},
        index=0,
        master=None,
    )


def _schedule(actions: Iterator[Action], phases: Phases) -> None:
    """Files the actions of a new pair: its making, what is inside namespaces, what is outside."""
    for action in actions:
        if isinstance(action, CreatePair):
            phases.create.append(action)
        else:
            _file(action, phases)


def _file(action: Action, phases: Phases) -> None:
    match action:
        case SetUp(End(_, "", _), True):
            phases.raised.append(action)
        case AddRoute(End(_, namespace, _)) | DeleteRoute(End(_, namespace, _), beside=True):
            # The source that a route names may be an address of another device: all addresses come before all routes.
            routes = phases.inside_routes.setdefault(namespace, []) if namespace != ROOT else phases.routes
            routes.append(action)
        case _ if (namespace := namespace_of(action)) != ROOT:
            phases.inside.setdefault(namespace, []).append(action)
        case _:
            phases.outside.append(action)


def _update(desired: Device, live: Device, node: str, phases: Phases) -> None:
    """Changes a device in place."""
    if live.owner != node:
        phases.outside.append(SetMark(ROOT, desired.name, True, alias=live.alias))
    _policies(desired, live, phases)
    if desired.peer and live.peer:
        there = live.peer
        if (there.namespace, there.name) != (desired.peer.namespace, desired.peer.name):
            phases.move.append(MoveEnd(there, desired.peer, desired.name))
            if there.namespace != desired.peer.namespace:
                there = _moved(there, desired.peer)
                if desired.peer.master:  # it comes back to where it was
                    _file(SetMaster(end_of(desired.name, desired.peer), None, desired.peer.master), phases)
        for action in end_actions(desired.name, desired.peer, there):
            _file(action, phases)
    for action in end_actions(desired.name, desired.primary, live.primary):
        _file(action, phases)


def _policies(desired: Device, live: Device, phases: Phases) -> None:
    """Policies that close go first of all, those that open last of all."""
    if desired.traits.policy != "kernel":
        return
    end = end_of(desired.name, desired.primary, live.primary)
    own, peer = (_policy_change(shall, now) for shall, now in zip(desired.ends, live.ends, strict=True))
    for phase, closing in ((phases.close, True), (phases.open, False)):
        own_now, peer_now = (
            {"policy": change} if change and (change[1] == "blackhole") is closing else {} for change in (own, peer)
        )
        if own_now or peer_now:
            phase.append(SetPolicy(end, own_now, peer_now))


def _policy_change(desired: Endpoint, live: Endpoint) -> tuple[Value | None, Value] | None:
    value, now = desired.attrs.get("policy"), live.attrs.get("policy")
    return None if value is None or value == now else (now, value)
