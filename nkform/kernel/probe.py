"""What the running kernel can do, found by trying it in a namespace that is thrown away. Versions decide nothing here.

Unknown attributes of a netkit are ignored by older kernels without a word: a probe makes a device with all of them and
looks which ones come back.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Mapping
from pathlib import Path

from nkform.dataclass import replace
from nkform.features import FEATURES
from nkform.kernel import inet, link_requests, links, sysctl
from nkform.kernel.error import KernelError
from nkform.kernel.netlink import Socket, first_error
from nkform.kernel.netns import Namespaces
from nkform.kinds import MADE, NETKIT, Kind, KindName
from nkform.model import Address, Device, Endpoint

REFUSES = "refuses:"

_MAC = "02:00:00:00:00:01"


def probe(namespaces: Namespaces, wanted: Collection[str]) -> frozenset[str]:
    """Which of the wanted features this kernel has: those of features.py, `sysctl:KEY`, one that can be set, and
    `refuses:KEY=VALUE`, a value that it cannot be set to. Where a wanted sysctl is not among them, all that are.

    Raises KernelError (EPERM: not root).
    """
    found = {name for name in wanted if name.startswith("sysctl:") and _has_sysctl(name.partition(":")[2])}
    if "tcx" in wanted:
        from nkform.kernel.bpf_links import AttachType, supported

        found |= {"tcx"} if supported(AttachType.TCX_INGRESS) else set()
    rest = [name for name in wanted if not name.startswith(("sysctl:", REFUSES)) and name != "tcx"]
    values = [name for name in wanted if name.startswith(REFUSES)]
    if rest or values:
        with namespaces.throwaway(), Socket() as socket:
            found |= {name for name in values if _refuses(*name.removeprefix(REFUSES).split("=", 1))}
            if rest:
                found |= _links(socket)
            if any(name in FEATURES and FEATURES[name].kind == NETKIT.name for name in wanted):
                found |= _netkit(socket)
            others = [kind for kind in MADE if kind is not NETKIT and kind.feature in wanted]
            found |= {kind.feature for kind in others if _has_module(kind.name) or _makes(socket, kind)}
    found &= set(wanted)
    missing = {name for name in wanted if name.startswith("sysctl:")} - found
    return frozenset(found.union(*(_sysctls(family) for family in {_family(name) for name in missing})))


def _family(feature: str) -> str:
    return feature.removeprefix("sysctl:").partition(".")[0]


def _sysctls(family: str) -> set[str]:
    """All that can be set for an interface."""
    try:
        names = os.listdir(f"/proc/sys/net/{family}/conf/default")
    except OSError:
        return set()
    return {f"sysctl:{family}.{name}" for name in names if _has_sysctl(f"{family}.{name}")}


def _has_sysctl(key: str) -> bool:
    """Also whether it can be set; root may write to any file, as far as its mode goes."""
    family, _, name = key.partition(".")
    try:
        return bool(os.stat(f"/proc/sys/net/{family}/conf/default/{name}").st_mode & 0o200)
    except OSError:
        return False


def _refuses(key: str, value: str) -> bool:
    """Whether a sysctl that can be set does not keep a value: tried on the links to come of this thread's namespace."""
    if not _has_sysctl(key):
        return False
    try:
        sysctl.write("default", key, value)
        return sysctl.read("default", key) != value
    except KernelError:
        return True


def _links(socket: Socket) -> set[str]:
    """What the kernel reports of `lo` it also has."""
    loopback = next(iter(links.dump(socket)))
    reported = {
        "gro_max_size": "gro_max_size" in loopback.values,
        "gso_ipv4": "gso_ipv4_max_size" in loopback.values,
        "numrxqueues": "numrxqueues" in loopback.values,
        "room_report": loopback.headroom is not None,
    }
    outcomes, _ = socket.ask([inet.add_address(loopback.index, "lo", Address("192.0.2.1/32"))])
    marked = any(address.ours for _, address in inet.dump_addresses(socket))
    reported["address_protocol"] = first_error(outcomes) is None and marked
    return {name for name, there in reported.items() if there}


def _netkit(socket: Socket) -> set[str]:
    trial = Device(
        "nkprobe",
        NETKIT.name,
        {"mode": "l3", "headroom": 8, "tailroom": 8},
        Endpoint("nkprobe", attrs={"policy": "forward", "scrub": "none"}),
        Endpoint("nkprobe-p", attrs={"policy": "forward", "scrub": "none"}),
    )
    outcomes, answers = socket.ask([link_requests.create(trial, None), links.get("nkprobe")])
    if (error := first_error(outcomes)) is not None:
        if error.errno == errno.EOPNOTSUPP:
            return set()
        raise error
    kept = links.decode(answers[1][0]).own
    found = {NETKIT.feature}
    if "scrub" in kept:
        found.add("netkit_scrub")
    if "headroom" in kept:
        found.add("netkit_room")
    with_mac = replace(
        trial,
        name="nkprobe2",
        attrs={"mode": "l2"},
        primary=Endpoint("nkprobe2", attrs={"mac": _MAC}),
        peer=Endpoint("nkprobe2-p"),
    )
    if first_error(socket.ask([link_requests.create(with_mac, None)])[0]) is None:
        found.add("netkit_mac")
    return found


def _makes(socket: Socket, kind: Kind) -> bool:
    """Whether the kernel makes devices of a kind."""
    name = f"nkprobe-{kind.name}"[:15]
    trial = Device(name, kind.name, {}, Endpoint(name), Endpoint("nkprobe-p") if kind.has_peer else None)
    error = first_error(socket.ask([link_requests.create(trial, None)])[0])
    if error is not None and error.errno != errno.EOPNOTSUPP:
        raise error
    return error is None


def _has_module(kind: KindName) -> bool:
    """Whether the kernel has a module for a kind of device that is not loaded: it loads by itself with the first such
    device. To try it here would leave traces: with that of dummy comes a `dummy0`."""
    if Path("/sys/module", kind).exists():
        return False
    try:
        return f"/{kind}.ko" in Path("/lib/modules", os.uname().release, "modules.dep").read_text(encoding="utf-8")
    except OSError:
        return False


CAPABILITIES: Mapping[str, int] = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}
"""What entering namespaces, mounting bpffs and changing links needs (include/uapi/linux/capability.h)."""


def missing_capabilities() -> list[str]:
    """The names of capabilities that this process needs and has not got (proc_pid_status(5), CapEff)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            held = int(line.split()[1], 16)
            return [name for name, bit in CAPABILITIES.items() if not held >> bit & 1]
    return []


def require_root() -> None:
    """Raises KernelError where the process cannot administer the network."""
    missing = missing_capabilities()
    if missing:
        raise KernelError(errno.EPERM, "read and change network namespaces", f"without {', '.join(missing)}")
