"""A live node as a spec: what `show` prints, and what plans empty against the node that it was read from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nkform.attributes import ATTRIBUTES
from nkform.model import ROOT, Attrs, Device, Endpoint, Node, Route


def as_spec(node: Node) -> dict[str, Any]:
    """The node as the data of a spec; what the kernel gives any new device is left out."""
    spec: dict[str, Any] = {"version": 1, "node": node.name}
    keys = {d.peer.namespace for d in node.devices.values() if d.peer and ":" not in d.peer.namespace} - {ROOT}
    owned = {name for name, namespace in node.namespaces.items() if namespace.owner == node.name}
    if keys or owned:
        spec["namespaces"] = {name: {"create": True} if name in owned else {} for name in sorted(keys | owned)}
    spec["devices"] = {device.name: _device(device) for device in node.devices.values() if device.owner == node.name}
    return spec


def render(node: Node) -> str:
    import yaml

    class Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
        def ignore_aliases(self, _: object) -> bool:
            return True

    text: str = yaml.dump(as_spec(node), Dumper=Dumper, sort_keys=False, default_flow_style=None, width=110)
    return text


def _device(device: Device) -> dict[str, Any]:
    peer = device.peer
    found = {
        "kind": device.kind,
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
            "name": peer.name,
            **_namespace(peer.namespace),
            **_attrs(values, ("end",), device.kind),
            **_differing_up(device.primary, peer),
            **_rest(peer),
        }
    return found


def _namespace(key: str) -> dict[str, Any]:
    if key == ROOT:
        return {}
    if key.startswith("pid:"):
        return {"namespace": {"pid": int(key[4:])}}
    return {"namespace": {"path": key[5:]} if key.startswith("path:") else key}


def _differing_up(primary: Endpoint, peer: Endpoint) -> dict[str, Any]:
    """A peer that is up while the primary is not must say so, or it would inherit."""
    up = peer.attrs.get("up")
    return {"up": up} if up is not None and up != primary.attrs.get("up") else {}


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
    if end.routes:
        found["routes"] = [_route(route) for route in end.routes]
    if end.sysctl:
        found["sysctl"] = _sysctls(end.sysctl)
    return found


def _sysctls(values: Mapping[str, str]) -> dict[str, dict[str, int | str]]:
    found: dict[str, dict[str, int | str]] = {}
    for key, value in values.items():
        family, _, name = key.partition(".")
        found.setdefault(family, {})[name] = int(value) if value.lstrip("-").isdigit() else value
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
