"""`nkform watch` as a service runs it: a process of its own, told apart by its lines."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nkform.apply import journal
from nkform.apply.lock import take
from nkform.kernel import bpffs, rundir
from nkform.model import Node as Declared
from nkform.session import guardian_record
from tests.live.helpers.chain_sites import Others, Site, sites
from tests.live.helpers.processes import until
from tests.live.helpers.support import Node, ip, kinds, link, needs, sh
from tests.live.test_drift import SITES, spec

pytestmark = pytest.mark.usefixtures("made_once")

PATIENCE = 120.0
"""Seconds until what should be said counts as never said; emulated kernels are slow."""

Line = dict[str, Any]


class Process:
    """A watch at work; its lines are in a file, so that it never waits for us."""

    def __init__(self, node: Node, *words: str, before: tuple[str, ...] = (), **environment: str) -> None:
        self._out = node.folder / "watch.out"
        command = [
            *before,
            sys.executable,
            "-m",
            "nkform",
            "watch",
            "--json",
            "--interval",
            "0.5",
            str(node.path),
            *words,
        ]
        with self._out.open("w") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, **environment})
        self._read = 0
        self.until(lambda line: line["event"] == "watching")

    def lines(self) -> list[Line]:
        """All that it said so far; the last line may still be under way."""
        whole = self._out.read_text().splitlines(keepends=True)
        lines = (line for line in whole if line.endswith("\n") and not PROGRESS.fullmatch(line))
        return [json.loads(line) for line in lines]

    def until(self, wanted: Callable[[Line], bool]) -> Line:
        """Waits for a line that was not waited for yet, and returns it."""
        deadline = time.monotonic() + PATIENCE
        while True:
            for number, line in enumerate(self.lines()[self._read :], self._read + 1):
                if wanted(line):
                    self._read = number
                    return line
            assert self.process.poll() is None, self._out.read_text()
            assert time.monotonic() < deadline, self._out.read_text()
            time.sleep(0.05)

    def drift(self, path: str, name: str = "to-a") -> Line:
        return self._about("drift", path, name)

    def unapplied(self, path: str, name: str = "to-a") -> Line:
        return self._about("unapplied", path, name)

    def settled(self, path: str, name: str = "to-a") -> Line:
        return self._about("settled", path, name)

    def _about(self, event: str, path: str, name: str) -> Line:
        wanted = (event, name, path.split(".") if path else [])
        return self.until(lambda line: (line["event"], line.get("name"), line.get("path")) == wanted)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


PROGRESS = re.compile(r"\d+ of \d+ actions done\n")
"""What a long run says on stderr; a slow machine makes it long."""

Start = Callable[..., Process]


@pytest.fixture
def watch(node: Node) -> Iterator[Start]:
    started: list[Process] = []

    def start(*words: str, **more: Any) -> Process:
        started.append(Process(node, *words, **more))
        return started[-1]

    yield start
    for process in started:
        process.end()


def calm(process: Process) -> None:
    """Nothing more is said: what is done after a marker is all that comes. The marker is a change of our own."""
    before = len(process.lines())
    ip("link", "set", "to-a", "txqueuelen", "77")
    process.drift("txqlen")
    assert [line["event"] for line in process.lines()[before:]] == ["drift"]


@pytest.mark.parametrize("kind", kinds())
def test_drift_is_said_once_when_it_comes_and_once_when_it_goes(node: Node, watch: Start, kind: str) -> None:
    node.apply(spec(kind, txqlen=100, peer={"name": "eth0", "namespace": "a", "txqlen": 100}))
    process = watch()
    for words, path, back in (
        (("link", "set", "to-a", "mtu", "1400"), "mtu", ("link", "set", "to-a", "mtu", "1500")),
        (("route", "del", "10.1.0.2/32"), "routes", ("route", "add", "10.1.0.2/32", "dev", "to-a", "proto", "78")),
        (
            ("addr", "del", "10.1.0.1/32", "dev", "to-a"),
            "addresses",
            ("addr", "add", "10.1.0.1/32", "dev", "to-a", "proto", "78"),
        ),
    ):
        ip(*words)
        process.drift(path)
        ip(*back)
        process.settled(path)
    sh("sysctl", "-qw", "net.ipv4.conf.to-a.arp_notify=1")
    process.drift("sysctl.ipv4.arp_notify")
    sh("sysctl", "-qw", "net.ipv4.conf.to-a.arp_notify=0")
    process.settled("sysctl.ipv4.arp_notify")
    ip("link", "set", "eth0", "txqueuelen", "7", namespace="a")
    assert process.drift("peer.txqlen")["node"] == 7
    ip("link", "set", "eth0", "txqueuelen", "100", namespace="a")
    process.settled("peer.txqlen")
    calm(process)
    assert process.stop() == 0
    assert process.lines()[-1]["event"] == "stopped"


@needs("room_report")
def test_devices_that_values_are_computed_from_are_watched(node: Node, watch: Start) -> None:
    """Those that the spec names, and those that carry them."""
    ip("link", "add", "uplink0", "type", "veth", "peer", "name", "uplink1")
    ip("link", "add", "tunnel0", "type", "vxlan", "id", "7", "dstport", "4789", "remote", "192.0.2.2", "dev", "uplink0")
    node.apply(spec("veth", mtu={"for": ["tunnel0"]}))
    until(lambda: "tentative" not in ip("addr") + ip("addr", namespace="a"))  # nothing else tells the watch to look
    process = watch()
    ip("link", "set", "tunnel0", "mtu", "1300")
    assert process.unapplied("mtu")["spec"] == 1300
    ip("link", "set", "tunnel0", "mtu", "1450")
    process.settled("mtu")
    ip("link", "set", "uplink0", "mtu", "1400")
    assert process.unapplied("mtu")["spec"] == 1350
    assert process.stop() == 0
    watch("--heal").settled("mtu")
    assert (link("to-a")["mtu"], link("eth0", "a")["mtu"]) == (1350, 1350)


def test_entries_of_maps_are_no_drift_and_are_kept(node: Node, watch: Start) -> None:
    block = {"template": "prefix_filter", "params": {"prefixes": ["192.0.2.0/24"], "match": "source"}}
    filtered = {**spec("veth", txqlen=100), "programs": {"block": block}}
    filtered["devices"]["to-a"]["programs"] = {"peer": ["block"]}
    node.apply(filtered)
    process = watch("--heal")
    ip("link", "set", "to-a", "txqueuelen", "77")
    process.settled("txqlen")
    assert [line["event"] for line in process.lines()] == ["watching", "drift", "healed", "settled"]
    assert node.changes() == []


@pytest.mark.parametrize("kind", kinds())
def test_healing(node: Node, watch: Start, kind: str) -> None:
    node.apply(spec(kind, txqlen=100))
    process = watch("--heal")
    for words, path in (
        (("link", "set", "to-a", "mtu", "1400"), "mtu"),
        (("addr", "del", "10.1.0.1/32", "dev", "to-a"), "addresses"),
        (("link", "set", "to-a", "down"), "up"),
        (("link", "del", "to-a"), ""),
    ):
        ip(*words)
        process.drift(path)
        process.settled(path)
    sh("sysctl", "-qw", "net.ipv4.conf.to-a.arp_notify=1")
    process.settled("sysctl.ipv4.arp_notify")
    ip("netns", "del", "a")
    process.settled("", name="a")
    node_is_well(node)
    count = len(process.lines())
    ip("link", "set", "to-a", "alias", "nkform:w")  # a notice that changes nothing
    ip("link", "set", "to-a", "mtu", "1300")
    process.settled("mtu")
    assert [line["event"] for line in process.lines()[count:]] == ["drift", "healed", "settled"]
    assert process.stop(signal.SIGINT) == 0


def node_is_well(node: Node) -> None:
    assert node.changes() == []
    assert "drift: " not in node.run("status").out


@pytest.mark.parametrize("site", sites(*SITES))
def test_chains_are_watched_and_healed(node: Node, watch: Start, site: Site, others: Others) -> None:
    node.apply(site.spec({"position": "first", "chain": ["guard", "count"]}))
    process = watch("--heal")
    if site.direction is None:
        bpffs.remove(next(pin for pin in bpffs.pins("w") if pin.entry.startswith("count")))
        process.settled(f"programs.{site.hook}.count", "x")
        others.attach(site, "theirs", 0)
        process.settled(f"programs.{site.hook}.position", "x")
        assert site.order() == "guard count theirs"
    else:
        sh("tc", *f"filter del dev x {site.direction.name.lower()} prio {site.one('count').place}".split())
        process.settled(f"programs.{site.hook}.count", "x")
        assert site.order() == "guard count"
    assert process.stop() == 0


@needs("netkit")
@pytest.mark.parametrize("up", [True, False])
def test_policies_are_watched(node: Node, watch: Start, up: bool) -> None:
    """The kernel tells of a policy's change only while the device is up."""
    node.apply(spec("netkit", up=up, routes=[]))
    process = watch("--heal")
    ip("link", "set", "to-a", "type", "netkit", "blackhole")
    process.settled("policy")
    node_is_well(node)


