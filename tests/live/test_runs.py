"""One writer at a time, runs that are stopped or killed, and folders that others could write to."""

from __future__ import annotations

import errno
import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from nkform.apply.chains import Chains
from nkform.apply.executor import Executor
from nkform.kernel import bpffs, inet, rundir
from nkform.kernel import links as kernel_links
from nkform.kernel.netlink import KernelError
from nkform.plan.actions import Action
from tests.live.attack import die, in_child, killed_after
from tests.live.chain_sites import DEVICE, TCX_INGRESS, Others
from tests.live.processes import Process, end_all
from tests.live.strike import strikes
from tests.live.support import Node, ip, link, links, needs
from tests.live.test_pairs import veth
from tests.live.whole import differences, held, whole


def slowly(place: int) -> Callable[[], None]:
    """Makes the next run of this process wait before that action, until a file named `go` is there."""

    def prepare() -> None:
        genuine = Executor.run
        waited = False

        def run(self: Executor, actions: Sequence[Action]) -> None:
            nonlocal waited
            if waited:
                genuine(self, actions)
                return
            waited = True
            genuine(self, actions[:place])
            print("half-way", flush=True)
            while not Path("/run/go").exists():
                time.sleep(0.02)
            genuine(self, actions[place:])

        Executor.run = run  # type: ignore[method-assign]

    return prepare


def changed() -> dict[str, Any]:
    spec = veth()
    spec["devices"]["to-a"]["mtu"] = 1400
    del spec["devices"]["to-b"]
    return spec


@pytest.fixture(autouse=True)
def _go() -> Iterator[None]:
    Path("/run/go").unlink(missing_ok=True)
    yield
    end_all()


def test_a_second_writer_waits_or_fails_and_readers_do_not(node: Node, tmp_path: Path) -> None:
    node.apply(veth())
    node.write(changed())
    first = Process("apply", "-y", str(node.path), prepare=slowly(1))
    first.hears("half-way")
    error = node.run("apply", "-y", "--lock-timeout", "0", str(node.path)).err
    assert "NK0610" in error
    assert f"nkform apply (process {first.pid})" in error
    assert node.run("plan", str(node.path)).code == 0
    assert node.run("show").code == 0
    assert node.run("status").code == 0
    other = tmp_path / "other.yaml"
    other.write_text("{version: 1, node: v, devices: {x: {kind: veth, peer: {name: y}}}}")
    second = Process("apply", "-y", "--lock-timeout", "10m", str(other))
    second.hears("waiting for nkform apply")
    assert "x" not in links()
    Path("/run/go").touch()
    assert (first.ended(), second.ended()) == (0, 0)
    assert "x" in links()
    assert node.changes() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_a_run_and_takes_it_back(node: Node, number: signal.Signals) -> None:
    node.apply(veth())
    before = whole()
    node.write(changed())
    run = Process("apply", "-y", str(node.path), prepare=slowly(3))
    run.hears("half-way")
    os.kill(run.pid, number)
    run.hears("stopping after this step")
    Path("/run/go").touch()
    assert run.ended() == 1
    assert "NK0507" in run.said
    assert "NK0505" in run.said
    assert differences(before, whole()) == []
    assert "Nothing to recover" in node.run("recover").out


def test_a_second_signal_stops_at_once_and_recover_takes_it_back(node: Node) -> None:
    node.apply(veth())
    before = whole()
    node.write(changed())
    run = Process("apply", "-y", str(node.path), prepare=slowly(3))
    run.hears("half-way")
    os.kill(run.pid, signal.SIGINT)
    run.hears("stopping after this step")
    os.kill(run.pid, signal.SIGINT)
    assert run.ended() == 1
    assert "NK0508" in run.said
    assert "nkform recover" in run.said
    assert differences(before, whole()) != []
    Path("/run/go").touch()
    outcome = node.run("recover", "-y")
    assert outcome.code == 0, outcome.err
    assert "NK0511" in outcome.err
    assert differences(before, whole()) == []


def test_after_a_kill_readers_say_so_too(node: Node) -> None:
    node.apply(veth())
    total = len(node.plan(changed(), "--json").json()["actions"])
    killed_after(node, 2, total)
    for words in (("plan", str(node.path)), ("status",), ("show",)):
        outcome = node.run(*words)
        assert outcome.code == 0, outcome.err
        assert "NK0511" in outcome.err, words
    assert node.run("apply", "-y", str(node.path)).code == 0
    assert "NK0511" not in node.plan().err


