"""Strikes at a run, at one of the calls by which it changes something: the call fails, or is never made for a SIGKILL.

Finer than between actions: a request of a batch fails while those around it are carried out, a link is attached and not
yet pinned, a file is written and not yet in its place.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import pytest

from nkform.apply import transaction
from nkform.kernel import bpf, netns, rcu, sysctl
from nkform.kernel.bpf import Buffer, Command
from nkform.kernel.clsact import Tc
from nkform.kernel.error import KernelError
from nkform.kernel.netlink import Message, Request, Socket
from nkform.kernel.sysfs import Interfaces

ERRNO = errno.ENOMEM
NOWHERE = -1
"""A place that no call has: they are only counted."""

COMMANDS = {
    Command.MAP_CREATE, Command.MAP_UPDATE_ELEM, Command.MAP_DELETE_ELEM, Command.MAP_UPDATE_BATCH,
    Command.MAP_DELETE_BATCH, Command.PROG_LOAD, Command.OBJ_PIN, Command.LINK_CREATE, Command.LINK_UPDATE,
    Command.LINK_DETACH,
}  # fmt: skip
FILES = ("mkdir", "unlink", "rename", "rmdir", "fsync")
MOUNTS = ("mount", "umount2", "unshare")
"""Of libc. Not setns: nothing can keep a process from returning to a namespace that it holds open."""


@dataclass
class Injection:
    """What became of one: the call that was `struck`, if the run came to it. `made`: all of them until then.

    `place` is the number of the call, or part of what it is called: the first one that has it. `ends`: how many calls
    were made by the end of each action.
    """

    place: int | str
    kill: bool
    armed: bool = False
    made: list[str] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    hit: str = ""

    def at(self, call: str) -> bool:
        """Whether a call is the one; it is the last one of a process that is to be killed."""
        if not self.armed:
            return False
        self.made.append(call)
        if not self.is_next(len(self.made) - 1, call):
            return False
        if self.kill:
            os.kill(os.getpid(), signal.SIGKILL)
        self.hit = call
        return True

    def by_action(self) -> list[range]:
        """The calls of each action: of actions that are carried out in one batch, a like share each.

        An action that finds nothing to do makes no call.
        """
        found: list[range] = []
        start = 0
        for end, batch in groupby(self.ends):
            many = len(list(batch))
            found += (
                range(start + (end - start) * number // many, start + (end - start) * (number + 1) // many)
                for number in range(many)
            )
            start = end
        return [calls for calls in found if calls]

    def is_next(self, number: int, call: str) -> bool:
        """Whether a call of that number is the one."""
        if isinstance(self.place, str):
            return not self.hit and self.place in call
        return number == self.place


@contextlib.contextmanager
def injected(place: int | str, *, kill: bool = False) -> Iterator[Injection]:
    """Within the block, from the moment on that a run begins, that call fails or is not come to."""
    injection = Injection(place, kill)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bpf, "call", _bpf(injection, bpf.call))
        patch.setattr(Socket, "ask", _ask(injection, Socket.ask))
        patch.setattr(sysctl, "write", _write(injection, sysctl.write))
        patch.setattr(Interfaces, "set_group", _group(injection, Interfaces.set_group))
        patch.setattr(rcu, "write", _expedite(injection, rcu.write))
        for name in FILES:
            patch.setattr(os, name, _file(injection, name, getattr(os, name)))
        patch.setattr(netns, "_libc", _Libc(injection, netns._libc))
        patch.setattr(Tc, "__init__", _tc(injection, Tc.__init__))
        patch.setattr(transaction, "apply", _apply(injection, transaction.apply))
        patch.setattr(transaction._Steps, "done", _done(injection, transaction._Steps.done))
        yield injection


def _apply(injection: Injection, genuine: Callable[..., Any]) -> Callable[..., Any]:
    def apply(*words: Any, **named: Any) -> Any:
        injection.armed = True
        return genuine(*words, **named)

    return apply


def _done(injection: Injection, genuine: Callable[..., None]) -> Callable[..., None]:
    def done(self: Any, action: Any) -> None:
        genuine(self, action)
        injection.ends.append(len(injection.made))

    return done


def _bpf(injection: Injection, genuine: Callable[[int, Buffer, int], int]) -> Callable[[int, Buffer, int], int]:
    def call(command: int, attr: Buffer, size: int) -> int:
        if command in COMMANDS and injection.at(f"bpf {Command(command).name}"):
            return -ERRNO
        return genuine(command, attr, size)

    return call


Asked = tuple[list[KernelError | None], dict[int, list[Message]]]


def _ask(
    injection: Injection, genuine: Callable[[Socket, Sequence[Request]], Asked]
) -> Callable[[Socket, Sequence[Request]], Asked]:
    def ask(self: Socket, requests: Sequence[Request]) -> Asked:
        place = None
        for number, request in enumerate(requests):
            if request.kind % 4 == 2:  # RTM_GET…
                continue
            if injection.kill and injection.armed and injection.is_next(len(injection.made), request.asked):
                genuine(self, requests[:number])  # what stands before it in the batch is carried out
            if injection.at(request.asked):
                place = number
        if place is None:
            return genuine(self, requests)
        outcomes, answers = genuine(self, [*requests[:place], *requests[place + 1 :]])
        outcomes.insert(place, KernelError(ERRNO, requests[place].asked))
        return outcomes, {number + (number >= place): some for number, some in answers.items()}

    return ask


def _write(injection: Injection, genuine: Callable[[str, str, str], None]) -> Callable[[str, str, str], None]:
    def write(interface: str, key: str, value: str) -> None:
        if injection.at(asked := f"set sysctl {key} of {interface} to {value}"):
            raise KernelError(ERRNO, asked)
        genuine(interface, key, value)

    return write


def _group(
    injection: Injection, genuine: Callable[[Interfaces, int, str, int], None]
) -> Callable[[Interfaces, int, str, int], None]:
    def set_group(self: Interfaces, index: int, name: str, group: int) -> None:
        if injection.at(asked := f"put {name} into group {group} by its file"):
            raise KernelError(ERRNO, asked)
        genuine(self, index, name, group)

    return set_group


def _expedite(injection: Injection, genuine: Callable[[int], None]) -> Callable[[int], None]:
    def write(value: int) -> None:
        if injection.at(asked := f"expedite grace periods: {value}"):
            raise KernelError(ERRNO, asked)
        genuine(value)

    return write


def _file(injection: Injection, name: str, genuine: Callable[..., Any]) -> Callable[..., Any]:
    def call(*words: Any, **named: Any) -> Any:
        if injection.at(f"{name} {words[0]}"):
            raise OSError(ERRNO, os.strerror(ERRNO))
        return genuine(*words, **named)

    return call


class _Libc:
    """libc, of which some functions can fail."""

    def __init__(self, injection: Injection, genuine: Any) -> None:
        self._injection = injection
        self._genuine = genuine

    def __getattr__(self, name: str) -> Any:
        genuine = getattr(self._genuine, name)

        def call(*words: Any) -> Any:
            if self._injection.at(name):
                ctypes.set_errno(ERRNO)
                return -1
            return genuine(*words)

        return call if name in MOUNTS else genuine


class _Route:
    """pyroute2's way to legacy tc, whose changes can fail."""

    def __init__(self, injection: Injection, genuine: Any) -> None:
        self._injection = injection
        self._genuine = genuine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._genuine, name)

    def tc(self, command: str, *words: Any, **named: Any) -> Any:
        from pyroute2.netlink.exceptions import NetlinkError

        if self._injection.at(f"tc {command}"):
            raise NetlinkError(ERRNO)
        return self._genuine.tc(command, *words, **named)


def _tc(injection: Injection, genuine: Callable[[Tc], None]) -> Callable[[Tc], None]:
    def init(self: Tc) -> None:
        genuine(self)
        self._route = _Route(injection, self._route)

    return init