def test_what_cannot_be_healed_is_tried_again_later_and_later(node: Node, watch: Start) -> None:
    """A foreign device takes the place of ours, so that it cannot be made."""
    node.apply(spec())
    ip("link", "add", "keeper", "type", "veth", "peer", "name", "keeper2")
    process = watch("--heal")
    ip("link", "set", "to-a", "alias", "")
    first = process.until(lambda line: line["event"] == "failed")
    assert first["problems"][0]["code"] == "NK0412"
    second = process.until(lambda line: line["event"] == "failed")
    assert second["retry_seconds"] == 2 * first["retry_seconds"] == 2
    ip("link", "set", "to-a", "alias", "nkform:w")
    process.until(lambda line: line["event"] == "recovered")
    node_is_well(node)


def test_another_run_comes_first(node: Node, watch: Start) -> None:
    node.apply(spec())
    process = watch("--heal")
    with take("test", 0, lambda _: None):
        ip("link", "set", "to-a", "mtu", "1400")
        refused = process.until(lambda line: line["event"] == "failed")
    assert refused["problems"][0]["code"] == "NK0610"
    process.settled("mtu")
    node_is_well(node)


def test_the_way_back_is_to_before_the_last_apply(node: Node, watch: Start) -> None:
    """And not to what somebody had changed and the watch mended."""
    node.apply(spec(mtu=1300))
    node.apply(spec())
    process = watch("--heal")
    ip("link", "set", "to-a", "mtu", "1400")
    process.settled("mtu")
    assert process.stop() == 0
    assert node.run("rollback", "-y").code == 0
    assert link("to-a")["mtu"] == 1300


