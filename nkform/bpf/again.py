"""Programs that were observed, made again from what is on record of them: of the same template, or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nkform.bpf.catalogue import kept
from nkform.bpf.engines import AUTO
from nkform.bpf.facts import IN_SPECS, Facts, facts_of
from nkform.bpf.loader import Loaded
from nkform.bpf.programs import Programs, Source, changed
from nkform.dataclass import replace
from nkform.kernel import files
from nkform.model import Device, Explanation, Program
from nkform.problem import NkformError


class Again:
    """Loads programs again. Only the templates that it loads programs of are read. Close it."""

    def __init__(self) -> None:
        self._by_source: dict[tuple[str, str, str, str], Programs] = {}

    def load(
        self,
        explanation: Explanation,
        device: Device,
        hook: str,
        program: Program,
        maps: Mapping[str, int],
        indexes: tuple[int, int],
        *,
        alone: bool,
    ) -> Loaded:
        """Loads a program for a device that may have another ifindex than it had; else as Programs.load.

        Raises NkformError (NK0766: its template is not what it was), KernelError.
        """
        facts = _facts(explanation, device, hook)
        where = f"{hook} of {device.name}"
        programs = self._programs(explanation, f"{program.name} at {where}")
        return programs.load_again(explanation, facts, program, maps, indexes, alone=alone, where=where)

    def _programs(self, explanation: Explanation, program: str) -> Programs:
        """Those of the explanation's template, engine and objects."""
        key = (explanation.template, explanation.folder, explanation.engine, explanation.objects)
        if key not in self._by_source:
            try:
                template = kept(explanation)
            except NkformError as error:
                raise NkformError(changed(explanation, program), *error.problems) from error
            objects = Path(explanation.objects) if explanation.objects else None
            if objects is not None and not files.is_folder(objects):
                objects = None  # there may be a compiler by now, or what it made
            source = Source((), explanation.engine or AUTO, objects)
            self._by_source[key] = Programs(source, {explanation.template: template})
        return self._by_source[key]

    def close(self) -> None:
        for programs in self._by_source.values():
            programs.close()
        self._by_source = {}


def _facts(explanation: Explanation, device: Device, hook: str) -> Facts:
    """What the program knew of its device: as its spec said it, where the device itself may tell more."""
    said: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in explanation.facts.items()
    }
    unsaid: dict[str, Any] = {"mac": None, "peer_mac": None, "mtu": None, "addresses": (), "peer_addresses": ()}
    facts = replace(facts_of(device, hook), **{name: said.get(name, unsaid[name]) for name in IN_SPECS})
    return replace(facts, ifindexes=explanation.ifindexes)
