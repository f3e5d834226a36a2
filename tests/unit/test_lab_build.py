"""Building kernels for the lab: the edits of the source, what names a build, and what a killed builder leaves."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from debian_archive import ToolError, appearing, locked, remove_leftovers
from lab_build import OPTIONS, TAIL, Recipe, options, ready, recipe, supervised
from lab_edits import FLOATING_POINT_STATE, INTERRUPT_WORK, TYPE_INFORMATION, Append, Replace, apply_edits
from lab_kernels import KEPT, KERNELS, Built, kernel_folder, remove_old

TOOLS = Path(__file__).parents[2] / "tools"
root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

TIMER = """\
#include <linux/interrupt.h>

static int um_timer(int irq, void *dev)
{
	return irq + *(int *)dev;
}

static u64 timer_read(struct clocksource *cs)
{
	return 0;
}

static void setup(void)
{
	request_irq(TIMER_IRQ, um_timer, 0);
}
"""
# What the file takes from elsewhere in a kernel, so that it compiles alone: what is called is counted.
HEADER = """\
#include <stdbool.h>
typedef unsigned long long u64;
typedef int irqreturn_t;
struct clocksource;
#define TIMER_IRQ 7
static int (*handler)(int irq, void *dev);
static void request_irq(int irq, int (*new_handler)(int irq, void *dev), int flags) { handler = new_handler; }
"""
WORK_HEADER = """\
void arch_irq_work_raise(void);
static int delivered, worked;
static void irq_work_run(void) { worked++; }
static void deliver_alarm(void) { int one = 1; delivered++; handler(TIMER_IRQ, &one); }
"""
MAIN = """
#include <stdio.h>
int main(void)
{
	int one = 1;
	setup();
	(void)timer_read;
	arch_irq_work_raise();
	printf("%d %d, ", delivered, worked);
	printf("%d, ", handler(TIMER_IRQ, &one));
	arch_irq_work_raise();
	printf("%d %d\\n", delivered, worked);
}
"""


def timer_source(folder: Path, text: str = TIMER) -> tuple[Path, Path]:
    file = folder / "arch/um/kernel/time.c"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    return folder, file


def test_the_timer_does_the_work_that_waits_for_an_interrupt(tmp_path: Path) -> None:
    folder, file = timer_source(tmp_path / "source")
    apply_edits(folder, INTERRUPT_WORK)
    include = tmp_path / "include/linux"
    include.mkdir(parents=True)
    (include / "interrupt.h").write_text(HEADER)
    (include / "irq_work.h").write_text(WORK_HEADER)
    program = tmp_path / "program.c"
    program.write_text(f'#include "{file}"\n{MAIN}')
    compile_it = ("clang", "-Wall", "-Werror", f"-I{tmp_path}/include", "-o", tmp_path / "program", program)
    subprocess.run(compile_it, check=True)
    printed = subprocess.run(tmp_path / "program", capture_output=True, text=True, check=True).stdout
    # Nothing before the timer has fired by itself (with what um_timer returns); then one more at once.
    assert printed == "0 0, 8, 1 2\n"


@pytest.mark.parametrize("edit", INTERRUPT_WORK, ids=lambda edit: edit.old.strip()[:20])
@pytest.mark.parametrize("times", [0, 2])
def test_a_source_that_has_changed_is_refused(tmp_path: Path, edit: Replace, times: int) -> None:
    folder, file = timer_source(tmp_path, TIMER.replace(edit.old, edit.old * times))
    with pytest.raises(
        ToolError, match=rf"arch/um/kernel/time\.c has {times} times, not once: .*lab_edits\.py"
    ) as error:
        apply_edits(folder, [edit])
    assert edit.old.strip() in str(error.value)
    assert "lab_timer" not in file.read_text()


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match=r"has no arch/x86/um/user-offsets\.c"):
        apply_edits(tmp_path, FLOATING_POINT_STATE)


def test_what_is_added_to_a_makefile_is_its_last_line(tmp_path: Path) -> None:
    for edit in TYPE_INFORMATION:
        assert isinstance(edit, Append)
        file = tmp_path / edit.file
        file.parent.mkdir(parents=True)
        file.write_text("obj-y += verifier.o")
    apply_edits(tmp_path, TYPE_INFORMATION)
    texts = [(tmp_path / edit.file).read_text() for edit in TYPE_INFORMATION]
    assert texts == ["obj-y += verifier.o\nsubdir-ccflags-y += -gdwarf-4\n"] * 2


def test_every_kernel_that_is_built_has_a_recipe() -> None:
    names = [name for name, source in KERNELS.items() if isinstance(source, Built)]
    assert names == ["uml", "uml-6.12"]
    for name in names:
        assert {"CONFIG_NETKIT=y", "CONFIG_HOSTFS=y"} <= options(recipe(name).configuration)


def test_a_build_is_named_by_all_that_goes_into_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Recipe("CONFIG_NETKIT=y\n", INTERRUPT_WORK)
    digests = [
        made.digest("gcc 12"),
        made.digest("gcc 14"),
        replace(made, configuration="CONFIG_NETKIT=n\n").digest("gcc 12"),
        replace(made, edits=(*INTERRUPT_WORK, *FLOATING_POINT_STATE)).digest("gcc 12"),
    ]
    monkeypatch.setattr("lab_build.OPTIONS", (*OPTIONS, "V=1"))
    digests.append(made.digest("gcc 12"))
    assert len(set(digests)) == len(digests)
    monkeypatch.undo()
    assert Recipe("CONFIG_NETKIT=y\n", tuple(INTERRUPT_WORK)).digest("gcc 12") == digests[0]


def test_options_are_those_that_are_on() -> None:
    text = 'CONFIG_NET=y\n# CONFIG_USB is not set\nCONFIG_SSL=n\nCONFIG_CON_CHAN="null"\nnot CONFIG_AIO=y\n'
    assert options(text) == {"CONFIG_NET=y", 'CONFIG_CON_CHAN="null"'}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = kernel_folder("uml")
    folder.mkdir(parents=True)
    return folder


def build(cache: Path, version: str, digest: str, age: float) -> None:
    """A kernel that was used `age` seconds ago."""
    folder = cache / f"{version}-{digest}"
    folder.mkdir()
    (folder / "release").write_text(f"{version} {digest}\n")
    os.utime(folder, (time.time() - age,) * 2)


def test_only_a_kernel_made_the_same_way_is_used(cache: Path) -> None:
    build(cache, "7.3.4-1", "aaa", 300)
    build(cache, "7.3.4-1", "bbb", 200)
    build(cache, "7.3.5-1", "bbb", 100)
    build(cache, "7.2.1-1~bpo13+1", "ccc", 50)

    def releases(digest: str, version: str = "") -> str:
        kernel = ready("uml", digest, version)
        return kernel.release if kernel else "none"

    assert releases("bbb") == "7.3.5-1 bbb"  # any version will do: the one used last
    assert releases("bbb", "7.3.4-1") == "7.3.4-1 bbb"
    assert releases("aaa", "7.3.5-1") == "none"
    assert releases("ccc", "7.2.1-1~bpo13+1") == "7.2.1-1~bpo13+1 ccc"
    assert time.time() - (cache / "7.3.4-1-bbb").stat().st_mtime < 60  # having been asked for counts as use


def test_those_not_used_for_longest_are_removed(cache: Path) -> None:
    for number in range(KEPT + 2):
        build(cache, "7.3.4-1", f"d{number}", 100 * number)
    (cache / "checked").touch()
    remove_old("uml")
    assert sorted(path.name for path in cache.iterdir()) == [*(f"7.3.4-1-d{n}" for n in range(KEPT)), "checked"]


def test_what_a_killed_builder_left_is_removed(cache: Path) -> None:
    build(cache, "7.3.4-1", "aaa", 0)
    with contextlib.suppress(KeyError), appearing(cache / "7.3.5-1-aaa") as work:
        shutil.copytree(work, cache / ".new-killed")  # SIGKILL leaves just that
        raise KeyError
    assert sorted(path.name for path in cache.iterdir()) == [".new-killed", "7.3.4-1-aaa"]
    remove_leftovers(cache)
    assert [path.name for path in cache.iterdir()] == ["7.3.4-1-aaa"]


@pytest.fixture
def held_lock(cache: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock `kernel-uml`, until it is killed."""
    script = (
        "import time, debian_archive\n"
        "with debian_archive.locked('kernel-uml'): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen((sys.executable, "-c", script), cwd=TOOLS, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield holder
        holder.kill()


def test_a_second_builder_says_that_it_waits(
    held_lock: subprocess.Popen[str], capfd: pytest.CaptureFixture[str]
) -> None:
    script = "import debian_archive\nwith debian_archive.locked('kernel-uml', 'waiting for it'): print('mine')"
    with subprocess.Popen((sys.executable, "-c", script), cwd=TOOLS, stderr=subprocess.PIPE, text=True) as second:
        assert second.stderr is not None
        assert second.stderr.readline().endswith("waiting for it\n")
        assert second.poll() is None
        held_lock.kill()  # however the first one ends, the lock is free
        assert second.wait(10) == 0
    assert capfd.readouterr().out == "mine\n"


def test_a_lock_that_is_free_is_taken_in_silence(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with locked("kernel-uml", "waiting for it"):
        pass
    assert capsys.readouterr().err == ""


@root
def test_a_command_that_fails_shows_the_end_of_its_output(tmp_path: Path) -> None:
    with pytest.raises(ToolError) as error:
        supervised(tmp_path, "sh", "-c", "seq 100; echo at last >&2; exit 7")
    lines = str(error.value).splitlines()
    assert lines[0] == "sh failed with exit code 7; the end of its output:"
    assert lines[1:] == [*map(str, range(100 - TAIL + 2, 101)), "at last"]


@root
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM], ids=lambda sent: sent.name)
def test_a_builder_that_is_killed_takes_its_compilers_with_it(tmp_path: Path, sent: signal.Signals) -> None:
    """Its children's children too, that nobody waits for."""
    mark = f"lab-test-{os.getpid()}-{sent.name}"
    sleeper = f"bash -c 'exec -a {mark} sleep 300'"
    command = f"{sleeper} & {sleeper}"
    script = (
        f"import lab_build, pathlib\nlab_build.supervised(pathlib.Path({str(tmp_path)!r}), 'bash', '-c', {command!r})"
    )
    with subprocess.Popen((sys.executable, "-c", script), cwd=TOOLS) as builder:
        wait_for(lambda: len(named(mark)) >= 2)
        builder.send_signal(sent)
        builder.wait()
    wait_for(lambda: named(mark) == [])


def named(mark: str) -> list[str]:
    """The processes whose name is `mark`."""
    return subprocess.run(("pgrep", "-f", f"^{mark}"), capture_output=True, text=True, check=False).stdout.split()


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
