"""Chains: how a hook's programs differ from those declared. Pure; the steps from one to the other: chain_steps.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from nkform.dataclass import replace
from nkform.kinds import TcPlace, kind_of
from nkform.model import (
    MAX_PROGRAMS,
    After,
    Attached,
    Before,
    Chain,
    Device,
    First,
    Hook,
    Last,
    MapContents,
    Position,
    Program,
)
from nkform.plan.compare import FieldChange, is_made_anew
from nkform.problem import Path, Problem

KERNEL_NAME = 15
"""How much of a program's name, that of its template, the kernel keeps (BPF_OBJ_NAME_LEN less its NUL)."""

DEFAULT = "default"
"""The generated program that drops what nobody decided, or stands in for the policy that a veth lacks."""

SIDES: Mapping[str, TcPlace] = {"ingress": "ingress", "peer": "ingress", "egress": "egress", "primary": "egress"}
"""At which side of a device a hook's filters of legacy tc are: what a peer transmits comes in at the primary."""

VERDICT = "verdict"

CLOSING = "closing!"
"""The program that ends a chain, and drops, while it comes to be or goes; no program of a spec can have that name."""


def needs_programs(device: Device) -> bool:
    """Whether a declared device has programs of ours, or may come to have one for want of a policy."""
    blackholed = any(end.attrs.get("policy") == "blackhole" for end in device.ends)
    stands_in = any(kind_of(kind).policy == "program" for kind in device.traits.becomes)
    return bool(device.chains) or (stands_in and blackholed)


def completed(device: Device) -> tuple[Device, list[Problem]]:
    """The device with the generated ends of its chains: of those that drop, and in place of a veth's policies.

    A policy decides while no program is attached, in the kernel and so here; who has both is warned.
    """
    if not needs_programs(device):
        return device, []
    problems = []
    found: dict[str, Chain] = {}
    for hook in device.traits.hooks:
        chain = device.chains.get(hook, Chain())
        blackholed = _blackholed(device, hook)
        if chain.programs and chain.default == "pass" and blackholed:
            problems.append(_falls_through(device.name, hook))
        if chain.default == "drop" or (not chain.programs and blackholed and device.traits.policy == "program"):
            end = Program(DEFAULT, VERDICT, {"verdict": "drop"})
            chain = replace(chain, programs=(*chain.programs, end))
        if hook in device.chains or chain.programs:
            found[hook] = chain
    return (device if found == device.chains else replace(device, chains=found)), problems


def _falls_through(device: str, hook: str) -> Problem:
    return Problem(
        "NK0422",
        f"the policy blackhole of {device} has no effect at {hook}: a packet that every program of the chain passes on "
        "to the next one is let through",
        path=("devices", device, "programs", hook),
        hint="write {default: drop, chain: [...]} to drop such packets, with a program in it that passes what "
        "is good (source_guard does with `accepted: pass`)",
        severity="warning",
    )


def is_void(problem: Problem, devices: Mapping[str, Device]) -> bool:
    """Whether a problem is about a chain that fell through, and whose programs have since left it: none is left."""
    match problem:
        case Problem(code="NK0422", path=("devices", str(device), "programs", str(hook))) if device in devices:
            return not devices[device].chains[hook].programs
    return False


def kept(present: Sequence[Attached], chain: Chain) -> dict[int, int]:
    """Which attached programs stay, digest and all: the longest common subsequence.

    Places in the chain by places in `present`. At most 63 of each. A program whose maps shall hold something else does
    not stay: only where nothing else changes are its maps changed under it (`refills`).
    """
    has, wanted = present, chain.programs
    alike = [[_same(entry, program) for program in wanted] for entry in has]
    lengths = [[0] * (len(wanted) + 1) for _ in range(len(has) + 1)]
    for row in range(len(has) - 1, -1, -1):
        for column in range(len(wanted) - 1, -1, -1):
            if alike[row][column]:
                lengths[row][column] = lengths[row + 1][column + 1] + 1
            else:
                lengths[row][column] = max(lengths[row + 1][column], lengths[row][column + 1])
    found: dict[int, int] = {}
    row = column = 0
    while row < len(has) and column < len(wanted):
        if alike[row][column]:
            found[row] = column
            row, column = row + 1, column + 1
        elif lengths[row + 1][column] >= lengths[row][column + 1]:
            row += 1
        else:
            column += 1
    return found


