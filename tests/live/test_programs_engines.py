"""Given programs of either engine, when they are loaded, then maps, values and errors are what they should be."""

from __future__ import annotations

import errno
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from nkform.bpf import Template, packets
from nkform.bpf.diagnose import ProgramError
from nkform.bpf.engine_bcc import BccEngine
from nkform.bpf.engine_clang import ClangEngine
from nkform.bpf.loader import Loaded, Loader
from nkform.bpf.packet_tests import numbers, run_chain
from nkform.bpf.store import Store
from nkform.kernel import bpf, bpf_maps, bpf_programs
from nkform.kernel.bpf_programs import prog_info
from nkform.kernel.descriptors import Owned
from nkform.kernel.error import KernelError
from nkform.problem import NkformError
from tests.live.helpers.programs import FACTS, TEMPLATES, Workshop, workshop
from tests.unit.templates import body, template

__all__ = ["workshop"]

GOOD, FORGED = ({"ip": {"src": source, "dst": "192.0.2.1"}, "udp": {}} for source in ("10.0.0.2", "10.9.9.9"))
GUARD = {"prefixes": ["10.0.0.2/32"]}


def verdict(loaded: Loaded, packet: object, mode: str = "l3") -> int:
    return bpf_programs.test_run(loaded.prog_fd, packets.build(packet, mode).data).retval


def program_id(loaded: Loaded) -> int:
    return prog_info(loaded.prog_fd).id


def test_devices_that_differ_in_values_are_told_apart(workshop: Workshop) -> None:
    with (
        workshop.load("source_guard", GUARD) as one,
        workshop.load("source_guard", {"prefixes": ["10.9.9.9/32"]}) as two,
    ):
        assert (verdict(one, GOOD), verdict(one, FORGED)) == (-1, 2)
        assert (verdict(two, GOOD), verdict(two, FORGED)) == (2, -1)


def test_many_values_of_each_family_are_looked_through_to_the_last(workshop: Workshop) -> None:
    many = [f"10.{n}.0.0/16" for n in range(32)] + [f"fd00:{n:x}::/32" for n in range(32)]
    with workshop.load("source_guard", {"prefixes": many, "link_local": False}) as loaded:
        for source, expected in (("10.31.0.1", -1), ("10.32.0.1", 2), ("fd00:1f::1", -1), ("fd00:20::1", 2)):
            other = "::1" if ":" in source else "192.0.2.1"
            assert verdict(loaded, {"ip": {"src": source, "dst": other}}) == expected, source


def test_a_program_without_maps_is_loaded_once_for_all_who_want_the_same(workshop: Workshop) -> None:
    with workshop.load("source_guard", GUARD) as one, workshop.load("source_guard", GUARD) as two:
        assert program_id(one) == program_id(two)
        one.close()
        assert verdict(two, FORGED) == 2


def test_unless_it_is_to_be_alone(workshop: Workshop) -> None:
    with workshop.load("verdict") as one, workshop.load("verdict", alone=True) as two:
        assert program_id(one) != program_id(two)


def test_a_program_with_maps_has_them_for_itself(workshop: Workshop) -> None:
    with workshop.load("counters") as one, workshop.load("counters") as two:
        assert program_id(one) != program_id(two)
        verdict(one, GOOD)
        assert numbers(TEMPLATES["counters"], one)["counters"]["ipv4"]["packets"] == 1
        assert numbers(TEMPLATES["counters"], two)["counters"]["ipv4"]["packets"] == 0


def test_maps_that_fit_are_taken_over_by_the_next_version(workshop: Workshop) -> None:
    with workshop.load("counters") as old:
        verdict(old, GOOD)
        with workshop.load("counters", {"segments": True}, maps=old.maps) as new:
            assert not new.fresh
            old.close()
            verdict(new, GOOD)
            assert numbers(TEMPLATES["counters"], new)["counters"]["ipv4"]["packets"] == 2


def test_a_map_of_another_layout_is_not_taken_over(workshop: Workshop) -> None:
    other = bpf_maps.map_create(bpf_maps.MapType.PERCPU_ARRAY, 4, 16, 5, "counters")
    with Owned(other), workshop.load("counters", maps={"counters": other}) as loaded:
        assert loaded.fresh == {"counters"}
        assert bpf_maps.map_info(loaded.maps["counters"]).max_entries == 4


def test_nobody_can_change_the_values_of_a_loaded_program(workshop: Workshop) -> None:
    with workshop.load("source_guard", GUARD) as loaded:
        for map_id in prog_info(loaded.prog_fd).map_ids:
            with Owned(bpf.map_fd(map_id)) as fd:
                info = bpf_maps.map_info(fd)
                with pytest.raises(KernelError) as caught:
                    bpf_maps.map_update(fd, bytes(4), bytes(info.value_size), info)
                assert caught.value.errno == errno.EPERM


