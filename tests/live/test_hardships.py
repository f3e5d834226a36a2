"""Errors that the kernel itself makes while a plan is carried out: each ends clean, and says what to do."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from socket import if_nametoindex
from typing import Any

import pytest

from nkform.apply.executor import Executor
from nkform.kernel import bpffs, link_requests
from nkform.kernel.descriptors import LEAST
from nkform.kernel.netlink import Socket
from nkform.model import Device, Endpoint
from nkform.plan.actions import Action
from tests.live.helpers import isolation
from tests.live.helpers.attack import in_child
from tests.live.helpers.capabilities import CAP_SYS_RESOURCE, give_up
from tests.live.helpers.chain_sites import DEVICE, TCX_INGRESS, TEMPLATES, Others
from tests.live.helpers.netstate import differences, held, netstate_snapshot
from tests.live.helpers.support import REFUSED, Node, ip, link, links, needs, sh
from tests.live.test_pairs import veth
from tests.sizes import EMULATED, LAB, SIZES


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], object]], None]:
    """Has something happen while the next plan is carried out, before the action of that number."""

    def arrange(place: int, happens: Callable[[], object]) -> None:
        genuine = Executor.run
        waiting = True

        def run(self: Executor, actions: Sequence[Action]) -> None:
            nonlocal waiting
            if not waiting:
                genuine(self, actions)
                return
            waiting = False
            genuine(self, actions[:place])
            happens()
            genuine(self, actions[place:])

        monkeypatch.setattr(Executor, "run", run)

    return arrange


OURS = "_cycles"
"""How the names of the programs end that come and go a thousand times: those of their templates."""

Meanwhile = Callable[[int, Callable[[], object]], None]


def refused(node: Node, spec: dict[str, Any], *words: str) -> None:
    """The spec is refused with these words, among them that the node is as before, or what is not."""
    error = node.refused(spec, command="apply")
    for word in ("NK0501", "hint", *words):
        assert word in error, error


def changed() -> dict[str, Any]:
    spec = veth()
    spec["devices"]["to-a"]["mtu"] = 1400
    spec["devices"]["to-c"] = {"kind": "veth", "peer": {"name": "c0"}}
    return spec


def test_a_name_is_taken(node: Node, meanwhile: Meanwhile) -> None:
    node.apply(veth())
    meanwhile(0, lambda: ip("link", "add", "to-c", "type", "veth", "peer", "name", "theirs"))
    refused(node, changed(), "EEXIST", "to-c", "plan again")
    assert {"to-c", "theirs"} <= links()
    assert "nkform" not in ip("-d", "link", "show", "dev", "to-c")
    ip("link", "delete", "to-c")
    node.apply(changed())


def test_a_name_is_taken_among_several(node: Node, meanwhile: Meanwhile) -> None:
    """The pairs beside it have been made by then, and have no mark yet."""
    node.apply(veth())
    spec = changed()
    for name in ("to-d", "to-e"):
        spec["devices"][name] = {"kind": "veth", "peer": {"name": f"{name}-p"}}
    ip("link", "add", "to-d", "type", "veth", "peer", "name", "theirs")
    before = netstate_snapshot()
    ip("link", "delete", "to-d")
    meanwhile(0, lambda: ip("link", "add", "to-d", "type", "veth", "peer", "name", "theirs"))
    refused(node, spec, "EEXIST", "to-d", "plan again", "NK0505")
    assert links() == {"to-a", "to-b", "to-d", "theirs"}
    assert [line for line in differences(before, netstate_snapshot()) if "attribute 5 " not in line] == []


def test_a_namespace_vanishes(node: Node, meanwhile: Meanwhile) -> None:
    """It took a pair with it; both were ours, and are made again."""
    spec = changed()
    spec["devices"]["to-a"]["peer"]["addresses"] = ["10.0.0.77/32"]
    node.apply(veth())
    before = netstate_snapshot()
    meanwhile(1, lambda: ip("netns", "delete", "a"))
    refused(node, spec, "open namespace a", "ENOENT", "plan again", "NK0505")
    assert differences(before, netstate_snapshot()) == []
    node.apply(spec)


def test_a_device_is_deleted(node: Node, meanwhile: Meanwhile) -> None:
    node.apply(veth())
    before = netstate_snapshot()
    meanwhile(1, lambda: ip("link", "delete", "to-a"))
    refused(node, changed(), "ENODEV", "plan again", "NK0505")
    assert differences(before, netstate_snapshot()) == []
    node.apply(changed())


@pytest.mark.parametrize("address", ["10.9.9.9/32", "fd09::9/128"])
def test_an_address_goes_that_is_to_go(node: Node, meanwhile: Meanwhile, address: str) -> None:
    """A workload's own doing keeps nothing from being applied."""
    spec = veth()
    spec["devices"]["to-a"]["peer"]["addresses"] = [address]
    del spec["devices"]["to-a"]["peer"]["routes"]
    node.apply(spec)
    spec["devices"]["to-a"]["peer"]["addresses"] = ["10.9.9.8/32"]
    spec["devices"]["to-b"]["mtu"] = 1400
    meanwhile(0, lambda: ip("addr", "del", address, "dev", "eth0", namespace="a"))
    node.apply(spec)
    assert link("to-b")["mtu"] == 1400


