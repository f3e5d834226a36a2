"""Every kind of hook that a chain can have, as tests see it: a spec for it, what runs there, packets through it."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import socket
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nkform.kernel import bpf, bpf_links, bpffs
from nkform.kernel.bpf_links import AttachType
from nkform.kernel.bpf_maps import map_info, map_items_percpu
from nkform.kernel.bpf_programs import prog_info
from nkform.kernel.clsact import PREFIX, Direction, Filter, Tc
from nkform.kernel.descriptors import Owned
from nkform.kernel.netns import Namespaces
from nkform.model import First, Last
from tests.live.helpers.bpf_programs import NEXT, program
from tests.live.helpers.support import features, ip, needs, sh
from tests.sizes import CAMPAIGN, EMULATED, LAB

TEMPLATES = str(Path(__file__).parents[2] / "templates")
ENGINES = ("clang", "bcc")
NODE, DEVICE, FAR_SPACE = "w", "x", "a"
NEAR, FAR = "10.0.0.1", "10.0.0.2"
MACS = {NEAR: "02:00:00:00:00:01", FAR: "02:00:00:00:00:02"}
OPEN, SHUT, OTHER = 8000, 9000, 9001
"""UDP ports: what chains of tests let through, what they drop, what some of them drop."""

PROGRAMS: Mapping[str, Any] = {
    "guard": {"template": "udp_ports", "params": {"ports": [SHUT]}},
    "extra": {"template": "udp_ports", "params": {"ports": [OTHER]}},
    "accept": {"template": "udp_ports", "params": {"ports": [OPEN], "verdict": "pass", "arp": True}},
    "count": {"template": "counters"},
    "set": {"template": "udp_set", "params": {"ports": [SHUT]}},
    "set2": {"template": "udp_set", "params": {"ports": [OTHER]}},
    "block": {"template": "prefix_filter", "params": {"match": "source", "prefixes": []}},
}
PATIENCE = 10.0
"""Seconds until a packet that should arrive counts as lost; emulated kernels are slow."""

SILENCE = 0.3 if EMULATED else 0.15 if LAB else 0.05
"""Seconds until a packet that should not arrive counts as dropped: nothing between two ends makes one wait."""


Chain = Sequence[Any] | Mapping[str, Any]


@dataclass(frozen=True)
class Running:
    """A program at a hook: `place` is its link's id or its filter's priority."""

    name: str
    program_id: int
    place: int
    ours: bool
    digest: str = ""


@dataclass(frozen=True)
class Site:
    """A kind of hook. `hook` is its name in a spec, `sender` the address of the end whose packets pass it."""

    name: str
    kind: str
    hook: str
    sender: str
    attach_type: AttachType
    direction: Direction | None = None
    mode: str = "l2"

    def __str__(self) -> str:
        return self.name

    @property
    def receiver(self) -> str:
        return NEAR if self.sender == FAR else FAR

    @property
    def sending_end(self) -> tuple[str, str]:
        """The device that sends, and its namespace."""
        return (DEVICE, "") if self.sender == NEAR else ("eth0", FAR_SPACE)

    def spec(self, chain: Chain | None, engine: str = "auto", **device: Any) -> dict[str, Any]:
        """A pair with a chain at this hook (None: none). A `peer` that is given is merged into the usual one."""
        peer = {"name": "eth0", "namespace": FAR_SPACE, "addresses": [f"{FAR}/24"], **device.pop("peer", {})}
        own: dict[str, Any] = {"kind": self.kind, "addresses": [f"{NEAR}/24"]}
        if self.kind == "netkit":
            own["mode"] = self.mode
        if self.mode == "l2":
            own["mac"], peer["mac"] = MACS[NEAR], MACS[FAR]
        if self.direction is not None and "tcx" in features():
            own["attach"] = "tc"
        if chain is not None:
            own["programs"] = {self.hook: chain}
        return {
            "version": 1,
            "node": NODE,
            "engine": engine,
            "templates": [TEMPLATES],
            "namespaces": {FAR_SPACE: {"create": True}},
            "programs": {name: dict(given) for name, given in PROGRAMS.items()},
            "devices": {DEVICE: {**own, "peer": peer, **device}},
        }

    def running(self, device: str = DEVICE, hook: str = "") -> list[Running]:
        """What the kernel runs at this hook, in order."""
        index = socket.if_nametoindex(device)
        if self.direction is not None:
            return filtered(index, self.direction)
        return linked(index, self.attach_type, device, hook or self.hook)

    def filters(self) -> tuple[Filter, ...]:
        """The filters at this hook, as legacy tc tells of them."""
        assert self.direction is not None
        with Tc() as tc:
            return tc.filters(socket.if_nametoindex(DEVICE), self.direction)

    def order(self, device: str = DEVICE, hook: str = "") -> str:
        """The names of what the kernel runs at this hook, in order."""
        return " ".join(each.name for each in self.running(device, hook))

    def one(self, name: str) -> Running:
        """The program of that name, which must be there once."""
        (found,) = (each for each in self.running() if each.name == name)
        return found

    def counted(self, name: str = "count") -> int:
        """Packets that a program from the template `counters` has counted."""
        return packets(self.one(name).program_id)


NETKIT_PRIMARY = Site("netkit-primary", "netkit", "primary", NEAR, AttachType.NETKIT_PRIMARY, mode="l3")
NETKIT_PEER = Site("netkit-peer", "netkit", "peer", FAR, AttachType.NETKIT_PEER)
TCX_INGRESS = Site("tcx-ingress", "veth", "peer", FAR, AttachType.TCX_INGRESS)
TCX_EGRESS = Site("tcx-egress", "veth", "primary", NEAR, AttachType.TCX_EGRESS)
CLSACT_INGRESS = Site("clsact-ingress", "veth", "peer", FAR, AttachType.TCX_INGRESS, Direction.INGRESS)
CLSACT_EGRESS = Site("clsact-egress", "veth", "primary", NEAR, AttachType.TCX_EGRESS, Direction.EGRESS)
SITES = (NETKIT_PRIMARY, NETKIT_PEER, TCX_INGRESS, TCX_EGRESS, CLSACT_INGRESS, CLSACT_EGRESS)


def sites(*some: Site) -> list[Any]:
    """Sites as parameters, skipped where the kernel has no such hook; by default all (in the lab `lab_sites`)."""
    some = some or (lab_sites() if LAB and not CAMPAIGN else SITES)
    marks = {"netkit": [needs("netkit")], "tcx": [needs("tcx")], "clsact": []}
    return [pytest.param(site, marks=marks[site.name.partition("-")[0]], id=site.name) for site in some]


def everywhere(metafunc: pytest.Metafunc) -> None:
    """Parametrises a test by `site` and `engine`, as far as it takes them: all with all, where time allows."""
    wanted = [name for name in ("site", "engine") if name in metafunc.fixturenames]
    rows = combinations(metafunc)
    if wanted == ["site", "engine"]:
        metafunc.parametrize(wanted, [_param(*row) for row in rows])
    elif wanted == ["site"]:
        metafunc.parametrize("site", sites(*dict.fromkeys(site for site, _ in rows)))
    elif wanted == ["engine"]:
        metafunc.parametrize("engine", list(dict.fromkeys(engine for _, engine in rows)))


def combinations(metafunc: pytest.Metafunc) -> list[tuple[Site, str]]:
    """The hooks and engines that a test is tried with.

    In User-Mode Linux hooks that the machine's own kernel may lack, each with one of the engines, from test to test the
    other one: an engine does its work in the process. On an emulated kernel one of these with one engine, but for those
    of the smoke set that are about each kind of hook.
    """
    every = [(site, engine) for site in SITES for engine in ENGINES]
    if CAMPAIGN or not LAB:
        return every
    turn = len(metafunc.function.__name__) % 2
    if not EMULATED:
        return list(zip(lab_sites(), ENGINES[::-1] if turn else ENGINES, strict=True))
    smoke = metafunc.definition.get_closest_marker("smoke")
    if smoke and smoke.kwargs.get("each_hook"):
        return [(site, ENGINES[number % 2]) for number, site in enumerate(one_of_each())]
    return [(lab_sites()[turn], ENGINES[turn])]


def one_of_each() -> list[Site]:
    """A hook of each kind that this kernel has: netkit's, tcx's, clsact's."""
    usable = [site for site in SITES if site.direction is not None or site.name.partition("-")[0] in features()]
    return list({site.name.partition("-")[0]: site for site in usable}.values())


