"""Given a template, parameters and a device, when it is rendered, then the C has what the device needs and no more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nkform.bpf import Facts, Renderer, Template, catalogue, check, digest
from nkform.bpf.diagnose import template_line
from nkform.bpf.render import ENGINES
from nkform.model import MapContents
from nkform.problem import NkformError
from tests.unit.templates import FACTS, body, rendered, template, write

TEMPLATES = catalogue()
L2 = replace(FACTS, mode="l2")

engines = pytest.mark.parametrize("engine", ENGINES)


@engines
def test_what_only_l2_needs_vanishes_in_l3(engine: str) -> None:
    params = {"prefixes": ["10.0.0.2/32"], "macs": ["02:00:00:00:00:01"]}
    in_l2 = rendered(TEMPLATES["source_guard"], params, L2, engine)
    in_l3 = rendered(TEMPLATES["source_guard"], params, FACTS, engine)
    assert "arp" in in_l2.source.lower()
    assert "arp" not in in_l3.source.lower()
    assert "mac" not in {name for name, _ in in_l3.values.items()}
    assert "macs" not in in_l3.source


@engines
def test_a_thousand_devices_that_differ_in_values_have_one_structure(engine: str) -> None:
    renderer = Renderer()
    guard = TEMPLATES["source_guard"]
    made = [
        renderer.render(guard, check(guard, {"prefixes": [f"10.0.{n >> 8}.{n & 255}/32"]}).params, FACTS, engine)
        for n in range(1000)
    ]
    assert len({one.structure for one in made}) == 1
    assert len({digest(one) for one in made}) == 1000
    assert len({one.packed() for one in made}) == 1000


def test_one_prefix_and_three_share_a_compiled_object_with_clang() -> None:
    one = rendered(TEMPLATES["source_guard"], {"prefixes": ["10.0.0.2/32"]})
    three = rendered(TEMPLATES["source_guard"], {"prefixes": ["10.0.0.2/32", "10.0.0.3/32", "fd00::2/128"]})
    many = rendered(TEMPLATES["source_guard"], {"prefixes": [f"10.0.0.{n}/32" for n in range(9)]})
    assert one.source == three.source
    assert one.packed() != three.packed()
    assert many.structure != one.structure


@engines
def test_the_digest_depends_on_structure_values_hook_and_engine_only(engine: str) -> None:
    guard = TEMPLATES["source_guard"]
    params: dict[str, object] = {"prefixes": ["10.0.0.2/32"]}
    base = digest(rendered(guard, params, FACTS, engine))
    assert base == digest(
        rendered(guard, params, replace(FACTS, ifindex=99, mac="02:00:00:00:00:99", mtu=9000), engine)
    )
    others = [
        rendered(guard, {"prefixes": ["10.0.0.3/32"]}, FACTS, engine),
        rendered(guard, {**params, "dhcp": True}, FACTS, engine),
        rendered(guard, params, replace(FACTS, hook="ingress"), engine),
        rendered(guard, params, L2, engine),
        rendered(guard, params, FACTS, ENGINES[1 - ENGINES.index(engine)]),
    ]
    assert len({base, *map(digest, others)}) == 6


@engines
def test_an_ifindex_does_not_enter_the_digest_and_a_mac_address_does(engine: str) -> None:
    arp, params = TEMPLATES["arp_responder"], {"addresses": ["169.254.1.1"]}
    base = rendered(arp, params, L2, engine)
    moved = rendered(arp, params, replace(L2, ifindex=99), engine)
    assert digest(base) == digest(moved)
    assert base.packed() != moved.packed()
    assert digest(base) != digest(rendered(arp, params, replace(L2, mac="02:00:00:00:00:99"), engine))


@engines
def test_a_fact_that_nobody_knows_yet_is_told_when_the_program_is_to_be_loaded(engine: str) -> None:
    made = rendered(TEMPLATES["arp_responder"], {"addresses": ["169.254.1.1"]}, Facts("netkit", "l2", "peer"), engine)
    assert set(made.unknown) == {"device_ifindex", "mac"}
    assert digest(made)
    with pytest.raises(NkformError, match=r"(ifindex|mac).* is not known"):
        made.packed()


def test_a_parameter_left_out_is_taken_from_the_device() -> None:
    facts = replace(FACTS, peer_addresses=("10.0.0.2/24", "fd00::2/64"))
    implied = rendered(TEMPLATES["source_guard"], {}, facts)
    given = rendered(TEMPLATES["source_guard"], {"prefixes": ["10.0.0.2/32", "fd00::2/128"]}, facts)
    assert digest(implied) == digest(given)


def test_values_lie_in_read_only_data_as_the_c_structure_says() -> None:
    made = rendered(TEMPLATES["source_guard"], {"prefixes": ["10.0.0.0/8", "fd00::/16"]})
    packed = made.packed()
    assert len(packed) == made.layout.size == 4 * 32 + 4 * 8 + 2 * 4
    ipv6, ipv4 = packed[:32], packed[128:136]
    assert ipv6 == bytes.fromhex("fd00" + "00" * 14 + "ffff" + "00" * 14)
    assert ipv4 == bytes.fromhex("0a000000ff000000")


def test_with_bcc_values_are_macros_before_the_text() -> None:
    made = rendered(TEMPLATES["source_guard"], {"prefixes": ["10.0.0.2/32"]}, engine="bcc")
    assert "#define NK_VALUE_prefixes_ipv4_0_address 0x" in made.source
    assert "nk_values" not in made.source


@engines
def test_every_line_of_the_c_knows_its_line_of_the_template(engine: str) -> None:
    guard = TEMPLATES["source_guard"]
    made = rendered(guard, {"prefixes": ["10.0.0.2/32"]}, L2, engine)
    template_lines, lines = guard.source.split("\n"), made.source.split("\n")
    exact = 0
    for number, line in enumerate(lines, 1):
        place = template_line(made, number)
        if (
            place
            and line.strip()
            and "{{" not in template_lines[place[1] - 1]
            and "{%" not in template_lines[place[1] - 1]
        ):
            assert template_lines[place[1] - 1].strip() == line.strip()
            exact += 1
    assert exact > 60


# --- the sandbox ------------------------------------------------------------------------


def failure(
    tmp_path: Path, statement: str, manifest: str = "", params: dict[str, object] | None = None
) -> tuple[int, str]:
    wanted = template(tmp_path, program=body(statement), manifest=manifest)
    with pytest.raises(NkformError) as caught:
        rendered(wanted, params)
    (problem,) = caught.value.problems
    assert problem.code == "NK0720"
    assert problem.position is not None
    assert problem.position.file.endswith("program.bpf.c.j2")
    return problem.position.line, problem.message


def test_an_undefined_name_is_told_with_its_line(tmp_path: Path) -> None:
    line, said = failure(tmp_path, "\treturn {{ nonsense }};")
    assert (line, "nonsense" in said) == (5, True)


def test_a_mistake_in_the_template_language_is_told_with_its_line(tmp_path: Path) -> None:
    line, _ = failure(tmp_path, "{% if %}")
    assert line == 5


STRUCTURE = (
    "parameters:\n  verdict: {role: structure, description: x, type: string, enum: [drop, pass], default: drop}\n"
)
VALUE = "parameters:\n  limit: {role: value, description: x, type: integer, default: 5}\n"


def test_text_is_not_printed_as_it_is(tmp_path: Path) -> None:
    line, said = failure(tmp_path, "\treturn {{ verdict }};", STRUCTURE)
    assert line == 5
    assert "filter" in said


def test_text_is_printed_through_a_filter_that_knows_what_it_may_be(tmp_path: Path) -> None:
    wanted = template(tmp_path, program=body("\tint {{ verdict|identifier }}_{{ 3|integer }};"), manifest=STRUCTURE)
    assert "int drop_3;" in rendered(wanted).source


@pytest.mark.parametrize(
    "statement",
    [
        '{{ "0; evil()"|identifier }}',
        '{{ "10.0.0.1; evil()"|ipv4 }}',
        '{{ "x"|integer }}',
        '{{ true|integer }}',
        '{{ "pass"|enumeration("drop") }}',
        "{{ value('limit') }} {{ limit }}",
        "{{ value('unheard') }}",
        "{{ each('limit') }}",
        "{{ fact('addresses') }}",
        "{{ lookup('none', '&key') }}",
        '{{ map("m", "array", key="int; evil", value="__u32", entries=1) }}',
        '{{ map("m", "perf_event_array", key="__u32", value="__u32", entries=1) }}',
        '{{ "evil"|safe }}',
        '{{ "x" * 100000000 }}',
        "{{ 9 ** 999999999 }}",
        *(
            f"{{% set s = {text} %}}{{% if s[-6] in '01234567' %}}int x;{{% endif %}}"
            for text in (
                "'%s' % program", "'%s' % [program]", "'' ~ program", "program ~ ''", "'' ~ [program]",
                "1 ~ (2 ~ program)",
                "'{}'.format(program)", "'{x}'.format(x=program)", "'{x}'.format_map({'x': program})",
                "[program] | joined", "namespace() ~ ''", "'%s' % namespace()", "program | joined",
            )
        ),
        "{% for i in range(10000000) %}{% endfor %}",
        "{% for i in range(1000) %}{% for j in range(1000) %}{% endfor %}{% endfor %}",
        "{{ ().__class__.__bases__ }}",
        "{{ program.__globals__ }}",
        '{{ self._TemplateReference__context }}',
        '{% include "../../secret.j2" %}',
        '{% include "/etc/passwd" %}',
        "{% import 'os' as os %}",
    ],
)  # fmt: skip
def test_what_a_template_must_not_do_is_refused_with_its_line(tmp_path: Path, statement: str) -> None:
    line, _ = failure(tmp_path, statement, VALUE)
    assert line == 5


def test_texts_and_numbers_can_be_joined_and_divided(tmp_path: Path) -> None:
    joined = '\tint {{ ("x" ~ 7 % 4 ~ ("y" ~ [1] | length)) | identifier }} = 1;'
    assert "int x3y1 = 1;" in rendered(template(tmp_path, program=body(joined))).source


def test_output_without_end_is_cut_off(tmp_path: Path) -> None:
    loops = "{% for i in range(100) %}{% for j in range(100) %}" + "/* filler */" * 20 + "\n"
    _, said = failure(tmp_path, loops + "{% endfor %}{% endfor %}")
    assert "more than 1 MiB" in said


def test_a_header_of_the_template_counts_for_its_structure(tmp_path: Path) -> None:
    one = rendered(template(tmp_path / "a", header="#define X 1\n"))
    two = rendered(template(tmp_path / "b", header="#define X 2\n"))
    assert one.source == two.source
    assert one.structure != two.structure


# --- parameters whose entries stand in a map --------------------------------------------

SET = """\
parameters:
  ports:
    role: map
    map: ports
    description: x
    type: array
    items: {type: integer, maximum: 65535}
  blocked:
    role: map
    map: blocked
    description: x
    type: array
    items: {type: string, format: address}
    default: {fact: peer_addresses}
