"""What one guest is to do, and the archive (an initial RAM disk) that tells it so.

Both kinds of machine, lab_qemu.py and lab_uml.py, boot a kernel with such an archive; its scripts are in lab-guest/.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

from debian_archive import CHECKOUT
from lab_kernels import Kernel
from lab_witness import cached_witness

GUEST_SCRIPTS = CHECKOUT / "tools" / "lab-guest"
BUSYBOX = Path("/bin/busybox")

# The guest gets these variables of the caller's environment (name or prefix).
PASSED_ENVIRONMENT = re.compile(
    r"PATH|HOME|USER|LANG|LC_.*|TERM|COLUMNS|CI|NO_COLOR|FORCE_COLOR|PYTEST_.*|HYPOTHESIS_.*|NKFORM_.*|XDG_.*_HOME|BCC_.*"
)


@dataclass(frozen=True)
class Job:
    """What one guest does."""

    kernel: Kernel
    command: tuple[str, ...]
    memory: str = "4G"
    timeout: float = 1800  # seconds
    shares: tuple[Path, ...] = (CHECKOUT,)
    environment: tuple[str, ...] = ()  # NAME or NAME=VALUE
    terminal: bool = False
    verbose: bool = False


def guest_environment(job: Job) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if PASSED_ENVIRONMENT.fullmatch(name)}
    environment["NKFORM_LAB"] = job.kernel.name
    environment["TMPDIR"] = (
        "/var/tmp"  # in memory; /tmp is a layer over the host's, which is slow and full of others' files
    )
    if witness := cached_witness():
        environment["NKFORM_IP"] = str(witness / "ip")
        environment["NKFORM_BPFTOOL"] = str(witness / "bpftool")
    for item in job.environment:
        name, given, value = item.partition("=")
        environment[name] = value if given else os.environ.get(name, "")
    return environment


def cpio(files: dict[str, bytes | int]) -> bytes:
    """A cpio archive, "newc" as in the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.

    Names map to contents; a number stands for a folder with that mode.
    """
    out = bytearray()
    for number, (name, content) in enumerate([*files.items(), ("TRAILER!!!", b"")]):
        mode, data = (0o040000 | content, b"") if isinstance(content, int) else (0o100755, content)
        header = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        out += b"070701" + b"".join(b"%08x" % field for field in header) + name.encode() + b"\0"
        out += b"\0" * (-len(out) % 4) + data
        out += b"\0" * (-len(out) % 4)
    return bytes(out)


def boot_files() -> dict[str, bytes | int]:
    """The files that every guest boots from: busybox, and boot.sh as the first process."""
    folders = ("bin", "proc", "sys", "dev", "lower", "upper", "root")
    return {
        **dict.fromkeys(folders, 0o755),
        "bin/busybox": BUSYBOX.read_bytes(),
        "init": (GUEST_SCRIPTS / "boot.sh").read_bytes(),
    }


def job_files(job: Job, variables: dict[str, str]) -> dict[str, bytes | int]:
    """The files that say what this run does. `variables` are what the scripts want to know of the machine."""
    variables = variables | {
        "SHARES": " ".join(map(str, job.shares)),
        "HOSTNAME": f"lab-{job.kernel.name.replace('.', '-')}",
        "TTY": "yes" if job.terminal else "",
    }
    script = [
        f"export {name}={shlex.quote(value)}" for name, value in guest_environment(job).items() if name.isidentifier()
    ]
    if job.terminal:
        columns, rows = shutil.get_terminal_size()
        script.append(f"/run/lab/busybox stty rows {rows} cols {columns}")
    script += [f"cd {shlex.quote(str(Path.cwd()))}", f"exec {shlex.join(job.command)}"]
    return {
        "job": 0o755,
        "job/vars": "".join(f"{name}={shlex.quote(value)}\n" for name, value in variables.items()).encode(),
        "job/command": "\n".join([*script, ""]).encode(),
        "job/init.sh": (GUEST_SCRIPTS / "init.sh").read_bytes(),
    }