def lab_sites() -> tuple[Site, Site]:
    """The kinds of hook that other kernels than this may lack."""
    return (NETKIT_PRIMARY, NETKIT_PEER) if "netkit" in features() else (CLSACT_INGRESS, CLSACT_EGRESS)


def _param(site: Site, engine: str) -> Any:
    (param,) = sites(site)
    return pytest.param(site, engine, marks=param.marks, id=f"{site}-{engine}")


# --- what runs --------------------------------------------------------------------------


def linked(index: int, attach_type: AttachType, device: str, hook: str) -> list[Running]:
    """The links at a hook. Ours are known by opening the pins, rather than by what the pins are called."""
    ours = {}
    for pin in bpffs.pins(NODE):
        with Owned(bpf_links.open_link(pin.path())) as fd:
            if (pin.device, pin.hook) == (device, hook):
                ours[bpf_links.link_info(fd).id] = pin.entry.split("@")
    found = []
    for entry in bpf_links.query(index, attach_type).entries:
        mine = ours.get(entry.link_id)
        name = mine[0] if mine else program_name(entry.prog_id)
        found.append(Running(name, entry.prog_id, entry.link_id, mine is not None, mine[1] if mine else ""))
    return found


def filtered(index: int, direction: Direction) -> list[Running]:
    """The filters at a hook."""
    with Tc() as tc:
        found = []
        for each in tc.filters(index, direction):
            parts = each.name.removeprefix(PREFIX).split("@")
            name = parts[1] if each.ours else program_name(each.prog_id)
            found.append(Running(name, each.prog_id, each.priority, each.ours, parts[2] if each.ours else ""))
        return found


