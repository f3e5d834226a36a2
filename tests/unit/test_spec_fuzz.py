"""Whatever a file contains, loading it ends soon, and in a spec or in problems that can be shown: never in a traceback.

The number of cases and the seed are fixed (tests/sizes.py), so that a run can be repeated.
"""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import pytest
import yaml

from nkform.document.source import decode
from nkform.problem import NkformError, Problem
from nkform.report.problems import as_dicts, render
from nkform.spec import loads
from tests.sizes import SEED, SIZES

LIMIT = 5.0
"""Seconds for one case: a thousand times what it should take."""

SEEDS = (
    """\
version: 1
node: worker-1
vars: {mtu: 1500, net: "10.0.0", list: [10.9.0.1/32], all: "${list}"}
defaults: {mtu: "${mtu}", sysctl: {ipv4: {rp_filter: 0}}}
namespaces:
  web: {create: true}
  "${net}": {}
programs: {count: {template: counters}}
devices:
  lxc-web:
    kind: netkit
    mode: l3
    headroom: {for: [wg0]}
    up: true
    addresses: [169.254.1.1/32, "fe80::1/64"]
    routes: [{to: 10.0.0.2/32}]
    peer:
      name: eth0
      namespace: web
      policy: blackhole
      addresses: ["${net}.2/32", fd00::2/128]
      routes:
        - {to: default, via: 169.254.1.1, onlink: true}
  eth0: {kind: external, programs: {ingress: {position: {before: 7}, chain: [count]}}}
""",
    """\
# anchors, merges and programs
version: 1
node: a
engine: clang
templates: [mine]
programs: {guard: {template: source_guard, params: {prefixes: [10.0.0.2/32]}}, count: {template: counters}}
vars: {x: &x {name: eth0, addresses: &a [10.0.0.1/24, 10.0.0.2/24]}}
devices:
  one: &one
    kind: veth
    mac: 02:00:00:00:00:01
    peer: {<<: *x, namespace: {pid: 7}}
    attach: tc
    programs: {primary: [count], peer: {default: drop, chain: [{use: guard, as: g2, params: {a: [1]}}, guard]}}
  two:
    <<: *one
    mac: 02:00:00:00:00:02
    addresses: [10.0.0.3/24]
    sysctl: &s {ipv4: {rp_filter: 0}}
    gso_max_size: 0x10000
    peer: {name: "b\\u0061", namespace: {path: /proc/7/ns/net}, addresses: *a, sysctl: *s}
""",
    """\
# all wrong
version: 1
node: n
devices: {a: {peer: {name: b, txqlen: 0777, up: yes}, txqlen: 12:30, mtu: 1_500, routes: [{to: "::/0", metric: 1e3}]}}
""",
)

TOKENS = (
    "${", "}", "${mtu}", "$${", "&a", "*a", "*x", "<<", "!!str", "!!python/object:os.system", "---", "...", "%YAML 1.1",
    "yes", "no", "0777", "12:30", "1_000", "null", "~", "", "-", "?", "? ", ": ", "[", "]", "{", "{}", "[]", "|", ">",
    "'", '"', "\\", "\t", "\n", "\r", "\x85", "\u2028", "\ufeff", "\x00", "\x1b[31m", "\u202e", "\ud7ff", "é", "🦀",
    "-1", "65536", "99999999999999999999999", "1.5", ".inf", "1e999", "0x", "0xff", "10.0.0.1/33", "fe80::1%lo/64",
    "a" * 300, "[" * 80, "{a: " * 80, "default", "external", "../../etc", "%d", "lo", "all", "version", "devices",
)  # fmt: skip

Mutation = Callable[[random.Random, str], str | bytes]


def bytewise(rng: random.Random, text: str) -> bytes:
    data = bytearray(text.encode())
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(data) or 1)
        match rng.randrange(4):
            case 0:
                data[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                data[at:at] = bytes([rng.choice(b" \n\t:-{}[]#&*!|>'\"%@`,?\x00\xff0")])
            case 2:
                del data[at : at + rng.randint(1, 12)]
            case _:
                data[at:at] = data[at : at + rng.randint(1, 60)]
    return bytes(data)


def tokenwise(rng: random.Random, text: str) -> str:
    words = text.split(" ")
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(words))
        match rng.randrange(4):
            case 0:
                words[at] = rng.choice(TOKENS)
            case 1:
                words.insert(at, rng.choice(TOKENS))
            case 2:
                words[at], words[at - 1] = words[at - 1], words[at]
            case _:
                words[at] = words[at][: len(words[at]) // 2] + rng.choice(TOKENS) + words[at][len(words[at]) // 2 :]
    return " ".join(words)


def linewise(rng: random.Random, text: str) -> str:
    lines = text.split("\n")
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(lines))
        match rng.randrange(4):
            case 0:
                lines.insert(at, rng.choice(lines))
            case 1:
                lines[at] = " " * rng.randrange(9) + lines[at].lstrip()
            case 2:
                del lines[at]
                lines = lines or [""]
            case _:
                lines[at], lines[at - 1] = lines[at - 1], lines[at]
    return "\n".join(lines)


