"""What chains add: devices with two programs each, beside the same devices alone and beside the bare system calls.

    sudo .venv/bin/python -m benchmarks.chains [--sizes 1,100,1000] [--runs 3] [--json FILE]

One program differs in its values from device to device (a guard with the workload's own addresses), the other is the
same everywhere (counters). Each run makes and destroys the devices alone, then with programs, by turns; with grace
periods as they are (`--no-expedite`) it is done once for each size. All happens in namespaces of its own, with a bpffs
and an object cache of its own, which the first apply fills.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.measure import BenchError, Measurement, call, environment, expect, run
from benchmarks.sandbox import WORK, command, enter, outside, settle
from benchmarks.scenario import Scenario, nkform_spec
from nkform.kernel import rcu

CACHE = Path("/var/cache/nkform")
NKFORM = Path(sys.executable).with_name("nkform")
SUMMARY = ("-y", "--summary")


@dataclass(frozen=True)
class Figures:
    """Of one size: seconds of each phase (medians), MB at its peak, and compiled objects.

    `alone` and `alone_destroy` are the devices without programs. `waiting` and `waiting_destroy` leave grace periods as
    they are; `bare` and `bare_waiting` are the attachments alone, as many, by system calls.
    """

    size: int
    alone: float
    alone_destroy: float
    chains: float
    nothing_to_do: float
    destroy: float
    waiting: float
    waiting_destroy: float
    bare: float
    bare_waiting: float
    peak: float
    objects: int

    @property
    def attaching(self) -> float:
        """Seconds that the programs add to the devices."""
        return self.chains - self.alone


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1,100,1000", help="numbers of devices, by commas")
    parser.add_argument("--runs", type=int, default=3, help="runs of which the medians are taken")
    parser.add_argument("--nkform", type=Path, default=NKFORM, help="the nkform to measure")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside is None:
        words = [sys.executable, "-m", "benchmarks.chains", *sys.argv[1:], "--inside", outside()]
        os.execvp("unshare", command(words))
    enter(options.inside)
    call("mount", "-t", "bpf", "bpf", "/sys/fs/bpf")
    CACHE.mkdir(parents=True, exist_ok=True)
    measured = []
    for size in map(int, options.sizes.split(",")):
        call("mount", "-t", "tmpfs", "-o", "mode=700", "tmpfs", str(CACHE))
        measured.append(measure(options.nkform, size, options.runs))
        call("umount", str(CACHE))
    print("\n".join([*table(measured), "", *promises(measured)]))
    if options.json:
        options.json.write_text(json.dumps([asdict(figures) for figures in measured], indent=2) + "\n")
    return 0


def measure(nkform: Path, size: int, runs: int) -> Figures:
    alone, chained = WORK / "alone.yaml", WORK / "chained.yaml"
    alone.write_text(nkform_spec(Scenario(size)))
    chained.write_text("\n".join(with_programs(alone.read_text())) + "\n")
    phases: dict[str, list[Measurement]] = {}

    def take(phase: str, *words: str) -> None:
        phases.setdefault(phase, []).append(expect(run(phase, [str(nkform), *words], env=environment())))

    settle()
    take("waiting", "apply", *SUMMARY, "--no-expedite", str(chained))  # this fills the cache, too
    take("waiting_destroy", "destroy", *SUMMARY, "--no-expedite", str(chained))
    for _ in range(runs):
        settle()
        take("alone", "apply", *SUMMARY, str(alone))
        take("alone_destroy", "destroy", *SUMMARY, str(alone))
        settle()
        take("chains", "apply", *SUMMARY, str(chained))
        take("nothing_to_do", "plan", "--summary", str(chained))
        take("destroy", "destroy", *SUMMARY, str(chained))
    settle()
    take("bare devices", "apply", *SUMMARY, str(alone))
    bare_waiting = attach_bare(size)
    with expedited():
        bare = attach_bare(size)
    take("bare devices", "destroy", *SUMMARY, str(alone))
    seconds = {phase: statistics.median(each.wall for each in taken) for phase, taken in phases.items()}
    del seconds["bare devices"]
    measured = (each for phase in ("alone", "chains", "nothing_to_do", "destroy") for each in phases[phase])
    peak = max(each.peak for each in measured)
    return Figures(
        size, **seconds, bare=bare, bare_waiting=bare_waiting, peak=peak, objects=len(list(CACHE.rglob("*.o")))
    )


class expedited:  # noqa: N801
    """Grace periods are expedited within the block, where the kernel can."""

    def __enter__(self) -> None:
        self._before = rcu.read() if rcu.EXPEDITED.exists() else None
        if self._before is not None:
            rcu.write(1)

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            rcu.write(self._before)


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


def table(measured: Sequence[Figures]) -> Iterator[str]:
    """Seconds; `attach` is what the programs add, `ms each` that by attachment, `no-expedite` the apply without."""
    titles = (
        "devices", "alone", "destroy", "chains", "ratio", "attach", "ms each", "destroy", "ratio", "no-op",
        "no-expedite", "destroy", "bare", "waiting", "peak MB", "compiled",
    )  # fmt: skip
    yield "".join(f"{title:>12}" for title in titles)
    for each in measured:
        row = (
            f"{each.size}", f"{each.alone:.2f}", f"{each.alone_destroy:.2f}", f"{each.chains:.2f}",
            f"{each.chains / each.alone:.2f} x", f"{each.attaching:.2f}", f"{each.attaching * 500 / each.size:.2f}",
            f"{each.destroy:.2f}", f"{each.destroy / each.alone_destroy:.2f} x", f"{each.nothing_to_do:.2f}",
            f"{each.waiting:.2f}", f"{each.waiting_destroy:.2f}", f"{each.bare:.2f}", f"{each.bare_waiting:.2f}",
            f"{each.peak:.0f}", f"{each.objects}",
        )  # fmt: skip
        yield "".join(f"{cell:>12}" for cell in row)


def promises(measured: Sequence[Figures]) -> Iterator[str]:
    """What is promised of the sizes that were measured, and whether it holds."""
    by_size = {each.size: each for each in measured}
    if each := by_size.get(1000):
        yield _promise(
            "1,000 pairs with two programs each, against the devices alone", each.chains / each.alone, 1.6, "x"
        )
        yield _promise("2,000 attachments", each.attaching, 2.0, "s")
        yield _promise("destroy of the same, against the devices alone", each.destroy / each.alone_destroy, 2.0, "x")
        yield _promise("peak memory at 1,000 pairs, all phases", each.peak, 60, "MB")
    if each := by_size.get(1):
        yield _promise("apply of one pair with two programs, warm cache", each.chains, 0.25, "s")


def _promise(what: str, value: float, limit: float, unit: str) -> str:
    verdict = "met" if value <= limit else "NOT met"
    return f"{verdict:<8} {what}: {value:.2f} {unit} (at most {limit:g} {unit})"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchError as error:
        sys.exit(f"bench: {error}")
