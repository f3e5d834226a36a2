"""Given each built-in template's own packet tests, they hold with both engines and in every mode."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest

from nkform.bpf import Template, catalogue
from nkform.bpf.packet_tests import PacketTest, read_tests, run_template_test
from nkform.kernel.error import KernelError
from tests.live.helpers.programs import TEMPLATES, Workshop, workshop

__all__ = ["workshop"]

CASES = [
    pytest.param(name, test, mode, id=f"{name}-{mode}-{test.name}")
    for name, template in TEMPLATES.items()
    for test in read_tests(template)
    for mode in test.modes
]


@pytest.mark.parametrize(("name", "test", "mode"), CASES)
def test_packets(workshop: Workshop, name: str, test: PacketTest, mode: str) -> None:
    """What is cut short the kernel itself refuses to run here: test_programs_traffic.py sends it for real."""
    try:
        wrong = run_template_test(test, mode, TEMPLATES[name], workshop.engine, workshop.renderer, workshop.loader)
    except KernelError as error:
        if error.errno == errno.EINVAL and len(test.packet[mode]) < 54:
            return
        raise
    assert not wrong


def manual_template(folder: Path) -> Template:
    """The template that docs/templates.md writes, out of its blocks of code."""
    text = (Path(__file__).parents[2] / "docs" / "templates.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```(yaml|c)\n(.*?)```", text, re.DOTALL)
    manifest, tests = (b for kind, b in blocks if kind == "yaml" and b.startswith(("version: 1", "params:")))
    place = folder / "limit"
    place.mkdir()
    (place / "manifest.yaml").write_text(manifest)
    (place / "program.bpf.c.j2").write_text(next(b for kind, b in blocks if kind == "c"))
    (place / "tests.yaml").write_text(tests)
    return catalogue([folder])["limit"]


def test_the_manuals_template_passes_the_manuals_tests(workshop: Workshop, tmp_path: Path) -> None:
    template = manual_template(tmp_path)
    tests = read_tests(template)
    assert len(tests) == 2
    for test in tests:
        for mode in test.modes:
            engine, renderer, loader = workshop.engine, workshop.renderer, workshop.loader
            assert not run_template_test(test, mode, template, engine, renderer, loader)
