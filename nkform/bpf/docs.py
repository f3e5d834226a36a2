"""The table of templates in docs/templates.md, made from the manifests.

`python -m nkform.bpf.docs` writes it between its markers. Writes that file and nothing else.
"""

from __future__ import annotations

from nkform.bpf.catalogue import catalogue
from nkform.bpf.facts import HOOKS
from nkform.bpf.template import Template

FILE = "docs/templates.md"
BEGIN = "<!-- templates: made by python -m nkform.bpf.docs -->"
END = "<!-- end of templates -->"


def table() -> str:
    """The templates that come with nkform as a Markdown table. Raises NkformError."""
    head = ["| template | at the hooks | modes | what it does |", "|---|---|---|---|"]
    return "\n".join([*head, *(_row(template) for template in catalogue().values())])


def filled(text: str) -> str:
    """The manual with its table as it should be. Raises ValueError if the markers are missing."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{FILE} has no markers for the table of templates")
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


def _row(template: Template) -> str:
    hooks = "all" if set(template.hooks) == set(HOOKS) else ", ".join(f"`{hook}`" for hook in template.hooks)
    return f"| `{template.name}` | {hooks} | {', '.join(template.modes)} | {template.purpose} |"


if __name__ == "__main__":
    from pathlib import Path

    path = Path(__file__).parents[2] / FILE
    path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")
