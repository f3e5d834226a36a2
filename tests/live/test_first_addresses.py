"""Where an address of others has taken the place of ours, which went and came back, going back says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nkform.session import guardian
from tests.live.helpers.fault_injection import injected
from tests.live.helpers.processes import until
from tests.live.helpers.support import Node, ip
from tests.live.test_confirm import guardians as alive
from tests.live.test_pairs import veth

SAID = "10.7.0.1/24 of to-a is back, but the kernel sends to its subnet from 10.7.0.50/24 of others"


def spec(address: str) -> dict[str, Any]:
    made = veth()
    made["devices"]["to-a"]["addresses"] = [address]
    return made


def source() -> str:
    (route,) = json.loads(ip("-j", "route", "show", "10.7.0.0/24"))
    return str(route["prefsrc"])


def test_undoing_and_rolling_back_warn(node: Node) -> None:
    node.apply(spec("10.7.0.1/24"))
    ip("addr", "add", "10.7.0.50/24", "dev", "to-a")
    node.write(spec("10.8.0.1/24"))
    with injected("rename journal") as injection:
        told = node.run("apply", "-y", str(node.path)).err
    assert injection.hit
    assert source() == "10.7.0.50"
    assert "NK0505" in told
    assert f"warning[NK0523]: {SAID}" in told
    Path("/proc/sys/net/ipv4/conf/to-a/promote_secondaries").write_text("1")
    ip("addr", "del", "10.7.0.50/24", "dev", "to-a")
    ip("addr", "add", "10.7.0.50/24", "dev", "to-a")
    assert source() == "10.7.0.1"
    assert "NK0523" not in node.apply().err
    outcome = node.run("rollback", "-y")
    assert outcome.code == 0
    assert f"warning[NK0523]: {SAID}" in outcome.err
    assert source() == "10.7.0.50"
    assert "NK0523" not in node.run("rollback", "-y").err


def test_what_others_put_first_themselves_is_not_told(node: Node) -> None:
    node.apply(spec("10.7.0.1/24"))
    ip("addr", "del", "10.7.0.1/24", "dev", "to-a")
    ip("addr", "add", "10.7.0.50/24", "dev", "to-a")
    node.apply()
    assert source() == "10.7.0.50"
    node.write(spec("10.8.0.1/24"))
    with injected("rename journal") as injection:
        told = node.run("apply", "-y", str(node.path)).err
    assert injection.hit
    assert "NK0505" in told
    assert "NK0523" not in told


def test_the_log_has_it_of_a_trial(node: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    node.apply(spec("10.7.0.1/24"))
    ip("addr", "add", "10.7.0.50/24", "dev", "to-a")
    log = tmp_path / "log"

    def note(message: str) -> None:
        with log.open("a") as file:
            file.write(message + "\n")

    monkeypatch.setattr(guardian.system_log, "warning", note)
    node.write(spec("10.8.0.1/24"))
    assert node.run("apply", "-y", str(node.path), "--confirm", "1s", "--detach").code == 0
    until(lambda: not alive())
    assert source() == "10.7.0.50"
    assert f"w: {SAID}" in log.read_text().splitlines()
