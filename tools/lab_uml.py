"""The machine that needs no emulation: User-Mode Linux, a kernel that is a program of this machine.

It is fast when it stays on one processor (each system call of the guest's goes through two threads of the host's, and
unpinned takes up to three times as long), so guests that run at the same time take different processors.

Touches: lock files in /run/lock, one for each guest of a processor. All else that the kernel makes (its memory, a
folder with its process number) is in a mount namespace of its own and vanishes with it, however it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from lab_job import Job, boot_files, cpio, job_files
from lab_kernels import BuiltKernel

LOCKS = Path("/run/lock/nkform-lab")

# What the kernel's lines ttyS0 … are; lab-guest/init.sh knows the same order.
LINES = ("ctl", "out", "err")

# The guest's memory is a file below TMPDIR, which must allow PROT_EXEC and have the room: so it is a tmpfs of its own.
# The kernel is not the first process of its process namespace, because that one cannot kill itself when it panics.
SETTING = 'ulimit -c 0; mount -t tmpfs -o mode=700,size=0 tmpfs /dev/shm || exit; "$@"; exit $?'


@contextlib.contextmanager
def processor(cpus: Sequence[int], folder: Path = LOCKS) -> Iterator[int]:
    """The number of a processor that as few guests as possible are on, out of `cpus`; taken until the block ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "choice").open("w") as choice:
        fcntl.flock(choice, fcntl.LOCK_EX)
        users = {cpu: sum(held(path) for path in folder.glob(f"cpu{cpu}.*")) for cpu in cpus}
        cpu = min(cpus, key=lambda cpu: users[cpu])
        # With so many held, one more than that many has a free one among them.
        places = (lock(folder / f"cpu{cpu}.{number}") for number in range(users[cpu] + 1))
        place = next(place for place in places if place is not None)
    with place:
        yield cpu


def lock(path: Path) -> IO[str] | None:
    """A lock file, open and locked until it is closed; None when another process holds it."""
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def held(path: Path) -> bool:
    file = lock(path)
    if file is not None:
        file.close()
    return file is None


def initrd(job: Job) -> bytes:
    return cpio(boot_files() | job_files(job, {"MACHINE": "uml", "MODULES": ""}))


def command(job: Job, kernel: BuiltKernel, files: Mapping[str, int], cpu: int) -> list[str]:
    """The command line of the kernel; `files` are the descriptors of its initial RAM disk and of where output goes."""
    arguments = [f"mem={job.memory}", f"initrd=/proc/self/fd/{files['initrd']}", "uml_dir=/dev/shm", "umid=lab"]
    # Without ptrace where the kernel can; older ones take the word for a variable of init's.
    arguments += ["seccomp=auto", "oops=panic", "panic=-1", "ignore_loglevel" if job.verbose else "loglevel=5"]
    # Drivers that are built in make no devices unasked, as modules would not.
    arguments += ["dummy.numdummies=0", "ifb.numifbs=0", "bonding.max_bonds=0", "fb_tunnels=initns"]
    arguments += ["con=null", f"con0=null,fd:{files['console']}", "ssl=null"]
    arguments += [f"ssl{number}=null,fd:{files[name]}" for number, name in enumerate(LINES)]
    if job.terminal:
        arguments += [f"ssl{len(LINES)}=fd:0,fd:1"]
    setting = ["setpriv", "--pdeathsig", "KILL"]  # a lab that is killed takes its guest with it
    setting += ["taskset", "--cpu-list", str(cpu)]
    setting += ["unshare", "--mount", "--pid", "--fork", "--kill-child", "env", "TMPDIR=/dev/shm"]
    return [*setting, "sh", "-c", SETTING, "sh", str(kernel.image), *arguments]
