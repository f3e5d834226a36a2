"""Packet tests: a packet in; a verdict, a packet and counts out. They run in the kernel, on programs without a device.

A template's tests are in its tests.yaml; a spec has tests of its own, for whole chains.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nkform.bpf.facts import MODES, Facts
from nkform.bpf.packets import build
from nkform.bpf.parameters import Canonical
from nkform.bpf.template import Numbers, Template, check, excluded
from nkform.dataclass import dataclass, field, replace
from nkform.kinds import NETKIT
from nkform.nearest import nearest
from nkform.problem import NkformError, Path, Problem

if TYPE_CHECKING:
    from nkform.bpf.engines import Engine
    from nkform.bpf.loader import Loaded, Loader
    from nkform.bpf.render import Renderer

VERDICTS = {-1: "next", 0: "pass", 2: "drop", 7: "redirect"}

UNCHANGED = "unchanged"
IFINDEX = 1
"""Test runs happen on `lo`."""

_FACTS = ("mac", "peer_mac", "mtu", "addresses", "peer_addresses")
_SUITE = ("params", "facts", "tests")
_TEST = ("name", "params", "facts", "modes", "hook", "packet", "expect")
_EXPECT = ("verdict", "packet", "maps")


@dataclass(frozen=True, slots=True)
class Expectation:
    """What must come out: a verdict; the packet (bytes by mode), None if any; numbers by map, key and field."""

    verdict: str
    packet: Mapping[str, bytes] | None = None
    maps: Mapping[str, Mapping[str, Mapping[str, int]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PacketTest:
    """One test of a template; `packet` by mode."""

    name: str
    params: Mapping[str, Canonical]
    facts: Mapping[str, Any]
    modes: tuple[str, ...]
    hook: str
    packet: Mapping[str, bytes]
    expect: Expectation


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a chain made of a packet. `by` is the program that decided, None if all said NEXT."""

    verdict: str
    by: str | None
    packet: bytes


# --- reading ----------------------------------------------------------------------------


def read_tests(template: Template) -> tuple[PacketTest, ...]:
    """A template's tests; none if it has no such file. Raises NkformError with all that is wrong, and where."""
    from nkform.document import source as files
    from nkform.document import yaml_events

    try:
        source = files.read(template.tests, within=template.folder)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise NkformError(Problem("NK0701", f"cannot read {template.tests}: {error.strerror}")) from None
    parsed = yaml_events.parse(source.text)
    if parsed.faults:
        raise NkformError(*map(source.problem, parsed.faults))
    reading = _Reading(template)
    tests = reading.suite(parsed.data)
    if reading.problems:
        placed = []
        for problem in reading.problems:
            place, _ = source.find(problem.path or ())
            placed.append(replace(problem, path=None, position=source.spot(place)))
        raise NkformError(*placed)
    return tests


class _Reading:
    def __init__(self, template: Template) -> None:
        self.template = template
        self.problems: list[Problem] = []

    def fault(self, message: str, path: Path, hint: str = "") -> None:
        self.problems.append(Problem("NK0750", message, path=path, hint=hint))

    def mapping(self, raw: object, known: Sequence[str], path: Path, noun: str) -> Mapping[str, Any]:
        if raw is None:
            return {}
        if not isinstance(raw, Mapping):
            self.fault(f"{noun} is a mapping", path)
            return {}
        for key in raw:
            if known and key not in known:
                near = nearest(str(key), known)
                hint = f"did you mean `{near}`?" if near else "known here: " + ", ".join(known)
                self.fault(f"{noun} has no `{str(key)[:60]}`", (*path, str(key)), hint)
        return raw

    def suite(self, raw: object) -> tuple[PacketTest, ...]:
        suite = self.mapping(raw, _SUITE, (), "a file of tests")
        tests = suite.get("tests")
        if not isinstance(tests, list):
            self.fault("`tests` is a list of tests", ("tests",) if "tests" in suite else ())
            return ()
        return tuple(self.test(suite, test, ("tests", place)) for place, test in enumerate(tests))

    def test(self, suite: Mapping[str, Any], raw: object, path: Path) -> PacketTest:
        test = self.mapping(raw, _TEST, path, "a test")
        template = self.template
        params = self.params(suite, test, path)
        facts = {**(suite.get("facts") or {}), **self.mapping(test.get("facts"), _FACTS, (*path, "facts"), "`facts`")}
        facts = {name: tuple(value) if isinstance(value, list) else value for name, value in facts.items()}
        modes = tuple(test.get("modes") or template.modes)
        for mode in modes:
            if mode not in MODES:
                self.fault(f"there is no mode {mode}", (*path, "modes"))
        hook = test.get("hook", template.hooks[0])
        if hook not in template.hooks:
            self.fault(f"the template does not stand at the hook {hook}", (*path, "hook"))
        packets = {mode: self.packet(test.get("packet"), mode, (*path, "packet")) for mode in modes if mode in MODES}
        expect = expectation(test.get("expect"), packets, (*path, "expect"), self.problems, template.maps)
        return PacketTest(str(test.get("name", "")), params, facts, modes, str(hook), packets, expect)

    def params(self, suite: Mapping[str, Any], test: Mapping[str, Any], path: Path) -> Mapping[str, Canonical]:
        where = (*path, "params") if "params" in test else ("params",)
        given = self.mapping(test.get("params", suite.get("params")), (), where, "`params`")
        found = check(self.template, given)
        self.problems += [replace(problem, path=(*where, *(problem.path or ()))) for problem in found.problems]
        return found.params

    def packet(self, raw: object, mode: str, path: Path) -> bytes:
        built = build(raw, mode, path)
        self.problems += [problem for problem in built.problems if problem not in self.problems]
        return built.data


