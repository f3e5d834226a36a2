"""`show` writes YAML by itself, byte for byte as PyYAML does."""

from __future__ import annotations

import random
from typing import Any

import pytest
import yaml

from nkform.report import spec_yaml
from nkform.report.spec_yaml import WIDTH, render

TEXTS = [
    "eth0", "n0001", "a-b", "a.b_c", "/opt/t", "y", "No", "ON", "null", "~", "true", "e5", "1e5", "0o17",
    "0x1f", "12", "-1", "1.5", ".5", "...", "---", "a b", "a#b", "a: b", "a:", ":a", "", "-", "-a", "?", "ü",
    "16:52:11:10:11:12", "16:5d:cf:ce:7b:89", "aa:bb:cc:dd:ee:ff", "10.0.3.232/32", "0.0.0.0/0",
    "169.254.1.1", "1.2.3", "::/0", "fe80::1", "fd00::3e8:2/128", "::", "a,b", "[a]", "{a", "'q'", "\"d\"",
    "x" * 130, "two words " * 20, "2026-11-27", "@a", "a@b", "%x", "<<", "=", "a\nb", "1_000", "12:30:45",
    "$${x}", "+1", "1:2", "0b1", "a" * 60, "!x", "&a", "*a", "|", ">", "`", " lead", "trail ", "tab\t",
]  # fmt: skip


def by_pyyaml(spec: dict[str, Any]) -> str:
    return spec_yaml._by_pyyaml(spec)


def a_value(random_: random.Random, depth: int) -> Any:
    match random_.randrange(6 if depth else 3):
        case 0:
            return random_.choice(TEXTS)
        case 1:
            return random_.choice([0, 1, 1400, -5, 196608, True, False])
        case 2:
            return random_.choice(["eth0", "10.0.0.1/32", "fd00::1/128"])
        case 3:
            return [a_value(random_, depth - 1) for _ in range(random_.randrange(5))]
        case _:
            return {
                random_.choice([*TEXTS, "kind", "peer", "routes"]): a_value(random_, depth - 1)
                for _ in range(random_.randrange(5))
            }


@pytest.mark.parametrize("seed", range(40))
def test_any_spec_is_written_as_pyyaml_writes_it(seed: int) -> None:
    random_ = random.Random(seed)
    for _ in range(25):
        devices = {random_.choice(TEXTS): a_value(random_, 3) for _ in range(4)}
        spec = {"version": 1, "node": random_.choice(TEXTS), "namespaces": a_value(random_, 2), "devices": devices}
        assert render(spec) == by_pyyaml(spec)


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_is_written_as_pyyaml_writes_it(text: str) -> None:
    for value in (text, [text], {"a": text}, [{"a": [text]}], {"b": {"a": text, "c": {}}}):
        spec = {"version": 1, "devices": {"p0": {"x": value, "y": {"z": []}}}}
        assert render(spec) == by_pyyaml(spec)
        if text.isprintable():  # else it is no YAML at all
            assert yaml.safe_load(render(spec)) == spec or text in ("", "1e5", "0o17", "e5")


@pytest.mark.parametrize("length", range(WIDTH - 30, WIDTH + 5))
def test_lines_of_any_length_are_broken_as_pyyaml_breaks_them(length: int) -> None:
    for words in ([*["a" * 9] * (length // 10), "b", "c"], {"a" * (length // 2): "b" * (length // 2), "c": 1, "d": 2}):
        spec = {"version": 1, "devices": {"p0": {"x": words, "y": [{"z": words}]}}}
        assert render(spec) == by_pyyaml(spec)


def test_what_is_usual_needs_no_pyyaml(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: object) -> str:
        raise AssertionError("PyYAML was asked")

    monkeypatch.setattr(spec_yaml, "_by_pyyaml", refused)
    peer = {
        "name": "eth0", "namespace": "n0001", "mac": "52:aa:57:b8:4a:29", "addresses": ["10.0.3.232/32", "fd00::2/128"],
        "routes": [{"to": "::/0", "via": "fe80::1", "onlink": True}],
    }  # fmt: skip
    device = {"kind": "veth", "mtu": 1400, "mac": "16:5d:cf:ce:7b:89", "peer": peer}
    spec = {"version": 1, "node": "worker", "namespaces": {"n0001": {"create": True}}, "devices": {"p1": device}}
    assert yaml.safe_load(render(spec)) == spec
