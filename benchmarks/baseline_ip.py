"""The state as iproute2 makes it: `ip -batch` wherever one process can do the work.

That is everywhere but inside the namespaces: `ip -batch` cannot change namespaces, so there is one `ip -n
NAMESPACE -batch` a namespace. Reading takes one process a namespace as well, with all that it has to read in
one batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import witness
from benchmarks.measure import BenchError, Measurement, call, expect, joined, run
from benchmarks.sandbox import WORK
from benchmarks.scenario import ALIAS, GATEWAY4, GATEWAY6, MTU, PEER, ROUTE_PROTOCOL, Pair, Scenario

DEVICES = "devices"
DEVICES_READ = "devices, read back"
DEVICES_ONE_QUEUE = "devices, told to have one queue"


@dataclass(frozen=True)
class IpRoute:
    """One scenario in batch files and scripts; `ip` is the program to use."""

    ip: str
    scenario: Scenario
    folder: Path = field(default=WORK / "ip")

    def write(self) -> None:
        """Writes all files; nothing of this is measured."""
        (self.folder / "inside").mkdir(parents=True)
        pairs = list(self.scenario.pairs)
        self._write("namespaces", (f"netns add {pair.namespace}" for pair in pairs))
        self._write("host", (line for pair in pairs for line in _host(pair, self.scenario.kind)))
        one_queue = (_with_one_queue(line) for pair in pairs for line in _host(pair, self.scenario.kind))
        self._write("host-one-queue", one_queue)
        self._write("undo", (f"link del {pair.name}" for pair in pairs))
        for pair in pairs:
            self._write(f"inside/{pair.namespace}", _inside(pair))
        self._write(
            "inside.sh",
            ["set -e", *(f"{self.ip} -n {p.namespace} -batch inside/{p.namespace}" for p in pairs)],
        )
        (self.folder / "read").write_text(witness.READ)
        reads = (f"{self.ip} -n {pair.namespace} -d -j -batch read" for pair in pairs)
        self._write("read.sh", ["set -e", f"{self.ip} -d -j addr show", *reads])
        ends = (f"{self.ip} -n {pair.namespace} -d -j addr show" for pair in pairs)
        self._write("ends.sh", ["set -e", f"{self.ip} -d -j addr show", *ends])
        self._write(
            "delete",
            [
                *(f"link del {pair.name}" for pair in pairs),
                *(f"netns del {pair.namespace}" for pair in pairs),
            ],
        )

    def _write(self, name: str, lines: Iterable[str]) -> None:
        (self.folder / name).write_text("\n".join([*lines, ""]))

    def make_namespaces(self) -> None:
        """The namespaces alone, not measured."""
        call(self.ip, "-batch", str(self.folder / "namespaces"))

    def cycle(self) -> Iterator[Measurement]:
        """Makes, reads and deletes the whole state."""
        parts = [self._batch("namespaces"), self._batch("host"), self._script("inside")]
        yield from parts
        yield joined("make", parts)
        yield self._script("read")

    def devices(self) -> Iterator[Measurement]:
        """Makes the devices alone, in namespaces that exist; with one queue an end, as nkform does and the kernel does
        not by itself (netkit always does); and the same with both ends read back."""
        if self.scenario.kind == "veth":
            yield self._batch("host-one-queue", DEVICES_ONE_QUEUE)
            call(self.ip, "-batch", str(self.folder / "undo"))
        made = self._batch("host", DEVICES)
        yield made
        yield joined(DEVICES_READ, [made, self._script("ends")])

    def delete(self) -> Measurement:
        measured = self._batch("delete")
        if left := call(self.ip, "-o", "link", "show", "type", self.scenario.kind):
            raise BenchError(f"iproute2 left {len(left.splitlines())} devices behind")
        return measured

    def _batch(self, file: str, phase: str = "") -> Measurement:
        return expect(run(phase or file, [self.ip, "-batch", str(self.folder / file)]))

    def _script(self, name: str) -> Measurement:
        return expect(run(name, ["sh", "-c", f"cd {self.folder} && . ./{name}.sh"]))


def _host(pair: Pair, kind: str) -> Iterator[str]:
    """A pair: made down, since a veth cannot come up before its peer is; the alias goes with it."""
    if kind == "netkit":
        # `ip -batch` (iproute2 6.15) takes the `peer` of its second netkit for a duplicate, and so can name one peer
        # at most: pairs are made with the peer's name left to the kernel, nk0, which then goes where it shall be.
        yield f"link add {pair.name} mtu {MTU} type netkit"
        yield f"link set nk0 netns {pair.namespace} name {PEER} mtu {MTU}"
    else:
        yield f"link add {pair.name} mtu {MTU} type {kind} peer name {PEER} netns {pair.namespace} mtu {MTU}"
    yield f"link set {pair.name} alias {ALIAS} up"


def _with_one_queue(line: str) -> str:
    """A line that makes a veth, telling the kernel how many queues each end shall have."""
    words = line.split(" type veth peer name ")
    if len(words) == 1:
        return line
    one = "numtxqueues 1 numrxqueues 1"
    name, rest = words[1].split(" ", 1)
    return f"{words[0]} {one} type veth peer name {name} {one} {rest}"


def _inside(pair: Pair) -> Iterator[str]:
    yield f"link set lo up alias {ALIAS}"
    yield f"addr add {pair.address4} dev {PEER}"
    yield f"addr add {pair.address6} dev {PEER} nodad"
    yield f"link set {PEER} up"
    yield f"route add default via {GATEWAY4} dev {PEER} onlink proto {ROUTE_PROTOCOL}"
    yield f"route add ::/0 via {GATEWAY6} dev {PEER} proto {ROUTE_PROTOCOL}"
