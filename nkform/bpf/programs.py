"""The programs of a spec: checked against their templates, told apart by digest, compiled and loaded on demand.

A digest needs no compiler; compiling and loading happen when a program is attached, each structure compiled once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from nkform.bpf.catalogue import catalogue, unknown
from nkform.bpf.engines import AUTO, Engine, make, resolve
from nkform.bpf.facts import IDENTITY, IN_SPECS, WORDS, Facts, facts_of, is_wanting
from nkform.bpf.judge import Judge
from nkform.bpf.loader import Loaded, Loader
from nkform.bpf.parameters import MAP, Canonical, FactDefault, shown
from nkform.bpf.render import Rendered, Renderer, contents_of, digest, facts_used
from nkform.bpf.template import DECLARED_FACTS, Template, check, excluded, misplaced, verdicts
from nkform.bpf.vocabulary import FACT_PREFIX
from nkform.dataclass import dataclass, replace
from nkform.features import FEATURES
from nkform.kernel import files
from nkform.kernel.error import KernelError
from nkform.kernel.hardware import index_of
from nkform.macs import Macs, with_macs
from nkform.model import Chain, Device, Explanation, MapsByParam, Node, Program
from nkform.problem import NkformError, Problem, fail
from nkform.problem import Path as SpecPath

GENERATED = "default"
"""The program that nkform adds to a chain with `default: drop` (nkform.plan.chains.DEFAULT)."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where programs come from: folders of templates beside the built-in ones, the engine, objects built elsewhere."""

    folders: tuple[Path, ...] = ()
    engine: str = AUTO
    objects: Path | None = None


