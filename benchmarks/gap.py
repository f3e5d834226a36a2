"""How long packets stay away while a netkit pair is made anew, by nkform and by others.

    sudo .venv/bin/python -m benchmarks.gap [--runs 5] [--interval 0.002] [--json FILE]

UDP packets go both ways through the pair at a known rate, and the longest time is told between two that arrived with
lost ones between. Everything happens in namespaces of its own; where the kernel has no netkit, in the lab.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.measure import BenchError, call
from benchmarks.sandbox import WORK, command, enter, outside
from benchmarks.stream import Fate, Stream
from nkform.features import FEATURES
from nkform.kernel.netns import Namespaces
from nkform.kernel.probe import probe

ROOT = Path(__file__).resolve().parents[1]
IP = os.environ.get("NKFORM_IP", "ip")
NKFORM = (sys.executable, "-m", "nkform")
NEAR, FAR, PORT = "10.9.0.1", "10.9.0.2", 7007
BEFORE, AFTER = 0.5, 0.5
"""Seconds of traffic around what is measured."""

SPEC = """
version: 1
node: bench
namespaces: {{a: {{create: true}}}}
devices: {devices}
"""
DEVICE = f"""
  to-a:
    kind: netkit
    mode: MODE
    addresses: [{NEAR}/32]
    routes: [{{to: {FAR}/32}}]
    peer:
      name: eth0
      namespace: a
      addresses: [{FAR}/32]
      routes: [{{to: default, via: {NEAR}, onlink: true}}]
"""
NOTHING = " {}\n"


@dataclass(frozen=True)
class Gaps:
    """Of one way to replace: the gap and the packets lost in each direction, medians; and how long it took (s)."""

    way: str
    into_node: float
    lost_into_node: float
    out_of_node: float
    lost_out_of_node: float
    seconds: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="replacements of each kind, of which the medians are told")
    parser.add_argument("--interval", type=float, default=0.002, help="seconds from packet to packet (default 0.002)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside is None:
        return start(options)
    enter(options.inside)
    found = list(measure(options.runs, options.interval))
    print("\n".join(table(found)))
    if options.json:
        options.json.write_text(json.dumps([asdict(gaps) for gaps in found], indent=2) + "\n")
    return 0


def start(options: argparse.Namespace) -> int:
    """Starts again in namespaces of its own, or in the lab, whose kernel has netkit."""
    words = [sys.executable, "-m", "benchmarks.gap", "--runs", str(options.runs), "--interval", str(options.interval)]
    if options.json:
        words += ["--json", str(options.json.absolute())]
    with Namespaces() as namespaces:
        if "netkit" in probe(namespaces, ["netkit"]):
            os.execvp("unshare", command([*words, "--inside", outside()]))
    if "NKFORM_LAB" in os.environ:
        raise BenchError(f"the lab's kernel has no {FEATURES['netkit'].what}")
    lab = str(ROOT / "tools/lab")
    os.execv(lab, [lab, "run", "--timeout", "3600", "newest", "--", *words])


def measure(runs: int, interval: float) -> Iterator[Gaps]:
    """All ways in turns, so that a slow minute hits all."""
    apply(device("l3"))
    modes = ["l2", "l3"]
    found: dict[str, list[tuple[float, Fate, Fate]]] = {}
    for turn in range(runs):
        mode = modes[turn % 2]
        ways: Mapping[str, Callable[[], None]] = {
            "nkform, beside": lambda mode=mode: apply(device(mode)),  # type: ignore[misc]
            "nkform, two applies": two_applies,
            "ip, del and add": ip_commands,
        }
        for way, act in ways.items():
            print(f"gap: run {turn + 1} of {runs}: {way}", file=sys.stderr)
            found.setdefault(way, []).append(watched(act, interval))
            if way != "nkform, beside":
                call(IP, "link", "del", "to-a")
                apply(device(mode))
    for way, each in found.items():
        columns = [[fate.gap, fate.lost, other.gap, other.lost, seconds] for seconds, fate, other in each]
        yield Gaps(way, *map(statistics.median, zip(*columns, strict=True)))


def device(mode: str) -> str:
    return "\n" + DEVICE.replace("MODE", mode)


def apply(devices: str) -> None:
    path = WORK / "gap.yaml"
    path.write_text(SPEC.format(devices=devices))
    call(*NKFORM, "apply", "-y", "--summary", str(path))


def two_applies() -> None:
    apply(NOTHING)
    apply(device("l3"))


def ip_commands() -> None:
    """What it takes at the least: one process for the node's end, one for the workload's."""
    (WORK / "node.batch").write_text(
        "link del to-a\n"
        "link add to-a type netkit mode l3 peer name eth0 netns a\n"
        f"addr add {NEAR}/32 dev to-a\nlink set to-a up\nroute add {FAR}/32 dev to-a\n"
    )
    (WORK / "workload.batch").write_text(
        f"addr add {FAR}/32 dev eth0\nlink set eth0 up\nroute add default via {NEAR} dev eth0 onlink\n"
    )
    call(IP, "-batch", str(WORK / "node.batch"))
    call(IP, "-n", "a", "-batch", str(WORK / "workload.batch"))


def watched(act: Callable[[], None], interval: float) -> tuple[float, Fate, Fate]:
    """Seconds that it took, and what became of the packets into and out of the node meanwhile."""
    with Namespaces() as namespaces, bound(NEAR) as near:
        with namespaces.open("a") as fd, namespaces.entered(fd, "a"):
            far = bound(FAR)
        with far:
            near.connect((FAR, PORT))
            far.connect((NEAR, PORT))
            streams = Stream(far, near, interval), Stream(near, far, interval)
            time.sleep(BEFORE)
            started = time.monotonic()
            act()
            seconds = time.monotonic() - started
            time.sleep(AFTER)
            into, out = (stream.stop() for stream in streams)
    return seconds, into, out


def bound(address: str) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((address, PORT))
    return made


def table(found: list[Gaps]) -> Iterator[str]:
    titles = ("into the node", "lost", "out of the node", "lost", "took")
    yield f"{'':<22}" + "".join(f"{title:>17}" for title in titles)
    for each in found:
        cells = (
            f"{each.into_node:.0f} ms", f"{each.lost_into_node:.0f}",
            f"{each.out_of_node:.0f} ms", f"{each.lost_out_of_node:.0f}", f"{each.seconds:.2f} s",
        )  # fmt: skip
        yield f"{each.way:<22}" + "".join(f"{cell:>17}" for cell in cells)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchError as error:
        sys.exit(f"bench: {error}")
