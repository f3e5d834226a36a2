"""Results as text: tables for the terminal and for docs/benchmarks.md, and the JSON beside it."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.cycles import IFSTATE, STARTUP
from benchmarks.measure import DONE, call
from benchmarks.results import ORDER, Figure, Results, Target

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = DOCS / "benchmarks.md"
FIGURES = DOCS / "benchmarks.json"

Table = Sequence[Sequence[str]]


def machine() -> dict[str, str]:
    """What this machine is, without its name: enough to judge the figures by."""
    info = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*:\s*(.*)$", info, re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)
    debian = Path("/etc/debian_version")
    virtual = " (virtual machine)" if re.search(r"^flags\s*:.*\bhypervisor\b", info, re.MULTILINE) else ""
    release = re.match(r"[\d.]*\d", platform.release())
    return {
        "processor": (model[1] if model else platform.machine()) + virtual,
        "cores": str(os.cpu_count()),
        "memory": f"{int(memory[1]) / 1e6:.0f} GB" if memory else "unknown",
        "kernel": f"Linux {release[0]}" if release else "Linux",
        "system": f"Debian {debian.read_text().strip()}" if debian.exists() else "not Debian",
        "python": platform.python_version(),
    }


def iproute2_version(ip: str) -> str:
    found = re.search(r"iproute2-([\w.]+)", call(ip, "-V"))
    return found[1] if found else "unknown"


# --- tables ------------------------------------------------------------------------------------------------


def figures_table(results: Results) -> Table:
    """A row a phase: seconds by size; at the largest one CPU seconds and peak MB as well."""
    sizes = results.sizes()
    rows = [
        [
            "side",
            "phase",
            *(f"{size:,} pairs" for size in sizes),
            f"CPU, {sizes[-1]:,}",
            f"peak, {sizes[-1]:,}",
        ]
    ]
    for side in ORDER:
        for phase in results.phases(side):
            found = [results.figure(side, size, phase) for size in sizes]
            if any(found):
                rows.append([side, phase, *map(_seconds, found), *_costs(found[-1])])
    return rows


def _seconds(found: Figure | None) -> str:
    if found is None:
        return "–"
    return f"{found.wall:.3g} s" if found.outcome == DONE else f"> {found.wall:.0f} s"


def _costs(found: Figure | None) -> tuple[str, str]:
    return (f"{found.cpu:.3g} s", f"{found.peak:.0f} MB") if found else ("–", "–")


def start_table(results: Results) -> Table:
    found = {phase: results.figure(STARTUP, 0, phase) for phase in results.phases(STARTUP)}
    return [
        ["start", "time", "peak"],
        *([phase, f"{1000 * f.wall:.0f} ms", f"{f.peak:.0f} MB"] for phase, f in found.items() if f),
    ]


def timings_table(results: Results) -> Table:
    """Where nkform itself says that its time goes, at the largest size; empty if it does not say."""
    size = results.sizes()[-1]
    rows = [["phase", "part", "time"]]
    for side in ORDER:
        for phase in results.phases(side):
            found = results.figure(side, size, phase)
            rows += [[phase, name, f"{value:.0f} ms"] for name, value in (found.timings if found else {}).items()]
    return rows if len(rows) > 1 else []


def targets_table(found: Sequence[Target]) -> Table:
    words = {True: "met", False: "**NOT met**", None: "–"}
    return [
        ["promise", "limit", "measured", ""],
        *([t.promise, t.limit, t.measured, words[t.met]] for t in found),
    ]


def plain(table: Table) -> str:
    """A table for the terminal."""
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]]).replace("**", "")


def markdown(table: Table) -> str:
    """A table for the manual."""
    lines = ["| " + " | ".join(row) + " |" for row in table]
    return "\n".join([lines[0], "|" + "---|" * len(table[0]), *lines[1:]])


# --- documents ---------------------------------------------------------------------------------------------


def as_json(results: Results, found: Sequence[Target], about: dict[str, Any]) -> dict[str, Any]:
    """One kind's part of docs/benchmarks.json. Seconds, MB (10^6 bytes) and, for timings, milliseconds."""
    return {
        **about,
        "figures": results.as_json(),
        "targets": [{"promise": t.promise, "limit": t.limit, "measured": t.measured, "met": t.met} for t in found],
        "notes": results.notes,
    }


def write_docs(kind: str, document: dict[str, Any], text: str) -> None:
    """Puts the figures of one kind into the manual and the JSON; what they say of the other kind stays."""
    known = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    known[kind] = document
    FIGURES.write_text(json.dumps(known, indent=2, ensure_ascii=False) + "\n")
    start, end = (
        f"<!-- figures of {kind}: written by `make bench` -->",
        f"<!-- end of the figures of {kind} -->",
    )
    page = PAGE.read_text()
    before, found, rest = page.partition(start)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{PAGE.name} has no markers for the figures of {kind}")
    PAGE.write_text(f"{before}{start}\n\n{text}\n\n{end}{after}")


def page_text(results: Results, found: Sequence[Target], about: dict[str, Any]) -> str:
    """The part of the manual between the markers."""
    on = about["machine"]
    peer = f", IfState {about['ifstate']}" if IFSTATE in results.measurements else ""
    parts = [
        f"{on['processor']}, {on['cores']} cores, {on['memory']}; {on['kernel']}, {on['system']}, "
        f"Python {on['python']}, "
        f"iproute2 {about['iproute2']}{peer}; nkform {about['nkform']}. Medians of {about['runs']} runs; "
        f"before each cycle, other work took {about['busy']:.0%} of the processor time (median).",
        *(markdown(table) for table in (targets_table(found) if found else [], figures_table(results)) if table),
        *(markdown(table) for table in (start_table(results), timings_table(results)) if len(table) > 1),
        "\n".join(f"- {note}" for note in results.notes),
    ]
    return "\n\n".join(part for part in parts if part)
