"""What others lack after a run that did not come to its end: it had noted of theirs what it might take away.

Nobody can tell whether the run took it, or they have let it go since. They get it again, which is told.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress

from nkform.apply.foreign_state import ForeignItem, left_alone, renamed, still_there
from nkform.kernel import links
from nkform.kernel.error import KernelError
from nkform.kernel.netlink import Socket, consistent_dump
from nkform.kernel.netns import Namespaces
from nkform.listing import MANY, enumerated
from nkform.plan.changes import Plan
from nkform.problem import Problem


def warnings(others: Sequence[ForeignItem], plan: Plan, namespaces: Namespaces) -> Iterator[Problem]:
    """The warning of what others lack on links that are there, and get again with the plan; or none."""
    kept = set(still_there(others, (), (), namespaces))
    gone = [item for place, item in enumerate(others) if place not in kept]
    ends = set(_present({item.namespace for item in gone}, namespaces))
    gone = [item for item in gone if (item.namespace, item.name) in ends and _comes_again(item, plan)]
    if lacking := list(dict.fromkeys(item.text for item in gone)):
        yield Problem(
            "NK0522",
            f"others lack what they had before that run, and get it again: {enumerated(lacking, MANY)}",
            hint="nobody can tell whether the run took it: what they removed themselves has to be removed once more",
            severity="warning",
        )


def _comes_again(item: ForeignItem, plan: Plan) -> bool:
    """Whether the plan neither takes it over nor takes its link away."""
    return bool(renamed(left_alone([item], plan.actions), plan.changes))


def _present(keys: Collection[str], namespaces: Namespaces) -> Iterator[tuple[str, str]]:
    """The links of some namespaces, with the namespaces; what has gone, or cannot be looked into, has none."""
    for key in keys:
        with suppress(KernelError), namespaces.open(key) as fd, namespaces.entered(fd, key), Socket() as socket:
            for link in consistent_dump(links.dump, socket):
                yield key, link.name