class Programs:
    """Close it: it holds what was loaded. `templates`: those of the source, if they were read already.

    Raises NkformError where a template cannot be read.
    """

    def __init__(self, source: Source, templates: Mapping[str, Template] | None = None) -> None:
        self._source = source
        self._engine_name = resolve(source.engine, objects=source.objects is not None)
        if source.objects is not None and self._engine_name != "clang":
            raise fail(
                "NK0736", "objects that were built elsewhere are clang's: bcc compiles in the process that loads"
            )
        self._engine: Engine | None = None
        self._judge = Judge()
        self._templates = catalogue(source.folders, self._judge) if templates is None else templates
        self._renderer = Renderer(self._templates.values())
        self._ready: dict[tuple[str, str, str, str], Rendered] = {}
        """What was rendered for a plan and is complete, by device, hook, name and digest. Loading takes it."""
        self._explained: dict[tuple[str, str, str], Explanation] = {}
        """What was rendered for a plan, by device, hook and name."""
        self._structures: set[str] = set()
        """What a plan needs objects of."""
        self._given: dict[str, str] = {}
        """What was in the objects that were built elsewhere when the plan was made, by structure."""
        self._loader = Loader()

    def begin(self) -> None:
        """Makes ready to render, beside what this process does next."""
        self._renderer.begin()

    def close(self) -> None:
        self._judge.close()
        self._loader.close()
        self._renderer.close()
        if self._engine is not None:
            self._engine.close()

    def __enter__(self) -> Programs:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def engine(self) -> str:
        """The engine that programs are rendered for."""
        return self._engine_name

    @property
    def notes(self) -> list[Problem]:
        """What whoever loaded programs may want to know afterwards."""
        error = self._engine.unkept if self._engine else None
        if error is None:
            return []
        said = f"compiled programs could not be kept: {error.strerror or error}"
        return [Problem("NK0765", said, hint="each run compiles them again", severity="warning")]

    def check(self, devices: Mapping[str, Device]) -> list[Problem]:
        """What is wrong with the programs of chains, with paths into the spec."""
        problems: list[Problem] = []
        sound: list[Program] = []
        for device in devices.values():
            for hook, chain in device.chains.items():
                for program in chain.programs:
                    wrong = self._check_one(program, hook)
                    problems += wrong
                    sound += [] if wrong else [program]
        for program, problem in self._judge.programs(self._templates, sound):
            problems.append(replace(problem, path=_place(program, problem.path or ())))
        self._judge.close()
        return list(dict.fromkeys(problems))  # a program that many chains use is wrong once

    def _check_one(self, program: Program, hook: str) -> list[Problem]:
        template = self._templates.get(program.template)
        if template is None:
            return [replace(unknown(program.template, self._templates), path=program.places.get("template"))]
        wrong = misplaced(template, hook)
        if wrong is not None:
            return [replace(wrong, path=program.places.get(""))]
        return [replace(p, path=_place(program, p.path or ())) for p in check(template, program.params).problems]

    def declared(self, node: Node) -> Node:
        """The node with what the maps of its programs shall hold: what is to be looked for in the kernel."""
        return node.with_devices({name: self._with_contents(device) for name, device in node.devices.items()})

    def _with_contents(self, device: Device) -> Device:
        chains = {}
        for hook, chain in device.chains.items():
            programs = tuple(
                replace(program, contents=contents) if (contents := self._contents(device, hook, program)) else program
                for program in chain.programs
            )
            chains[hook] = replace(chain, programs=programs)
        return device if chains == device.chains else replace(device, chains=chains)

    def _contents(self, device: Device, hook: str, program: Program) -> MapsByParam:
        template = self._templates[program.template]
        if not any(parameter.role == MAP for parameter in template.parameters.values()):
            return {}
        return contents_of(template, check(template, program.params).params, facts_of(device, hook))

    def needs(self, node: Node) -> set[str]:
        """The features of the kernel that the templates of a node's programs need."""
        return {need for program in _all(node) for need in self._templates[program.template].needs}

    def named(self, node: Node) -> set[str]:
        """The devices that parameters of a node's programs name."""
        return {name for program in _all(node) for name, _ in self._names(program)}

    def _names(self, program: Program) -> Iterator[tuple[str, str]]:
        """The devices that a program's parameters name, each with its parameter."""
        parameters = self._templates[program.template].parameters
        for name, given in program.params.items():
            if name in parameters and parameters[name].kind.name == "ifindex":
                for item in given if isinstance(given, list | tuple) else (given,):
                    if isinstance(item, str):
                        yield item, name

    def _absent(
        self, program: Program, features: Collection[str] | None, indexes: Mapping[str, int | None] | None
    ) -> Iterator[Problem]:
        """What a program needs and the node does not have; None: that is not known."""
        for need in self._templates[program.template].needs if features is not None else ():
            if features is not None and need not in features:
                feature = FEATURES.get(need)
                since = f": it came with Linux {feature.since}" if feature else ""
                message = (
                    f"the template {program.template} of {program.name} needs {need}, which this kernel lacks{since}"
                )
                yield Problem("NK0401", message, path=program.places.get("template"))
        for name, parameter in self._names(program) if indexes is not None else ():
            if indexes is not None and name not in indexes:
                message = (
                    f"`{parameter}` of {program.name} names the device {name}, which neither the spec nor the node has"
                )
                yield Problem("NK0444", message, path=_place(program, (parameter,)))

    def resolve(
        self,
        device: Device,
        features: Collection[str] | None = None,
        indexes: Mapping[str, int | None] | None = None,
        macs: Macs = (None, None),
    ) -> tuple[Device, list[Problem]]:
        """The device with the digests of its programs, without those that have no work in its mode, which are told.

        `features` are those that the kernel has, `indexes` the devices that programs can name, with their ifindexes as
        far as they stay. None: nothing is known of the node. `macs`: the device gets those that programs want to know.
        """
        chains: dict[str, Chain] = {}
        notes: list[Problem] = []
        wanted: set[str] = set()
        for hook, chain in device.chains.items():
            common = facts_of(device, hook)
            kept = []
            for program in chain.programs:
                known = {name: index for name, _ in self._names(program) if (index := (indexes or {}).get(name))}
                facts = replace(common, ifindexes=known) if known else common
                why = excluded(self._templates[program.template], facts)
                if why is None:
                    notes += self._absent(program, features, indexes)
                if why is None and facts.framing not in self._templates[program.template].framings:
                    notes.append(_unframed(device.name, program, facts.framing))
                if why is None:
                    rendered = self._render(program, facts)
                    used = facts_used(rendered, program.params)
                    wanted |= used
                    self._structures.add(rendered.structure)
                    kept.append(replace(program, digest=digest(rendered), contents=rendered.contents))
                    place = (device.name, hook, program.name)
                    self._explained[place] = self._explanation(kept[-1], facts, rendered, used, place)
                    if not rendered.unknown:
                        self._ready[device.name, hook, program.name, kept[-1].digest] = rendered
                    notes += _overfull(program, rendered)
                    notes += _wanting(program, rendered, facts)
                else:
                    path: SpecPath = ("devices", device.name, "programs", hook)
                    message = f"{program.name} leaves the chain {hook} of {device.name}: {why}"
                    notes.append(Problem("NK0424", message, path=path, severity="note"))
            chains[hook] = replace(chain, programs=tuple(kept))
            if chain.default == "drop":
                notes += self._shut(device.name, hook, kept)
        if (complete := with_macs(device, macs, wanted)) is not device:
            return self.resolve(complete, features, indexes)
        return replace(device, chains=chains), notes

    def _shut(self, device: str, hook: str, programs: Sequence[Program]) -> Iterator[Problem]:
        """Whether nothing can pass a chain that drops what nobody decided. One that is a brake is meant to be so."""
        given = [program for program in programs if program.name != GENERATED]
        said = [
            verdicts(self._templates[p.template], check(self._templates[p.template], p.params).params) for p in given
        ]
        if not said or any(some is None or some == {"drop"} or some & {"pass", "redirect"} for some in said):
            return
        ways = {
            f"`{name}: pass` of {p.name}": None
            for p in given
            for name, parameter in self._templates[p.template].parameters.items()
            if f"={name}" in self._templates[p.template].verdicts and "pass" in parameter.kind.words
        }
        names = ", ".join(program.name for program in given)
        can = "cannot pass a packet" if len(given) == 1 else "none of which can pass a packet"
        yield Problem(
            "NK0442",
            f"nothing can ever pass {hook} of {device}: what no program decides is dropped, and the chain is {names}, "
            f"{can}",
            path=("devices", device, "programs", hook),
            hint=f"let one say what passes: {', '.join(ways)}" if ways else "add a program that passes what is good",
            severity="warning",
        )

    def render(self, device: Device, hook: str, program: Program) -> Rendered:
        """A program's C for one device."""
        return self._render(program, facts_of(device, hook))

    def _render(self, program: Program, facts: Facts) -> Rendered:
        template: Template = self._templates[program.template]
        params: Mapping[str, Canonical] = check(template, program.params).params
        return self._renderer.render(template, params, facts, self._engine_name)

    def export(self, programs: Iterable[tuple[Device, str, Program]], folder: Path) -> int:
        """Compiles programs into a folder that `objects` finds them in; how many objects. Raises NkformError."""
        from nkform.bpf.engine_clang import ClangEngine
        from nkform.bpf.store import Store, default_path

        if self._engine_name != "clang":
            raise fail("NK0736", "objects are built with clang; bcc compiles in the process that loads")
        with Store(default_path()) as cache, Store(folder) as store:
            engine = ClangEngine(cache)
            return len({engine.export(self.render(*program), store) for program in programs})

    def _explanation(
        self, program: Program, facts: Facts, rendered: Rendered, used: Collection[str], place: tuple[str, str, str]
    ) -> Explanation:
        """What a program is made of, but for the ifindexes of devices that it names and that may be still to come.

        `used` are the facts that it knows.
        """
        told = {name: value for name in sorted(IN_SPECS.intersection(used)) if (value := getattr(facts, name))}
        return Explanation(
            digest=program.digest,
            template=program.template,
            params=program.params,
            folder=str(rendered.template.folder),
            builtin=rendered.template.builtin,
            engine=self._engine_name,
            objects=str(files.absolute(self._source.objects)) if self._source.objects else "",
            facts={name: list(value) if isinstance(value, tuple) else value for name, value in told.items()},
            ifindexes=dict(facts.ifindexes),
            named={name: 0 for name, _ in self._names(program)},
            bound=not IDENTITY.isdisjoint(used),
            at=(place,),
        )

    def explained(self, devices: Iterable[Device]) -> Iterator[Explanation]:
        """What the programs of these devices, as a plan has resolved them, were made of."""
        for device in devices:
            for hook, chain in device.chains.items():
                for program in chain.programs:
                    found = self._explained.get((device.name, hook, program.name))
                    if found is not None and found.digest == program.digest:
                        named = {name: _index(name) for name in found.named}
                        yield replace(found, named=named) if named else found

    def given(self) -> str:
        """The SHA-256 of all objects that were built elsewhere and that the plan just made needs; empty without any.

        A program's digest says what an object was made of, and not what is in it. Others are not loaded from then on
        (NK0623). Raises NkformError.
        """
        if self._source.objects is None:
            return ""
        from nkform.bpf.store import Store, checksum

        with Store(self._source.objects, create=False) as store:
            for structure in self._structures:
                self._given[structure] = checksum(store.get(structure))
        lines = (f"{structure} {self._given[structure]}\n" for structure in sorted(self._structures))
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def load(
        self,
        device: Device,
        hook: str,
        program: Program,
        maps: Mapping[str, int],
        indexes: tuple[int, int],
        *,
        alone: bool,
    ) -> Loaded:
        """Compiles if need be, and loads; takes over maps of an older version that still fit.

        `indexes` are the ifindexes of primary and peer. `alone`: not shared with other hooks. Maps that the program's
        `contents` do not name, because nobody looked into them, are taken over with what they hold.
        Raises NkformError (it does not compile, the verifier refuses it), KernelError.
        """
        return self._load_with(facts_of(device, hook), program, maps, indexes, alone=alone)

    def load_again(
        self,
        explanation: Explanation,
        facts: Facts,
        program: Program,
        maps: Mapping[str, int],
        indexes: tuple[int, int],
        *,
        alone: bool,
        where: str,
    ) -> Loaded:
        """Loads a program that was only observed, from facts that it was made from; else as `load`.

        `where` it is, in words.

        Raises NkformError (NK0766) where its template would become another program now.
        """
        template = self._templates[explanation.template]
        checked = check(template, explanation.params)
        if checked.problems:
            raise NkformError(changed(explanation, f"{program.name} at {where}"), *checked.problems)
        if digest(self._renderer.render(template, checked.params, facts, self._engine_name)) != explanation.digest:
            raise NkformError(changed(explanation, f"{program.name} at {where}"))
        declared = replace(program, template=explanation.template, params=explanation.params)
        return self._load_with(replace(facts, ifindexes={}), declared, maps, indexes, alone=alone)

    def _load_with(
        self, facts: Facts, program: Program, maps: Mapping[str, int], indexes: tuple[int, int], *, alone: bool
    ) -> Loaded:
        facts = replace(facts, ifindex=indexes[0], peer_ifindex=indexes[1])
        rendered = self._render(program, facts)
        if rendered.unknown:
            known = {name: index_of(name) for name, _ in self._names(program)}
            rendered = self._render(program, replace(_with_macs(facts, indexes), ifindexes=known))
        return self._load(rendered, maps, program.contents, alone=alone)

    def load_ahead(self, device: Device, hook: str, program: Program) -> Loaded | None:
        """Loads a program for a device that need not exist yet; None if the program must know more of it.

        Raises NkformError, KernelError.
        """
        rendered = self._ready.pop((device.name, hook, program.name, program.digest), None)
        if rendered is None:
            rendered = self._render(program, facts_of(device, hook))
        return None if rendered.unknown else self._load(rendered, {}, program.contents, alone=False)

    def _load(self, rendered: Rendered, maps: Mapping[str, int], contents: MapsByParam, *, alone: bool) -> Loaded:
        if self._engine is None:
            self._engine = make(self._source.engine, objects=self._source.objects, given=self._given)
        return self._loader.load(self._engine.build(rendered), rendered, maps, alone=alone, contents=contents)