def treewise(rng: random.Random, text: str) -> str:
    tree = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    for _ in range(rng.randint(1, 4)):
        parents = list(_containers(tree))
        one, other = rng.choice(parents), rng.choice(parents)
        value = rng.choice([None, True, -1, 70000, 1.5, "", [], {}, "x" * 20, rng.choice(TOKENS), _part(rng, other)])
        value = json.loads(json.dumps(value))  # a copy, so that no part contains itself
        if isinstance(one, list):
            one.insert(rng.randint(0, len(one)), value)
        elif one and rng.random() < 0.7:
            key = rng.choice(list(one))
            if rng.random() < 0.2:
                one[rng.choice(TOKENS)] = one.pop(key)
            else:
                one[key] = value
        else:
            one[rng.choice(TOKENS)] = value
        if len(str(tree)) > 20000:
            break
    return (
        json.dumps(tree)
        if rng.random() < 0.5
        else yaml.dump(tree, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), allow_unicode=True)
    )


def _containers(data: object) -> Iterator[list[object] | dict[str, object]]:
    if isinstance(data, dict | list):
        yield data
        for part in data.values() if isinstance(data, dict) else data:
            yield from _containers(part)


def _part(rng: random.Random, container: list[object] | dict[str, object]) -> object:
    parts = list(container.values()) if isinstance(container, dict) else container
    return rng.choice(parts) if parts else None


MUTATIONS: tuple[Mutation, ...] = (bytewise, tokenwise, linewise, treewise)


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    def late(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"took longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def load_bytes(data: bytes) -> bool:
    """Whether the bytes are a valid spec. Whatever is wrong can be shown, has a code, and has a place."""
    try:
        spec = loads(decode("fuzz.yaml", data).text, "fuzz.yaml")
    except NkformError as error:
        check_shown(error.problems)
        return False
    assert spec.digest
    return True


def check_shown(problems: Sequence[Problem]) -> None:
    assert problems
    assert render(problems, colour=False).replace("\n", "").isprintable()
    json.dumps(as_dicts(problems))
    for problem in problems:
        assert problem.code.startswith("NK0")
        assert problem.position is not None or problem.code == "NK0131", problem


@pytest.mark.parametrize("seed", SEEDS[:2])
def test_the_seeds_reach_the_end(seed: str) -> None:
    assert load_bytes(seed.encode())


def test_no_mutated_spec_ends_in_a_traceback_or_a_hang(tell: Callable[[str], None]) -> None:
    rng = random.Random(SEED)
    valid = 0
    for number in range(SIZES.fuzz_cases):
        mutated: str | bytes = MUTATIONS[number % len(MUTATIONS)](rng, rng.choice(SEEDS))
        data = mutated if isinstance(mutated, bytes) else mutated.encode("utf-8", "surrogatepass")
        try:
            with at_most(LIMIT):
                valid += load_bytes(data)
        except Exception as error:
            raise AssertionError(f"case {number}, seed {SEED}: {error!r} for {data!r}") from error
    assert 0 < valid < SIZES.fuzz_cases
    tell(f"{SIZES.fuzz_cases} mutated specs: {valid} loaded, the others refused with problems")


def many(form: str, count: int) -> str:
    """A mapping or a list with many items: `{a#: 1}` becomes `{a0: 1, a1: 1, …}`."""
    items = (form[1:-1].replace("#", str(number)) for number in range(count))
    return f"{form[0]}{', '.join(items)}{form[-1]}"


HEAD = "version: 1\nnode: n\n"
LARGE = {
    "unknown namespaces": f"namespaces: {many('{n#: {}}', 3000)}\n"
    f"devices: {many('{d#: {peer: {name: p, namespace: zz#}}}', 5000)}",
    "the same peer": f"devices: {many('{d#: {peer: {name: p}}}', 10_000)}",
    "unknown keys": f"devices: {{a: {many('{mtu#: 1}', 30_000)}}}",
    "unknown variables": "devices: " + many('{d#: {mtu: "${v#}"}}', 10_000),
    "a variable very often": "vars: {a: x}\ndevices: {b: {peer: {name: '" + "${a}" * 300_000 + "'}}}",
    "routes and gateways": f"devices: {{a: {{addresses: {many('[fd00:#::1/64]', 9999)}, "
    f"routes: {many('[{to: fd01:#::/64, via: fd02::1}]', 9999)}, peer: {{name: b}}}}}}",
    "room for many": f"devices: {{a: {{headroom: {{for: {many('[w#]', 10_000)}}}, peer: {{name: b}}}}}}",
    "duplicate keys": many("{a: #}", 100_000),
    "defaults for many": f"defaults: {{sysctl: {{ipv4: {many('{k#: 1}', 3000)}}}}}\n"
    f"devices: {many('{d#: {peer: {name: p#}}}', 3000)}",
}


@pytest.mark.parametrize("text", LARGE.values(), ids=LARGE.keys())
def test_large_and_wrong_specs_end_soon(text: str) -> None:
    with at_most(30):
        load_bytes((HEAD + text).encode())
