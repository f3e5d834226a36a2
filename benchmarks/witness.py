"""Do two sides really make the same state? What `ip -d -j` says, without what differs by nature.

Ifindexes, MAC addresses, the link-local addresses made of them, and namespace ids are the kernel's to choose, and so is
the number of queues where it is not told; nkform makes one. How far down the operational state of a pair is that is not
up depends on the order in which it was made.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.measure import BenchError, call, pause
from benchmarks.sandbox import WORK
from benchmarks.scenario import PEER, Scenario

Dump = Mapping[str, Any]

_BY_NATURE = frozenset(
    {
        "ifindex",
        "operstate",
        "link_index",
        "link_netnsid",
        "link",
        "address",
        "permaddr",
        "num_tx_queues",
        "num_rx_queues",
        "valid_life_time",
        "preferred_life_time",
        "tentative",
    }
)
_LINK_LOCAL = re.compile(r"\bfe80::[0-9a-f:]{4,}")
READ = "addr show\nroute show table all\n"


def dump(ip: str, scenario: Scenario) -> Dump:
    """The normalised state of the sampled pairs: the host's ends, and all that is in the namespaces.

    Waits for the end of IPv6's duplicate address detection: the kernel's own routes are not there before.
    """
    (WORK / "read.batch").write_text(READ)
    found: dict[str, Any] = {}
    for pair in scenario.samples:
        _wait_for_addresses(ip, pair.namespace)
        found[f"host {pair.name}"] = _normal(json.loads(call(ip, "-d", "-j", "addr", "show", "dev", pair.name))[0])
        documents = list(_documents(call(ip, "-n", pair.namespace, "-d", "-j", "-batch", str(WORK / "read.batch"))))
        for link in documents[0]:
            found[f"{pair.namespace} {link['ifname']}"] = _normal(link)
        found[f"{pair.namespace} routes"] = sorted(map(_text, map(_normal, documents[1])))
    return found


def _wait_for_addresses(ip: str, namespace: str) -> None:
    for _ in range(100):
        if not call(ip, "-n", namespace, "-6", "addr", "show", "dev", PEER, "tentative").strip():
            return
        pause(0.1)
    raise BenchError(f"addresses of {namespace} stay tentative")


def _documents(text: str) -> Iterator[Any]:
    decoder = json.JSONDecoder()
    while text := text.lstrip():
        document, end = decoder.raw_decode(text)
        yield document
        text = text[end:]


def _normal(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {key: _normal(part) for key, part in value.items() if key not in _BY_NATURE}
        if "addr_info" in kept:
            for address in kept["addr_info"]:
                address.pop("protocol", None)
            kept["addr_info"].sort(key=_text)
        return kept
    if isinstance(value, list):
        return [_normal(part) for part in value]
    return _LINK_LOCAL.sub("fe80::(of its MAC)", value) if isinstance(value, str) else value


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def differences(left: Dump, right: Dump, ignored: frozenset[str] = frozenset()) -> list[str]:
    """Where two dumps differ; `ignored` are keys that one side cannot or need not set."""
    found = []
    for name in sorted({*left, *right}):
        ours, theirs = (_without(side.get(name), ignored) for side in (left, right))
        if ours != theirs:
            found.append(f"{name}: {_difference(ours, theirs)}")
    return found


def _without(value: Any, ignored: frozenset[str]) -> Any:
    if isinstance(value, dict):
        return {key: _without(part, ignored) for key, part in value.items() if key not in ignored}
    return [_without(part, ignored) for part in value] if isinstance(value, list) else value


def _difference(ours: Any, theirs: Any) -> str:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        keys = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
        return ", ".join(f"{key} {_text(ours.get(key))} / {_text(theirs.get(key))}" for key in keys)
    if isinstance(ours, list) and isinstance(theirs, list):
        mine = [part for part in ours if part not in theirs]
        yours = [part for part in theirs if part not in ours]
        return f"{_text(mine)} / {_text(yours)}"
    return f"{_text(ours)} / {_text(theirs)}"