@needs("tcx")
def test_a_hook_is_filled_up_by_somebody_else(node: Node, meanwhile: Meanwhile) -> None:
    node.apply(TCX_INGRESS.spec(["count"]))
    others = Others()
    try:
        before = netstate_snapshot()

        def fill() -> None:
            for number in range(62):
                others.attach(TCX_INGRESS, f"other{number}", 20000 + number)

        meanwhile(0, fill)
        refused(node, TCX_INGRESS.spec(["guard", "count"]), "ESTALE", "plan again")
        ours = [each.name for each in TCX_INGRESS.running() if each.ours]
        assert ours == ["count"]
        assert "NK0420" in node.refused(TCX_INGRESS.spec(["guard", "count"]))
    finally:
        others.close()
    assert differences(before, netstate_snapshot()) == []
    node.apply(TCX_INGRESS.spec(["guard", "count"]))


@needs("tcx")
def test_bpffs_is_mounted_anew_over_ours(node: Node, meanwhile: Meanwhile) -> None:
    """The pins are covered, so the programs cannot be told from those of others any more."""
    node.apply(TCX_INGRESS.spec(["guard", "count"]))
    before = netstate_snapshot()
    meanwhile(0, lambda: isolation.mount("bpf", bpffs.BASE))
    try:
        error = node.refused(TCX_INGRESS.spec(["count", "guard"]), command="apply")
        assert "NK05" in error
        assert [each.program_id for each in TCX_INGRESS.running()]
    finally:
        sh("umount", bpffs.BASE)
    # The kernel detaches what had its only pin there in its own time.
    assert _soon(lambda: not differences(before, netstate_snapshot()))
    node.apply(TCX_INGRESS.spec(["count", "guard"]))


@needs("tcx")
@pytest.mark.parametrize("seen", [True, False], ids=["pins in sight", "pins out of sight"])
def test_programs_of_another_node_are_not_taken_for_ours_in_a_covered_bpffs(node: Node, seen: bool) -> None:
    ip("link", "add", "v9", "type", "veth", "peer", "name", "v9p")
    device = {"kind": "external", "programs": {"ingress": ["count"]}}
    spec = {"version": 1, "programs": {"count": {"template": "counters"}}, "devices": {"v9": device}}
    if seen:
        isolation.mount("bpf", bpffs.BASE)
    node.apply({"node": "first", **spec})
    if not seen:
        isolation.mount("bpf", bpffs.BASE)
    try:
        node.apply({"node": "second", **spec})
        assert node.changes() == []
        if not seen:
            assert "NK0428" in node.refused({"node": "first", **spec})
        node.destroy()
    finally:
        sh("umount", bpffs.BASE)


@needs("tcx")
def test_a_bpffs_that_was_mounted_over_ours_is_said_by_plan(node: Node) -> None:
    """Else the programs, whose pins are out of sight, would be attached a second time."""
    spec = TCX_INGRESS.spec(["guard", "count"])
    node.apply(spec)
    isolation.mount("bpf", bpffs.BASE)
    try:
        error = node.refused(spec)
        assert "NK0428" in error
        assert "counters (id " in error
        assert "NK0428" in node.refused(spec, command="apply")
        assert "NK0428" not in node.plan(TCX_INGRESS.spec(None)).err
    finally:
        sh("umount", bpffs.BASE)
    assert node.changes(spec) == []
    isolation.mount("bpf", bpffs.BASE)  # over one that holds nothing of ours it does no harm
    try:
        sh("umount", bpffs.BASE)
        node.destroy()
        isolation.mount("bpf", bpffs.BASE)
        node.apply(spec)
        node.destroy()
    finally:
        sh("umount", bpffs.BASE)


@contextlib.contextmanager
def pods() -> Iterator[None]:
    """While the block runs, links of others come and go, hundreds of them each second; in the lab a few."""
    pod = Device("pod", "veth", {}, Endpoint("pod"), Endpoint("pod-p"))
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException), Socket() as socket:
            while True:
                socket.ask([link_requests.create(pod, None, 0)])
                with contextlib.suppress(OSError):
                    socket.ask([link_requests.delete(if_nametoindex("pod"), "pod")])
                time.sleep(0.3 if EMULATED else 0.02 if LAB else 0.001)
        os._exit(0)
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.mark.long
def test_a_busy_node(node: Node) -> None:
    """The kernel interrupts each list of links that another link comes into meanwhile."""
    nothing = {"version": 1, "node": "w", "devices": {}}
    many = {f"d{number}": {"kind": "veth", "peer": {"name": f"d{number}-p"}} for number in range(SIZES.busy_pairs)}
    failing = {**nothing, "devices": {**many, "d0": {**many["d0"], "routes": REFUSED}}}
    with pods():
        for _ in range(SIZES.busy_rounds):
            node.apply({**nothing, "devices": many})
            node.apply(nothing)
            assert "NK0505" in node.refused(failing, command="apply")
            assert node.run("rollback", "-y").code == 0
            node.destroy()


