"""What programs cost: compiling (time, memory), loading a thousand, and running on a packet (BPF_PROG_TEST_RUN).

    sudo .venv/bin/python -m benchmarks.programs [--json FILE] [--packets N] [--programs N]

Needs root, clang and python3-bpfcc. Attaches nothing; each compilation runs in a process of its own, so that its peak
memory can be told. The last table compares each template in l3 with itself in l2, where it has more to do, and with a
build that asks at run time, from its read-only values or from a map, which mode the device is in.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from nkform.bpf import Facts, Rendered, Renderer, Template, catalogue, check, engines, packets
from nkform.bpf.loader import Loader

FACTS = Facts("netkit", "l3", "peer", ifindex=1, peer_ifindex=1, mac="02:00:00:00:00:02", mtu=1500)
PARAMS: Mapping[str, Mapping[str, object]] = {
    "counters": {},
    "source_guard": {"prefixes": ["10.0.0.2/32", "fd00::2/128"]},
    "arp_responder": {"addresses": ["169.254.1.1"]},
    "verdict": {},
}
PACKET = {"ip": {"src": "10.0.0.2", "dst": "192.0.2.1"}, "udp": {"dport": 53}, "payload": {"size": 64}}
ROUNDS = 9


@dataclass(frozen=True)
class Compiled:
    """One program compiled in a new process: seconds of wall and CPU time; peak memory in MB (10^6 bytes) of the
    largest process that took part; seconds that the rest of the process takes, its imports above all."""

    engine: str
    template: str
    wall: float
    cpu: float
    peak: float
    start: float


@dataclass(frozen=True)
class Loading:
    """A thousand devices' programs: milliseconds a program, for loading alone and with its rendering."""

    template: str
    mode: str
    programs: int
    compilations: int
    load_ms: float
    load_cpu_ms: float
    all_ms: float
    instructions: int


@dataclass(frozen=True)
class Run:
    """Nanoseconds that a program takes for one packet: the median of some rounds, and the fastest."""

    engine: str
    template: str
    variant: str
    median_ns: float
    least_ns: float


def rendered(
    renderer: Renderer, template: Template, params: Mapping[str, object], facts: Facts, engine: str
) -> Rendered:
    checked = check(template, params)
    assert not checked.problems, checked.problems
    return renderer.render(template, checked.params, facts, engine)


# --- compiling --------------------------------------------------------------------------


def compile_one(engine: str, name: str) -> Compiled:
    """Compiles a program in a new process that has no cache."""
    command = [sys.executable, "-m", "benchmarks.programs", "--compile", engine, name]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    wall = time.perf_counter() - started
    measured = json.loads(done.stdout)
    return Compiled(engine, name, measured["wall"], measured["cpu"], measured["peak"], wall - measured["wall"])


def compile_here(engine: str, name: str) -> dict[str, float]:
    """What the new process does."""
    template = catalogue()[name]
    mode = template.modes[-1]
    with tempfile.TemporaryDirectory() as folder:
        made = engines.make(engine, cache=Path(folder) / "cache")
        program = rendered(Renderer(), template, PARAMS[name], replace(FACTS, mode=mode), engine)
        if engine == "bcc":
            import bcc  # type: ignore[import-not-found,import-untyped,unused-ignore] # noqa: F401  # not its import
        before, started = _cpu(), time.perf_counter()
        made.build(program)
        wall, cpu = time.perf_counter() - started, _cpu() - before
    own, child = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {"wall": wall, "cpu": cpu, "peak": max(own, child) * 1024 / 1e6}


def _cpu() -> float:
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


# --- loading ----------------------------------------------------------------------------


def load_many(cache: Path, template: Template, mode: str, count: int) -> Loading:
    """Loads the programs of many devices that differ in values only, as one process does it."""
    from nkform.kernel.bpf_programs import prog_info

    engine, renderer = engines.make("clang", cache=cache), Renderer()
    facts = replace(FACTS, mode=mode)
    loading = cpu = 0.0
    started = time.perf_counter()
    instructions = 0
    with Loader() as loader:
        for number in range(count):
            params = dict(PARAMS[template.name])
            if "prefixes" in params:
                params["prefixes"] = [f"10.{number >> 8}.{number & 255}.2/32", f"fd00::{number:x}/128"]
            if "addresses" in params:
                params["addresses"] = [f"10.{number >> 8}.{number & 255}.1"]
            program = rendered(renderer, template, params, facts, "clang")
            built = engine.build(program)
            before, before_cpu = time.perf_counter(), time.process_time()
            loaded = loader.load(built, program)
            loading += time.perf_counter() - before
            cpu += time.process_time() - before_cpu
            instructions = instructions or prog_info(loaded.prog_fd).verified_insns
            loaded.close()
        total = time.perf_counter() - started
    return Loading(
        template.name, mode, count, engine.runs,  # type: ignore[attr-defined]
        loading / count * 1e3, cpu / count * 1e3, total / count * 1e3, instructions,
    )  # fmt: skip


# --- running ----------------------------------------------------------------------------


def nanoseconds(prog_fd: int, packet: bytes, repeat: int) -> tuple[float, float]:
    """Median and least of some rounds; measured here, since the kernel tells whole nanoseconds only."""
    from nkform.kernel.bpf_programs import test_run

    test_run(prog_fd, packet, repeat=1000)
    found = []
    for _ in range(ROUNDS):
        started = time.perf_counter_ns()
        test_run(prog_fd, packet, repeat=repeat)
        found.append((time.perf_counter_ns() - started) / repeat)
    return statistics.median(found), min(found)