def staying(entries: Sequence[Attached], chain: Chain) -> dict[int, int]:
    """`kept` among our programs of a hook's; none where the chain has to begin elsewhere."""
    moved = bool(chain.programs) and misplaced(entries, chain.position)
    return {} if moved else kept([entry for entry in entries if entry.ours], chain)


def exchanged(ours: Sequence[Attached], chain: Chain, kept: Mapping[int, int]) -> tuple[int, int] | None:
    """The place of the one program that another one of its name replaces, and that one's number, if that is all."""
    old = [place for place in range(len(ours)) if place not in kept]
    new = [number for number in range(len(chain.programs)) if number not in kept.values()]
    alone = len(new) == 1 and old == new and ours[old[0]].name == chain.programs[new[0]].name
    return (old[0], new[0]) if alone else None


def newcomers(entries: Sequence[Attached], chain: Chain) -> int:
    """How many programs a change attaches beside those that are there, before any of them goes."""
    ours, kept = [entry for entry in entries if entry.ours], staying(entries, chain)
    moved = bool(chain.programs) and misplaced(entries, chain.position)
    return 0 if not moved and exchanged(ours, chain, kept) else len(chain.programs) - len(kept)


def _same(entry: Attached, program: Program) -> bool:
    """Whether an attached program is the declared one, and its maps hold what they shall."""
    return (entry.name, entry.identity) == (program.name, program.digest) and not _differing(entry, program)


def _differing(entry: Attached, program: Program) -> list[str]:
    """The parameters of a program whose maps hold something else."""
    return [name for name, wanted in program.contents.items() if entry.contents.get(name) != wanted]


def misplaced(entries: Sequence[Attached], position: Position | None) -> bool:
    """Whether our programs do not stand where the spec wants them among those of others."""
    ours = [place for place, entry in enumerate(entries) if entry.ours]
    others = [place for place, entry in enumerate(entries) if not entry.ours]
    if not ours or not others or position is None:
        return False
    match position:
        case First():
            return min(others) < max(ours)
        case Last():
            return max(others) > min(ours)
        case Before(program, optional):
            anchor = anchor_place(entries, program)
            return not optional if anchor is None else ours != list(range(anchor - len(ours), anchor))
        case After(program, optional):
            anchor = anchor_place(entries, program)
            return not optional if anchor is None else ours != list(range(anchor + 1, anchor + 1 + len(ours)))


def anchor_place(entries: Sequence[Attached], program: str | int) -> int | None:
    """Where a program of others stands: by its id or by its name, of several the first."""
    for place, entry in enumerate(entries):
        if not entry.ours and program in (entry.program_id, entry.name):
            return place
    return None


def in_order(present: Sequence[Attached], chain: Chain) -> bool:
    """Whether exactly the chain's programs are attached, in its order and with its digests."""
    return [(e.name, e.identity) for e in present] == [(p.name, p.digest) for p in chain.programs]


def is_converged(hook: Hook, chain: Chain, *, legacy: bool) -> bool:
    """Whether nothing is to be done at a hook: all ours are there, in one way of attachment, in place, with all that
    their maps shall hold."""
    return attached(hook, chain, legacy=legacy) and not _unsettled(hook, chain)


def refills(hook: Hook, chain: Chain, *, legacy: bool) -> list[tuple[str, MapContents, MapContents]]:
    """The maps that change under a running program: its name, what is and what shall be; none if a new one is needed.

    That is where the entries of one parameter are all that differs. Two such changes, one after the other, could let
    through what was dropped before and shall be dropped after, each time by another list; so then it is steps.
    """
    differing = _unsettled(hook, chain)
    if len(differing) != 1 or not attached(hook, chain, legacy=legacy):
        return []
    entry, program, name = differing[0]
    pairs = zip(entry.contents.get(name, ()), program.contents[name], strict=False)
    return [(program.name, now, shall) for now, shall in pairs if now != shall]


