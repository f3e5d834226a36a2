"""Measures nkform beside iproute2 and IfState: `make bench`, or `python benchmarks/bench.py --help`.

docs/benchmarks.md is the manual. Needs root. Everything happens in namespaces that end with the run
(sandbox.py); on the machine itself only the cache folder, where IfState is installed, and with --write-docs
the two files in docs/ are written.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import baseline_ifstate, cycles, report  # noqa: E402
from benchmarks.campaign import Campaign, note  # noqa: E402
from benchmarks.cycles import Programs  # noqa: E402
from benchmarks.measure import BenchError, call  # noqa: E402
from benchmarks.results import LARGE, Results, targets  # noqa: E402


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="benchmarks/bench.py", description="Measure nkform beside iproute2 and IfState.")
    top.add_argument("--sizes", type=_sizes, metavar="N,N,…", help="numbers of pairs (default 10,100,1000)")
    top.add_argument("--runs", type=int, metavar="N", help="runs of which the medians are taken (default 3)")
    top.add_argument(
        "--large", type=int, metavar="N", help="pairs that nkform makes once more, alone (default 9000; 0: not at all)"
    )
    top.add_argument("--quick", action="store_true", help="10 and 100 pairs, one run, IfState with 10 only")
    top.add_argument("--no-ifstate", action="store_true", help="without IfState")
    top.add_argument("--no-nkform", action="store_true", help="the other sides alone")
    top.add_argument("--kind", choices=["veth", "netkit"], help="the kind of device (default veth; netkit in the lab)")
    top.add_argument("--lab", action="store_true", help="on the lab's newest kernel, which has netkit; quick")
    top.add_argument("--write-docs", action="store_true", help="put the figures into docs/benchmarks.md and .json")
    top.add_argument(
        "--render", action="store_true", help="measure nothing, write docs/benchmarks.md anew from the .json"
    )
    top.add_argument("--strict", action="store_true", help="exit code 1 if a promise is not kept")
    top.add_argument("--json", action="store_true", help="print the figures as JSON")
    top.add_argument(
        "--ip",
        default=os.environ.get("NKFORM_IP", "ip"),
        metavar="PATH",
        help="the `ip` to measure and to look with",
    )
    top.add_argument("--nkform", metavar="PATH", help="the nkform to measure (default: the one beside this Python)")
    top.add_argument("--inside", help=argparse.SUPPRESS)
    return top


def _sizes(text: str) -> list[int]:
    sizes = sorted({int(word) for word in text.split(",")})
    if not sizes or sizes[0] < 1 or sizes[-1] > 60000:
        raise argparse.ArgumentTypeError("numbers from 1 to 60000, with commas between")
    return sizes


def main(arguments: Sequence[str]) -> int:
    options = parser().parse_args(arguments)
    if options.inside:
        cycles.inside(options.inside)
        return 0
    if options.render:
        report.render_page()
        return 0
    options.sizes = options.sizes or ([10, 100] if options.quick or options.lab else [10, 100, 1000])
    options.runs = options.runs or (1 if options.quick or options.lab else 3)
    if options.large is None:
        options.large = 0 if options.quick or options.lab else LARGE
    options.kind = options.kind or ("netkit" if options.lab else "veth")
    try:
        if os.geteuid() != 0:
            raise BenchError("it needs root, for namespaces of its own")
        return in_lab(options) if options.lab else here(options)
    except BenchError as error:
        note(str(error))
        return 1
    except KeyboardInterrupt:
        return 130


def here(options: argparse.Namespace) -> int:
    """Measures on the running kernel."""
    programs = Programs(nkform_command(options.nkform), sys.executable, options.ip)
    ifstate_sizes: frozenset[int] = frozenset()
    if options.kind == "veth" and not options.no_ifstate:
        programs = replace(programs, ifstate=baseline_ifstate.install())
        ifstate_sizes = frozenset(size for size in options.sizes if size <= 10 or not options.quick)
    results = Campaign(
        options.kind,
        options.sizes,
        options.runs,
        programs,
        nkform=not options.no_nkform,
        starts=3 if options.quick else 10,
        large=options.large,
        ifstate_sizes=ifstate_sizes,
    ).run()
    return conclude(options, programs, results)


def conclude(options: argparse.Namespace, programs: Programs, results: Results) -> int:
    """Prints and writes what was measured; returns the exit code."""
    figures = results.figures()
    if not figures.sizes():
        raise BenchError("nothing could be measured")
    promises = list(targets(figures)) if options.kind == "veth" and not options.no_nkform else []
    document = {
        "machine": report.machine(),
        "runs": options.runs,
        "busy": results.busy(),
        "iproute2": report.iproute2_version(options.ip),
        "ifstate": baseline_ifstate.version() if programs.ifstate else None,
        "nkform": None if options.no_nkform else call(*programs.nkform, "--version").split()[-1],
        "figures": figures.as_json(),
        "targets": [asdict(promise) for promise in promises],
        "notes": results.notes,
    }
    for table in report.all_tables(figures, promises):
        print(report.plain(table), end="\n\n", file=sys.stderr if options.json else sys.stdout)
    if options.json:
        json.dump(document, sys.stdout)
    if options.write_docs:
        report.write_docs(options.kind, document)
    unmet = any(promise.met is False for promise in promises)
    return 1 if results.errors or (options.strict and unmet) else 0


def in_lab(options: argparse.Namespace) -> int:
    """Measures on the lab's newest kernel, in a guest whose standard output is the JSON."""
    inner = [
        sys.executable,
        __file__,
        "--kind",
        options.kind,
        "--no-ifstate",
        "--json",
        "--runs",
        str(options.runs),
    ]
    inner += ["--large", str(options.large), "--sizes", ",".join(map(str, options.sizes))]
    inner += ["--nkform", options.nkform] if options.nkform else []
    inner += ["--no-nkform"] if options.no_nkform else []
    lab = [str(ROOT / "tools/lab"), "run", "--timeout", "3600", "newest", "--", *inner]
    done = subprocess.run(lab, stdout=subprocess.PIPE, text=True, check=False, cwd=ROOT)
    try:
        found = json.loads(done.stdout)
    except json.JSONDecodeError:
        raise BenchError(f"the lab ended with exit code {done.returncode} and no figures") from None
    if options.json:
        json.dump(found, sys.stdout)
    if options.write_docs:
        report.write_docs(options.kind, found)
    return done.returncode


def nkform_command(path: str | None) -> tuple[str, ...]:
    beside = Path(sys.executable).with_name("nkform")
    if path or beside.exists():
        return (path or str(beside),)
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from nkform.cli.main import run; sys.exit(run())"
    return (sys.executable, "-c", code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
