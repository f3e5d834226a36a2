"""How an end's routes differ from the desired ones, and the actions that close the difference. Pure.

The kernel knows a route by its destination, table and metric, and lets several stand side by side under one such key,
whosever they are. Its own replacing goes by the key alone and takes the first one, or in IPv6 all next hops. So it is
never used here: ours is added beside the old one, which then goes by all that it has.

Where the kernel cannot have both at a time (in IPv6: through one gateway and link), one with the next metric stands in
for a moment.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from nkform.dataclass import replace
from nkform.model import Device, Endpoint, Node, Route, RouteKey
from nkform.plan.actions import Action, AddRoute, DeleteRoute, End, end_of

RouteChange = tuple[Route | None, Route | None]
"""Before and after; None is absent."""

LAST_METRIC = 0xFFFFFFFF
"""rtnetlink's RTA_PRIORITY has 32 bits."""


def _is(wanted: Route, found: Route) -> bool:
    """Whether an observed route is the wanted one, as far as the kernel tells."""
    if found.ours:
        return found == wanted
    return (found.via, found.onlink) == (wanted.via, wanted.onlink)


def _by_key(routes: Iterable[Route]) -> dict[RouteKey, list[Route]]:
    groups: dict[RouteKey, list[Route]] = {}
    for route in routes:
        groups.setdefault(route.key, []).append(route)
    return groups


def route_changes(desired: Endpoint, live: Endpoint) -> list[RouteChange]:
    """Every route that differs: removals first, then changes and additions as declared.

    What others have in the place of a declared one counts as what was before, where it can be taken over. A spec has
    one route of a key; what is gone back to may have had several.
    """
    wanted, present = _by_key(desired.routes), _by_key(live.routes)
    theirs = {each.route.key: each.gone for each in live.taken if each.route and isinstance(each.gone, Route)}
    gone: list[RouteChange] = []
    changed: dict[RouteKey, list[RouteChange]] = {}
    for key, routes in wanted.items():
        there = present.get(key, ())
        # Where one of ours goes, that it was the first is all that is known of those behind it.
        known = [found for found in there if found.ours] or there
        if missing := [route for route in routes if not any(_is(route, found) for found in known)]:
            changed[key] = [(theirs.get(key), missing[0]), *((None, route) for route in missing[1:])]
    for key, routes in present.items():
        declared = wanted.get(key, ())
        for route in routes:
            if not route.ours or any(_is(each, route) for each in declared):
                continue
            if key in changed and changed[key][0][0] is None:
                changed[key][0] = route, changed[key][0][1]
            else:
                gone.append((route, None))
    return gone + [change for changes in changed.values() for change in changes]


def removals(end: End, changes: Sequence[RouteChange], live: Endpoint) -> Iterator[Action]:
    """Removes what shall be gone. What the kernel would take in its place steps aside for a moment.

    With the first of an IPv6 route's next hops go those behind it that are ours, or one of them would be the first.
    """
    going = {before for before, after in changes if before is not None and after is None}
    changed = {after.key for _, after in changes if after is not None}
    for key, routes in _by_key(live.routes).items() if going else ():
        gone = [route for route in routes if route in going and route.ours]
        aside = _in_the_way(routes, going) if gone and len(routes) > 1 else []
        behind = [route for route in routes if not route.ours] if gone and key not in changed else []
        yield from (DeleteRoute(end, route) for route in (*aside, *reversed(behind), *gone))
        yield from (AddRoute(end, route, beside=True) for route in aside)


def _in_the_way(routes: Sequence[Route], going: Collection[Route]) -> list[Route]:
    """Of the routes of one key, those that stay and that the kernel would take for one that goes, for they come first.

    That is seldom more than the one that is declared.
    """
    ahead: list[Route] = []
    aside: dict[Route, None] = {}
    for route in routes:
        if route not in going:
            if route.ours:
                ahead.append(route)
        else:
            aside.update(dict.fromkeys(other for other in ahead if kernel_takes(route, other)))
    return list(aside)


