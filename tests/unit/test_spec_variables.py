"""Variables: where they come from, what they become, and what stops them."""

from __future__ import annotations

from pathlib import Path

import pytest

from nkform.problem import NkformError
from nkform.spec import load, loads

HEAD = "version: 1\nnode: n\n"


def mtu_of(text: str, **variables: str) -> object:
    return loads(HEAD + text, variables=variables).node.devices["a"].primary.attrs.get("mtu")


def codes(text: str, **variables: str) -> list[str]:
    with pytest.raises(NkformError) as caught:
        loads(HEAD + text, variables=variables)
    return [problem.code for problem in caught.value.problems]


def test_a_whole_value_keeps_its_type() -> None:
    text = (
        "vars: {m: 1400, l: [10.0.0.1/32], p: {name: '${n}'}, n: eth9}\n"
        "devices: {a: {mtu: '${m}', addresses: '${l}', peer: '${ p }'}}"
    )
    device = loads(HEAD + text).node.devices["a"]
    assert device.primary.attrs == {"mtu": 1400}
    assert [address.text for address in device.primary.addresses] == ["10.0.0.1/32"]
    assert device.peer is not None
    assert device.peer.name == "eth9"


def test_within_text_it_is_text_and_keys_may_have_it() -> None:
    text = "vars: {i: 7, t: true}\ndevices: {'a${i}': {peer: {name: 'b${i}${t}'}}}"
    node = loads(HEAD + text).node
    assert list(node.devices) == ["a7"]
    assert node.devices["a7"].ends[1].name == "b7true"


def test_a_doubled_dollar_is_one() -> None:
    assert codes("devices: {a: {peer: {name: '$${x y}'}}}") == ["NK0301"]
    assert loads(HEAD + "devices: {a: {peer: {name: '$${x}'}}}").node.devices["a"].ends[1].name == "${x}"


def test_the_command_line_wins_over_files_over_the_spec(tmp_path: Path) -> None:
    spec, values = tmp_path / "spec.yaml", tmp_path / "values"
    spec.write_text(
        HEAD + "vars: {a: 1001, b: 1001, c: 1001}\ndefaults: {peer: {name: '${a}-${b}-${c}'}}\ndevices: {x: {}}"
    )
    values.write_text("b: 1002\nc: 1002\n")
    node = load([spec], variables={"c": "1003"}, var_files=[values]).node
    assert node.devices["x"].ends[1].name == "1001-1002-1003"


def test_a_value_of_the_command_line_is_read_like_yaml() -> None:
    text = "devices: {a: {mtu: '${m}', peer: {name: b}}}"
    assert mtu_of(text, m="1400") == 1400
    assert mtu_of(text, m="0x500") == 1280
    assert codes(text, m="0777") == ["NK0203"]
    assert codes(text, m="") == ["NK0203"]


def test_a_variable_that_nothing_uses_is_warned_of() -> None:
    text = HEAD + "vars: {m: 1400}\ndevices: {a: {mtu: '${m}', peer: {name: b}}}"
    (warning,) = loads(text, variables={"mm": "1"}).warnings
    assert (warning.code, warning.hint) == ("NK0126", "did you mean m?")
    assert loads(text, variables={"m": "1300"}).warnings == ()


@pytest.mark.parametrize(
    ("variables", "code"),
    [
        ("{a: '${a}'}", "NK0121"),
        ("{a: ['${b}'], b: {c: '${a}'}}", "NK0121"),
        ("{a: '${gone}'}", "NK0120"),
        ("{a: '${'}", "NK0122"),
        ("{a: '${not a name}'}", "NK0122"),
        ("{a: [1], b: 'x${a}'}", "NK0124"),
        ("{a: 1.5, b: 'x${a}'}", "NK0124"),
        ("{a: null, b: 'x${a}'}", "NK0124"),
        ("{1a: x}", "NK0125"),
        ("[a]", "NK0203"),
    ],
)
def test_what_cannot_be_filled_in_is_told_where_it_is_declared(variables: str, code: str) -> None:
    with pytest.raises(NkformError) as caught:
        loads(f"{HEAD}vars: {variables}\ndevices: {{}}")
    assert {problem.code for problem in caught.value.problems} == {code}
    assert all(problem.position and problem.position.line == 3 for problem in caught.value.problems)


def test_both_the_use_and_the_value_are_told(tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text("\nm: big\n")
    spec = tmp_path / "spec.yaml"
    spec.write_text(HEAD + "devices: {a: {mtu: '${m}', peer: {name: b}}}")
    with pytest.raises(NkformError) as caught:
        load([spec], var_files=[values])
    (problem,) = caught.value.problems
    assert problem.position is not None
    assert (problem.position.line, problem.position.column) == (3, 20)
    assert f'${{m}} is the text "big", from {values}, line 2' in problem.hint


def test_a_broken_file_of_variables_has_its_own_places(tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text("a: ${b}\nb: ${a}\n")
    spec = tmp_path / "spec.yaml"
    spec.write_text(HEAD + "devices: {}")
    with pytest.raises(NkformError) as caught:
        load([spec], var_files=[values])
    (problem,) = caught.value.problems
    assert problem.position is not None
    assert problem.position.file == str(values)


def use(number: int) -> str:
    return f"${{v{number}}}"


@pytest.mark.parametrize(
    "variables",
    [
        {f"v{i}": use(i + 1) * 2 for i in range(60)} | {"v60": "x" * 100},
        {f"v{i}": [use(i + 1)] * 10 for i in range(60)} | {"v60": "x"},
        {f"v{i}": use(i + 1) for i in range(5000)} | {"v5000": "x"},
        {f"v{i}": {"k": [{"k": [use(i + 1)]}]} for i in range(500)} | {"v500": "x"},
    ],
    ids=["text that doubles", "lists that multiply", "a long chain", "deep nesting"],
)
def test_growth_is_bounded(variables: dict[str, object]) -> None:
    declared = "".join(f"  {name}: {value!r}\n" for name, value in variables.items())
    found = codes(f"vars:\n{declared}devices: {{a: {{mtu: '${{v0}}', peer: {{name: b}}}}}}\n")
    assert "NK0123" in found
