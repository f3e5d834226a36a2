"""What a spec does not say any more and nkform therefore leaves as it is, which is as an earlier spec had it. Pure.

No plan depends on it: what was applied before is on record as an explanation (observe/record.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from zlib import crc32

from nkform.attributes import BY_NAME
from nkform.listing import enumerated
from nkform.model import Device
from nkform.plan.changes import Plan
from nkform.problem import Problem


def checksum(devices: Mapping[str, Device]) -> str:
    """A checksum of which keys a spec has of which device: as long as it stays, nothing was let go."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for name, device in devices.items():
        keys = [device.kind, *device.attrs]
        for end in device.ends:
            keys += ["|", *end.attrs, *end.sysctl]
        alike.setdefault(tuple(keys), []).append(name)
    return f"{crc32(repr(alike).encode('utf-8', 'surrogatepass')):08x}"


def let_go(before: Mapping[str, Device], plan: Plan) -> list[Problem]:
    """Notes of the keys that devices had when they were applied last, and that the plan's spec does not have.

    A device that is made anew is as the kernel makes it.
    """
    anew = {change.name for change in plan.changes if change.operation in ("create", "replace")}
    found: dict[tuple[str, str], list[str]] = {}
    for name, device in plan.devices.items():
        if (earlier := before.get(name)) is not None and name not in anew and earlier.kind == device.kind:
            for key, value in dict(_dropped(earlier, device)).items():
                found.setdefault((key, value), []).append(name)
    return [
        Problem(
            "NK0431",
            f"{key} is no longer in the spec: it stays as nkform set it ({value}) on {enumerated(names)}",
            hint="declare the value that it should have",
            severity="note",
        )
        for (key, value), names in found.items()
    ]


def _dropped(before: Device, after: Device) -> Iterator[tuple[str, str]]:
    """The keys that the spec of a device had, with their values; a size of both ends is one key."""
    for old, new in ((before.attrs, after.attrs), (before.primary.attrs, after.primary.attrs)):
        yield from ((key, _text(old[key])) for key in old.keys() - new.keys() if _matters(key, old[key]))
    for prefix, old_end, new_end in zip(("", "peer."), before.ends, after.ends, strict=False):
        if prefix:
            lost = {key for key in old_end.attrs.keys() - new_end.attrs.keys() if BY_NAME[key].place == "end"}
            yield from ((f"peer.{key}", _text(old_end.attrs[key])) for key in lost if _matters(key, old_end.attrs[key]))
        if old_end.namespace == new_end.namespace:
            lost = old_end.sysctl.keys() - new_end.sysctl.keys()
            yield from ((f"{prefix}sysctl.{key}", old_end.sysctl[key]) for key in sorted(lost))


def _matters(key: str, value: object) -> bool:
    """Whether a value is another than the one that a device has of itself."""
    return value not in (BY_NAME[key].default, BY_NAME[key].usual)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