def program_name(program_id: int) -> str:
    with Owned(bpf.prog_fd(program_id)) as fd:
        return prog_info(fd).name


def packets(program_id: int) -> int:
    """The sum over all keys and processors of the map `counters` of a program."""
    with Owned(bpf.map_fd(map_id(program_id, "counters"))) as map_fd:
        values = [value for some in map_items_percpu(map_fd).values() for value in some]
        return sum(int.from_bytes(value[:8], "little") for value in values)


def map_id(program_id: int, name: str) -> int:
    """The id of a map of a program, by its name."""
    with Owned(bpf.prog_fd(program_id)) as fd:
        for number in prog_info(fd).map_ids:
            with Owned(bpf.map_fd(number)) as map_fd:
                if map_info(map_fd).name == name:
                    return number
    raise AssertionError(f"program {program_id} has no map {name}")


def pins() -> list[str]:
    """The pins of the node: device, hook and entry, without the numbers of links."""
    return sorted(f"{pin.device}/{pin.hook}/{pin.entry.rsplit('@', 2)[0]}" for pin in bpffs.pins(NODE))


class Others:
    """Programs of somebody else, which leave every packet to the next one. Close it."""

    def __init__(self) -> None:
        self._fds = contextlib.ExitStack()

    def close(self) -> None:
        self._fds.close()

    def detach(self, link_id: int) -> None:
        """Takes a link out of its chain."""
        with Owned(bpf.link_fd(link_id)) as fd:
            bpf_links.link_detach(fd)

    def attach_behind(self, site: Site, name: str, ahead: str) -> None:
        """Attaches a program right behind another one."""
        if site.direction is not None:
            (priority,) = (each.priority for each in site.filters() if ahead in each.name)
            self.attach(site, name, priority + 1)
            return
        with Owned(program(NEXT, name)) as fd:
            position = bpf_links.After(prog_id=site.one(ahead).program_id)
            index = socket.if_nametoindex(DEVICE)
            self._fds.enter_context(Owned(bpf_links.link_create(fd, index, site.attach_type, position)))

    def attach(self, site: Site, name: str, place: int, device: str = DEVICE) -> None:
        """Attaches a program in front of all others (place 0) or after them (otherwise), or as a filter of a
        priority."""
        with Owned(program(NEXT, name)) as fd:
            if site.direction is None:
                position = Last() if place else First()
                index = socket.if_nametoindex(device)
                self._fds.enter_context(Owned(bpf_links.link_create(fd, index, site.attach_type, position)))
                return
            parent, path = site.direction.name.lower(), f"/sys/fs/bpf/{name}"
            if "clsact" not in sh("tc", "qdisc", "show", "dev", device):
                sh("tc", "qdisc", "add", "dev", device, "clsact")
            bpf.pin(fd, path)
            sh("tc", *f"filter add dev {device} {parent} prio {place or 1} bpf da object-pinned {path}".split())
            Path(path).unlink()