def test_a_failed_apply_after_a_kill_leaves_recover_its_way(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.apply(veth())
    before = whole()
    total = len(node.plan(changed(), "--json").json()["actions"])
    killed_after(node, 3, total)
    spec = changed()
    spec["devices"]["to-a"]["peer"]["routes"] = [{"to": "default", "via": "203.0.113.1"}]
    assert "NK0501" in node.refused(spec, command="apply")
    assert node.run("recover", "-y").code == 0
    assert differences(before, whole()) == []


@needs("tcx")
def test_recover_attaches_the_programs_that_went(node: Node) -> None:
    """The very programs, with their maps, though nobody but a pin of the killed run had them any more."""
    node.apply(TCX_INGRESS.spec(["guard", "count"]))
    before, counter = whole(), TCX_INGRESS.one("count").program_id
    total = len(node.plan(TCX_INGRESS.spec(None), "--json").json()["actions"])
    killed_after(node, total, total)
    assert TCX_INGRESS.running() == []
    assert len(held()) == 2
    assert node.run("recover", "-y").code == 0
    assert differences(before, whole()) == []
    assert TCX_INGRESS.one("count").program_id == counter
    assert held() == []


def killed_in(node: Node, module: Any, name: str) -> None:
    """Applies the node's spec in a process that is killed when it first comes to a function."""

    def work() -> None:
        setattr(module, name, lambda *_, **__: die())
        node.run("apply", "-y", str(node.path))

    assert in_child(work) == -signal.SIGKILL, "the run was not killed"


def test_a_device_that_was_made_and_not_yet_marked_is_known_again(node: Node) -> None:
    node.write(veth())
    killed_in(node, kernel_links, "claim")
    assert "to-a" in links()
    assert "nkform" not in ip("-d", "link", "show", "dev", "to-a")
    node.apply(veth())
    assert link("to-a").get("group", "default") == "default"


def test_a_sysctl_that_was_lent_is_given_back(node: Node) -> None:
    """An address of a subnet goes, and for that moment the others are told to stay."""
    spec = veth()
    spec["devices"]["to-a"]["addresses"] = ["10.7.0.1/24", "10.7.0.2/24"]
    node.apply(spec)
    path = Path("/proc/sys/net/ipv4/conf/to-a/promote_secondaries")
    path.write_text("0")
    spec["devices"]["to-a"]["addresses"] = ["10.7.0.2/24"]
    node.write(spec)
    killed_in(node, inet, "delete_address")
    assert path.read_text().strip() == "1"
    assert node.run("recover", "-y").code == 0
    assert path.read_text().strip() == "0"


def subnet(*hosts: int) -> dict[str, Any]:
    """Addresses of one subnet, the first of which is the one that the kernel sends from."""
    spec = veth()
    spec["devices"]["to-a"]["addresses"] = [f"10.7.0.{host}/24" for host in hosts]
    return spec


def struck(node: Node, spec: dict[str, Any], call: str) -> str:
    """What is said of a run one of whose calls failed. All is as before, and nothing waits to be recovered."""
    before = whole()
    node.write(spec)
    with strikes(call) as strike:
        outcome = node.run("apply", "-y", str(node.path))
    assert strike.struck, strike.made
    assert outcome.code == 1, outcome.err
    assert differences(before, whole()) == []
    assert "NK0505" in outcome.err
    assert "Nothing to recover" in node.run("recover").out
    return outcome.err


def test_what_cannot_be_given_back_at_once_is_when_the_run_is_undone(node: Node) -> None:
    node.apply(subnet(1, 2))
    Path("/proc/sys/net/ipv4/conf/to-a/promote_secondaries").write_text("0")
    struck(node, subnet(2), "set sysctl ipv4.promote_secondaries of to-a to 0")


def test_what_was_lent_is_given_back_under_the_name_that_it_was_lent_under(node: Node) -> None:
    """The peer has got another name by then, and has its old one again after the undoing."""
    spec = veth()
    spec["devices"]["to-a"]["peer"]["addresses"] = ["10.7.0.1/24", "10.7.0.2/24"]
    node.apply(spec)
    ip("netns", "exec", "a", "sysctl", "-qw", "net.ipv4.conf.eth0.promote_secondaries=0")
    spec["devices"]["to-a"]["peer"] |= {"name": "new0", "addresses": ["10.7.0.2/24"]}
    struck(node, spec, "set sysctl ipv4.promote_secondaries of new0 to 0")


def test_a_run_that_is_done_and_not_on_record_is_undone(node: Node) -> None:
    """Undoing lends a sysctl in its turn, which goes into the journal too."""
    node.apply(subnet(1, 2))
    Path("/proc/sys/net/ipv4/conf/to-a/promote_secondaries").write_text("0")
    spec = subnet(2)
    spec["devices"]["to-a"]["addresses"].append("10.7.0.3/24")
    struck(node, spec, "rename journal")


def test_links_of_others_come_and_go_and_going_back_is_none_the_worse(node: Node) -> None:
    """On a node with pods they do so all the time."""
    node.apply(veth())
    before = whole()
    ip("link", "add", "pod0", "type", "veth", "peer", "name", "pod0-p")
    spec = changed()
    spec["devices"]["to-a"]["peer"]["routes"] = [{"to": "default", "via": "203.0.113.1"}]
    assert "NK0505" in node.refused(spec, command="apply")
    node.write(changed())
    killed_after(node, 3)
    ip("link", "delete", "pod0")
    ip("link", "add", "pod1", "netns", "a", "type", "veth", "peer", "name", "pod1-p")
    outcome = node.run("recover", "-y")
    assert outcome.code == 0, outcome.err
    ip("link", "delete", "pod1-p")
    assert differences(before, whole()) == []
    node.apply(changed())
    ip("link", "add", "pod2", "type", "veth", "peer", "name", "pod2-p")
    outcome = node.run("rollback", "-y")
    assert outcome.code == 0, outcome.err
    ip("link", "delete", "pod2")
    assert differences(before, whole()) == []


def test_devices_that_never_got_their_mark_go_again(node: Node) -> None:
    node.apply({"version": 1, "node": "w", "devices": {}})
    struck(node, veth(), "set alias nkform:w on to-a")


@pytest.mark.parametrize("call", ["umount2", "unlink /run/netns/b"])
def test_a_namespace_that_cannot_be_deleted_is_there_and_whole(node: Node, call: str) -> None:
    node.apply(veth())
    struck(node, {"version": 1, "node": "w", "namespaces": {"a": {"create": True}}, "devices": {}}, call)
    assert node.changes(veth()) == []


def test_a_name_of_a_namespace_that_a_killed_run_left_goes(node: Node) -> None:
    """It has been unmounted, and is a plain file."""
    node.apply(veth())
    nothing = {"version": 1, "node": "w", "devices": {}}
    node.write(nothing)

    def work() -> None:
        with strikes("unlink /run/netns/", kill=True):
            node.run("apply", "-y", str(node.path))

    assert in_child(work) == -signal.SIGKILL
    node.apply(nothing)
    assert list(Path("/run/netns").iterdir()) == []


def order(device: str) -> list[str]:
    """The IPv4 addresses of a device as `ip` lists them: the first of a subnet is what is sent from."""
    lines = ip("-4", "-o", "address", "show", "dev", device).splitlines()
    return [line.split()[3] for line in lines]


def test_addresses_come_back_in_their_order(node: Node) -> None:
    """Also when nobody is there any more to undo the very steps, and with a route that names one as its source."""
    spec = subnet(1, 2, 3)
    spec["devices"]["to-a"]["routes"] = [{"to": "10.8.0.0/16", "src": "10.7.0.3"}]
    node.apply(spec)
    before, there = whole(), order("to-a")
    spec["devices"]["to-a"]["addresses"] = ["10.7.0.3/24"]
    node.write(spec)

    def work() -> None:
        with strikes("rename journal", kill=True):
            node.run("apply", "-y", str(node.path))

    assert in_child(work) == -signal.SIGKILL
    assert order("to-a") == ["10.7.0.3/24"]
    assert node.run("recover", "-y").code == 0
    assert order("to-a") == there
    assert differences(before, whole()) == []
    node.apply(spec)
    assert node.run("rollback", "-y").code == 0
    assert order("to-a") == there
    assert differences(before, whole()) == []


@needs("tcx")
def test_what_others_put_on_our_devices_is_no_obstacle_to_going_back(node: Node) -> None:
    """A tracer's program and somebody's address have come since the apply, and one that was there has gone."""
    node.apply(TCX_INGRESS.spec(["count"]))
    ip("address", "add", "192.0.2.1/32", "dev", DEVICE)
    before = whole()
    node.apply(TCX_INGRESS.spec(["guard", "count"]))
    others = Others()
    try:
        others.attach(TCX_INGRESS, "tracer", 20000)
        ip("address", "add", "192.0.2.2/32", "dev", DEVICE)
        ip("address", "delete", "192.0.2.1/32", "dev", DEVICE)
        outcome = node.run("rollback", "-y")
        assert outcome.code == 0, outcome.err
        assert [each.name for each in TCX_INGRESS.running() if not each.ours] == ["tracer"]
    finally:
        others.close()
    ip("address", "delete", "192.0.2.2/32", "dev", DEVICE)
    ip("address", "add", "192.0.2.1/32", "dev", DEVICE)
    assert differences(before, whole()) == []


@needs("tcx")
def test_a_run_that_cannot_begin_leaves_no_journal(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: str) -> None:
        raise KernelError(errno.EPERM, "mount bpffs")

    monkeypatch.setattr(bpffs, "is_mounted", lambda _: False)
    monkeypatch.setattr(bpffs, "mount", refused)
    error = node.refused(TCX_INGRESS.spec(["count"]), command="apply")
    assert "mount bpffs" in error
    assert "Nothing to recover" in node.run("recover").out


@needs("tcx")
def test_what_was_applied_stays_when_tidying_up_fails(node: Node) -> None:
    node.apply(TCX_INGRESS.spec(["guard", "count"]))

    def refused(self: Chains, _: object) -> None:
        raise KernelError(errno.EPERM, "remove the pin of a program")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Chains, "release", refused)
        outcome = node.apply(TCX_INGRESS.spec(["count"]))
    assert "NK0516" in outcome.err
    assert "remove the pin" in outcome.err
    assert "undone" not in outcome.err
    assert TCX_INGRESS.order() == "count"
    assert "NK0516" not in node.apply().err