def test_who_puts_it_back_does_not_make_it_spin(node: Node, watch: Start) -> None:
    node.apply(spec())
    process = watch("--heal")
    for _ in range(2):
        ip("link", "set", "to-a", "mtu", "1400")
        process.until(lambda line: line["event"] == "healed")
    assert process.until(lambda line: line["event"] == "recovered")
    assert "NK0520" in [p["code"] for line in process.lines() if line["event"] == "failed" for p in line["problems"]]


def test_the_spec_is_read_again_on_sighup_only(node: Node, watch: Start) -> None:
    node.apply(spec())
    process = watch("--heal")
    node.write(spec(mtu=1400))
    ip("link", "set", "to-a", "mtu", "1300")
    assert process.drift("mtu")["spec"] == 1500
    process.settled("mtu")
    process.process.send_signal(signal.SIGHUP)
    process.until(lambda line: line["event"] == "reread")
    assert process.unapplied("mtu")["spec"] == 1400
    process.settled("mtu")
    node.write("version: [")
    process.process.send_signal(signal.SIGHUP)
    refused = process.until(lambda line: line["event"] == "refused")
    assert refused["problems"]
    ip("link", "set", "to-a", "mtu", "1300")
    assert process.drift("mtu")["spec"] == 1400
    assert process.stop() == 0


def test_a_spec_of_another_node_is_refused_on_sighup(node: Node, watch: Start) -> None:
    node.apply(spec())
    process = watch()
    node.write({**spec(mtu=1400), "node": "other"})
    process.process.send_signal(signal.SIGHUP)
    refused = process.until(lambda line: line["event"] == "refused")
    assert [problem["code"] for problem in refused["problems"]] == ["NK0602"]
    ip("link", "set", "to-a", "mtu", "1300")
    assert process.drift("mtu")["spec"] == 1500


def test_what_a_spec_says_no_more_is_not_called_mended(node: Node, watch: Start) -> None:
    more = spec()
    more["devices"]["to-b"] = {"kind": "veth", "mtu": 1400, "peer": {"name": "b"}}
    more["namespaces"]["gone"] = {}
    node.write(more)
    process = watch()
    process.unapplied("", "to-b")
    node.write(spec())
    process.process.send_signal(signal.SIGHUP)
    process.until(lambda line: line["event"] == "reread")
    node.apply(spec())
    process.until(lambda line: line["event"] in ("settled", "healed") and line.get("name") == "to-a")
    assert not [line for line in process.lines() if line["event"] == "settled" and line["name"] in ("to-b", "gone")]


def test_a_spec_that_nobody_applied_is_no_drift(node: Node, watch: Start) -> None:
    node.apply(spec())
    more = spec(mtu=1400)
    more["devices"]["to-b"] = {"kind": "veth", "mtu": 1400, "peer": {"name": "b"}}
    node.write(more)
    process = watch()
    process.unapplied("mtu")
    process.unapplied("", "to-b")
    ip("link", "set", "to-a", "txqueuelen", "77")
    ip("link", "set", "to-a", "down")
    process.drift("up")
    assert {line["event"] for line in process.lines()} == {"watching", "unapplied", "drift"}