def _unsettled(hook: Hook, chain: Chain) -> list[tuple[Attached, Program, str]]:
    """Of programs that are attached, the parameters whose maps hold something else."""
    return [
        (entry, program, name)
        for entry, program in zip(hook.ours, chain.programs, strict=False)
        for name in _differing(entry, program)
    ]


def attached(hook: Hook, chain: Chain, *, legacy: bool) -> bool:
    """Whether all of a chain is attached, in one way and in place, and nothing else of ours; whatever maps hold."""
    if not chain.programs:
        return not hook.ours
    entries, stale = (hook.filters, hook.linked) if legacy else (hook.linked, hook.filters)
    ours = [entry for entry in entries if entry.ours]
    return in_order(ours, chain) and not any(entry.ours for entry in stale) and not misplaced(entries, chain.position)


def fields(hook: Hook, chain: Chain, name: str, *, legacy: bool) -> Iterator[FieldChange]:
    """What differs at a hook, for people: programs that come, go or change, their order, where they are attached."""
    if is_converged(hook, chain, legacy=legacy):
        return
    present = {entry.name: runs(entry) for entry in hook.ours}
    wanted = {program.name: program.digest for program in chain.programs}
    path: tuple[str, ...] = ("programs", name)
    for program, digest in present.items():
        if program not in wanted:
            yield FieldChange((*path, program), digest, None)
    for program, digest in wanted.items():
        if present.get(program) != digest:
            yield FieldChange((*path, program), present.get(program), digest)
    yield from _entries(hook, chain, path)
    if wanted and hook.ours and legacy != hook.legacy:
        yield FieldChange((*path, "attach"), "tc" if hook.legacy else "link", "tc" if legacy else "link")
    order = [entry.name for entry in hook.ours if entry.name in wanted]
    shall = [program for program in wanted if program in present]
    if order != shall:
        yield FieldChange((*path, "order"), ", ".join(order), ", ".join(shall))
    elif misplaced(hook.filters if legacy else hook.linked, chain.position):
        yield FieldChange((*path, "position"), "elsewhere", describe(chain.position))


def runs(entry: Attached) -> str:
    """What runs in the place of a program of ours, for people: its digest, or what is there instead."""
    return f"program {entry.program_id}, not what nkform loaded" if entry.strange else entry.digest


def _entries(hook: Hook, chain: Chain, path: tuple[str, ...]) -> Iterator[FieldChange]:
    """Entries of maps that go and come, of programs that are there and stay or change."""
    present = {entry.name: entry for entry in hook.ours}
    for program in chain.programs:
        entry = present.get(program.name)
        for name in _differing(entry, program) if entry else ():
            assert entry is not None
            there, wanted = (
                dict.fromkeys(item for filled in some for item in filled.entries)
                for some in (entry.contents.get(name, ()), program.contents[name])
            )
            for item in there:
                if item not in wanted:
                    yield FieldChange((*path, program.name, name), item, None)
            for item in wanted:
                if item not in there:
                    yield FieldChange((*path, program.name, name), None, item)


def describe(position: Position | None) -> str:
    """A position as the spec has it."""
    match position:
        case First():
            return "first"
        case Before(program):
            return f"before {program}"
        case After(program):
            return f"after {program}"
        case Last() | None:
            return "last"


