"""What this machine can do, as `nkform doctor` prints it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from nkform.report.colour import Paint
from nkform.results import Finding

TONE = {"ok": "green", "missing": "yellow", "unknown": "yellow"}


def render(findings: Sequence[Finding], paint: Paint) -> str:
    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{paint(f'{finding.state:<7}', TONE[finding.state])}  {finding.name:<{width}}  {finding.detail}")
        if finding.state != "ok" and finding.hint:
            lines.append(f"{'':<7}  {'':<{width}}  {paint('->', 'cyan')} {finding.hint}")
    return "\n".join(lines) + "\n"


def render_json(findings: Sequence[Finding]) -> str:
    return json.dumps([asdict(finding) for finding in findings], indent=2) + "\n"