# --- packets ----------------------------------------------------------------------------


@contextlib.contextmanager
def inside(namespace: str) -> Iterator[None]:
    """The thread is in a namespace while the block runs."""
    if not namespace:
        yield
        return
    with Namespaces() as namespaces, namespaces.open(namespace) as fd, namespaces.entered(fd, namespace):
        yield


def udp(address: str, port: int = 0) -> socket.socket:
    """A socket of one end of the pair."""
    with inside(FAR_SPACE if address == FAR else ""):
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((address, port))
        return made


def acquaint(site: Site) -> None:
    """Tells the sending end the MAC address of the other, so that no packet waits for ARP; and waits for the carrier,
    which the kernel takes up to a second to notice unless it is asked."""
    device, namespace = site.sending_end
    if site.mode == "l2":
        words = ("neigh", "replace", site.receiver, "lladdr", MACS[site.receiver], "dev", device, "nud", "permanent")
        ip(*words, namespace=namespace)
    deadline = time.monotonic() + PATIENCE
    with inside(namespace), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        while not _has_carrier(asking, device):
            assert time.monotonic() < deadline, f"{device} has no carrier"
            time.sleep(0.02)


SIOCGIFFLAGS = 0x8913
SIOCETHTOOL = 0x8946
ETHTOOL_GLINK = 10
IFF_RUNNING = 0x40
"""include/uapi/linux: sockios.h, ethtool.h, if.h"""


def _has_carrier(asking: socket.socket, device: str) -> bool:
    link_state = ctypes.create_string_buffer(struct.pack("=II", ETHTOOL_GLINK, 0), 8)
    with contextlib.suppress(OSError):  # netkit has nothing to say, and time will tell
        fcntl.ioctl(asking, SIOCETHTOOL, struct.pack("16sP16x", device.encode(), ctypes.addressof(link_state)))
    flags = fcntl.ioctl(asking, SIOCGIFFLAGS, struct.pack("16sH22x", device.encode(), 0))
    return bool(struct.unpack_from("16sH", flags)[1] & IFF_RUNNING)


class Packets:
    """UDP packets along a site's pair, from its sender to its receiver. Close it."""

    def __init__(self, site: Site) -> None:
        self._site = site
        acquaint(site)
        self._out = udp(site.sender)
        self._in = {port: udp(site.receiver, port) for port in (OPEN, SHUT, OTHER)}
        self._sent = 0

    def close(self) -> None:
        for each in (self._out, *self._in.values()):
            each.close()

    def __enter__(self) -> Packets:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def passes(self, port: int) -> bool:
        """Whether a packet to a port arrives."""
        self._sent += 1
        said = str(self._sent).encode()
        with contextlib.suppress(OSError):  # some kernels tell the sender that its packet was dropped
            self._out.sendto(said, (self._site.receiver, port))
        into = self._in[port]
        into.settimeout(SILENCE)
        with contextlib.suppress(TimeoutError):
            while into.recv(64) != said:
                pass
            return True
        return False

    def passing(self) -> set[int]:
        """The ports that packets come through to."""
        return {port for port in self._in if self.passes(port)}