"""

DECLARED = """\
{{ entries("ports", most=8) }}
{{ entries("blocked", "ipv4", most=2) }}
{{ entries("blocked", "ipv6", most=2) }}
"""


def of_set(base: Path, statement: str = "", before: str = DECLARED) -> Template:
    return template(base, manifest=SET, program=body(statement, before))


@engines
def test_entries_of_a_map_are_no_part_of_a_program(tmp_path: Path, engine: str) -> None:
    wanted = of_set(tmp_path, '\t__u16 port = 1;\n\n\tif ({{ has("ports", "&port") }})\n\t\treturn NK_DROP;')
    one, two = (rendered(wanted, {"ports": list(range(many))}, engine=engine) for many in (1, 5))
    assert (one.source, digest(one)) == (two.source, digest(two))
    assert one.packed() == two.packed()
    assert one.contents["ports"] == (MapContents("ports", "u16", (0,)),)
    assert two.contents["ports"] == (MapContents("ports", "u16", (0, 1, 2, 3, 4)),)
    assert one.capacities == {"ports": 8, "blocked_ipv4": 2, "blocked_ipv6": 2}


def test_how_many_entries_a_map_takes_is_structure(tmp_path: Path) -> None:
    small = rendered(TEMPLATES["prefix_filter"], {"match": "source", "prefixes": []})
    large = rendered(TEMPLATES["prefix_filter"], {"match": "source", "prefixes": [], "max_entries": 9})
    assert digest(small) != digest(large)
    assert (small.capacities["listed_ipv4"], large.capacities["listed_ipv4"]) == (1024, 9)
    assert "max_entries, 18" in large.source, "room for the old entries and the new"


def test_entries_of_both_families_go_to_their_maps_and_may_be_the_devices(tmp_path: Path) -> None:
    facts = replace(FACTS, peer_addresses=("10.0.0.2/24", "fd00::2/64"))
    ipv4, ipv6 = rendered(of_set(tmp_path), {"ports": []}, facts).contents["blocked"]
    assert ipv4 == MapContents("blocked_ipv4", "ipv4", ("10.0.0.2",))
    assert ipv6 == MapContents("blocked_ipv6", "ipv6", ("fd00::2",))


@pytest.mark.parametrize(
    ("before", "statement", "said"),
    [
        ("", "", "does not declare the map of `ports`"),
        (DECLARED.replace('{{ entries("blocked", "ipv6", most=2) }}', ""), "", "does not declare the map of `blocked`"),
        (DECLARED + '{{ entries("ports", most=8) }}', "", "is one already"),
        ('{{ entries("other", most=8) }}', "", "no parameter 'other' that fills a map"),
        ('{{ entries("blocked", most=8) }}', "", "both families"),
        ('{{ entries("ports", "ipv4", most=8) }}', "", "one family only"),
        ('{{ entries("ports", most=0) }}', "", "at least one entry"),
        (DECLARED, '\treturn {{ value("ports") }};', "use has()"),
        ("", '\treturn {{ has("ports", "&key") }};', "there is no map 'ports' before this line"),
    ],
)
def test_what_is_wrong_with_a_filled_map_is_told(tmp_path: Path, before: str, statement: str, said: str) -> None:
    with pytest.raises(NkformError) as caught:
        rendered(of_set(tmp_path, statement, before), {"ports": [1]})
    assert said in caught.value.problems[0].message


@engines
def test_a_template_below_a_path_that_is_no_text_is_rendered_and_its_faults_are_placed(
    engine: str, tmp_path: Path
) -> None:
    """Names of files are bytes."""
    base = tmp_path / "\udcff"
    good = rendered(template(base, program=body('#include "mine.h"'), header="int x;\n"), engine=engine)
    assert good.places[-2] == (str(base / "mine" / "program.bpf.c.j2"), 6)
    elsewhere = template(tmp_path, program=body('#include "mine.h"'), header="int x;\n")
    assert good.structure == rendered(elsewhere, engine=engine).structure
    with pytest.raises(NkformError) as caught:
        rendered(catalogue([write(base, "bad", program=body("{{ absent }}"))])["bad"], engine=engine)
    position = caught.value.problems[0].position
    assert position is not None
    assert (position.file, position.line) == (str(base / "bad" / "program.bpf.c.j2"), 5)
