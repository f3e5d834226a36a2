"""The state as IfState makes it, installed from requirements-ifstate.txt in an environment of its own.

IfState gets its best case: what it would clear beside the declared state (FDB entries, neighbours, queueing
disciplines, alternative names) it is told not to look for, which halves its time. It knows no netkit, sets
the alias of a device only when it is applied for the second time, and cannot switch duplicate address
detection off for one address.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import DONE, TIMED_OUT, BenchError, Measurement, environment, run
from benchmarks.sandbox import WORK
from benchmarks.scenario import ALIAS, GATEWAY4, GATEWAY6, MTU, PEER, ROUTE_PROTOCOL, Pair, Scenario

REQUIREMENTS = Path(__file__).with_name("requirements-ifstate.txt")
LIMIT = 300.0
"""Seconds that a phase may take. IfState ignores SIGTERM while it applies; measure.run sends SIGKILL."""
CANNOT = frozenset({"nodad"})
"""Keys of `ip -j` that IfState has no setting for."""

_LOOPBACK = "addresses: [127.0.0.1/8, '::1/128']"
_HEAD = f"""\
parameters:
  machine_id: null
  defaults:
    - match: [{{ifname: ''}}]
      clear_addresses: true
      clear_altnames: false
      clear_fdb: false
      clear_neighbours: false
      clear_tc: false
interfaces:
  lo: {{link: {{kind: physical, state: up}}, {_LOOPBACK}}}
"""


def version() -> str:
    """The IfState version that is measured."""
    lines = REQUIREMENTS.read_text().splitlines()
    return next(line.partition("==")[2] for line in lines if line.startswith("ifstate=="))


def install() -> str:
    """The path of `ifstatecli`, installed into the cache if it is not there yet."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nkform-bench"
    folder = cache / f"ifstate-{version()}"
    program = folder / "bin" / "ifstatecli"
    stamp = folder / "installed"
    if not stamp.exists() or stamp.read_text() != REQUIREMENTS.read_text():
        print(f"bench: installing IfState {version()} into its own virtual environment", file=sys.stderr)
        base = getattr(sys, "_base_executable", sys.executable)
        subprocess.run([base, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        done = subprocess.run([*pip, "-r", str(REQUIREMENTS)], text=True, capture_output=True, check=False)
        if done.returncode:
            raise BenchError(f"IfState could not be installed (--no-ifstate goes without it):\n{done.stderr.strip()}")
        stamp.write_text(REQUIREMENTS.read_text())
    return str(program)


def spec(scenario: Scenario) -> str:
    """The scenario as IfState's YAML."""
    lines = [_HEAD.rstrip()]
    lines += [
        f"  {pair.name}: {{link: {{kind: veth, peer: {PEER}, peer_netns: {pair.namespace}, "
        f"state: up, mtu: {MTU}, ifalias: '{ALIAS}'}}}}"
        for pair in scenario.pairs
    ]
    lines.append("namespaces:")
    for pair in scenario.pairs:
        lines += _namespace(pair)
    return "\n".join([*lines, ""])


def _namespace(pair: Pair) -> list[str]:
    return [
        f"  {pair.namespace}:",
        "    interfaces:",
        f"      lo: {{link: {{kind: physical, state: up, ifalias: '{ALIAS}'}}, {_LOOPBACK}}}",
        f"      {PEER}:",
        f"        link: {{kind: veth, peer: {pair.name}, peer_netns: null, state: up, mtu: {MTU}}}",
        f"        addresses: [{pair.address4}, '{pair.address6}']",
        "    routing:",
        "      routes:",
        f"        - {{to: 0.0.0.0/0, via: {GATEWAY4}, dev: {PEER}, onlink: true, proto: {ROUTE_PROTOCOL}}}",
        f"        - {{to: '::/0', via: '{GATEWAY6}', dev: {PEER}, proto: {ROUTE_PROTOCOL}}}",
    ]


class IfState:
    """One scenario, made and unmade by IfState. After a phase that takes too long there is no next."""

    def __init__(self, program: str, scenario: Scenario) -> None:
        self.program = program
        self.full = WORK / "ifstate.yaml"
        self.empty = WORK / "empty.yaml"
        self.full.write_text(spec(scenario))
        self.empty.write_text(_HEAD)

    def make(self) -> Iterator[Measurement]:
        """From nothing to the state, and a check that finds nothing to do."""
        yield self._run("plan on empty", "check", self.full)
        yield from self._until_too_long(
            ("apply", "apply", self.full),
            ("apply again, for the aliases", "apply", self.full),
            ("plan, nothing to do", "check", self.full),
        )

    def unmake(self) -> Iterator[Measurement]:
        yield from self._until_too_long(("destroy", "apply", self.empty))

    def _until_too_long(self, *phases: tuple[str, str, Path]) -> Iterator[Measurement]:
        for phase in phases:
            measured = self._run(*phase)
            yield measured
            if measured.outcome != DONE:
                return

    def _run(self, phase: str, action: str, file: Path) -> Measurement:
        finished = run(phase, [self.program, "-q", "-c", str(file), action], limit=LIMIT, env=environment())
        if finished.measurement.outcome not in (DONE, TIMED_OUT):
            raise BenchError(f"IfState {phase}: exit code {finished.code}\n{finished.err.strip()[-800:]}")
        return finished.measurement
