"""Given parameters from a spec, they come out in one form, or with a problem at their path; and never as code."""

from __future__ import annotations

import contextlib
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nkform.bpf import Facts, Renderer, catalogue, check
from nkform.bpf.parameters import KINDS, Kind, RefusedError
from nkform.bpf.programs import Programs, Source
from nkform.bpf.render import ENGINES
from nkform.spec import loads

TEMPLATES = catalogue()
GUARD, ARP, VERDICT = TEMPLATES["source_guard"], TEMPLATES["arp_responder"], TEMPLATES["verdict"]


def only_problem(template: Any, params: dict[str, object]) -> Any:
    (problem,) = check(template, params).problems
    return problem


def test_addresses_come_out_in_their_canonical_form() -> None:
    given = {"prefixes": ["FD00:0:0::2/128", "10.0.0.0/8", "fd00::2/128"], "macs": ["02:AB:00:00:00:01"]}
    checked = check(GUARD, given)
    assert not checked.problems
    assert checked.params == {"prefixes": ("fd00::2/128", "10.0.0.0/8"), "macs": ("02:ab:00:00:00:01",)}


def test_what_is_wrong_with_a_program_is_told_once_for_all_its_chains() -> None:
    spec = """
version: 1
node: w
programs: {a: {template: counter}, b: {template: counters, params: {x: 1}}}
devices:
  v0: {kind: veth, peer: {name: v1}, programs: {primary: [a, b], peer: [a, b]}}
"""
    with Programs(Source()) as programs:
        unknown, parameter = programs.check(loads(spec).node.devices)
    assert (unknown.message, unknown.hint) == ('there is no template "counter"', "did you mean counters?")
    assert parameter.code == "NK0710"


def test_an_unknown_parameter_is_told_with_the_one_that_was_meant() -> None:
    problem = only_problem(GUARD, {"prefixs": []})
    assert (problem.code, problem.path, problem.hint) == ("NK0710", ("prefixs",), "did you mean `prefixes`?")


def test_a_parameter_of_a_template_without_any_is_told(tmp_path: Any) -> None:
    from tests.unit.templates import template

    assert "takes no parameters" in only_problem(template(tmp_path), {"x": 1}).hint


def test_a_missing_parameter_is_told_with_an_example() -> None:
    problem = only_problem(ARP, {})
    assert (problem.code, problem.path) == ("NK0711", ())
    assert problem.hint == "for example addresses: [169.254.1.1]"


@pytest.mark.parametrize(
    ("template", "params", "path", "said"),
    [
        (GUARD, {"prefixes": "10.0.0.2/32"}, ("prefixes",), "must be a list"),
        (GUARD, {"prefixes": ["10.0.0.2"]}, ("prefixes", 0), "must be a prefix"),
        (GUARD, {"prefixes": ["10.0.0.0/8", "10.0.0.2/24"]}, ("prefixes", 1), "bits beyond its prefix length"),
        (GUARD, {"prefixes": ["10.0.0.0/8"] * 65}, ("prefixes",), "at most 64"),
        (GUARD, {"macs": ["02:00:00:00:00"]}, ("macs", 0), "must be a MAC address"),
        (GUARD, {"link_local": 1}, ("link_local",), "must be true or false"),
        (GUARD, {"other": "dorp"}, ("other",), "must be drop or pass"),
        (ARP, {"addresses": []}, ("addresses",), "at least 1"),
        (ARP, {"addresses": ["fe80::1"]}, ("addresses", 0), "must be an IPv4 address"),
        (ARP, {"addresses": ["169.254.1.1/32"]}, ("addresses", 0), "must be an IPv4 address"),
        (VERDICT, {"verdict": '"; return 0; //'}, ("verdict",), "must be drop or pass"),
    ],
)
def test_a_wrong_value_is_told_at_its_path(template: Any, params: dict[str, object], path: Any, said: str) -> None:
    problem = only_problem(template, params)
    assert (problem.code, problem.path) == ("NK0712", path)
    assert said in problem.message


C_CODE = st.sampled_from(
    [
        "0; return -1; //",
        '"',
        "*/",
        "#include </etc/passwd>",
        "{{ 7 * 7 }}",
        "{% raw %}",
        "\\\n",
        "NK_PASS",
        "a/*b",
        "??/",
    ]
)
ANYTHING = st.one_of(
    C_CODE,
    st.text(max_size=40),
    st.integers(),
    st.booleans(),
    st.none(),
    st.floats(allow_nan=False),
    st.binary(max_size=8),
)
ALMOST = st.sampled_from(["10.0.0.2/32", "fd00::2/128", "02:00:00:00:00:01", "169.254.1.1", "drop", "eth0", "name_1"])
GLUED = st.builds(lambda a, b, c: f"{a}{b}{c}", st.text(max_size=3), ALMOST, C_CODE)
PARAM = st.one_of(ANYTHING, GLUED, ALMOST, st.lists(st.one_of(ANYTHING, GLUED, ALMOST), max_size=5))

SAFE_TEXT = re.compile(r"[A-Za-z0-9_.:/-]{0,49}")


@given(kind=st.sampled_from(sorted(KINDS)), value=st.one_of(ANYTHING, GLUED, ALMOST))
@settings(max_examples=600)
def test_no_kind_lets_a_text_through_that_could_be_more_than_a_word(kind: str, value: object) -> None:
    with contextlib.suppress(RefusedError):
        canonical = KINDS[kind](Kind(kind, 0, 2**32 - 1, ("drop", "pass")), value)
        assert isinstance(canonical, bool | int) or SAFE_TEXT.fullmatch(str(canonical))


@given(name=st.sampled_from(sorted(TEMPLATES)), data=st.data(), engine=st.sampled_from(ENGINES))
@settings(max_examples=400)
def test_whatever_a_spec_says_the_c_has_nothing_of_it_but_numbers_and_known_words(
    name: str, data: st.DataObject, engine: str
) -> None:
    template = TEMPLATES[name]
    params = {key: data.draw(PARAM) for key in template.parameters}
    checked = check(template, params)
    if checked.problems:
        return
    facts = Facts("netkit", template.modes[0], template.hooks[0], ifindex=3, mac="02:00:00:00:00:02")
    source = Renderer().render(template, checked.params, facts, engine).source
    usual = _words(Renderer().render(template, _plain(template), facts, engine).source)
    for word in _words(source) - usual:
        assert re.fullmatch(r"0x[0-9a-f]+U?L*|\d+U?L*|NK_VALUE_\w+|nk_\w+|\d+", word) or word in _of_templates(
            template
        ), word


def _plain(template: Any) -> Any:
    return check(template, {"addresses": ["10.0.0.1"]} if template is ARP else {}).params


def _words(source: str) -> set[str]:
    return set(re.findall(r"\w+|[^\w\s]", source))


def _of_templates(template: Any) -> set[str]:
    return set(re.findall(r"\w+|[^\w\s]", template.source))