def test_any_moment_is_good_to_be_killed(node: Node, tell: Callable[[str], None]) -> None:
    """SIGKILL after a random time, rather than between actions."""
    turns = 8 if "NKFORM_LAB" in os.environ else 60
    chance = random.Random(1)
    specs = [veth(), changed(), TCX_INGRESS.spec(["guard", "count"]), {"version": 1, "node": "w"}]
    started = time.monotonic()
    node.apply(specs[0])
    usual = time.monotonic() - started
    killed = 0
    for turn in range(turns):
        node.write(specs[turn % len(specs)])
        run = Process("apply", "-y", str(node.path))
        time.sleep(chance.uniform(0, usual))
        os.kill(run.pid, signal.SIGKILL)
        killed += run.ended() == -signal.SIGKILL
        if turn % 3 == 2:
            continue  # and once more, on top of that
        node.apply(specs[turn % len(specs)])
    node.apply(specs[0])
    node.destroy()
    tell(f"{killed} runs killed at a random moment, each converged")
    assert killed > turns // 4
    assert (links(), ip("netns").strip(), held()) == (set(), "", [])


def test_twenty_applies_at_once(node: Node, tmp_path: Path) -> None:
    """Of different specs and of the same one: all that end well are there, as if they had come one after the other."""
    many = 6 if "NKFORM_LAB" in os.environ else 20
    runs = []
    for number in range(many):
        path = tmp_path / f"{number}.yaml"
        name, mtu = (f"n{number}", 1400) if number % 2 else ("shared", 1300 + number)
        path.write_text(
            f"{{version: 1, node: {name}, devices: {{{name}: {{kind: veth, mtu: {mtu}, peer: {{name: {name}-p}}}}}}}}"
        )
        runs.append((name, mtu, path, Process("apply", "-y", "--lock-timeout", "10m", str(path))))
    assert [run.ended() for *_, run in runs] == [0] * many, [run.said for *_, run in runs]
    shared = [mtu for name, mtu, *_ in runs if name == "shared"]
    for name, mtu, path, _ in runs:
        found = link(name)["mtu"]
        assert found in (shared if name == "shared" else [mtu])
        if name != "shared" or found == mtu:
            assert node.run("plan", "--detailed-exitcode", str(path)).code == 0
    for name in dict.fromkeys(name for name, *_ in runs):
        assert node.run("destroy", "-y", "--node", name).code == 0
    assert links() == set()