def run_template(engine: str, cache: Path, template: Template, mode: str, repeat: int) -> Run:
    made, renderer = engines.make(engine, cache=cache), Renderer()
    program = rendered(renderer, template, PARAMS[template.name], replace(FACTS, mode=mode), engine)
    with Loader() as loader, loader.load(made.build(program), program) as loaded:
        median, least = nanoseconds(loaded.prog_fd, packets.build(PACKET, mode).data, repeat)
    return Run(engine, template.name, mode, median, least)


# What a program would be that is not compiled for a mode: it has the parts of both, and asks which one it is in.
ASKING_MANIFEST = """\
version: 1
purpose: The chain of a device, in one program that asks for the mode at run time.
hooks: [peer]
modes: [l2, l3]
parameters:
  how: {role: structure, description: Who knows the mode., type: string, enum: [compiled, values, map], default: map}
  is_l2: {role: value, description: The mode., type: boolean, default: false}
"""
ASKING = """\
#include "packet.h"

struct settings { __u32 is_l2; __u32 gateway; __u64 mac_high; };
{% if how == "map" %}
{{ map("settings", "array", key="__u32", value="struct settings", entries=1) }}
{% endif %}

{% if how != "compiled" or mode == "l2" %}
NK_INLINE int is_ours(struct __sk_buff *skb)
{
	struct nk_eth *eth = nk_at(skb, 0, NK_ETH_HLEN);
	struct nk_arp *arp;

	if (!eth || !nk_same_mac(eth->source, 0, 0, 0))
		return 0;
	if (eth->protocol != NK_ETH_ARP)
		return 1;
	arp = nk_at(skb, NK_ETH_HLEN, sizeof(*arp));
	return arp && arp->operation == NK_ARP_REQUEST && arp->target_ip == nk_be32(0xa9fe0101);
}
{% endif %}

{{ program() }}
{
	struct nk_ipv4 *ip;
{% if how == "map" %}
	__u32 key = 0;
	struct settings *found = {{ lookup("settings", "&key") }};

	if (!found)
		return NK_DROP;
	if (found->is_l2 && !is_ours(skb))
		return NK_DROP;
{% elif how == "values" %}
	if ({{ value("is_l2") }} && !is_ours(skb))
		return NK_DROP;
{% elif mode == "l2" %}
	if (!is_ours(skb))
		return NK_DROP;
{% endif %}
	ip = nk_at(skb, NK_ETH_HLEN, sizeof(*ip));
	if (!ip || ip->source != nk_be32(0x0a000002))
		return NK_DROP;
	return NK_NEXT;
}
"""


def run_asking(cache: Path, folder: Path, how: str, repeat: int) -> tuple[Run, int]:
    """The time of one way to ask for the mode, and how many instructions the kernel keeps."""
    from nkform.kernel.bpf_programs import prog_info

    place = folder / "asking"
    place.mkdir(exist_ok=True)
    (place / "manifest.yaml").write_text(ASKING_MANIFEST)
    (place / "program.bpf.c.j2").write_text(ASKING)
    template = catalogue([folder])["asking"]
    program = rendered(Renderer(), template, {"how": how}, FACTS, "clang")
    made = engines.make("clang", cache=cache)
    with Loader() as loader, loader.load(made.build(program), program) as loaded:
        median, least = nanoseconds(loaded.prog_fd, packets.build(PACKET, "l3").data, repeat)
        kept = prog_info(loaded.prog_fd).xlated_len // 8
    return Run("clang", "asking for the mode", how, median, least), kept


# --- the whole --------------------------------------------------------------------------


def table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    print(f"\n{title}\n")
    columns = list(rows[0])
    cells = [[f"{row[c]:.3f}" if isinstance(row[c], float) else str(row[c]) for c in columns] for row in rows]
    widths = [max(len(line[place]) for line in [columns, *cells]) for place in range(len(columns))]
    for line in [columns, ["-" * width for width in widths], *cells]:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |")


def best(times: int, measure: Callable[[], Compiled]) -> Compiled:
    return min((measure() for _ in range(times)), key=lambda one: one.wall)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.programs", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", type=Path, help="where the figures go as JSON")
    parser.add_argument("--packets", type=int, default=1_000_000, help="packets a round")
    parser.add_argument("--programs", type=int, default=1000, help="programs to load")
    parser.add_argument("--compile", nargs=2, metavar=("ENGINE", "TEMPLATE"), help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.compile:
        print(json.dumps(compile_here(*chosen.compile)))
        return 0
    templates = catalogue()
    compiled = [best(3, lambda e=e, n=n: compile_one(e, n)) for e in ("clang", "bcc") for n in PARAMS]  # type: ignore[misc]
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"
        loading = [load_many(cache, templates[n], m, chosen.programs) for n in PARAMS for m in templates[n].modes]
        runs = [
            run_template(engine, cache, templates[name], mode, chosen.packets)
            for engine in ("clang", "bcc")
            for name in PARAMS
            for mode in templates[name].modes
        ]
        asking = [run_asking(cache, Path(folder), how, chosen.packets) for how in ("compiled", "values", "map")]
    table("Compiling one program in a new process", [asdict(one) for one in compiled])
    table(f"Loading {chosen.programs} programs that differ in values", [asdict(one) for one in loading])
    table("Running on one packet", [asdict(one) for one in runs])
    table("Compiled for l3, against asking for the mode at run time (in l3)", [
        {**asdict(one), "instructions": kept} for one, kept in asking
    ])  # fmt: skip
    if chosen.json:
        figures = {
            "kernel": platform.release(),
            "compiled": [asdict(one) for one in compiled],
            "loading": [asdict(one) for one in loading],
            "runs": [asdict(one) for one in runs],
            "asking": [{**asdict(one), "instructions": kept} for one, kept in asking],
        }
        chosen.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