def test_the_kernel_knows_the_program_by_its_templates_name(workshop: Workshop) -> None:
    with workshop.load("source_guard", GUARD) as loaded:
        assert prog_info(loaded.prog_fd).name == "source_guard"


def test_a_fact_that_is_not_known_stops_loading(workshop: Workshop) -> None:
    facts = replace(FACTS, mode="l2", ifindex=None)
    with pytest.raises(NkformError, match="ifindex is not known"):
        workshop.load("arp_responder", {"addresses": ["169.254.1.1"]}, facts)


def test_no_file_descriptor_is_left_behind(workshop: Workshop, tmp_path: Path) -> None:
    def round_trip() -> None:
        with Loader() as loader:
            for name in ("counters", "verdict", "source_guard"):
                rendered = workshop.render(name, GUARD if name == "source_guard" else {})
                loader.load(workshop.engine.build(rendered), rendered).close()

    round_trip()
    before = set(Path("/proc/self/fd").iterdir())
    round_trip()
    assert set(Path("/proc/self/fd").iterdir()) == before


# --- templates of the user's ------------------------------------------------------------

EVERY_KIND = """\
parameters:
  small: {role: value, description: x, type: integer, maximum: 255, default: 200}
  negative: {role: value, description: x, type: integer, minimum: LEAST, maximum: 5, default: LEAST}
  wide: {role: value, description: x, type: integer, maximum: 18446744073709551615, default: 18446744073709551615}
  truth: {role: value, description: x, type: boolean, default: true}
  four: {role: value, description: x, type: string, format: ipv4, default: 10.1.2.3}
  six: {role: value, description: x, type: string, format: ipv6, default: "fd00::1:2"}
  card: {role: value, description: x, type: string, format: mac, default: "02:00:00:00:00:07"}
  device: {role: value, description: x, type: string, format: ifindex, default: uplink}
  ports: {role: value, description: x, type: array, items: {type: integer, maximum: 65535}, default: [53, 80, 443]}
""".replace("LEAST", str(-(2**63)))
EVERY_VALUE = """\
	__u32 sum = 0;
	if ({{ value("small") }} != 200 || {{ value("wide") }} != 18446744073709551615ULL || !{{ value("truth") }})
		return 101;
	if ({{ value("negative") }} >= 0 || (__u64){{ value("negative") }} != 1ULL << 63)
		return 102;
	if ({{ value("four").address }} != nk_be32(0x0a010203) || {{ value("six").low }} != nk_be64(0x10002))
		return 103;
	if ({{ value("card").c }} != nk_be16(7) || {{ value("device") }} != 42 || {{ fact("mtu") }} != 1500)
		return 104;
{% call(port) each("ports") %}
	sum += {{ port }};
{% endcall %}
	return sum == 576 && {{ count("ports") }} == 3 ? 7 : 105;
"""


def test_values_of_every_kind_arrive(workshop: Workshop, tmp_path: Path) -> None:
    mine = template(tmp_path, manifest=EVERY_KIND, program=body(EVERY_VALUE))
    with workshop.load(mine, facts=replace(FACTS, ifindexes={"uplink": 42})) as loaded:
        assert verdict(loaded, GOOD) == 7


MAPS = """\
struct seen { __u64 packets; };
{{ map("table", kind_of_map, key="__u32", value="struct seen", entries=8) }}
"""
MAPS_USED = """\
	__u32 key = skb->protocol;
	struct seen first = {}, *seen = {{ lookup("table", "&key") }};

	first.packets = 1;
	if (!seen) {
		{{ update("table", "&key", "&first") }};
		return 11;
	}
	if (seen->packets++ < 2)
		return 12;
	{{ delete("table", "&key") }};
	return 13;
"""


@pytest.mark.parametrize("kind", ["hash", "lru_hash", "percpu_hash"])
def test_maps_are_read_written_and_emptied(workshop: Workshop, tmp_path: Path, kind: str) -> None:
    before = MAPS.replace("kind_of_map", f'"{kind}"')
    with workshop.load(template(tmp_path, program=body(MAPS_USED, before))) as loaded:
        assert [verdict(loaded, GOOD) for _ in range(5)] == [11, 12, 13, 11, 12]
        info = bpf_maps.map_info(loaded.maps["table"])
        items = bpf_maps.map_items_percpu if info.type in bpf_maps.PERCPU else bpf_maps.map_items
        (key,) = items(loaded.maps["table"])
        assert struct.unpack("=I", key)[0] == int.from_bytes(b"\x08\0", "little")


def refused(workshop: Workshop, mine: Template) -> ProgramError:
    with pytest.raises(ProgramError) as caught:
        workshop.load(mine)
    return caught.value


