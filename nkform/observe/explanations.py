"""Which template and parameters a digest came from: noted at each apply, read by `show` and `status`.

Explanations only: a plan compares digests and never looks here. They vanish at reboot, as links do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from nkform.dataclass import dataclass, field, fields
from nkform.kernel import rundir
from nkform.model import Device, Node

FILE = "programs.json"


@dataclass(frozen=True, slots=True)
class Explanation:
    """A program as its spec declared it; `folder` is that of its template, `builtin` if it came with nkform."""

    template: str
    params: Mapping[str, Any] = field(default_factory=dict)
    folder: str = ""
    builtin: bool = True


Explanations = Mapping[str, Explanation]
"""By digest."""


def read(node: str) -> Explanations:
    """What is known. Raises KernelError where the folder cannot be trusted."""
    text = rundir.read(node, FILE)
    try:
        found = json.loads(text) if text else {}
        return {digest: Explanation(**fields) for digest, fields in found.items()}
    except (ValueError, TypeError):
        return {}  # written by another version


def note(live: Node, devices: Mapping[str, Device], templates: Mapping[str, tuple[str, bool]]) -> None:
    """Adds the programs of devices, and forgets what is attached nowhere any more. Raises KernelError.

    `templates` are the folder of each template and whether it is built in.
    """
    was = read(live.name)
    known = dict(was)
    for device in devices.values():
        for chain in device.chains.values():
            for program in chain.programs:
                folder, builtin = templates.get(program.template, ("", True))
                known[program.digest] = Explanation(program.template, program.params, folder, builtin)
    attached = {entry.digest for d in live.devices.values() for hook in d.hooks.values() for entry in hook.ours}
    kept = {digest: explanation for digest, explanation in known.items() if digest in attached}
    if kept != was:
        written = {digest: {f.name: getattr(each, f.name) for f in fields(each)} for digest, each in kept.items()}
        rundir.write(live.name, FILE, json.dumps(written, indent=1))


def forget(node: str) -> None:
    """Raises KernelError."""
    rundir.remove(node, FILE)
