"""Fetches kernels out of Debian's packages into the cache, where they are unpacked and nothing is installed."""

from __future__ import annotations

import re
import shutil

from debian_archive import Suite, ToolError, appearing, call, fresh, install, locked, note, remove_leftovers
from lab_kernels import KERNELS, Packaged, PackagedKernel, cached_kernels, find_package, kernel_folder, remove_old


def fetch_kernel(name: str) -> PackagedKernel:
    """The newest kernel of that name; downloaded only when the package lists, a day old at most, have a newer one."""
    source = KERNELS[name]
    assert isinstance(source, Packaged)
    folder = kernel_folder(name)
    checked = folder / "checked"
    with locked(f"kernel-{name}", f"another lab fetches the kernel {name}; waiting for it"):
        if fresh(checked) and (kernel := last_used(name)):
            return kernel
        try:
            suite, package, version = find_package(source, "linux-image-amd64", r"linux-image-\d\S*")
        except ToolError as error:
            if kernel := last_used(name):
                note(f"{error}; going on with the kernel that is here, {kernel.release}")
                return kernel
            raise
        target = folder / version
        if not target.exists():
            note(f"fetching Linux {version} of Debian {suite.name}")
            install("apt-lab-qemu.txt")
            remove_leftovers(folder)
            with appearing(target) as work:
                # Both layouts of the packages, /lib/modules and /usr/lib/modules, end up in one folder.
                (work / "usr/lib").mkdir(parents=True)
                (work / "lib").symlink_to("usr/lib")
                suite.unpack(kernel_packages(suite, package), work)
                for unused in ("usr/share", "usr/lib/linux-image-*"):
                    for path in work.glob(unused):
                        shutil.rmtree(path)
                call("/sbin/depmod", "-b", work, PackagedKernel(name, work).release)
            remove_old(name)
        target.touch()  # the newest of those that are here, also where it came back from being the second
        checked.touch()
        return PackagedKernel(name, target)


def last_used(name: str) -> PackagedKernel | None:
    kernels = [kernel for kernel in cached_kernels(name) if isinstance(kernel, PackagedKernel)]
    return kernels[0] if kernels else None


def kernel_packages(suite: Suite, image: str) -> list[str]:
    """The packages that the kernel consists of: newer ones are split into binary, modules and base."""
    packages = [image]
    for package in packages:
        for part in re.findall(r"linux-(?:binary|modules|base)-\d[^\s,]*", suite.field(package, "Depends")):
            if part not in packages:
                packages.append(part)
    return packages
