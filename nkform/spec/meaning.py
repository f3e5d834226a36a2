"""What no schema can say: names, addresses and routes that collide across the ends and namespaces of one spec.

`Seen` is told of each thing as it is decoded, and reports what was there before. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from socket import AF_INET6

from nkform.document.inet import Prefix, is_link_local
from nkform.document.scalars import quoted
from nkform.gateways import MAIN, Around, Holder, may_be_ruled_out
from nkform.model import Route
from nkform.namespace_key import ROOT
from nkform.problem import Path

Report = Callable[[str, str, Path, str], None]
"""Called with code, message, path and hint."""

Where = Callable[[Path], str]
"""The file and line of a path, as a message shows them."""


def namespace_text(key: str) -> str:
    """A namespace key as a message shows it."""
    return "the namespace that nkform runs in" if key == ROOT else f"the namespace {quoted(key)}"


class Seen:
    """The names, addresses and routes so far. `where` is asked only when something is wrong."""

    def __init__(self, report: Report, where: Where) -> None:
        self._report = report
        self._where = where
        self._ends: dict[tuple[str, str], Path] = {}
        self._addresses: dict[tuple[str, str], Path] = {}
        self._routes: dict[tuple[str, int, str, int], Path] = {}
        self._ends_with: dict[str, list[tuple[Path, list[Prefix]]]] = {}
        self._gateways: dict[str, list[tuple[Route, Path]]] = {}
        self._networks: dict[str, list[tuple[Route, Path]]] = {}
        """IPv6 routes that may lead to a gateway."""

    def end(self, namespace: str, name: str, path: Path) -> None:
        """An end of a pair, or an external device."""
        first = self._ends.setdefault((namespace, name), path)
        if first is not path:
            self._report(
                "NK0304",
                f"two devices would be called {quoted(name)} in {namespace_text(namespace)}: "
                f"the other is in {self._where(first)}",
                path,
                "give one of them another name, or put it into another namespace",
            )

    def address(self, namespace: str, prefix: Prefix, path: Path) -> None:
        """An address that only one end of a namespace may have. Host prefixes and link-local addresses may repeat."""
        if prefix.length == prefix.bits or is_link_local(prefix):
            return
        first = self._addresses.setdefault((namespace, str(prefix)), path)
        if first is not path:
            self._report(
                "NK0309",
                f"{prefix} is given to two devices of {namespace_text(namespace)}: "
                f"the other is in {self._where(first)}",
                path,
                "give each its own address; one shared by many host ends is written with /32 or /128",
            )

    def addresses(self, namespace: str, addresses: list[Prefix], end: Path) -> None:
        """All addresses of an end."""
        self._ends_with.setdefault(namespace, []).append((end, addresses))

    def gateways(self) -> None:
        """Reports the gateways that other ends of the same namespace rule out, once all are told of."""
        for namespace, routes in self._gateways.items():
            ends, networks = self._ends_with.get(namespace, []), self._networks.get(namespace, [])
            alone = routes[0][1][:-2]
            paths = (*(end for end, _ in ends), *(path[:-2] for _, path in (*networks, *routes)))
            if all(path == alone for path in paths):
                continue  # as in most: what an end says of itself is known
            holders = [Holder(end, str(address)) for end, addresses in ends for address in addresses]
            holders += [Holder(path[:-2], route.to, route.metric, route=True) for route, path in networks]
            around = Around(holders)
            for route, path in routes:
                assert route.via is not None
                if (ruled_out := around.rules_out(route.via, route.onlink, path[:-2])) is not None:
                    why, holder = ruled_out
                    assert isinstance(holder.link, tuple)
                    self._report(
                        "NK0310",
                        f"{route.via} {why} another device there, {holder.text}: it cannot be a gateway",
                        (*path, "via"),
                        f"the other device is in {self._where(holder.link)}",
                    )

    def route(self, namespace: str, route: Route, path: Path) -> None:
        """A route. In one table of a namespace, destination and metric name it."""
        if may_be_ruled_out(route.via, route.onlink):
            self._gateways.setdefault(namespace, []).append((route, path))
        to = route.to
        if ":" in to and route.table == MAIN:
            self._networks.setdefault(namespace, []).append((route, path))
        first = self._routes.setdefault((namespace, route.table, to, route.metric), path)
        if first is not path:
            self._report(
                "NK0311",
                f"the route to {to} is given twice in {namespace_text(namespace)}: "
                f"the other is in {self._where(first)}",
                path,
                "take one out, or give them different metrics",
            )


class Networks:
    """The networks that a device reaches without a gateway."""

    def __init__(self, prefixes: Iterable[Prefix]) -> None:
        self._known = {(p.family, p.length, p.value >> (p.bits - p.length)) for p in prefixes}
        self._lengths = {(family, length) for family, length, _ in self._known}

    def reach(self, via: Prefix) -> bool:
        """Whether the kernel will take a gateway without `onlink`."""
        if via.family == AF_INET6 and is_link_local(via):
            return True
        return any(
            family == via.family and (family, length, via.value >> (via.bits - length)) in self._known
            for family, length in self._lengths
        )
