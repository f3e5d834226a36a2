"""A node that actions are carried out on one by one, as far as their undoing is concerned. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import ip_interface
from typing import Any

from nkform import model as m
from nkform.plan import actions as act
from nkform.plan.addresses import Listed

Key = tuple[str, str]
"""A namespace's key and the name of a link in it."""

Run = tuple[str, str, dict[str, tuple[m.Filled, ...]]]
"""A program at a hook: its name, what it is, and what its maps hold."""


@dataclass
class Link:
    """One end, as it is at the moment; a primary has the hooks, its mark and what is the device's as well."""

    attrs: dict[str, Any]
    addresses: Listed = field(default_factory=lambda: Listed(()))
    routes: list[m.Route] = field(default_factory=list)
    sysctl: dict[str, str] = field(default_factory=dict)
    master: str | None = None
    marked: bool = False
    device: dict[str, Any] = field(default_factory=dict)
    hooks: dict[str, tuple[bool, list[Run]]] = field(default_factory=dict)
    """By hook whether legacy tc runs them, and our programs."""
    other: Link | None = field(default=None, repr=False)

    def state(self) -> dict[str, Any]:
        """What must be the same again. The kernel has no order among IPv6 addresses, nor among subnets.

        Addresses that others had come back out of the journal, beside the plan (nkform/apply/foreign_state.py).
        """
        subnets: dict[str, list[str]] = {}
        for address in [each for each in self.addresses if each.ours]:
            one = ip_interface(address.text)
            subnets.setdefault(str(one.network) if one.version == 4 else address.text, []).append(address.text)
        return {
            "attrs": self.attrs, "addresses": subnets, "routes": sorted(route.text for route in self.routes),
            "sysctl": self.sysctl, "master": self.master, "marked": self.marked, "device": self.device,
            "hooks": {name: found for name, found in self.hooks.items() if found[1]},
        }  # fmt: skip


def _end(end: m.Endpoint, attrs: dict[str, Any]) -> Link:
    return Link({**end.attrs, **attrs})


class World:
    """Begins as a node is. What no kernel would do fails an assertion."""

    def __init__(self, node: m.Node) -> None:
        self.spaces = {key: space.owner == node.name for key, space in node.namespaces.items()}
        self.links: dict[Key, Link] = {}
        for device in node.devices.values():
            self._make(device, marked=device.owner == node.name)
            for end in device.ends:
                link = self.links[end.namespace, end.name]
                link.attrs |= {"up": end.attrs.get("up")} if "up" in end.attrs else {}
                link.addresses, link.routes, link.sysctl = Listed(end.addresses), list(end.routes), {**end.sysctl}
                link.routes += [each.gone for each in end.taken if isinstance(each.gone, m.Route)]
                link.master = end.master.name if end.master else None
            primary = self.links[device.primary.namespace, device.primary.name]
            for name, hook in device.hooks.items():
                primary.hooks[name] = (
                    hook.legacy,
                    [_run(entry.name, entry.identity, entry.contents) for entry in hook.ours],
                )

    def state(self) -> dict[str, Any]:
        links = {key: link.state() for key, link in sorted(self.links.items())}
        return {"namespaces": dict(sorted(self.spaces.items())), "links": links}

    def run(self, actions: Iterable[act.Action]) -> None:
        for action in actions:
            self._carry_out(action)

    def _make(self, device: m.Device, *, marked: bool) -> None:
        links = [Link({**end.attrs, "up": False} if "up" in end.attrs else {**end.attrs}) for end in device.ends]
        for end, link in zip(device.ends, links, strict=True):
            assert (end.namespace, end.name) not in self.links, f"{end.name} is there already"
            self.links[end.namespace, end.name] = link
        links[0].device, links[0].marked = {"kind": device.kind, **device.attrs}, marked
        links[0].other, links[-1].other = links[-1], links[0]

    def _link(self, end: act.End) -> Link:
        return self.links[end.namespace, end.name]

    def _carry_out(self, action: act.Action) -> None:  # noqa: C901 - one `match` over a closed vocabulary
        match action:
            case act.CreateNamespace(name):
                assert name not in self.spaces
                self.spaces[name] = True
            case act.DeleteNamespace(name):
                assert not [key for key in self.links if key[0] == name], "it holds links"
                del self.spaces[name]
            case act.SetMark(namespace, "lo", marked):
                self.spaces[namespace] = marked
            case act.SetMark(namespace, name, marked):
                self.links[namespace, name].marked = marked
            case act.CreatePair(device):
                self._make(device, marked=True)
            case act.DeletePair(device):
                for end in device.ends:
                    del self.links[end.namespace, end.name]
            case act.SetLink(end, _, after):
                self._link(end).attrs.update(after)
            case act.SetPolicy(end, own, peer):
                link = self._link(end)
                link.attrs.update({name: after for name, (_, after) in own.items()})
                assert link.other is not None
                link.other.attrs.update({name: after for name, (_, after) in peer.items()})
            case act.SetUp(end, up, lost):
                self._up(self._link(end), up, lost)
            case act.SetMaster(end, _, master):
                self._link(end).master = master.name if master else None
            case act.MoveEnd(before, after):
                self._move(before, after)
            case act.AddAddress(end, address, again):
                found = self._link(end).addresses
                assert again or address.text not in {each.text for each in found} or not address.ours
                found.add(address)
            case act.DeleteAddress(end, address):
                self._link(end).addresses.delete(address)
            case act.AddRoute(end, route, beside, _, again):
                routes = self._link(end).routes
                assert self._link(end).attrs.get("up") is not False, "the kernel takes no route through what is down"
                assert beside or again or route.key not in {each.key for each in routes}, "the kernel has one already"
                routes += [route] if route not in routes else []
            case act.DeleteRoute(end, route):
                routes = self._link(end).routes
                routes[:] = [each for each in routes if each != route]
            case act.SetSysctl(end, key, _, after):
                self._link(end).sysctl[key] = after
            case act.SetSysctls(end, values):
                self._link(end).sysctl.update(values)
            case act.SetChain() | act.SetMap():
                self._programs(action)

    def _up(self, link: Link, up: bool, lost: Iterable[m.Address]) -> None:
        assert up or not link.routes, "taking it down loses routes that nobody gives back"
        link.attrs["up"] = up
        for address in lost:
            link.addresses.delete(address)

    def _move(self, before: m.Endpoint, after: m.Endpoint) -> None:
        link = self.links.pop((before.namespace, before.name))
        assert (after.namespace, after.name) not in self.links
        self.links[after.namespace, after.name] = link
        if before.namespace != after.namespace:
            link.addresses, link.routes, link.sysctl, link.master = Listed(()), [], {}, None
            link.attrs |= {"up": False} if "up" in link.attrs else {}

    def _programs(self, action: act.SetChain | act.SetMap) -> None:
        primary = action.device.primary
        hooks = self.links[primary.namespace, primary.name].hooks
        match action:
            case act.SetChain(_, hook, _, after):
                runs = [_run(program.name, program.digest, program.contents) for program in after.programs]
                hooks[hook] = action.legacy, runs
            case act.SetMap(_, hook, program, _, after):
                for name, _, contents in hooks[hook][1]:
                    for parameter, maps in contents.items() if name == program else ():
                        contents[parameter] = tuple(after if each.map == after.map else each for each in maps)


def _run(name: str, identity: str, contents: m.Contents) -> Run:
    return name, identity, dict(contents)