def kernel_takes(asked: Route, route: Route) -> bool:
    """Whether the kernel, asked to delete one route of a link, may take another of the same key and protocol."""
    if asked.message or route.message:
        return not asked.message and ":" in asked.to and asked.via is None
    if ":" in asked.to:
        return asked.via is None or asked.via == route.via
    return asked.via == route.via and asked.mtu == route.mtu and asked.src in (None, route.src)


def additions(end: End, changes: Sequence[RouteChange], live: Endpoint) -> Iterator[Action]:
    """Adds what is new and changes what differs; routes to a gateway come after those that may lead to it."""
    ahead = {each.route.key: each.ahead for each in live.taken if each.route is not None and not each.why}
    unproven = _by_key(route for route in live.routes if not route.ours)
    held = {*ahead, *(route.key for route in live.routes)}
    for before, after in sorted(changes, key=lambda change: change[1] is not None and change[1].via is not None):
        if after is None:
            continue
        key = after.key
        hops = unproven.get(key, ())
        instead = before or next((hop for hop in hops if hop.via == after.via), None)
        if instead is not None:
            behind = hops if before is not None else ()
            held.add(key)
            yield from _exchange(end, instead, after, behind, first=not ahead.get(key, True))
            continue
        yield AddRoute(end, after, beside=key in held or not after.ours)
        held.add(key)
        # One of these may be ours of an earlier day. The kernel removes it only if it has our protocol.
        yield from (DeleteRoute(end, hop, beside=True) for hop in hops)


def mtus_again(end: End, desired: Endpoint, live: Endpoint, mtu: object) -> Iterator[Action]:
    """With a new MTU of its device an IPv6 route takes that for its own, where its own is larger or was the device's
    (net/ipv6/route.c, rt6_mtu_change_route): gives those that stay theirs again."""
    if not isinstance(mtu, int):
        return
    before = {str(live.attrs.get("mtu")), live.sysctl.get("ipv6.mtu")}
    for route in desired.routes:
        if ":" in route.to and route.mtu and (route.mtu > mtu or str(route.mtu) in before) and route in live.routes:
            yield from _exchange(end, replace(route, mtu=mtu), route, (), first=False)


def _exchange(end: End, before: Route, after: Route, behind: Sequence[Route], *, first: bool) -> Iterator[Action]:
    """`first`: ours was before those of others; IPv6 knows no first. `behind`: next hops that are told of behind one of
    ours. What of them is ours goes with it, the last one first: undoing gives the first one again first."""
    gone = [DeleteRoute(end, route, beside=True) for route in (*reversed(behind), before)]
    if ":" in after.to and any(route.via == after.via for route in (before, *behind)):
        spare = replace(after, metric=after.metric + 1, message="")
        if after.metric < LAST_METRIC:
            yield AddRoute(end, spare, beside=True, again=True)
        yield from gone
        yield AddRoute(end, after, beside=True)
        if after.metric < LAST_METRIC:
            yield DeleteRoute(end, spare, beside=True)
        return
    yield AddRoute(end, after, beside=True, first=first and ":" not in after.to and not kernel_takes(before, after))
    yield from gone


def hops_behind(desired: Mapping[str, Device], live: Node) -> Iterator[Action]:
    """Removes next hops that are told of behind one of ours through another end, and that their own end has not
    declared: of what is ours among them, one would be the first, and known as ours, once that one goes."""
    ends = [(name, side, end) for name, device in live.devices.items() for side, end in enumerate(device.ends)]
    doubtful = [(name, side, end, route) for name, side, end in ends for route in end.routes if not route.ours]
    if not doubtful:
        return
    firsts = {(end.namespace, route.key): end for _, _, end in ends for route in end.routes if route.ours}
    for name, side, end, route in reversed(doubtful):
        first = firsts.get((end.namespace, route.key), end)
        declared = desired[name].ends[side].routes if name in desired and side < len(desired[name].ends) else ()
        if first is not end and not any(_is(each, route) for each in declared if each.key == route.key):
            yield DeleteRoute(end_of(name, end, end), route)
