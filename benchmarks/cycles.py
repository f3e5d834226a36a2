"""One cycle: a side makes the state of one size and takes it away again, in a sandbox of its own.

`perform` starts a cycle and reads its report; `inside` is the cycle, in the process that `perform` started.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from benchmarks import sandbox, witness
from benchmarks.baseline_ifstate import IfState
from benchmarks.baseline_ip import IpRoute
from benchmarks.measure import DONE, BenchError, Measurement
from benchmarks.scenario import Scenario
from benchmarks.subject import Nkform, startup

BENCH = Path(__file__).with_name("bench.py")


@dataclass(frozen=True)
class Programs:
    """What is measured: command lines and paths."""

    nkform: tuple[str, ...]
    python: str
    ip: str
    ifstate: str = ""


@dataclass(frozen=True)
class Request:
    """Which side is to do what. `side` is a key of SIDES."""

    side: str
    size: int
    kind: str
    programs: Programs
    outer: str = ""
    witness: bool = False

    @classmethod
    def parse(cls, text: str) -> Request:
        fields = json.loads(text)
        programs = fields.pop("programs")
        return cls(**fields, programs=Programs(**{**programs, "nkform": tuple(programs["nkform"])}))


@dataclass
class Report:
    """What a cycle measured, in order; the state that it made, if asked for; why it broke off, if it did.

    `other_work` is the share of the processor time that was in use when it began.
    """

    measurements: list[Measurement] = field(default_factory=list)
    state: witness.Dump = field(default_factory=dict)
    error: str = ""
    other_work: float = 0

    @classmethod
    def parse(cls, text: str) -> Report:
        fields = json.loads(text)
        return cls([Measurement(**each) for each in fields["measurements"]], fields["state"], fields["error"])


def perform(request: Request) -> Report:
    """Runs a cycle in a sandbox of its own, when the one before is gone altogether."""
    other_work = sandbox.settle()
    fields = {**asdict(request), "outer": sandbox.outside()}
    command = sandbox.command([sys.executable, str(BENCH), "--inside", json.dumps(fields)])
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode or not done.stdout:
        raise BenchError(f"the sandbox for {request.side} ended with exit code {done.returncode}; it needs root")
    return replace(Report.parse(done.stdout), other_work=other_work)


def inside(text: str) -> None:
    """The cycle itself. Prints its report."""
    request = Request.parse(text)
    sandbox.enter(request.outer)
    report = Report()
    try:
        for measurement in SIDES[request.side](request, report):
            report.measurements.append(measurement)
    except BenchError as error:
        report.error = str(error)
    json.dump(asdict(report), sys.stdout)


def _nkform(request: Request, report: Report) -> Iterator[Measurement]:
    scenario = Scenario(request.size, request.kind)
    nkform = Nkform(request.programs.nkform, scenario)
    yield from nkform.make()
    state = witness.dump(request.programs.ip, scenario)
    if request.witness:
        report.state = state
    yield from nkform.look()
    yield from nkform.unmake()


def _iproute2(request: Request, report: Report) -> Iterator[Measurement]:
    scenario = Scenario(request.size, request.kind)
    iproute2 = IpRoute(request.programs.ip, scenario)
    iproute2.write()
    yield from iproute2.cycle()
    state = witness.dump(request.programs.ip, scenario)
    if request.witness:
        report.state = state
    yield iproute2.delete()


def _ifstate(request: Request, report: Report) -> Iterator[Measurement]:
    scenario = Scenario(request.size, request.kind)
    ifstate = IfState(request.programs.ifstate, scenario)
    last = DONE
    for measurement in ifstate.make():
        yield measurement
        last = measurement.outcome
    if last == DONE:
        report.state = witness.dump(request.programs.ip, scenario)
        yield from ifstate.unmake()


def _nkform_devices(request: Request, report: Report) -> Iterator[Measurement]:
    scenario = Scenario(request.size, request.kind, devices_only=True)
    _make_namespaces(request, scenario)
    yield Nkform(request.programs.nkform, scenario).devices()
    report.state = witness.dump(request.programs.ip, scenario) if request.witness else {}


def _iproute2_devices(request: Request, report: Report) -> Iterator[Measurement]:
    scenario = Scenario(request.size, request.kind, devices_only=True)
    yield from _make_namespaces(request, scenario).devices()
    report.state = witness.dump(request.programs.ip, scenario) if request.witness else {}


def _make_namespaces(request: Request, scenario: Scenario) -> IpRoute:
    iproute2 = IpRoute(request.programs.ip, scenario)
    iproute2.write()
    iproute2.make_namespaces()
    return iproute2


def _startup(request: Request, _: Report) -> Iterator[Measurement]:
    yield from startup(request.programs.nkform, request.programs.python, request.size)


NKFORM = "nkform"
IPROUTE2 = "iproute2"
IFSTATE = "IfState"
KERNEL = "kernel"
"""What a cycle of nkform measures of the kernel alone; it has no cycle of its own."""
NKFORM_DEVICES = "nkform, devices only"
IPROUTE2_DEVICES = "iproute2, devices only"
STARTUP = "start"

SIDES: Mapping[str, Callable[[Request, Report], Iterator[Measurement]]] = {
    NKFORM: _nkform,
    IPROUTE2: _iproute2,
    IFSTATE: _ifstate,
    NKFORM_DEVICES: _nkform_devices,
    IPROUTE2_DEVICES: _iproute2_devices,
    STARTUP: _startup,
}
