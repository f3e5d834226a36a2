"""`nkform templates`, `nkform render` and `nkform build`: programs without a kernel."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from nkform.cli.common import programs_of, read_spec
from nkform.model import Device, Program
from nkform.problem import fail

if TYPE_CHECKING:
    from nkform.bpf.programs import Programs
    from nkform.bpf.template import Template
    from nkform.spec import Spec


def templates(options: argparse.Namespace) -> int:
    """The catalogue, or one template's manual."""
    from nkform.bpf.catalogue import catalogue, unknown
    from nkform.problem import NkformError

    found = catalogue(options.templates)
    if options.name is None:
        width = max(map(len, found))
        for name, template in found.items():
            print(f"{name:<{width}}  {template.purpose}")
        return 0
    if options.name not in found:
        raise NkformError(unknown(options.name, found))
    print("\n".join(_manual(found[options.name])))
    return 0


def _manual(template: Template) -> Iterator[str]:
    from nkform.bpf.judge import rules

    yield f"{template.name}: {template.purpose}"
    if template.description:
        yield f"\n{template.description}"
    yield f"\nhooks: {', '.join(template.hooks)}"
    yield f"modes: {', '.join(template.modes)}"
    for name, parameter in template.parameters.items():
        many = f", at most {parameter.most}" if parameter.most is not None and not parameter.map else ""
        yield f"\n{name} ({parameter.kind.name}{many}; {parameter.role})"
        yield f"    {parameter.description}"
        if name in template.schemas:
            yield f"    rules: {rules(template.schemas[name])}"
        if parameter.default is not None:
            yield f"    default: {_said(parameter.default)}"


def _said(default: object) -> str:
    from nkform.bpf.parameters import FactDefault

    if isinstance(default, FactDefault):
        return f"the device's {default.fact}"
    if isinstance(default, bool):
        return str(default).lower()
    return str(list(default) if isinstance(default, tuple) else default)


def render(options: argparse.Namespace) -> int:
    """The C that a chain compiles to."""
    spec = read_spec(options)
    with programs_of(spec, options) as programs:
        device = _resolved(spec).get(options.device)
        if device is None or programs is None:
            raise fail("NK0606", f"the spec has no device {options.device} with programs")
        if options.hook not in device.chains:
            there = ", ".join(device.chains) or "no hook"
            raise fail("NK0606", f"{options.device} has no programs at {options.hook}", hint=f"it has some at {there}")
        whole, notes = programs.resolve(device)
        for note in notes:
            print(note.message, file=sys.stderr)
        for program in whole.chains[options.hook].programs:
            print(
                f"/* {program.name}, digest {program.digest} */\n{programs.render(whole, options.hook, program).source}"
            )
    return 0


def build(options: argparse.Namespace) -> int:
    """Compiles all that a spec needs into a folder, for nodes without a compiler."""
    spec = read_spec(options)
    with programs_of(spec, options) as programs:
        if programs is None:
            print("The spec has no programs.")
            return 0
        built = programs.export(_all(spec, programs), options.output)
    print(f"{built} objects in {options.output}; nodes take them with --objects {options.output}.")
    return 0


def _resolved(spec: Spec) -> dict[str, Device]:
    """The devices as on a kernel that can do everything."""
    from nkform.features import FEATURES
    from nkform.model import RootDevice
    from nkform.plan.computed import read_from
    from nkform.plan.preconditions import ETHERNET_MTU
    from nkform.plan.resolve import resolve

    root_devices = {name: RootDevice(0, 0, mtu=ETHERNET_MTU) for name in read_from(spec.node, {})}
    return dict(resolve(spec.node, FEATURES, root_devices).devices)


def _all(spec: Spec, programs: Programs) -> Iterator[tuple[Device, str, Program]]:
    for device in _resolved(spec).values():
        whole, _ = programs.resolve(device)
        for hook, chain in whole.chains.items():
            for program in chain.programs:
                yield whole, hook, program
