"""What both ends of a pair have: addresses, routes and sysctls. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from socket import AF_INET, AF_INET6
from typing import TYPE_CHECKING, Any

from nkform.document import names
from nkform.document.inet import (
    BadAddress,
    Own,
    Prefix,
    is_link_local,
    is_multicast,
    parse_ip,
    parse_prefix,
    unicast_fault,
)
from nkform.document.scalars import quoted, why_not_number
from nkform.gateways import MAIN, hidden
from nkform.model import IPV6_MIN_MTU, Address, Attrs, Endpoint, Route
from nkform.problem import Path
from nkform.spec.meaning import Networks

if TYPE_CHECKING:
    from nkform.spec.decode import Context

_ANY: Mapping[int, Prefix] = {AF_INET: Prefix(AF_INET, 0, 0, "0.0.0.0"), AF_INET6: Prefix(AF_INET6, 0, 0, "::")}
_RULED: Mapping[int, tuple[int, ...]] = {AF_INET: (255, MAIN, 253), AF_INET6: (255, MAIN)}
"""The tables that every namespace has rules for: local, main and (IPv4 alone) default (net/ipv4/fib_rules.c,
net/ipv6/fib6_rules.c)."""
_SYSCTL_MOST = (1 << 31) - 1
"""What they are kept in is an int, but for this one (net/ipv4/devinet.c, net/ipv6/addrconf.c)."""
_UNSIGNED = "ioam6_id_wide"
_METRIC_IPV6 = 1024
"""IP6_RT_PRIO_USER, include/net/ip6_fib.h: what the kernel makes of a metric of 0."""


def decode_end(
    name: str, namespace: str, *, attrs: Attrs, data: Mapping[str, Any], path: Path, context: Context
) -> Endpoint:
    """An end of a pair. `data` is the device's for the primary, the value of `peer` for the other."""
    given, routed = data.get("addresses"), data.get("routes")
    addresses = _addresses(given, namespace, (*path, "addresses"), context) if given else []
    if addresses:
        context.seen.addresses(namespace, addresses, path)
    routes = _routes(routed, addresses, namespace, (*path, "routes"), context) if routed else ()
    sysctl = _sysctl(data["sysctl"], (*path, "sysctl"), context) if "sysctl" in data else {}
    return Endpoint(name, namespace, attrs, tuple([Address(str(a)) for a in addresses]), routes, sysctl)


def _addresses(texts: Sequence[str | None], namespace: str, path: Path, context: Context) -> list[Prefix]:
    found: list[Prefix] = []
    seen: dict[object, int] = {}
    for index, text in enumerate(texts):
        where = (*path, index)
        if text is None:
            continue
        prefix = _prefix(text, where, context)
        if prefix is None:
            continue
        if fault := unicast_fault(prefix):
            context.report("NK0308", f"{quoted(text)} {fault}, which no device can have", where, "")
            continue
        first = seen.setdefault(prefix.text if prefix.family == AF_INET6 else prefix, index)
        if first != index:
            context.report("NK0309", f"{prefix.text} is given twice to this device", where, "keep one of the two")
            continue
        found.append(prefix)
        context.seen.address(namespace, prefix, where)
    return found


def _routes(
    given: Sequence[Mapping[str, Any] | None], addresses: list[Prefix], namespace: str, path: Path, context: Context
) -> tuple[Route, ...]:
    routes: list[Route] = []
    direct: list[tuple[int, Prefix]] = []
    gateways: list[tuple[int, Prefix, Path]] = []
    places: list[Path] = []
    own = Own(addresses)
    for index, data in enumerate(given):
        if data is None or "to" not in data:
            continue
        where = (*path, index)
        decoded = _route(data, where, context)
        if decoded is None:
            continue
        route, to, via = decoded
        if via is None:
            direct.append((route.table, to))
        elif fault := own.rules_out(via, onlink=route.onlink):
            context.report("NK0310", f"{via.text} {fault}: it cannot be a gateway", (*where, "via"), "")
        elif not route.onlink and not (via.family == AF_INET6 and is_link_local(via)):
            gateways.append((route.table, via, (*where, "via")))
        routes.append(route)
        places.append(where)
        context.seen.route(namespace, route, where)
    for gateway, where in _unreachable(gateways, addresses, direct):
        hint = "add onlink: true, or a route or an address that covers it"
        context.warn("NK0313", f"no address or route of this device covers the gateway {gateway.text}", where, hint)
    for number, through in hidden(map(str, addresses), routes, _numbers):
        message = f"the route {through} hides the gateway {routes[number].via} from the kernel"
        context.warn("NK0313", message, (*places[number], "via"), "add onlink: true, or a route to the gateway alone")
    return tuple(routes)


def _numbers(text: str) -> tuple[int, int]:
    prefix = parse_prefix(text)
    return prefix.value, prefix.length


def _unreachable(
    gateways: Sequence[tuple[int, Prefix, Path]], addresses: Sequence[Prefix], direct: Sequence[tuple[int, Prefix]]
) -> Iterator[tuple[Prefix, Path]]:
    """The gateways that the kernel will not find, each with its path; they are given with the tables of their routes.

    It looks in the route's own table, and then in those that the rules name that each namespace begins with
    (net/ipv4/fib_semantics.c, fib_check_nh_nongw; net/ipv6/route.c, ip6_route_check_nh).
    """
    by_table: dict[int, list[Prefix]] = {}
    for table, to in direct if gateways else ():
        by_table.setdefault(table, []).append(to)
    by_table.setdefault(MAIN, []).extend(addresses)
    known = {table: Networks(prefixes) for table, prefixes in by_table.items()} if gateways else {}
    for table, gateway, path in gateways:
        looked_at = {table, *_RULED[gateway.family]}
        if not any(known[each].reach(gateway) for each in looked_at if each in known):
            yield gateway, path