def many_pairs() -> dict[str, Any]:
    """More than can be made together with few open files."""
    spec = veth()
    for number in range(120):
        name = f"ns{number}"
        spec["namespaces"][name] = {"create": True}
        spec["devices"][f"d{number}"] = {"kind": "veth", "peer": {"name": "eth0", "namespace": name}}
    return spec


def test_a_limit_of_open_files_that_may_be_raised_is_raised(node: Node, tmp_path: Path) -> None:
    node.write(many_pairs())
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    said = tmp_path / "said"

    def limited() -> None:
        limit = max(LEAST, _open_files() + 40)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))
        outcome = node.run("apply", "-y", str(node.path))
        same = resource.getrlimit(resource.RLIMIT_NOFILE) == (limit, most)
        said.write_text(f"{outcome.code} {same}\n{outcome.err}")

    assert in_child(limited) == 0
    assert said.read_text().startswith("0 True\n"), said.read_text()
    node.destroy()


@pytest.mark.parametrize("enough", [False, True])
def test_a_limit_of_open_files(node: Node, tmp_path: Path, enough: bool) -> None:
    """Enough to begin with are not enough for all that is done together."""
    node.apply(veth())
    before = netstate_snapshot()
    node.write(many_pairs())
    said = tmp_path / "said"

    def limited() -> None:
        limit = max(LEAST, _open_files() + 40) if enough else _open_files() + 15
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        give_up(CAP_SYS_RESOURCE)
        outcome = node.run("apply", "-y", str(node.path))
        said.write_text(f"{outcome.code}\n{outcome.err}")

    assert in_child(limited) == 0
    text = said.read_text()
    assert text.startswith("1\n"), text
    assert "Too many open files" in text
    assert "ulimit" in text
    assert "NK0900" not in text
    assert differences(before, netstate_snapshot()) == []
    node.apply(veth())


def test_a_limit_of_memory(node: Node) -> None:
    """A compiler in the process itself finds no room; in a process of its own, which has nothing loaded yet."""
    node.apply(veth())
    before = netstate_snapshot()
    spec = veth()
    spec["devices"]["to-a"]["programs"] = {"peer": ["count"]}
    spec["programs"] = {"count": {"template": "counters"}}
    node.write({**spec, "engine": "bcc"})
    room = 160 << 20
    words = [sys.executable, "-m", "nkform", "apply", "-y", str(node.path)]
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (room, room)),
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "memory" in done.stderr or "failed to map" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert differences(before, netstate_snapshot()) == []
    node.apply(veth())


@pytest.mark.long
def test_cycles_leave_nothing_behind(node: Node, tmp_path: Path, tell: Callable[[str], None]) -> None:
    """Apply and destroy over and over: no pin, namespace, file descriptor, filter, program or process stays."""
    spec = veth()
    if "tcx" in _features():
        spec = TCX_INGRESS.spec(["guard", "count"])
        spec["templates"] = [str(tmp_path)]
        spec["programs"] = {"guard": {"template": "guard_cycles", "params": {"ports": [53]}}}
        spec["programs"]["count"] = {"template": "count_cycles"}
        shutil.copytree(Path(TEMPLATES, "udp_ports"), tmp_path / "guard_cycles")
        shutil.copytree(Path(__file__).parents[2] / "bpf_templates" / "counters", tmp_path / "count_cycles")
    node.apply(spec)
    assert len(_programs()) == (2 if "tcx" in _features() else 0)
    node.destroy()
    before, files, programs, processes = netstate_snapshot(), _open_files(), _programs(), _processes()
    for turn in range(SIZES.cycles):
        node.write(spec)
        assert node.run("apply", "-y", str(node.path)).code == 0, turn
        assert node.run("destroy", "-y", str(node.path)).code == 0, turn
    assert differences(before, netstate_snapshot()) == []
    assert held() == []
    assert (_open_files(), _processes()) == (files, processes)
    assert _programs() - programs == set() or _soon(lambda: _programs() - programs == set())
    assert not Path("/run/nkform", spec["node"]).exists()
    tell(f"{SIZES.cycles} times applied and destroyed, nothing is left of {DEVICE}")


def _features() -> frozenset[str]:
    from tests.live.helpers.support import features

    return features()


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _processes() -> set[str]:
    own = str(os.getpid())
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "stat").read_text().rpartition(")")[2].split()[1] == own:
                found.add(process.name)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ESRCH):
                raise
    return found


def _programs() -> set[int]:
    """Those of this test: others on this machine load and unload theirs."""
    from nkform.kernel import bpf
    from nkform.kernel.bpf import BpfError
    from nkform.kernel.bpf_programs import prog_info

    found = set()
    for number in list(bpf.prog_ids()):
        try:
            fd = bpf.prog_fd(number)
        except BpfError:
            continue
        try:
            if prog_info(fd).name.endswith(OURS):
                found.add(number)
        finally:
            os.close(fd)
    return found


def _soon(holds: Callable[[], bool]) -> bool:
    from tests.live.helpers.processes import until

    return bool(until(holds))
