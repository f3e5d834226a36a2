"""How much the tests do where that is a choice: a column a place, so that `make test` and the campaign can be compared.

Touches nothing. NKFORM_LAB is the name of the lab's kernel (tools/lab sets it), NKFORM_CAMPAIGN=1 asks for the
campaign's sizes (tools/campaign.py sets it), NKFORM_SEED begins its random tests elsewhere.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

LAB = os.environ.get("NKFORM_LAB", "")
"""The lab's kernel that the tests run on; empty on the machine's own."""

EMULATED = LAB in ("newest", "6.12", "6.1")
"""QEMU emulates the processor: all takes ten to twenty times as long. User-Mode Linux runs natively."""

CAMPAIGN = os.environ.get("NKFORM_CAMPAIGN") == "1"
SEED = int(os.environ.get("NKFORM_SEED", "1"))


@dataclass(frozen=True)
class Sizes:
    """How often, how many, how much."""

    attacked_changes: int
    """Random changes of each kind of pair that are attacked, in parts that can run side by side."""
    attacked_parts: int
    every_call: bool
    """Each call of an attacked change is struck, rather than one of each action."""
    stride: int
    """Of an attacked change's actions, every which one is struck."""
    killed_calls: int
    """Of the calls of a run that has grace periods expedited, every which one it is killed before."""
    converging_specs: int
    """Random pairs of specs, from one to the other."""
    walk_steps: int
    """Steps of a random walk from spec to spec, with failures, kills and ways back."""
    flood_packets: int
    flood_changes: int
    """At least so many of each while packets run."""
    filter_reorders: int
    """Changes of a chain of clsact filters, whose priorities run out."""
    kills: int
    """Runs killed at a random moment."""
    applies_at_once: int
    cycles: int
    """Times that a spec is applied and destroyed."""
    busy_rounds: int
    busy_pairs: int
    """On a node whose links others make and delete all the time."""
    many_pairs: int
    """Devices that have just come up when a plan is made."""
    fuzz_cases: int
    """Mutated specs that are loaded."""


NATIVE = Sizes(
    attacked_changes=20,
    attacked_parts=4,
    every_call=False,
    stride=1,
    killed_calls=1,
    converging_specs=60,
    walk_steps=40,
    flood_packets=30_000,
    flood_changes=12,
    filter_reorders=12,
    kills=20,
    applies_at_once=20,
    cycles=40,
    busy_rounds=2,
    busy_pairs=60,
    many_pairs=400,
    fuzz_cases=5_000,
)
"""`make test`, on the machine's own kernel."""

UML = replace(
    NATIVE,
    killed_calls=5,
    flood_packets=10_000,
    filter_reorders=4,
    kills=10,
    applies_at_once=8,
    cycles=20,
    many_pairs=100,
)
"""`make test`, in User-Mode Linux: native speed, but one processor, and system calls cost more."""

UML_OLDER = replace(
    UML,
    attacked_changes=4,
    attacked_parts=2,
    converging_specs=20,
    walk_steps=10,
    flood_packets=3_000,
    cycles=5,
)
"""`make test`, in User-Mode Linux with an older kernel than the newest."""

QEMU = replace(
    UML,
    attacked_changes=10,
    attacked_parts=1,
    stride=6,
    converging_specs=4,
    walk_steps=4,
    flood_packets=5_000,
    kills=6,
    applies_at_once=6,
    cycles=10,
    busy_pairs=30,
    many_pairs=30,
)
"""On emulated kernels."""

THOROUGH = Sizes(
    attacked_changes=120,
    attacked_parts=12,
    every_call=True,
    stride=1,
    killed_calls=1,
    converging_specs=1_000,
    walk_steps=2_000,
    flood_packets=1_000_000,
    flood_changes=36,
    filter_reorders=48,
    kills=200,
    applies_at_once=20,
    cycles=1_000,
    busy_rounds=6,
    busy_pairs=60,
    many_pairs=1_200,
    fuzz_cases=250_000,
)
"""The campaign, wherever it runs."""

SIZES = THOROUGH if CAMPAIGN else QEMU if EMULATED else NATIVE if not LAB else UML if LAB == "uml" else UML_OLDER
