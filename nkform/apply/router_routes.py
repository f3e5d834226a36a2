"""Keeps the default routes that routers advertised to a namespace, while a link of it begins to forward IPv6.

Any link that begins to forward makes the whole namespace a router to the kernel, which then removes all of them: a
router asks no router. Only those through links with `accept_ra` 2 stay (net/ipv6/addrconf.c, addrconf_fixup_forwarding;
net/ipv6/route.c, rt6_purge_dflt_routers). So the links that they lead through have it for that moment.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from nkform.kernel import inet_foreign, links, sysctl
from nkform.kernel.error import KernelError
from nkform.kernel.netlink import Socket, consistent_dump

FORWARDING, ACCEPT = "ipv6.forwarding", "ipv6.accept_ra"
ALSO_AS_ROUTER = "2"
"""The value of `accept_ra` of a link that takes advertisements although it forwards."""


class RouterRoutes:
    """Those of the namespace that the thread is in, as long as it is there. `temporary` is told of each sysctl that is
    about to change for a moment: its interface, its key, its value until now."""

    def __init__(self, socket: Socket, temporary: Callable[[str, str, str], None]) -> None:
        self._socket = socket
        self._temporary = temporary
        self._found: Sequence[str] | None = None
        self._told: set[tuple[str, str]] = set()

    @contextmanager
    def kept(self, interface: str, key: str, value: str) -> Iterator[None]:
        """While a sysctl of an interface gets a value. Those through that very interface go: its spec has it so.

        Raises KernelError.
        """
        with ExitStack() as stack:
            if key == FORWARDING and value != "0":
                for name in self._links():
                    if name != interface:
                        stack.enter_context(self._accepting(name))
            yield

    @contextmanager
    def _accepting(self, name: str) -> Iterator[None]:
        """While a link takes advertisements also as a router."""
        before = _accepts(name)
        if before in ("", ALSO_AS_ROUTER):
            yield
            return
        if (name, before) not in self._told:
            self._told.add((name, before))
            self._temporary(name, ACCEPT, before)
        sysctl.write(name, ACCEPT, ALSO_AS_ROUTER)
        try:
            yield
        finally:
            if _accepts(name) == ALSO_AS_ROUTER:
                sysctl.write(name, ACCEPT, before)

    def _links(self) -> Sequence[str]:
        """The links that such routes lead through, looked up once: a plan may have a thousand ends that forward."""
        if self._found is None:
            indexes = set(consistent_dump(inet_foreign.dump_advertised, self._socket))
            outcomes, answers = self._socket.ask([links.get("", index=index) for index in sorted(indexes)])
            self._found = [links.name_of(answers[place][0]) for place, outcome in enumerate(outcomes) if not outcome]
        return self._found


def _accepts(name: str) -> str:
    """How a link takes advertisements; empty where it has gone, or has another name by now."""
    try:
        return sysctl.read(name, ACCEPT)
    except KernelError as error:
        if error.errno != errno.ENOENT:
            raise
        return ""