# --- folders ----------------------------------------------------------------------------


def _other_owner(folder: Path) -> None:
    os.chown(folder, 65534, 65534)


def _open_to_all(folder: Path) -> None:
    folder.chmod(0o777)


def _a_link(folder: Path) -> None:
    elsewhere = folder.with_name(f"{folder.name}-elsewhere")
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)


def _a_file(folder: Path) -> None:
    folder.rename(folder.with_name(f"{folder.name}-elsewhere"))
    folder.touch()


@pytest.mark.parametrize("spoil", [_other_owner, _open_to_all, _a_link, _a_file])
@pytest.mark.parametrize("where", ["/run/nkform", "/run/nkform/w"])
def test_a_folder_that_others_could_write_to_is_refused(node: Node, spoil: Callable[[Path], None], where: str) -> None:
    import shutil

    node.apply(veth())
    before = whole()
    folder = Path(where)
    spoil(folder)
    try:
        error = node.refused(changed(), command="apply")
        assert where in error
        assert differences(before, whole()) == []
    finally:
        for path in (folder, folder.with_name(f"{folder.name}-elsewhere")):
            if path.is_symlink() or path.is_file():
                path.unlink()
            else:
                shutil.rmtree(path, ignore_errors=True)


def test_what_is_written_is_for_its_owner_alone(node: Node) -> None:
    node.apply(veth())
    node.apply(changed())
    for path in Path("/run/nkform").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
        assert path.stat().st_uid == 0


