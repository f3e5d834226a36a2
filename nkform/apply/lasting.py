"""Whether what a plan makes lasts: a mount namespace that ends with the command takes pins and names with it."""

from __future__ import annotations

from collections.abc import Iterator

from nkform.kernel import bpffs, mounts
from nkform.kernel.netns import RUN
from nkform.plan.actions import CreateNamespace, SetChain
from nkform.plan.changes import Plan
from nkform.problem import NkformError, Problem

OUTSIDE = "run nkform outside of `ip netns exec` and the like: `nsenter --net=/run/netns/NAME nkform …`"


def require_lasting(plan: Plan) -> None:
    """Raises NkformError (NK0481) where a plan makes what would be gone, or out of reach, when the command ends."""
    pins = any(isinstance(action, SetChain) for action in plan.actions) and not bpffs.is_mounted(bpffs.BASE)
    names = any(isinstance(action, CreateNamespace) for action in plan.actions) and not mounts.are_shared(str(RUN))
    if (pins or names) and mounts.are_outlived(str(RUN)):
        raise NkformError(*_problems(pins, names))


def _problems(pins: bool, names: bool) -> Iterator[Problem]:
    what = "this command has a mount namespace of its own"
    if pins:
        lost = f"{what}, without the machine's {bpffs.BASE}: all programs would be detached when it ends"
        yield Problem("NK0481", lost, hint=OUTSIDE)
    if names:
        lost = f"{what}, whose {RUN} the machine does not see: namespaces made there would be lost when it ends"
        yield Problem("NK0481", lost, hint=OUTSIDE)
