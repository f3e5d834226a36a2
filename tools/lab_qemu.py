"""The machine that boots Debian's own kernels: QEMU, emulated where the processor has no virtualisation."""

from __future__ import annotations

import hashlib
import lzma
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from lab_job import BUSYBOX, GUEST_SCRIPTS, Job, boot_files, cpio, job_files
from lab_kernels import PackagedKernel

# What the initial RAM disk must load to see the host's files; some kernels have part of it built in.
BOOT_MODULES = ("virtio_pci", "virtio_console", "virtio_rng", "9pnet_virtio", "9p", "overlay")

# Without the first ones an emulated kernel is a third slower, and a lab needs no protection from its own processor. The
# last ones make a dead kernel say so and stop instead of hanging on.
KERNEL_ARGUMENTS = (
    "console=ttyS0 mitigations=off nokaslr nopti init_on_alloc=0 audit=0 nowatchdog cryptomgr.notests "
    "rcupdate.rcu_cpu_stall_suppress=1 oops=panic panic=-1"
)


def initrd(job: Job, kernel: PackagedKernel) -> bytes:
    """The initial RAM disk: what is the same for every run on the kernel, made once, and this run's job."""
    files = job_files(job, {"MACHINE": "qemu", "MODULES": str(kernel.modules)})
    return boot_archive(kernel) + cpio(files)


def boot_archive(kernel: PackagedKernel) -> bytes:
    parts = [BUSYBOX.read_bytes(), (GUEST_SCRIPTS / "boot.sh").read_bytes(), repr(BOOT_MODULES).encode()]
    digest = hashlib.sha256(b"\0".join(parts)).hexdigest()[:12]
    file = kernel.folder / f"boot-{digest}.cpio"
    if not file.exists():
        modules = boot_modules(kernel)
        files = boot_files() | {"modules": 0o755}
        files |= {f"modules/{path.name.removesuffix('.xz')}": read_module(path) for path in modules}
        files["modules/order"] = "".join(f"{path.name.removesuffix('.xz')}\n" for path in modules).encode()
        with tempfile.NamedTemporaryFile(dir=kernel.folder, delete=False) as work:
            work.write(cpio(files))
        Path(work.name).rename(file)
    return file.read_bytes()


def boot_modules(kernel: PackagedKernel) -> list[Path]:
    """The files of the modules that booting needs, each after those it depends on."""
    folder = kernel.modules / kernel.release
    depends: dict[str, tuple[Path, list[str]]] = {}
    for line in (folder / "modules.dep").read_text().splitlines():
        path, _, rest = line.partition(":")
        depends[module_name(path)] = (folder / path, [module_name(word) for word in rest.split()])
    order: list[Path] = []

    def add(name: str) -> None:
        if name in depends:  # else it is built in
            path, needs = depends[name]
            for need in needs:
                add(need)
            if path not in order:
                order.append(path)

    for name in BOOT_MODULES:
        add(name)
    return order


def module_name(path: str) -> str:
    return Path(path).name.split(".")[0].replace("-", "_")


def read_module(path: Path) -> bytes:
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data


def has_hardware_virtualization() -> bool:
    """Whether KVM can work here. A /dev/kvm alone is no proof: some machines show one that their processor lacks."""
    flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return bool(flags and {"vmx", "svm"} & set(flags[1].split())) and os.access("/dev/kvm", os.R_OK | os.W_OK)


def command(job: Job, kernel: PackagedKernel, files: Mapping[str, int]) -> list[str]:
    """QEMU's arguments; `files` are the descriptors of the initial RAM disk and of where the guest's output goes."""
    paths = {name: f"/proc/self/fd/{number}" for name, number in files.items()}
    arguments = KERNEL_ARGUMENTS + (" ignore_loglevel" if job.verbose else " loglevel=5")
    command = ["setpriv", "--pdeathsig", "KILL"]  # a lab that is killed takes its guest with it
    command += ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    # One processor only: with two, emulation runs into the kernel's self-patching code in most boots.
    command += ["-machine", "q35", "-smp", "1", "-m", job.memory]
    command += ["-accel", "kvm", "-cpu", "host"] if has_hardware_virtualization() else ["-accel", "tcg", "-cpu", "max"]
    command += ["-kernel", str(kernel.image), "-initrd", paths["initrd"], "-append", arguments]
    for tag, path, mode in [
        ("root", Path("/"), ",readonly=on"),
        *((f"share{number}", path, "") for number, path in enumerate(job.shares)),
    ]:
        command += ["-fsdev", f"local,id={tag},path={path},security_model=passthrough,multidevs=remap{mode}"]
        command += ["-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]
    command += ["-device", "virtio-rng-pci"]
    command += ["-chardev", f"file,id=console,path={paths['console']}", "-serial", "chardev:console"]
    command += ["-device", "virtio-serial-pci"]
    for name in ("ctl", "out", "err"):
        command += ["-chardev", f"file,id={name},path={paths[name]}"]
        command += ["-device", f"virtserialport,chardev={name},name={name}"]
    if job.terminal:
        command += ["-chardev", "stdio,id=tty,signal=off", "-serial", "chardev:tty"]  # /dev/ttyS1
    return command
