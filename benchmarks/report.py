"""Results as text: tables for the terminal and for docs/benchmarks.md, and the JSON beside it."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.cycles import STARTUP
from benchmarks.measure import DONE, BenchError, call
from benchmarks.results import ORDER, Figure, Figures, Target

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


def figures_table(figures: Figures) -> Table:
    """A row a phase: seconds by size; at the largest that others are measured at, CPU seconds and peak MB as well."""
    sizes, compared = figures.sizes(), figures.compared()
    rows = [
        [
            "side",
            "phase",
            *(f"{size:,} pairs" for size in sizes),
            f"CPU, {compared:,}",
            f"peak, {compared:,}",
        ]
    ]
    for side in ORDER:
        for phase in figures.phases(side):
            found = [figures.get(side, size, phase) for size in sizes]
            if any(found):
                rows.append([side, phase, *map(_seconds, found), *_costs(figures.get(side, compared, phase))])
    return rows


def _seconds(found: Figure | None) -> str:
    if found is None:
        return "–"
    return f"{found.wall:.3g} s" if found.outcome == DONE else f"> {found.wall:.0f} s"


def _costs(found: Figure | None) -> tuple[str, str]:
    return (f"{found.cpu:.3g} s", f"{found.peak:.0f} MB") if found else ("–", "–")


def start_table(figures: Figures) -> Table:
    found = {phase: figures.get(STARTUP, 0, phase) for phase in figures.phases(STARTUP)}
    return [
        ["start", "time", "peak"],
        *([phase, f"{1000 * f.wall:.0f} ms", f"{f.peak:.0f} MB"] for phase, f in found.items() if f),
    ]


def timings_table(figures: Figures) -> Table:
    """Where nkform itself says that its time goes, at that size; empty if it does not say."""
    size = figures.compared()
    told = {
        phase: found.timings
        for side in ORDER
        for phase in figures.phases(side)
        if (found := figures.get(side, size, phase)) and found.timings
    }
    parts = list(dict.fromkeys(part for timings in told.values() for part in timings))
    rows = [
        [phase, *(f"{timings[part]:.0f} ms" if part in timings else "–" for part in parts)]
        for phase, timings in told.items()
    ]
    return [[f"parts, {size:,} pairs", *parts], *rows] if rows else []


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


def write_docs(kind: str, document: dict[str, Any]) -> None:
    """Puts the figures of one kind into the JSON and the manual; what they say of the other kind stays."""
    known = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    known[kind] = document
    FIGURES.write_text(json.dumps(known, indent=2, ensure_ascii=False) + "\n")
    render_page()


def render_page() -> None:
    """Writes the manual's figures anew from the JSON; the prose around the markers stays."""
    page = PAGE.read_text()
    for kind, document in json.loads(FIGURES.read_text()).items():
        start, end = f"<!-- figures of {kind}: from benchmarks.json -->", f"<!-- end of the figures of {kind} -->"
        before, found, rest = page.partition(start)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise BenchError(f"{PAGE.name} has no markers for the figures of {kind}")
        page = f"{before}{start}\n\n{page_text(document)}\n\n{end}{after}"
    PAGE.write_text(page)


def page_text(document: Mapping[str, Any]) -> str:
    """The part of the manual between the markers, from one kind's part of the JSON."""
    figures = Figures.from_json(document["figures"])
    promises = [Target(**fields) for fields in document["targets"]]
    on = document["machine"]
    peer = f", IfState {document['ifstate']}" if document["ifstate"] else ""
    cores = "1 core" if on["cores"] == "1" else f"{on['cores']} cores"
    runs = "One run" if document["runs"] == 1 else f"Medians of {document['runs']} runs"
    parts = [
        f"{on['processor']}, {cores}, {on['memory']}; {on['kernel']}, {on['system']}, "
        f"Python {on['python']}, iproute2 {document['iproute2']}{peer}; nkform {document['nkform']}. {runs}; "
        f"before the cycles, other work took {document['busy']:.0%} of the processor time (median).",
        *(markdown(table) for table in all_tables(figures, promises)),
        "\n".join(f"- {note}" for note in document["notes"]),
    ]
    return "\n\n".join(part for part in parts if part)


def all_tables(figures: Figures, promises: Sequence[Target]) -> list[Table]:
    """Those tables that have something to say."""
    tables = [targets_table(promises), figures_table(figures), start_table(figures), timings_table(figures)]
    return [table for table in tables if len(table) > 1]
