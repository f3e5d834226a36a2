"""What chains add: devices with two programs each, beside the same devices alone and beside the bare system calls.

    sudo .venv/bin/python -m benchmarks.chains [--sizes 100,1000] [--json FILE]

One program differs in its values from device to device (a guard with the workload's own addresses), the other is the
same everywhere (counters). All happens in namespaces of its own, with a bpffs and an object cache of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.measure import BenchError, call, environment, expect, run
from benchmarks.sandbox import WORK, command, enter, outside, settle
from benchmarks.scenario import Scenario, nkform_spec

CACHE = Path("/var/cache/nkform")
NKFORM = Path(sys.executable).with_name("nkform")


@dataclass(frozen=True)
class Figures:
    """Of one size: seconds of each phase, compiled objects, and seconds of the bare attachment of as many programs."""

    size: int
    devices: float
    chains: float
    nothing_to_do: float
    destroy: float
    objects: int
    bare: float

    @property
    def attach_ratio(self) -> float:
        """What an attached program adds, against the bare system calls."""
        return (self.chains - self.devices) / self.bare


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="100,1000", help="numbers of devices, by commas")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside is None:
        words = [sys.executable, "-m", "benchmarks.chains", "--sizes", options.sizes, "--inside", outside()]
        if options.json:
            words += ["--json", str(options.json.absolute())]
        os.execvp("unshare", command(words))
    enter(options.inside)
    call("mount", "-t", "bpf", "bpf", "/sys/fs/bpf")
    CACHE.mkdir(parents=True, exist_ok=True)
    found = []
    for size in map(int, options.sizes.split(",")):
        call("mount", "-t", "tmpfs", "-o", "mode=700", "tmpfs", str(CACHE))
        found.append(measure(size))
        call("umount", str(CACHE))
    print("\n".join(table(found)))
    if options.json:
        options.json.write_text(json.dumps([asdict(figures) for figures in found], indent=2) + "\n")
    return 0


def measure(size: int) -> Figures:
    alone, chained = WORK / "alone.yaml", WORK / "chained.yaml"
    alone.write_text(nkform_spec(Scenario(size)))
    chained.write_text("\n".join(with_programs(alone.read_text())) + "\n")
    settle()
    devices = nkform("apply", "-y", "--summary", str(alone))
    bare = attach_bare(size)
    nkform("destroy", "-y", "--summary", str(alone))
    settle()
    chains = nkform("apply", "-y", "--summary", str(chained))
    nothing = nkform("plan", "--summary", str(chained))
    destroy = nkform("destroy", "-y", "--summary", str(chained))
    return Figures(size, devices, chains, nothing, destroy, len(list(CACHE.rglob("*.o"))), bare)


def nkform(*words: str) -> float:
    return expect(run(words[0], [str(NKFORM), *words], env=environment())).wall


def with_programs(spec: str) -> Iterator[str]:
    """The spec with two programs at each device: `peer:` begins the last part of a device."""
    for line in spec.splitlines():
        if line == "devices:":
            yield "programs: {guard: {template: source_guard}, count: {template: counters}}"
        yield line
        if line.startswith("  p") and line.endswith(":"):
            yield "    programs: {peer: [guard], primary: [count]}"


def attach_bare(size: int) -> float:
    """Attaches and pins two programs at each device with system calls alone; seconds."""
    from nkform.kernel import bpf, bpf_links
    from nkform.kernel.bpf_programs import prog_load

    # r0 = -1 (NEXT); exit
    nothing = bytes.fromhex("b7000000ffffffff") + bytes.fromhex("9500000000000000")
    indexes = [int((Path("/sys/class/net") / pair.name / "ifindex").read_text()) for pair in Scenario(size).pairs]
    programs = [prog_load(nothing, f"bare{number}") for number in range(2)]
    start = time.perf_counter()
    for index in indexes:
        for fd, hook in zip(programs, (bpf_links.AttachType.TCX_INGRESS, bpf_links.AttachType.TCX_EGRESS), strict=True):
            link = bpf_links.link_create(fd, index, hook)
            path = f"/sys/fs/bpf/bare-{index}-{int(hook)}"
            bpf.pin(link, path)
            os.close(link)
    taken = time.perf_counter() - start
    for pin in Path("/sys/fs/bpf").glob("bare-*"):
        pin.unlink()
    return taken


def table(found: list[Figures]) -> Iterator[str]:
    """`ratio` is chains against the devices alone, `attach` what a program adds against the bare system calls."""
    titles = ("devices", "alone", "chains", "ratio", "bare calls", "attach", "no-op", "destroy", "compiled")
    yield "".join(f"{title:>11}" for title in titles)
    for each in found:
        seconds = [
            f"{value:.2f} s" for value in (each.devices, each.chains, each.bare, each.nothing_to_do, each.destroy)
        ]
        ratios = f"{each.chains / each.devices:.2f} x", f"{each.attach_ratio:.2f} x"
        row = (each.size, *seconds[:2], ratios[0], seconds[2], ratios[1], *seconds[3:], each.objects)
        yield "".join(f"{value:>11}" for value in row)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchError as error:
        sys.exit(f"bench: {error}")
