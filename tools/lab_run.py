"""Runs a job in a guest: starts the machine that its kernel is for, relays, and leaves nothing of it behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess

import lab_qemu
import lab_uml
from lab_job import Job
from lab_kernels import BuiltKernel, PackagedKernel
from lab_relay import Relay, raw_terminal

STREAMS = ("console", "ctl", "out", "err")


def run(job: Job) -> int:
    """Boot, run the command, and return its exit code. ToolError when the guest dies or takes too long."""
    with contextlib.ExitStack() as stack:
        readers: dict[str, int] = {}
        writers: dict[str, int] = {}
        for name in STREAMS:
            readers[name], writers[name] = os.pipe()
            stack.callback(os.close, readers[name])
        # A file without a name: nothing is left behind, however this ends.
        writers["initrd"] = os.memfd_create("initrd", 0)
        match job.kernel:
            case PackagedKernel() as kernel:
                archive = lab_qemu.initrd(job, kernel)
                command = lab_qemu.command(job, kernel, writers)
            case BuiltKernel() as kernel:
                cpu = stack.enter_context(lab_uml.processor(sorted(os.sched_getaffinity(0))))
                archive = lab_uml.initrd(job)
                command = lab_uml.command(job, kernel, writers, cpu)
        with open(writers["initrd"], "wb", closefd=False) as initrd:
            initrd.write(archive)
        machine = subprocess.Popen(
            command,
            stdin=None if job.terminal else subprocess.DEVNULL,
            stdout=None if job.terminal else subprocess.DEVNULL,
            stderr=writers["console"],
            pass_fds=list(writers.values()),
            # A User-Mode Linux that dies kills its process group, which must not be the lab's.
            start_new_session=isinstance(job.kernel, BuiltKernel),
        )
        stack.callback(end, machine)
        for writer in writers.values():
            os.close(writer)
        if job.terminal:
            stack.enter_context(raw_terminal())
        return Relay(job, readers).run()


def end(machine: subprocess.Popen[bytes]) -> None:
    machine.send_signal(signal.SIGKILL)
    machine.wait()