def test_namespaces_that_come_and_go(node: Node, watch: Start) -> None:
    """One that nkform does not make: the watch says that it is missing, and mends what it can once it is there."""
    ip("netns", "add", "a")
    foreign = spec()
    foreign["namespaces"] = {"a": {}}
    node.apply(foreign)
    process = watch("--heal")
    ip("netns", "del", "a")
    process.until(lambda line: line["event"] == "drift" and (line["kind"], line["name"]) == ("namespace", "a"))
    process.until(lambda line: line["event"] == "failed")
    ip("netns", "add", "a")
    process.until(lambda line: line["event"] == "recovered")
    node_is_well(node)


def test_it_tells_the_service_manager(node: Node, watch: Start, tmp_path: Path) -> None:
    node.apply(spec())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE)
        process = watch(NOTIFY_SOCKET=str(tmp_path / "notify"))
        assert manager.recv(64) == b"READY=1"
        assert process.stop() == 0
        assert manager.recv(64) == b"STOPPING=1"


def test_the_units_capabilities_are_enough(node: Node, watch: Start) -> None:
    """Makes all there is to make, with no more capabilities than nkform-watch.service has."""
    unit = (Path(__file__).parents[2] / "systemd" / "nkform-watch.service").read_text()
    (allowed,) = (line.partition("=")[2] for line in unit.splitlines() if line.startswith("CapabilityBoundingSet="))
    kept = ",".join(["-all", *(f"+{name.removeprefix('CAP_').lower()}" for name in allowed.split())])
    site = SITES[-1]
    node.apply(site.spec(["guard"], sysctl={"ipv4": {"arp_notify": 0}}))
    process = watch("--heal", before=("setpriv", "--no-new-privs", "--inh-caps=-all", f"--bounding-set={kept}"))
    ip("netns", "del", "a")
    process.settled("", "a")
    process.settled("", "x")
    sh("sysctl", "-qw", "net.ipv4.conf.x.arp_notify=1")
    process.settled("sysctl.ipv4.arp_notify", "x")
    node_is_well(node)
    assert site.order() == "guard"


def test_a_spec_that_is_wrong_is_said_at_once(node: Node) -> None:
    node.write({"version": 1})
    assert node.run("watch", str(node.path)).code == 1
    node.write(spec())
    for seconds in ("0", "nan", "1e400", "1e9"):
        assert "NK0602" in node.run("watch", "--interval", seconds, str(node.path)).err


def test_the_lines_for_people(node: Node) -> None:
    node.apply(spec())
    ip("link", "set", "to-a", "mtu", "1400")
    command = [sys.executable, "-m", "nkform", "watch", str(node.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline().endswith(" watching 1 device of w\n")
            assert process.stdout.readline().endswith(" device to-a: drift: mtu 1400 on the node, 1500 in the spec\n")
        finally:
            process.terminate()
        assert process.stdout.readline().endswith(" stopped\n")


@pytest.mark.parametrize("text", ["", "nonsense", "[]", '"x"', '{"spec": 7}', "[" * 100_000])
def test_a_record_of_going_back_that_cannot_be_read_takes_nothing_back(node: Node, text: str) -> None:
    node.apply(spec("veth", txqlen=100))
    rundir.write("w", journal.OUTCOME, text)
    assert not journal.is_taken_back(Declared("w", {}, {}))
    assert guardian_record.outcome("w", "token") is None


@pytest.mark.parametrize("way", ["nobody", "rollback"])
def test_what_nobody_confirmed_is_not_healed_to(node: Node, watch: Start, way: str) -> None:
    """The watch has read the new spec: it must not do what has just been taken back."""
    node.apply(spec("veth", txqlen=100))
    node.write(spec("veth", txqlen=500))
    seconds = "600s" if way == "rollback" else "1s"
    assert node.run("apply", "-y", str(node.path), "--confirm", seconds, "--detach").code == 0
    process = watch("--heal")
    if way == "rollback":
        assert node.run("rollback", "-y").code == 0
    process.until(lambda line: line["event"] == "failed" and "NK0614" in str(line))
    assert link("to-a")["txqlen"] == 100
    node.apply()  # by hand, it is meant
    process.settled("txqlen")
    ip("link", "set", "to-a", "txqueuelen", "77")
    process.settled("txqlen")
    assert link("to-a")["txqlen"] == 500


def test_what_was_rolled_back_is_not_healed_to_until_it_is_rolled_forward(node: Node, watch: Start) -> None:
    """Whatever the watch has read: `rollback` was somebody's will."""
    node.apply(spec("veth", txqlen=100))
    node.apply(spec("veth", txqlen=500))
    process = watch("--heal")
    assert node.run("rollback", "-y").code == 0
    process.until(lambda line: line["event"] == "failed" and "NK0614" in str(line))
    assert link("to-a")["txqlen"] == 100
    assert node.run("rollback", "-y").code == 0
    assert link("to-a")["txqlen"] == 500
    ip("link", "set", "to-a", "txqueuelen", "77")
    until(lambda: link("to-a")["txqlen"] == 500)