def _index(name: str) -> int:
    """The ifindex of a device; 0 if it is gone."""
    try:
        return index_of(name)
    except KernelError:
        return 0


def changed(explanation: Explanation, program: str) -> Problem:
    """A program cannot be made again: its template is not what it was."""
    folder = f"the template in {explanation.folder}" if explanation.folder else f"the template {explanation.template}"
    return Problem(
        "NK0766",
        f"{program} cannot be made again: {folder} has changed, and would become another program than the one "
        f"that ran ({explanation.digest})",
        hint="put the template back as it was, then go back again; or apply a spec that says what shall run",
    )


def _all(node: Node) -> Iterator[Program]:
    """The programs that a node declares."""
    for device in node.devices.values():
        for chain in device.chains.values():
            yield from chain.programs


def _overfull(program: Program, rendered: Rendered) -> Iterator[Problem]:
    """What does not fit into a program's maps."""
    for name, some in rendered.contents.items():
        for each in some:
            most = rendered.capacities[each.map]
            if len(each.entries) > most:
                yield Problem(
                    "NK0425",
                    f"`{name}` of {program.name} has {len(each.entries)} entries, and the map {each.map} takes {most}",
                    path=_place(program, (name,)),
                    hint=f"`nkform templates {program.template}` tells which parameter makes it larger",
                )


