"""Programs: templates → C → object → loaded program; and packet tests of them.

    templates = catalogue([Path("my-templates")])            # what there is (template.py, catalogue.py)
    checked = check(templates["source_guard"], params)       # typed parameters, or problems (parameters.py)
    reason = excluded(templates["source_guard"], facts)      # why it leaves this device's chain, or None
    rendered = Renderer().render(template, checked.params, facts, "clang")
    # its C and its values (render.py, vocabulary.py, sandbox.py)
    name = digest(rendered)                                  # what tells it from others; needs no compiler
    engine = engines.make("auto")                            # engines.py, engine_clang.py, engine_bcc.py
    loaded = Loader().load(engine.build(rendered), rendered) # program and maps, by file descriptor (loader.py)

What stands here needs neither Jinja nor a kernel; `engines` and `loader` are imported by those who load.
"""

from __future__ import annotations

from nkform.bpf.catalogue import catalogue, unknown
from nkform.bpf.facts import HOOKS, Facts
from nkform.bpf.parameters import Canonical, Checked, Parameter
from nkform.bpf.render import Rendered, Renderer, digest
from nkform.bpf.template import Template, check, excluded, misplaced, verdicts

__all__ = [
    "HOOKS",
    "Canonical",
    "Checked",
    "Facts",
    "Parameter",
    "Rendered",
    "Renderer",
    "Template",
    "catalogue",
    "check",
    "digest",
    "excluded",
    "misplaced",
    "unknown",
    "verdicts",
]