def _route(data: Mapping[str, Any], path: Path, context: Context) -> tuple[Route, Prefix, Prefix | None] | None:
    """A route with its destination and gateway. Many ends have the same, with nothing wrong in it: it is one object."""
    alike = tuple(data.items())
    if alike in context.routes:
        return context.routes[alike]
    before = context.count()
    via = _ip(data.get("via"), (*path, "via"), context)
    src = _ip(data.get("src"), (*path, "src"), context)
    to = _destination(data["to"], via, src, (*path, "to"), context)
    if to is None:
        return None
    _check_route(data, to, via, src, path=path, context=context)
    metric = data.get("metric") or (0 if to.family == AF_INET else _METRIC_IPV6)
    route = Route(
        str(to), via.text if via else None, data.get("onlink", False), src.text if src else None, metric,
        data.get("table", MAIN), data.get("mtu", 0),
    )  # fmt: skip
    if context.count() == before and not context.broken:
        context.routes[alike] = route, to, via
    return route, to, via


def _destination(text: str, via: Prefix | None, src: Prefix | None, path: Path, context: Context) -> Prefix | None:
    if text == "default":
        other = src or via
        return _ANY[other.family if other else AF_INET]
    to = _prefix(text, path, context, "NK0310")
    if to is None:
        return None
    if is_multicast(to):
        context.report("NK0310", f"{quoted(text)} is multicast, and routes are unicast", path, "")
        return None
    if to.host_bits:
        context.report("NK0310", f"{quoted(text)} has bits set beyond its prefix length", path, f"write {to.network}")
        return None
    return to


def _check_route(
    data: Mapping[str, Any], to: Prefix, via: Prefix | None, src: Prefix | None, *, path: Path, context: Context
) -> None:
    if via is not None and via.family == AF_INET and to.family == AF_INET6:
        hint = "the other way round is possible: an IPv4 route through an IPv6 gateway"
        context.report("NK0310", "an IPv6 route cannot go through an IPv4 gateway", (*path, "via"), hint)
    if src is not None and src.family != to.family:
        context.report(
            "NK0310", "the source address is of the other IP version than the destination", (*path, "src"), ""
        )
    if data.get("onlink") and via is None and (*path, "via") not in context.broken and "via" not in data:
        context.report(
            "NK0310",
            "`onlink` needs a gateway, and the route has none",
            (*path, "onlink"),
            "add via, or take it out",
        )
    if to.family == AF_INET6 and 0 < data.get("mtu", 0) < IPV6_MIN_MTU:
        context.report("NK0312", f"an IPv6 route needs an MTU of at least {IPV6_MIN_MTU}", (*path, "mtu"), "")


def _ip(text: str | None, path: Path, context: Context) -> Prefix | None:
    """A gateway or a source address."""
    if text is None:
        return None
    try:
        ip = parse_ip(text)
    except BadAddress as error:
        hint = "without a prefix length" if "/" in text else error.hint
        context.report("NK0310", f"{quoted(text)} {error.fault}", path, hint)
        return None
    if fault := unicast_fault(ip):
        context.report("NK0310", f"{quoted(text)} {fault}", path, "")
        return None
    return ip


def _prefix(text: str, path: Path, context: Context, code: str = "NK0308") -> Prefix | None:
    try:
        return parse_prefix(text)
    except BadAddress as error:
        context.report(code, f"{quoted(text)} {error.fault}", path, error.hint)
        return None


def _sysctl(data: Mapping[str, Mapping[str, int | str]], path: Path, context: Context) -> dict[str, str]:
    found: dict[str, str] = {}
    for family, settings in data.items():
        for key, value in settings.items():
            where = (*path, family, key)
            if fault := names.sysctl_fault(key):
                context.report("NK0314", f"the sysctl's name {quoted(key)} {fault}", where, "")
            text = str(value) if key != "stable_secret" else _exploded(str(value), where, context)
            if text.removeprefix("-").isdecimal() and key != _UNSIGNED and abs(int(text[:12])) > _SYSCTL_MOST:
                context.report("NK0314", f"`{key}` cannot be {text}", where, f"at most {_SYSCTL_MOST}")
            if isinstance(value, str):
                _check_sysctl_text(key, value, where, context)
            found[f"{family}.{key}"] = text
    return found


def _exploded(text: str, path: Path, context: Context) -> str:
    """An IPv6 address with all its digits, as the kernel prints a secret (net/ipv6/addrconf.c)."""
    try:
        ip = parse_ip(text)
    except BadAddress as error:
        context.report("NK0314", f"`stable_secret` is {quoted(text)}, which {error.fault}", path, "")
        return text
    digits = f"{ip.value:032x}"
    return ":".join(digits[place : place + 4] for place in range(0, 32, 4))


def _check_sysctl_text(key: str, text: str, path: Path, context: Context) -> None:
    """Text that the kernel would read as another number, or not at all."""
    if not text or not (text.isascii() and text.isprintable()) or text != text.strip():
        hint = "printable ASCII without spaces at its ends"
        context.report("NK0314", f"{quoted(text)} cannot be the value of a sysctl", path, hint)
    elif text.isdecimal() and str(int(text)) == text:
        return
    elif hint := why_not_number(text, True):
        context.report("NK0314", f"`{key}` is {quoted(text)}, which is not a number", path, hint)