@needs("tcx")
@pytest.mark.parametrize("top", [bpffs.FOLDER, bpffs.HELD])
def test_a_folder_of_pins_that_others_could_write_to_is_refused(node: Node, top: str) -> None:
    node.apply(TCX_INGRESS.spec(["count"]))
    before = whole()
    folder = Path(bpffs.BASE, top)
    folder.mkdir(exist_ok=True)
    os.chown(folder, 65534, 65534)
    try:
        assert str(folder) in node.refused(TCX_INGRESS.spec(["guard", "count"]), command="apply")
    finally:
        os.chown(folder, 0, 0)
    assert differences(before, whole()) == []


def test_a_missing_capability_is_named_before_anything_is_touched(node: Node) -> None:
    node.write(veth())

    def drop() -> None:
        import ctypes

        for capability in (12, 21):  # CAP_NET_ADMIN, CAP_SYS_ADMIN; PR_CAPBSET_DROP is 24
            ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)
        _set_capabilities(~(1 << 12 | 1 << 21))

    run = Process("apply", "-y", str(node.path), prepare=drop)
    assert run.ended() == 1
    assert "NK0601" in run.said
    assert "CAP_NET_ADMIN" in run.said
    assert "CAP_SYS_ADMIN" in run.said
    assert links() == set()


def _set_capabilities(mask: int) -> None:
    """capset(2), with version 3 of its header (include/uapi/linux/capability.h)."""
    import ctypes
    import struct

    libc = ctypes.CDLL(None, use_errno=True)
    header = ctypes.create_string_buffer(struct.pack("=Ii", 0x20080522, 0))
    data = ctypes.create_string_buffer(24)
    assert libc.capget(header, data) == 0
    old = struct.unpack("=6I", data.raw[:24])
    low = [value & mask & 0xFFFFFFFF for value in old[:3]]
    data = ctypes.create_string_buffer(struct.pack("=6I", *low, *old[3:]))
    assert libc.capset(header, data) == 0, os.strerror(ctypes.get_errno() or errno.EINVAL)


def test_the_lock_is_free_after_a_run(node: Node) -> None:
    node.apply(veth())
    lock = rundir.lock("test")
    assert not isinstance(lock, str)
    lock.release()
