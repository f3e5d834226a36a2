"""Templates of a test's own, written to a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import nkform.bpf.sandbox  # noqa: F401  # loaded here once, rather than in a child of each renderer
from nkform.bpf import Facts, Rendered, Renderer, Template, catalogue, check

MANIFEST = """\
version: 1
purpose: A program of a test.
hooks: [peer, ingress]
modes: [l2, l3]
"""

PROGRAM = """\
#include "nkform.h"

{{ program() }}
{
	return NK_NEXT;
}
"""

FACTS = Facts("netkit", "l3", "peer", ifindex=7, peer_ifindex=8, mac="02:00:00:00:00:02", mtu=1500)


def write(base: Path, name: str = "mine", *, manifest: str = "", program: str = PROGRAM, header: str = "") -> Path:
    """Writes a template; `manifest` is added to the usual one. Returns the folder to look for templates in."""
    folder = base / name
    folder.mkdir(parents=True)
    (folder / "manifest.yaml").write_text(MANIFEST + manifest)
    (folder / "program.bpf.c.j2").write_text(program)
    if header:
        (folder / "mine.h").write_text(header)
    return base


def template(base: Path, **parts: str) -> Template:
    """A template that was just written."""
    return catalogue([write(base, **parts)])["mine"]


def body(statement: str, before: str = "") -> str:
    """A program with one statement, which stands in line 5 if nothing is put before."""
    return f'#include "packet.h"\n{before}\n{{{{ program() }}}}\n{{\n{statement}\n\treturn NK_NEXT;\n}}\n'


def rendered(
    wanted: Template, params: Mapping[str, object] | None = None, facts: Facts = FACTS, engine: str = "clang"
) -> Rendered:
    """A template's C, with parameters that must be right."""
    checked = check(wanted, params or {})
    assert not checked.problems, checked.problems
    return Renderer().render(wanted, checked.params, facts, engine)
