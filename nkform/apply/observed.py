"""Programs that were only observed, not declared: what is on record of them, and how they are loaded again."""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from nkform.kernel.error import KernelError
from nkform.kernel.hardware import index_of
from nkform.model import Device, Explanation, Program
from nkform.observe.explanations import Known

if TYPE_CHECKING:
    from nkform.bpf.again import Again
    from nkform.bpf.loader import Loaded


class Observed:
    """What makes such programs again, of what is `explained`. Close it."""

    def __init__(self, explained: Iterable[Explanation]) -> None:
        self._known = Known(explained)
        self._again: Again | None = None

    def is_stale(self, device: str, hook: str, program: Program, anew: Collection[str]) -> bool:
        """Whether a program knows ifindexes that are not those of its devices any more; `anew` are made anew."""
        explanation = self._known.get(device, hook, program.name, program.digest)
        if explanation is None:
            return False
        if explanation.bound and device in anew:
            return True
        try:
            return any(index_of(name) != index for name, index in explanation.named.items())
        except KernelError:  # a device that it names is gone; loading it says so
            return True

    def load(
        self,
        device: Device,
        hook: str,
        program: Program,
        maps: Mapping[str, int],
        indexes: tuple[int, int],
        *,
        alone: bool,
    ) -> Loaded:
        """Loads a program again, as nkform.bpf.again does. Raises KernelError (ENOENT: nobody knows what it was made
        of), NkformError."""
        explanation = self._known.get(device.name, hook, program.name, program.digest)
        if explanation is None:
            told = "it is not loaded any more, and nobody knows what it was made of"
            raise KernelError(errno.ENOENT, f"find the program {program.name} of {device.name}", told)
        if self._again is None:
            from nkform.bpf.again import Again

            self._again = Again()
        return self._again.load(explanation, device, hook, program, maps, indexes, alone=alone)

    def close(self) -> None:
        if self._again is not None:
            self._again.close()
            self._again = None
