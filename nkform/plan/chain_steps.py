"""The order of attachment: the steps from the programs of ours at a hook to a chain. Pure.

A program that stays keeps its link. Where one program is replaced and that is all, it is one BPF_LINK_UPDATE, and
packets meet the old chain or the new one. Any other change is built into the old chain before that goes: new programs
are attached first to last, then old ones are detached last to first. So at each moment all of one chain is there, and
of the other what it begins with. Whoever decides first then is whom its own chain has decide first; hence a packet
that both chains let through passes at each moment, and one that both drop is dropped. Other orders do not hold that:
without its end an old chain only lets more packets through to the new one, without its beginning it may drop what it
had let through. Nor do two updates, one after the other.

Where a policy drops while nothing is attached, the first program to come or the last to go would open the hook: there a
program that drops ends what there is of the chain (CLOSING), until the chain is whole or gone. It is pinned like all
others, so that the hook stays closed when the run is killed.

All of it is decided here, and said in the plan; whoever carries the plan out (apply/chains.py) takes step after step.
What it says holds as long as the hook is as it was observed, which the hook's revision tells. One thing only is decided
later: where the numbers between the priorities of filters run out, the chain is attached anew beside itself
(`anew`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from nkform.model import After, Attached, Before, Chain, Device, First, Hook, Last
from nkform.plan.actions import (
    AfterEntry,
    AfterNew,
    Attach,
    Backend,
    BeforeClosing,
    BeforeEntry,
    Close,
    Detach,
    Entry,
    Open,
    SetChain,
    Step,
    Update,
    Where,
)
from nkform.plan.chains import CLOSING, anchor_place, exchanged, misplaced, staying


def change(
    device: Device,
    hook: str,
    before: Hook,
    after: Chain,
    *,
    backend: Backend = "link",
    revision: int | None = None,
    inherit_maps_from: Hook | None = None,
    closed: bool = False,
) -> SetChain:
    """The action that makes a hook run a chain. `closed`: it drops while nothing is attached there."""
    taken = tuple(steps(before, after, backend=backend, closed=closed))
    return SetChain(device, hook, before, after, taken, backend, revision, inherit_maps_from or Hook())


def steps(before: Hook, after: Chain, *, backend: Backend, closed: bool = False) -> list[Step]:
    """What leads from what a hook runs to a chain that is attached in one way. From one way of attachment to the other
    the new chain is complete before the old one goes: never a gap."""
    left = next((entry for entry in before.linked if entry.ours and entry.name == CLOSING), None)
    ours = [entry for entry in before.linked if entry.ours]
    alone = len(ours) == len(before.linked)  # what others have attached decides there by itself
    closing = left is None and closed and alone and bool(ours) != bool(after.programs)
    ahead: Where | None = BeforeEntry(_entry(left)) if left else BeforeClosing() if closing else None
    linked = [entry for entry in before.linked if entry.name != CLOSING]
    links = _turn(linked, after if backend == "link" else Chain(), "link", ahead)
    filters = _turn(before.filters, after if backend == "tc" else Chain(), "tc", None)
    found: list[Step] = [Close()] if closing else []
    found += [*filters, *links] if backend == "tc" else [*links, *filters]
    if left:
        found.append(Detach("link", left))
    return [*found, Open()] if closing else found


def anew(entries: Sequence[Attached], chain: Chain, backend: Backend, beginning: Where) -> list[Step]:
    """All of a chain attached anew from there on, before all that is there goes."""
    attached = [
        Attach(backend, program.name, number, AfterNew(number - 1) if number else beginning)
        for number, program in enumerate(chain.programs)
    ]
    return [*attached, *(Detach(backend, entry) for entry in reversed(entries) if entry.ours)]


def among(was: Sequence[Attached], now: Sequence[Attached], backend: Backend) -> list[Step]:
    """What puts each of our programs back between the programs of others that it stood between, as far as those are
    still there; none where all stand so. Programs of others are never moved."""
    others = {entry.program_id: entry for entry in now if not entry.ours}
    target = [entry for entry in was if entry.ours or entry.program_id in others]
    known = {entry.program_id for entry in target if not entry.ours}
    ours = [entry for entry in now if entry.ours]
    want, have = _slots(target, known), _slots(now, known)
    if want == have:
        return []
    from difflib import SequenceMatcher  # as hardly any plan needs it

    blocks = SequenceMatcher(None, want, have, autojunk=False).get_matching_blocks()
    staying = {block.a + step: ours[block.b + step] for block in blocks for step in range(block.size)}
    numbers = {place: number for number, place in enumerate(place for place, e in enumerate(target) if e.ours)}
    there = {place: others[entry.program_id] for place, entry in enumerate(target) if not entry.ours}
    there |= {place: staying[number] for place, number in numbers.items() if number in staying}
    found: list[Step] = []
    where: Where | None = None
    for place, entry in enumerate(target):
        if place in there:
            where = AfterEntry(_entry(there[place]))
            continue
        following = next((there[later] for later in sorted(there) if later > place), None)
        ahead = where or (BeforeEntry(_entry(following)) if following else First())
        found.append(Attach(backend, entry.name, numbers[place], ahead))
        where = AfterNew(numbers[place])
    kept = {entry.place for entry in staying.values()}
    return [*found, *(Detach(backend, entry) for entry in reversed(ours) if entry.place not in kept)]


def _slots(entries: Sequence[Attached], known: Collection[int]) -> list[tuple[str, str, int]]:
    """Our programs, each with how many of those programs of others stand ahead of it."""
    found: list[tuple[str, str, int]] = []
    ahead = 0
    for entry in entries:
        if entry.ours:
            found.append((entry.name, entry.identity, ahead))
        elif entry.program_id in known:
            ahead += 1
    return found


def _turn(entries: Sequence[Attached], chain: Chain, backend: Backend, ahead: Where | None) -> list[Step]:
    """The steps of one way of attachment. `ahead`: where a chain begins of which nothing is there yet."""
    ours = [entry for entry in entries if entry.ours]
    moved = bool(chain.programs) and misplaced(entries, chain.position)
    kept = staying(entries, chain)
    if not moved and (only := exchanged(ours, chain, kept)):
        place, number = only
        return [Update(backend, chain.programs[number].name, number, ours[place])]
    there = {number: ours[place] for place, number in kept.items()}
    # Where nothing stays, the chain stands where the old one stood.
    beginning = ours[0] if ours and not moved else None
    found: list[Step] = []
    for number, program in enumerate(chain.programs):
        if number in there:
            continue
        following = next((there[later] for later in sorted(there) if later > number), beginning)
        where: Where
        if number:
            where = AfterEntry(_entry(there[number - 1])) if number - 1 in there else AfterNew(number - 1)
        elif following is not None:
            where = BeforeEntry(_entry(following))
        else:
            where = ahead or _beginning(chain, entries)
        found.append(Attach(backend, program.name, number, where))
    return [*found, *(Detach(backend, ours[place]) for place in reversed(range(len(ours))) if place not in kept)]


def _beginning(chain: Chain, entries: Sequence[Attached]) -> Where:
    """Where a chain of which nothing is attached yet begins, among programs of others."""
    match chain.position:
        case First():
            return First()
        case Before(program) if (place := anchor_place(entries, program)) is not None:
            return BeforeEntry(_entry(entries[place]))
        case After(program) if (place := anchor_place(entries, program)) is not None:
            return AfterEntry(_entry(entries[place]))
        case _:  # an anchor that is not there is an error, but where it is optional
            return Last()


def _entry(entry: Attached) -> Entry:
    """One that was attached without a link has no more than its program's id, a filter that is no program no more than
    its priority."""
    return Entry(entry.place) if entry.place else Entry(0, entry.program_id)
