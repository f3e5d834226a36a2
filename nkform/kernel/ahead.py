"""Work that a thread of its own does ahead of whoever takes the results.

For system calls that take long and let others run meanwhile: while devices are made, and while one program waits to be
attached, others go through the verifier.
"""

from __future__ import annotations

import contextlib
import resource
import threading
from collections.abc import Callable, Mapping
from queue import SimpleQueue
from typing import Generic, TypeVar

K = TypeVar("K")
R = TypeVar("R")

AT_LEAST, AT_MOST = 16, 4096
"""How many results wait to be taken; each is a file descriptor."""


class Ahead(Generic[K, R]):
    """Calls the functions of `work` in order, and keeps what they return until it is taken. Leave the block to stop.

    The thread begins in the network namespace of its maker. `discard` is called for each result that nobody took.
    Where no thread can be had (RLIMIT_NPROC), nothing is done ahead.
    """

    def __init__(self, work: Mapping[K, Callable[[], R | None]], discard: Callable[[R], None]) -> None:
        self._work = work
        self._discard = discard
        self._coming = set(work)
        self._room = threading.Semaphore(_most())
        self._results: SimpleQueue[tuple[K, R | None, BaseException | None]] = SimpleQueue()
        self._kept: dict[K, tuple[R | None, BaseException | None]] = {}
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="nkform-ahead", daemon=True)

    def __enter__(self) -> Ahead[K, R]:
        try:
            self._thread.start()
        except RuntimeError:
            self._coming.clear()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        self._room.release()
        with contextlib.suppress(RuntimeError):  # it was never started
            self._thread.join()
        while not self._results.empty():
            key, result, error = self._results.get()
            self._kept[key] = result, error
        for result, _error in self._kept.values():
            if result is not None:
                self._discard(result)

    def take(self, key: K) -> R | None:
        """What came of a piece of work, once; None where there is none. Raises what the work raised."""
        if key not in self._coming:
            return None
        self._coming.remove(key)
        while key not in self._kept:
            other, result, error = self._results.get()
            self._kept[other] = result, error
            self._room.release()
        result, error = self._kept.pop(key)
        if error is not None:
            raise error
        return result

    def _run(self) -> None:
        for key, work in self._work.items():
            self._room.acquire()
            if self._stopped:
                return
            try:
                self._results.put((key, work(), None))
            except BaseException as error:
                self._results.put((key, None, error))


def _most() -> int:
    """A half of the files that this process may open (RLIMIT_NOFILE) is left to others."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return AT_MOST if limit == resource.RLIM_INFINITY else min(max(limit // 2, AT_LEAST), AT_MOST)
