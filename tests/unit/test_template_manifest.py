"""Given a folder with a template, its manifest is read, or what is wrong with it is told with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from nkform.bpf import Facts, catalogue, check, excluded, misplaced, unknown, verdicts
from nkform.bpf.facts import HOOKS
from nkform.bpf.packet_tests import read_tests
from nkform.problem import NkformError, Problem
from tests.unit.templates import write

FOLDER = Path(__file__).parents[2] / "bpf_templates"
BUILT_IN = tuple(sorted(manifest.parent.name for manifest in FOLDER.glob("*/manifest.yaml")))


def problems_of(folder: Path) -> tuple[Problem, ...]:
    with pytest.raises(NkformError) as caught:
        catalogue([folder])
    return caught.value.problems


def parameter(text: str) -> str:
    return "parameters:\n  limit:\n" + "".join(f"    {line}\n" for line in text.splitlines())


def test_the_built_in_templates_are_read() -> None:
    found = catalogue()
    assert tuple(found) == BUILT_IN != ()
    assert all(
        template.builtin and template.purpose and set(template.hooks) <= set(HOOKS) for template in found.values()
    )


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_template_has_packet_tests_for_each_of_its_modes(name: str) -> None:
    template = catalogue()[name]
    tests = read_tests(template)
    assert {mode for test in tests for mode in test.modes} == set(template.modes)


def test_a_guard_that_accepts_nobody_is_refused() -> None:
    """It would cut the workload off without a word; by default it takes the addresses of the peer."""
    (problem,) = check(catalogue()["source_guard"], {"prefixes": []}).problems
    assert (problem.code, problem.path) == ("NK0712", ("prefixes",))


def test_a_folder_of_the_users_adds_to_them(tmp_path: Path) -> None:
    found = catalogue([write(tmp_path)])
    assert set(found) == {*BUILT_IN, "mine"}
    assert not found["mine"].builtin


def test_a_name_that_is_taken_is_refused(tmp_path: Path) -> None:
    (problem,) = problems_of(write(tmp_path, "counters"))
    assert problem.code == "NK0703"
    assert "comes with nkform" in problem.message


def test_a_name_that_could_not_be_one_in_c_is_refused(tmp_path: Path) -> None:
    (problem,) = problems_of(write(tmp_path, "no-good"))
    assert problem.code == "NK0703"


def test_a_folder_that_does_not_exist_is_told(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path / "nowhere")
    assert problem.code == "NK0701"
    assert "nowhere" in problem.message


def test_a_mistyped_key_is_told_with_its_line(tmp_path: Path) -> None:
    (problem,) = problems_of(write(tmp_path, manifest="licence: GPL\n"))
    assert problem.position is not None
    assert (Path(problem.position.file).name, problem.position.line) == ("manifest.yaml", 5)
    assert "license" in problem.hint


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("role: value\ndescription: x\ntype: string", "any text"),
        ("role: value\ndescription: x\ntype: string\nenum: [a, b]", "cannot be a value"),
        ("role: structure\ndescription: x\ntype: string\nformat: ipv4", "cannot be a structure"),
        ("role: value\ndescription: x\ntype: string\nformat: prefix", "its family must be known"),
        ("role: value\ndescription: x\ntype: array", "does not say of what"),
        ("role: value\ndescription: x\ntype: integer\nminimum: 5\nmaximum: 4", "bounds that no number fits"),
        ("role: value\ndescription: x\ntype: integer\nmaximum: 10\ndefault: 11", "between 0 and 10"),
        ("role: value\ndescription: x\ntype: string\nformat: mac\ndefault: {fact: nothing}", "no fact"),
        ("role: value\nmap: m\ndescription: x\ntype: integer", "fills no map"),
        ("role: map\nmap: m\ndescription: x\ntype: integer", "is no list"),
        ("role: map\ndescription: x\ntype: array\nitems: {type: integer}", "which map it fills"),
        ("role: map\nmap: m\ndescription: x\ntype: array\nmaxItems: 4\nitems: {type: integer}", "as its map takes"),
        ("role: map\nmap: m\ndescription: x\ntype: array\nitems: {type: boolean}", "cannot be a map"),
        ("role: map\nmap: m\ndescription: x\ntype: array\nitems: {type: string, format: ifindex}", "cannot be a map"),
        ("role: map\nmap: elevenchars\ndescription: x\ntype: array\nitems: {type: string, format: prefix}", "10 char"),
        (
            "role: map\nmap: m\ndescription: x\ntype: array\nitems: {type: string, format: mac}\ndefault: {fact: mac}",
            "fills a map",
        ),
    ],
)
def test_a_parameter_that_makes_no_sense_is_told(tmp_path: Path, text: str, said: str) -> None:
    problems = problems_of(write(tmp_path, manifest=parameter(text)))
    assert said in problems[0].message
    assert problems[0].position is not None
    assert problems[0].position.line > 4


@pytest.mark.parametrize("name", ["mode", "each", "signed", "int"])
def test_a_name_that_means_something_else_in_templates_or_in_c_is_refused(tmp_path: Path, name: str) -> None:
    manifest = f"parameters:\n  {name}: {{role: structure, description: x, type: boolean, default: true}}\n"
    (problem,) = problems_of(write(tmp_path, manifest=manifest))
    assert "means something else" in problem.message


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    write(tmp_path, "one", manifest="nonsense: 1\n")
    problems = problems_of(write(tmp_path, "two", manifest="nonsense: 1\n"))
    assert len(problems) == 2


def test_a_program_without_work_in_a_mode_says_why_it_leaves_the_chain() -> None:
    template = catalogue()["arp_responder"]
    assert excluded(template, Facts("netkit", "l3", "peer")) == "arp_responder has no work in mode l3"
    assert excluded(template, Facts("netkit", "l2", "peer")) is None


def test_a_hook_that_a_template_is_not_made_for_is_told() -> None:
    problem = misplaced(catalogue()["source_guard"], "primary")
    assert problem is not None
    assert "peer, ingress" in problem.hint
    assert misplaced(catalogue()["counters"], "primary") is None


def test_a_mistyped_template_is_told_with_the_one_that_was_meant() -> None:
    assert unknown("source_gard", catalogue()).hint == "did you mean source_guard?"


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_template_gives_the_verdicts_that_it_says_and_no_others(name: str) -> None:
    """As far as its packet tests go; what answers goes back to the sender, which is a redirection."""
    template = catalogue()[name]
    seen = set()
    for test in read_tests(template):
        checked = check(template, test.params)
        possible = verdicts(template, checked.params)
        assert possible is not None
        verdict = test.expect.verdict
        assert verdict in possible or (verdict == "redirect" and "answer" in possible), test.name
        seen.add(verdict)
    assert seen >= {"next", "drop"} & set(verdicts(template, {}) or ())


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        ("{parameter: other}", "no parameter `other`"),
        ("{parameter: limit}", "`limit`"),
        ("{parameter: colour}", "`colour`"),
    ],
)
def test_a_verdict_that_no_parameter_can_say_is_told(tmp_path: Path, verdict: str, said: str) -> None:
    parameters = (
        "{limit: {role: value, description: x, type: integer},"
        " colour: {role: structure, description: x, type: string, enum: [red, drop]}}"
    )
    (problem,) = problems_of(write(tmp_path, manifest=f"verdicts: [drop, {verdict}]\nparameters: {parameters}\n"))
    assert said in problem.message
    assert problem.position is not None
    assert problem.position.line == 5


@pytest.mark.parametrize("key", ["maps", "needs", "description"])
def test_aliases_of_aliases_do_not_nest_without_end(tmp_path: Path, key: str) -> None:
    deep, inner = [], "1"
    for number in range(40):
        deep.append(f"      - &a{number} {'[' * 50}{inner}{']' * 50}\n")
        inner = f"*a{number}"
    examples = parameter("role: value\ndescription: x\ntype: integer\nexamples:") + "".join(deep)
    assert problems_of(write(tmp_path, manifest=f"{examples}{key}: *a39\n"))[0].code == "NK0108"