def expectation(
    raw: object,
    packets: Mapping[str, bytes],
    path: Path,
    problems: list[Problem],
    maps: Mapping[str, Numbers] | None = None,
) -> Expectation:
    """What a test expects; adds to the problems what is wrong with it. `maps` are those that it can look into."""
    reading = _Reading.__new__(_Reading)
    reading.problems = problems
    expect = reading.mapping(raw, _EXPECT, path, "`expect`")
    verdict = expect.get("verdict")
    if verdict not in VERDICTS.values():
        reading.fault(f"`verdict` must be one of {', '.join(VERDICTS.values())}", (*path, "verdict"))
    after: Mapping[str, bytes] | None = None
    if expect.get("packet") == UNCHANGED:
        after = packets
    elif "packet" in expect:
        built = {mode: build(expect["packet"], mode, (*path, "packet")) for mode in packets}
        problems += [p for one in list(built.values())[:1] for p in one.problems]
        after = {mode: one.data for mode, one in built.items()}
    wanted = reading.mapping(expect.get("maps"), tuple(maps or ()), (*path, "maps"), "`maps`")
    for name, entries in wanted.items():
        if numbers := (maps or {}).get(name):
            found = reading.mapping(entries, numbers.keys, (*path, "maps", name), f"`{name}`")
            for key, fields in found.items():
                reading.mapping(fields, numbers.fields, (*path, "maps", name, key), f"`{key}`")
    return Expectation(str(verdict), after, wanted)


# --- running ----------------------------------------------------------------------------


def run_template_test(
    test: PacketTest, mode: str, template: Template, engine: Engine, renderer: Renderer, loader: Loader
) -> tuple[str, ...]:
    """Runs a test in one mode: what was not as expected.

    Raises NkformError, KernelError (EINVAL: this kernel runs no program on such a packet).
    """
    facts = Facts(kind=NETKIT.name, mode=mode, hook=test.hook, ifindex=IFINDEX, peer_ifindex=IFINDEX)
    facts = replace(facts, **{"mac": "02:00:00:00:00:02", "peer_mac": "02:00:00:00:00:01", "mtu": 1500, **test.facts})
    assert excluded(template, facts) is None
    rendered = renderer.render(template, test.params, facts, engine.name)
    with loader.load(engine.build(rendered), rendered) as loaded:
        outcome = run_chain([(template.name, loaded)], test.packet[mode])
        return compare(test.expect, outcome, mode, numbers(template, loaded))


def run_chain(chain: Sequence[tuple[str, Loaded]], packet: bytes) -> Outcome:
    """Runs a packet through programs, as the hooks do: until one does not say NEXT. Raises KernelError."""
    from nkform.kernel.bpf_programs import test_run

    for name, loaded in chain:
        done = test_run(loaded.prog_fd, packet)
        packet = done.data
        if done.retval != -1:
            return Outcome(VERDICTS.get(done.retval, f"unknown ({done.retval})"), name, packet)
    return Outcome("next", None, packet)


def compare(
    expect: Expectation, outcome: Outcome, mode: str, found: Mapping[str, Mapping[str, Mapping[str, int]]] | None = None
) -> tuple[str, ...]:
    """What is not as expected, each in a sentence."""
    wrong = []
    if outcome.verdict != expect.verdict:
        wrong.append(f"the verdict is {outcome.verdict}, not {expect.verdict}")
    if expect.packet is not None and outcome.packet != expect.packet[mode]:
        wrong.append(f"the packet is {outcome.packet.hex()}, not {expect.packet[mode].hex()}")
    for name, entries in expect.maps.items():
        for key, fields in entries.items():
            for label, number in fields.items():
                there = (found or {}).get(name, {}).get(key, {}).get(label)
                if there != number:
                    wrong.append(f"{name} says {there} {label} for {key}, not {number}")
    return tuple(wrong)


def numbers(template: Template, loaded: Loaded) -> dict[str, dict[str, dict[str, int]]]:
    """The numbers that a program's maps hold for people: by map, key and field, summed over CPUs."""
    return {
        name: read_numbers(described, loaded.maps[name])
        for name, described in template.maps.items()
        if name in loaded.maps
    }


def read_numbers(described: Numbers, map_fd: int) -> dict[str, dict[str, int]]:
    """What one such map holds. Raises KernelError."""
    from nkform.kernel import bpf_maps

    info = bpf_maps.map_info(map_fd)
    percpu = info.type in bpf_maps.PERCPU
    found = {}
    width = struct.Struct(f"={len(described.fields)}Q")
    for place, key in enumerate(described.keys):
        raw = struct.pack("=I", place)
        if percpu:
            values = bpf_maps.map_lookup_percpu(map_fd, raw, info) or ()
        else:
            one = bpf_maps.map_lookup(map_fd, raw, info)
            values = () if one is None else (one,)
        sums = [sum(column) for column in zip(*(width.unpack_from(value) for value in values), strict=True)]
        found[key] = dict(zip(described.fields, sums, strict=True)) if sums else dict.fromkeys(described.fields, 0)
    return found