def _unframed(device: str, program: Program, framing: str) -> Problem:
    """A program that would look for headers where they are not."""
    begins = "their IP header" if framing == "ip" else "a header that nkform does not know"
    return Problem(
        "NK0443",
        f"{program.name} expects packets that begin with an Ethernet header, and those of {device} begin with {begins}",
        path=program.places.get("", ()),
        hint=f"the template {program.template} would have to be written for it, and say so: `framings` of its manifest",
    )


def _wanting(program: Program, rendered: Rendered, facts: Facts) -> Iterator[Problem]:
    """Parameters and facts that have no value on this device: an empty list would be taken without a word."""
    for name, parameter in rendered.template.parameters.items():
        default = parameter.default
        if isinstance(default, FactDefault) and name not in program.params and is_wanting(facts, default.fact):
            example = f": {name}: {shown(parameter.examples[0])}" if parameter.examples else ""
            yield Problem(
                "NK0441",
                f"`{name}` of {program.name} has no value: it would be {WORDS[default.fact]}, and there are none"
                if default.fact in DECLARED_FACTS
                else f"`{name}` of {program.name} has no value: it would be {WORDS[default.fact]}, which is not known",
                path=program.places.get("", ()),
                hint=f"give it in `params`{example}",
            )
    for name in rendered.unknown:
        fact = name.removeprefix(FACT_PREFIX)
        if name.startswith(FACT_PREFIX) and is_wanting(facts, fact):
            message = f"{program.name} needs {WORDS[fact]}, which is not known"
            yield Problem("NK0441", message, path=program.places.get("", ()))


def _with_macs(facts: Facts, indexes: tuple[int, int]) -> Facts:
    """Facts with the addresses that the kernel chose where the spec says nothing. They do not enter the digest."""
    from nkform.kernel import links
    from nkform.kernel.netlink import Socket

    def mac(socket: Socket, index: int, nsid: int | None = None) -> tuple[str | None, int | None]:
        outcomes, answers = socket.ask([links.get("", index=index, nsid=nsid)])
        if outcomes[0] is not None or 0 not in answers:
            return None, None
        link = links.decode(answers[0][0])
        value = link.values.get("mac")
        return None if value is None else str(value), link.nsid

    with Socket() as socket:
        own, nsid = mac(socket, indexes[0])
        other = mac(socket, indexes[1], nsid)[0] if indexes[1] else None
    return replace(facts, mac=facts.mac or own, peer_mac=facts.peer_mac or other)


def _place(program: Program, path: SpecPath) -> SpecPath:
    """The place in the spec of a path below a program's parameters."""
    place = program.places.get(str(path[0])) if path else None
    return (*place, *path[1:]) if place else program.places.get("", ())
