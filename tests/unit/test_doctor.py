"""What the doctor says of a machine, whatever the machine at hand is like."""

from __future__ import annotations

import errno
from collections.abc import Collection
from typing import Any

import pytest

from nkform.apply import expedite
from nkform.bpf import engine_clang
from nkform.features import FEATURES
from nkform.kernel import bpffs, config, libbcc, netns, probe, process, rcu
from nkform.kernel.error import KernelError
from nkform.results import Finding
from nkform.session import doctor


class Machine:
    """A machine that has everything, until a test takes something away."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch
        self.has(process, "is_root", True)
        self.features(FEATURES)
        self.has(config, "option", "y")
        self.has(rcu, "obstacle", "")
        self.has(rcu, "read", rcu.OFF)
        self.has(engine_clang, "find_compiler", "/usr/bin/clang")
        self.has(libbcc, "find", "/usr/lib/bcc")
        self.has(bpffs, "is_mounted", True)
        self.has(netns, "stale", [])

    def has(self, module: object, name: str, value: Any) -> None:
        def answer(*_: object) -> Any:
            if isinstance(value, Exception):
                raise value
            return value

        self._patch.setattr(module, name, answer)

    def features(self, names: Collection[str] | Exception) -> None:
        self.has(probe, "probe", names)

    def ailing(self) -> dict[str, Finding]:
        return {finding.name: finding for finding in doctor.findings() if finding.state != "ok"}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def test_a_machine_that_has_everything(machine: Machine) -> None:
    assert machine.ailing() == {}
    assert {finding.name for finding in doctor.findings()} > {"kernel", "privileges", *FEATURES, "clang", "bcc"}


def test_each_thing_that_lacks_is_named_with_what_to_do(machine: Machine) -> None:
    machine.has(process, "is_root", False)
    machine.has(engine_clang, "find_compiler", None)
    machine.has(libbcc, "find", None)
    machine.has(bpffs, "is_mounted", False)
    machine.has(netns, "stale", ["old"])
    found = machine.ailing()
    assert set(found) == {"privileges", "clang", "bcc", "bpffs", "namespaces"}
    assert {finding.state for finding in found.values()} == {"missing"}
    assert all(finding.hint for finding in found.values())
    assert "old" in found["namespaces"].detail


def test_a_feature_that_lacks_is_told_with_the_kernel_that_has_it(machine: Machine) -> None:
    machine.features([name for name in FEATURES if name != "netkit"])
    machine.has(config, "option", "n")
    (found,) = machine.ailing().values()
    assert found.name == "netkit"
    assert f"came with Linux {FEATURES['netkit'].since}" in found.detail
    assert f"built without {FEATURES['netkit'].config}" in found.detail


def test_what_needs_a_feature_that_lacks_names_it(machine: Machine) -> None:
    machine.features([])
    needing = [
        found for found in machine.ailing().values() if found.detail.endswith(f"needs {FEATURES['netkit'].what}")
    ]
    assert needing


def test_features_are_unknown_where_the_kernel_does_not_say(machine: Machine) -> None:
    machine.features(KernelError(errno.EPERM, "make a namespace"))
    found = machine.ailing()
    assert set(found) == set(FEATURES)
    assert {finding.state for finding in found.values()} == {"unknown"}


def test_what_is_said_of_grace_periods(machine: Machine) -> None:
    def said() -> tuple[str, str]:
        (found,) = (finding for finding in doctor.findings() if finding.name == rcu.EXPEDITED.name)
        return found.state, found.detail

    machine.has(rcu, "read", "1" if isinstance(rcu.OFF, str) else 1)
    for borrowed, words in (True, "a run of nkform has set"), (False, "nkform leaves it alone"):
        machine.has(expedite, "is_borrowed", borrowed)
        assert said()[0] == "ok"
        assert words in said()[1]
    machine.has(rcu, "read", KernelError(errno.EIO, "read it"))
    assert said()[0] == "unknown"
    machine.has(rcu, "obstacle", "it is read-only")
    assert said()[0] == "missing"
