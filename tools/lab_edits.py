"""Edits of the kernel's source that User-Mode Linux needs here: lines of our own, put at places that are looked for.

Touches only the files below the folder that it is given. A place that is not there exactly once is an error: the source
has changed, and whether the edit still means the same is for a human to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from debian_archive import ToolError


@dataclass(frozen=True)
class Replace:
    """Puts `new` where the text `old` is in a file."""

    file: str
    old: str
    new: str

    def applied(self, text: str) -> str:
        if (count := text.count(self.old)) != 1:
            raise ToolError(
                f"the kernel's source has changed: {self.file} has {count} times, not once: {self.old.strip()!r}; "
                f"tools/lab_edits.py has to be adapted to it"
            )
        return text.replace(self.old, self.new)


@dataclass(frozen=True)
class Append:
    """Adds lines at the end of a file."""

    file: str
    lines: str

    def applied(self, text: str) -> str:
        return text.rstrip("\n") + "\n" + self.lines


Edit = Replace | Append


def before(file: str, place: str, lines: str) -> Replace:
    return Replace(file, place, lines + place)


def after(file: str, place: str, lines: str) -> Replace:
    return Replace(file, place, place + lines)


TIME = "arch/um/kernel/time.c"
INTERRUPT_WORK: tuple[Edit, ...] = (
    after(TIME, "#include <linux/interrupt.h>\n", "#include <linux/irq_work.h>\n"),
    before(
        TIME,
        "static u64 timer_read(struct clocksource *cs)\n",
        """static bool lab_timer_ran;

static irqreturn_t lab_timer(int irq, void *dev)
{
	lab_timer_ran = true;
	irq_work_run();
	return um_timer(irq, dev);
}

void arch_irq_work_raise(void)
{
	if (lab_timer_ran)
		deliver_alarm();
}

""",
    ),
    Replace(TIME, "request_irq(TIMER_IRQ, um_timer,", "request_irq(TIMER_IRQ, lab_timer,"),
)
"""Work that waits for an interrupt (kernel/irq_work.c) is done at once.

um has no interrupt of its own for it, so it waits for the tick, every 10 ms. BPF's allocator refills its lists that
way, and a loop that fills a map runs out of memory before the tick comes. Here the timer's interrupt, delivered as if
it had fired, does the work; not before it has fired once by itself, which is when the kernel is ready for it.
"""

FLOATING_POINT_STATE: tuple[Edit, ...] = (
    Replace(
        "arch/x86/um/user-offsets.c",
        "DEFINE_LONGS(HOST_FP_SIZE, 2696);",
        "DEFINE_LONGS(HOST_FP_SIZE, 12288);",
    ),
)
"""Room for the processor's floating point state, in bytes.

What is needed is CPUID leaf 0xd, EBX: 11008 on processors with AMX, where a kernel with less panics when it starts the
first process. Newer kernels ask the processor.
"""

TYPE_INFORMATION: tuple[Edit, ...] = tuple(
    Append(f"{folder}/Makefile", "subdir-ccflags-y += -gdwarf-4\n") for folder in ("kernel/bpf", "net/core")
)
"""Debugging information only where bpf(2) and its users are: BTF is made of it, and all the rest of it costs minutes.

The build itself says -g0 (lab_build.py); what a Makefile says comes later on the compiler's command line and wins.
"""


def apply_edits(source: Path, edits: Sequence[Edit]) -> None:
    for edit in edits:
        path = source / edit.file
        if not path.exists():
            raise ToolError(f"the kernel's source has no {edit.file}; tools/lab_edits.py has to be adapted to it")
        path.write_text(edit.applied(path.read_text()))
