"""What a watch tells, and when it tries again after trouble. Pure: the time comes in."""

from __future__ import annotations

from nkform.dataclass import dataclass
from nkform.plan.drift import Difference
from nkform.problem import Problem

SHORTEST, LONGEST = 1.0, 300.0
"""Seconds between one try to mend and the next: doubled each time, to at most five minutes."""
FOUGHT = 3.0
"""Seconds within which the same drift again means that something works against us."""


@dataclass(frozen=True, slots=True)
class Watching:
    """The first look is done. `count` devices are followed."""

    node: str
    count: int


@dataclass(frozen=True, slots=True)
class Drifted:
    """Something is not any more as the spec says, and as it was applied."""

    difference: Difference


@dataclass(frozen=True, slots=True)
class Unapplied:
    """Something is not as the spec says, which nobody has applied so far."""

    difference: Difference


@dataclass(frozen=True, slots=True)
class Settled:
    """It is as the spec says again."""

    difference: Difference


@dataclass(frozen=True, slots=True)
class Healed:
    """The node was made as the spec says; so many actions."""

    actions: int


@dataclass(frozen=True, slots=True)
class Failed:
    """Looking or mending failed, or what was mended is undone by somebody; the next try comes after `pause` seconds."""

    problems: tuple[Problem, ...]
    pause: float


@dataclass(frozen=True, slots=True)
class Recovered:
    """All is well again after a failure."""


@dataclass(frozen=True, slots=True)
class Reread:
    """The spec was read again, for somebody asked for it; with problems, it is not taken and the old one holds."""

    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Stopped:
    """Somebody asked the watch to end."""


Event = Watching | Drifted | Unapplied | Settled | Healed | Failed | Recovered | Reread | Stopped

Place = tuple[str, str, str]


def _places(found: tuple[Difference, ...]) -> frozenset[Place]:
    return frozenset(each.place for each in found)


class RetryBackoff:
    """What goes wrong, and so when to try again. `not_before`: when that is, None where nothing is put off."""

    def __init__(self) -> None:
        self.not_before: float | None = None
        self._pause = 0.0
        self._over: frozenset[Place] = frozenset()
        self._mended: frozenset[Place] = frozenset()
        self._mended_at = 0.0
        self._ailing = False

    def failed(self, found: tuple[Difference, ...], now: float) -> float:
        """A try failed; returns the pause until the next. Each is twice as long as the last."""
        self._pause = min(max(SHORTEST, 2 * self._pause), LONGEST)
        self.not_before, self._over, self._ailing = now + self._pause, _places(found), True
        self._mended = frozenset()
        return self._pause

    def early(self, found: tuple[Difference, ...], now: float) -> bool:
        """Whether to wait with mending: for what has changed since a try failed, the next comes at once."""
        if self.not_before is None or now >= self.not_before or _places(found) != self._over:
            self.not_before = None
            return False
        return True

    def fought(self, found: tuple[Difference, ...], now: float) -> bool:
        """Whether something that was mended a moment ago needs it again."""
        if now - self._mended_at >= FOUGHT:
            self._pause = 0.0 if self._mended else self._pause
            self._mended = frozenset()
        return not self._mended.isdisjoint(_places(found))

    def mended(self, found: tuple[Difference, ...], now: float) -> None:
        self._mended, self._mended_at = _places(found), now

    def over(self, found: tuple[Difference, ...]) -> bool:
        """Whether trouble has just ended: nothing differs any more."""
        if found or not self._ailing:
            return False
        self._ailing, self.not_before = False, None
        return True