def test_a_template_that_does_not_compile_is_told_with_its_line(workshop: Workshop, tmp_path: Path) -> None:
    error = refused(
        workshop, template(tmp_path, program=body("{% if mode == 'l3' %}\n\tint x = nonsense;\n{% endif %}"))
    )
    problem = error.problems[0]
    assert problem.code == "NK0731"
    assert "nonsense" in problem.message
    assert problem.position is not None
    assert problem.position.line == 6


def test_an_undeclared_function_does_not_compile(workshop: Workshop, tmp_path: Path) -> None:
    error = refused(workshop, template(tmp_path, program=body("\tno_such_helper(skb);")))
    assert "no_such_helper" in error.problems[0].message


def test_what_the_verifier_refuses_is_told_with_the_templates_line(workshop: Workshop, tmp_path: Path) -> None:
    statement = "{# unchecked #}\n\n\tif (*((__u8 *)nk_packet(skb, data) + 30))\n\t\treturn NK_DROP;"
    error = refused(workshop, template(tmp_path, program=body(statement)))
    (problem,) = error.problems
    assert problem.code == "NK0740"
    assert "outside of" in problem.message
    assert problem.position is not None
    assert problem.position.line == 7
    assert len(error.log.splitlines()) > 3


def test_global_data_is_refused_rather_than_lost(workshop: Workshop, tmp_path: Path) -> None:
    mine = template(tmp_path, program=body("\tseen++;\n\treturn seen;", "static volatile int seen;"))
    with pytest.raises(NkformError):
        workshop.load(mine)


PINNED = """\
struct {
	int (*type)[2];
	int (*max_entries)[1];
	__u32 *key;
	__u64 *value;
	int (*pinning)[1];
} others __attribute__((section(".maps"), used));
"""


def test_no_map_pins_itself(workshop: Workshop, tmp_path: Path) -> None:
    if isinstance(workshop.engine, BccEngine):
        pytest.skip("bcc has a way of its own to pin maps, which docs/templates.md tells of")
    before = sorted(Path("/sys/fs/bpf").rglob("*"))
    mine = template(tmp_path, program=body("\tint x = 1;", PINNED))
    with pytest.raises(NkformError) as caught:
        workshop.load(mine)
    assert caught.value.problems[0].code == "NK0741"
    assert "/sys/fs/bpf/others" in caught.value.problems[0].message
    assert sorted(Path("/sys/fs/bpf").rglob("*")) == before


def test_a_template_without_a_program_is_told(workshop: Workshop, tmp_path: Path) -> None:
    mine = template(tmp_path, program='#include "packet.h"\n\nint other(void)\n{\n\treturn 1;\n}\n')
    with pytest.raises(NkformError) as caught:
        workshop.load(mine)
    assert caught.value.problems[0].code == "NK0741"
    assert "program()" in caught.value.problems[0].message


def test_nothing_of_it_goes_to_the_terminal(
    workshop: Workshop, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    refused(workshop, template(tmp_path / "a", program=body("\tint x = nonsense;")))
    refused(workshop, template(tmp_path / "b", program=body("\treturn *(int *)nk_packet(skb, data);")))
    assert capfd.readouterr() == ("", "")


def test_an_object_of_other_values_is_not_loaded_by_mistake(workshop: Workshop) -> None:
    built = workshop.engine.build(workshop.render("verdict"))
    with pytest.raises(ValueError, match="another program"):
        workshop.loader.load(built, workshop.render("counters"))


def test_the_chain_ends_with_the_first_program_that_decides(workshop: Workshop) -> None:
    with (
        workshop.load("counters") as count,
        workshop.load("source_guard", GUARD) as guard,
        workshop.load("verdict") as end,
    ):
        chain = [("count", count), ("guard", guard), ("end", end)]
        for packet, by in ((GOOD, "end"), (FORGED, "guard")):
            outcome = run_chain(chain, packets.build(packet, "l3").data)
            assert (outcome.verdict, outcome.by) == ("drop", by)


# --- each engine for itself -------------------------------------------------------------


def test_objects_that_were_built_elsewhere_are_loaded_without_a_compiler(workshop: Workshop, tmp_path: Path) -> None:
    if not isinstance(workshop.engine, ClangEngine):
        assert isinstance(workshop.engine, BccEngine)  # compiles in process, and has no objects
        return
    rendered = workshop.render("source_guard", GUARD)
    with Store(tmp_path / "objects") as given, Store(tmp_path / "empty") as empty, Loader() as loader:
        workshop.engine.export(rendered, given)
        bare = ClangEngine(empty, objects=given, compiler="no-such-clang")
        with loader.load(bare.build(rendered), rendered) as loaded:
            assert verdict(loaded, FORGED) == 2
