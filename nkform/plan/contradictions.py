"""What a spec asks of a device that no kernel can have at the same time, or that the kernel does by itself. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from nkform.dataclass import replace
from nkform.device_sysctls import ADDR_GEN_MODE, FORCE_FORWARDING, FORWARDING, STABLE_SECRET
from nkform.gateways import MAIN
from nkform.model import Device, Endpoint, Route, RouteKey, Value
from nkform.problem import Path, Problem

LOCAL = 255
"""RT_TABLE_LOCAL: where it puts those to its own IPv4 addresses, and to the broadcast addresses of their networks."""
PREFIX_METRIC_IPV4 = 0
PREFIX_METRIC_IPV6 = 256
"""Their metrics: none in IPv4 (net/ipv4/fib_frontend.c, fib_add_ifaddr), IP6_RT_PRIO_ADDRCONF in IPv6."""


KernelRoutes = Mapping[str, Mapping[RouteKey, Mapping[str, str]]]
"""By namespace, the routes that the kernel makes with declared addresses: by their keys, and by the names of the ends
that have such an address, the first one."""


def kernel_routes(devices: Iterable[Device]) -> KernelRoutes:
    """What the kernel makes, of the namespaces where a declared route might have the place of such a route."""
    ends = [end for device in devices for end in device.ends]
    spaces = {end.namespace for end in ends if any(_may_be_the_kernels(route) for route in end.routes)}
    made: dict[str, dict[RouteKey, dict[str, str]]] = {}
    for end in ends if spaces else ():
        if end.namespace not in spaces:
            continue
        there = made.setdefault(end.namespace, {})
        for address in end.addresses:
            for key in made_with(address.text, up=end.attrs.get("up") is not False):
                there.setdefault(key, {}).setdefault(end.name, address.text)
    return made


def without_own_routes(device: Device, made: KernelRoutes) -> tuple[Device, list[Problem]]:
    """The device without the routes that the kernel makes itself, with an address: they are neither added nor removed.

    And what stands in the way: a route cannot have the place of such a one, whichever end has the address.
    """
    problems: list[Problem] = []
    ends = list(device.ends)
    for side, end in enumerate(device.ends):
        path: Path = ("devices", device.name, "peer") if side else ("devices", device.name)
        there = made.get(end.namespace, {})
        if own := {route: there[route.key] for route in end.routes if route.key in there}:
            problems += _told(end, own, path)
            ends[side] = replace(end, routes=tuple(route for route in end.routes if route not in own))
    if not problems:
        return device, problems
    return replace(device, primary=ends[0], peer=ends[1] if len(ends) > 1 else None), problems


IPV6_MTU = "ipv6.mtu"
BY_SECRET = ADDR_GEN_MODE, "2"
"""IN6_ADDR_GEN_MODE_STABLE_PRIVACY (include/uapi/linux/if_link.h): addresses come of `stable_secret`."""


def contradictions(device: Device) -> Iterator[Problem]:
    """What the sysctls of an end say against the rest of it."""
    for side, end in enumerate(device.ends):
        if not end.sysctl:
            continue
        path: Path = ("devices", device.name, "peer") if side else ("devices", device.name)
        six = [a.text for a in end.addresses if ":" in a.text]
        six += [f"a route to {route.text}" for route in end.routes if route.needs_ipv6]
        if six and end.sysctl.get("ipv6.disable_ipv6", "0") != "0":
            yield Problem(
                "NK0454",
                f"IPv6 is switched off on {end.name}, which shall have {six[0]}",
                path=(*path, "sysctl", "ipv6", "disable_ipv6"),
                hint="take `disable_ipv6` out, or the IPv6 addresses, routes and gateways",
            )
        if end.sysctl.get(ADDR_GEN_MODE) == BY_SECRET[1] and not end.sysctl.get(STABLE_SECRET):
            yield Problem(
                "NK0461",
                f"{end.name} has no secret to make stable private addresses of (addr_gen_mode 2)",
                path=(*path, "sysctl", "ipv6", "addr_gen_mode"),
                hint="write `stable_secret` beside it, an IPv6 address of random digits",
            )
        yield from ipv6_mtus(end, end.attrs.get("mtu"), path)


def ipv6_mtus(end: Endpoint, mtu: Value | None, path: Path) -> Iterator[Problem]:
    """What cannot be beside an end's MTU (bytes, None: it is not known): a larger one for IPv6, and beside that, which
    is set last, a larger one of an IPv6 route (net/ipv6/route.c, rt6_mtu_change_route)."""
    asked = end.sysctl.get(IPV6_MTU, "")
    if not asked.isdecimal() or not isinstance(mtu, int):
        return
    if int(asked) > mtu:
        yield Problem(
            "NK0455",
            f"the IPv6 MTU of {end.name}, {asked}, is larger than its MTU of {mtu}",
            path=(*path, "sysctl", "ipv6", "mtu"),
            hint=f"at most {mtu}, or write a larger `mtu`",
        )
    for place, route in enumerate(end.routes):
        if ":" in route.to and route.mtu > mtu:
            yield Problem(
                "NK0455",
                f"the MTU of the route to {route.to} of {end.name}, {route.mtu}, is larger than its MTU of {mtu}, which"
                " the kernel does not keep beside an IPv6 MTU",
                path=(*path, "routes", place, "mtu"),
                hint=f"at most {mtu}, or write a larger `mtu`, or take `sysctl: {{ipv6: {{mtu: …}}}}` out",
            )


def with_modes(device: Device) -> Device:
    """The device with what setting a secret does beside: addresses are made by it from then on (net/ipv6/addrconf.c,
    addrconf_sysctl_stable_secret)."""
    ends = [
        replace(end, sysctl=dict([*end.sysctl.items(), BY_SECRET]))
        if STABLE_SECRET in end.sysctl and ADDR_GEN_MODE not in end.sysctl
        else end
        for end in device.ends
    ]
    if ends == list(device.ends):
        return device
    return replace(device, primary=ends[0], peer=ends[1] if len(ends) > 1 else None)


def forwarding(device: Device, features: Collection[str]) -> tuple[Device, list[Problem]]:
    """The device with what makes `ipv6.forwarding` of a single device work: alone it changes nothing of what is
    forwarded, which goes by `all` (net/ipv6/ip6_output.c, ip6_forward)."""
    forced = f"sysctl:{FORCE_FORWARDING}" in features
    problems: list[Problem] = []
    ends = list(device.ends)
    for side, end in enumerate(device.ends):
        if end.sysctl.get(FORWARDING) != "1" or FORCE_FORWARDING in end.sysctl:
            continue
        if forced:
            ends[side] = replace(end, sysctl={**end.sysctl, FORCE_FORWARDING: "1"})
            continue
        problems.append(
            Problem(
                "NK0456",
                f"ipv6.forwarding of {end.name} alone forwards nothing: this kernel has no force_forwarding, and goes "
                "by net.ipv6.conf.all.forwarding",
                path=("devices", device.name, *(("peer",) if side else ()), "sysctl", "ipv6", "forwarding"),
                hint="set net.ipv6.conf.all.forwarding in that namespace to 1",
                severity="warning",
            )
        )
    if not forced or ends == list(device.ends):
        return device, problems
    return replace(device, primary=ends[0], peer=ends[1] if len(ends) > 1 else None), problems


def _may_be_the_kernels(route: Route) -> bool:
    """Whether an address can come with a route of this key."""
    ipv6, host_route = ":" in route.to, route.to.endswith("/32")
    if route.table == LOCAL:
        return not ipv6 and route.metric == PREFIX_METRIC_IPV4 and host_route
    if route.table != MAIN:
        return False
    if ipv6:
        return route.metric == PREFIX_METRIC_IPV6
    return route.metric == PREFIX_METRIC_IPV4 and not host_route and not route.to.endswith("/0")


def made_with(text: str, *, up: bool) -> Iterator[RouteKey]:
    """The keys of the routes that come with an address, but for those of IPv6 that no spec can declare.

    Most come when the end is up (net/ipv4/fib_frontend.c, fib_add_ifaddr; net/ipv6/addrconf.c).
    """
    from ipaddress import ip_interface  # few specs come here, and it takes long to import

    interface = ip_interface(text)
    network = interface.network
    if interface.version == 6:
        if up:
            yield MAIN, str(network), PREFIX_METRIC_IPV6
        return
    yield LOCAL, f"{interface.ip}/32", PREFIX_METRIC_IPV4
    if up and network.prefixlen < 32:
        yield MAIN, str(network), PREFIX_METRIC_IPV4
    if up and network.prefixlen < 31:  # RFC 3021: the others have no broadcast address
        yield LOCAL, f"{network.broadcast_address}/32", PREFIX_METRIC_IPV4


def _told(end: Endpoint, own: Mapping[Route, Mapping[str, str]], path: Path) -> Iterator[Problem]:
    for place, route in enumerate(end.routes):
        if route not in own:
            continue
        where: Path = (*path, "routes", place)
        holder = end.name if end.name in own[route] else next(iter(own[route]))
        address = own[route][holder]
        if holder == end.name and _is_the_kernels(route, address):
            yield Problem(
                "NK0452",
                f"the kernel makes the route to {route.to} itself, with the address {address} of {end.name}",
                path=where,
                hint="take it out of the spec, or give it a `metric` of its own",
                severity="warning",
            )
        else:
            yield Problem(
                "NK0453",
                f"the route to {route.to} cannot be added: with the address {address} of {holder}, the kernel makes "
                f"one with the same destination, table and metric itself",
                path=where,
                hint="give it a `metric` of its own, or "
                + ("take it out" if route.table == LOCAL else "the address a longer prefix"),
            )


def _is_the_kernels(route: Route, address: str) -> bool:
    """Whether a route with the key of the kernel's, for an address of the same end, is just that one."""
    host = address.partition("/")[0]
    return (
        route.table == MAIN and not route.via and not route.mtu and route.src in (None, host if "." in host else None)
    )