def preconditions(device: Device, live: Device | None, *, legacy: bool) -> Iterator[Problem]:
    """What a chain asks for and cannot have, and what is worth a warning."""
    if legacy and live is not None and live.tc_taken:
        yield from _no_clsact(device, live)
    for name in device.chains:
        chain = device.chains[name]
        path: Path = ("devices", device.name, "programs", name)
        hook = live.hooks.get(name, Hook()) if live else Hook()
        entries = hook.filters if legacy else hook.linked
        others = [entry for entry in entries if not entry.ours]
        if len(others) + len(chain.programs) > MAX_PROGRAMS:
            yield Problem(
                "NK0420",
                f"{len(chain.programs)} programs do not fit into {name} of {device.name}: a hook has room for "
                f"{MAX_PROGRAMS}, {len(others)} others are there",
                path=path,
            )
        elif not legacy and live is not None and len(entries) + len(chain.programs) > MAX_PROGRAMS:
            yield from _cramped(device, live, name, entries)
        match chain.position:
            case Before(program, False) | After(program, False) if anchor_place(entries, program) is None:
                there = ", ".join(f"{entry.name} (id {entry.program_id})" for entry in others) or "none"
                yield Problem(
                    "NK0421",
                    f"there is no program {program} at {name} of {device.name} to stand beside",
                    path=(*path, "position"),
                    hint=f"programs of others there: {there}",
                )
        hidden = [entry.name for entry in hook.filters if not entry.ours]
        if not legacy and chain.programs and hidden:
            yield Problem(
                "NK0423",
                f"filters of legacy tc at {name} of {device.name} never see a packet that the chain decides: "
                f"{', '.join(hidden)}",
                path=path,
                severity="warning",
            )


def _no_clsact(device: Device, live: Device) -> Iterator[Problem]:
    """Filters on a device whose ingress qdisc is somebody's, where the kernel has one place for that and a clsact; or
    on a side of its clsact whose filters are those of a block that devices share."""
    hooks = [name for name, chain in device.chains.items() if chain.programs]
    if not device.traits.programs_only and is_made_anew(device, live):
        return  # the new pair has no such qdisc
    shared = [name for name in hooks if SIDES[name] in live.tc_taken]
    asked = device.attach == "tc"
    if "qdisc" in live.tc_taken and hooks:
        said = f"{device.name} has an ingress qdisc of others: filters of legacy tc need a clsact in its place"
        remedy = f"remove it (tc qdisc del dev {device.name} ingress)"
    elif shared:
        sides = " and ".join(dict.fromkeys(SIDES[name] for name in shared))
        said = (
            f"the clsact of {device.name} shares its filters at {sides} with other devices: nkform gives it none there"
        )
        remedy = f"have a clsact without a block there (tc qdisc del dev {device.name} clsact)"
    else:
        return
    yield Problem(
        "NK0479",
        said,
        path=("devices", device.name, "attach" if asked else "programs"),
        hint=f"{remedy}{', or leave out `attach: tc`' if asked else ''}",
    )


def unpinned(device: Device, live: Device) -> Iterator[Problem]:
    """Programs that look like ours at hooks where none is known to be: they would be attached a second time."""
    for name, chain in device.chains.items():
        hook = live.hooks.get(name, Hook())
        templates = {program.template[:KERNEL_NAME] for program in chain.programs if program.template}
        alike = [
            f"{entry.name} (id {entry.program_id})"
            for entry in hook.linked
            if entry.name in templates and not entry.digest
        ]
        if alike and not hook.ours:
            yield Problem(
                "NK0428",
                f"{', '.join(alike)} at {name} of {device.name} may be nkform's, but their pins are out of sight: "
                "another file system is mounted over the bpffs",
                path=("devices", device.name, "programs", name),
                hint="`findmnt /sys/fs/bpf` shows it; unmount the upper one, or remove these programs first",
            )


def _cramped(device: Device, live: Device, name: str, entries: Sequence[Attached]) -> Iterator[Problem]:
    """A change of a chain that finds no room at a hook that is nearly full: what is new goes beside what is old."""
    if not device.traits.programs_only and is_made_anew(device, live):
        return  # the new pair's hook is empty
    coming = newcomers(entries, device.chains[name])
    if len(entries) + coming > MAX_PROGRAMS:
        yield Problem(
            "NK0427",
            f"{name} of {device.name} has room for {MAX_PROGRAMS} programs: this change puts {coming} beside the "
            f"{len(entries)} that are there, before old ones go",
            path=("devices", device.name, "programs", name),
            hint="change it in two steps: take out some programs first",
        )


def drops_when_empty(device: Device, hook: str) -> bool:
    """Whether a device has a policy that drops while no program is attached at a hook: on a netkit."""
    return device.traits.policy == "kernel" and _blackholed(device, hook)


def _blackholed(device: Device, hook: str) -> bool:
    end = device.primary if hook == "primary" else device.peer
    return end is not None and end.attrs.get("policy") == "blackhole"
