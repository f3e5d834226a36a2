"""What the live tests share: running nkform, and asking independent witnesses (ip, ping, sysfs) what became of it."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

import nkform.bpf.sandbox  # noqa: F401  # loaded here once, rather than in a child of each run
from nkform.cli.main import main
from nkform.features import FEATURES
from nkform.kernel.netns import Namespaces
from nkform.kernel.probe import probe
from tests.live.helpers.witness import GET_ONE, IP, version

KNOWS_NETKIT = (6, 8)
"""The iproute2 that was the first to show what a netkit device is like."""

REFUSED = [{"to": "203.0.113.0/24", "table": 101}, {"to": "192.0.2.0/24", "via": "203.0.113.1"}]
"""Routes of which the kernel refuses the second: without a rule it looks for no gateway in that table. That is for
apply to find out, since others could have such a rule."""


@dataclass(frozen=True)
class Outcome:
    """What one run of nkform came to."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


class Node:
    """nkform as a user runs it, with a spec in a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "spec.yaml"

    def write(self, spec: str | Mapping[str, Any]) -> Path:
        self.path.write_text(spec if isinstance(spec, str) else yaml.safe_dump(spec, sort_keys=False))
        return self.path

    def run(self, *words: str) -> Outcome:
        """Runs nkform in this process: starting Python costs seconds on an emulated kernel."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(list(words))
        return Outcome(code, out.getvalue(), err.getvalue())

    def plan(self, spec: str | Mapping[str, Any] | None = None, *words: str) -> Outcome:
        if spec is not None:
            self.write(spec)
        return self.run("plan", str(self.path), *words)

    def changes(self, spec: str | Mapping[str, Any] | None = None, *words: str) -> list[dict[str, Any]]:
        """The changes of a plan that must succeed."""
        outcome = self.plan(spec, "--json", *words)
        assert outcome.code == 0, outcome.err
        changes: list[dict[str, Any]] = outcome.json()["changes"]
        return changes

    def apply(self, spec: str | Mapping[str, Any] | None = None, *words: str) -> Outcome:
        """Applies a spec that must succeed, and holds the promise that the next plan is empty."""
        if spec is not None:
            self.write(spec)
        outcome = self.run("apply", "-y", str(self.path), *words)
        assert outcome.code == 0, outcome.err
        assert self.changes(None, *words) == []
        return outcome

    def refused(self, spec: str | Mapping[str, Any], *words: str, command: str = "plan") -> str:
        """What nkform says of a spec that it must refuse."""
        self.write(spec)
        outcome = self.run(command, *(["-y"] if command == "apply" else []), str(self.path), *words)
        assert outcome.code == 1, outcome.out
        assert "Traceback" not in outcome.err
        return outcome.err

    def destroy(self) -> Outcome:
        outcome = self.run("destroy", "-y", str(self.path))
        assert outcome.code == 0, outcome.err
        return outcome


def sh(*words: str, check: bool = True) -> str:
    """Runs a witness and returns what it printed."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
    return done.stdout


def ip(*words: str, namespace: str = "") -> str:
    return sh(IP, *(["-n", namespace] if namespace else []), *words)


def batch(lines: Sequence[str], namespace: str = "") -> None:
    """Many commands of `ip` at once; those that the kernel refuses change nothing, and are no failure."""
    words = [IP, *(["-n", namespace] if namespace else []), "-force", "-batch", "-"]
    subprocess.run(words, input="\n".join(lines), capture_output=True, text=True, check=False)


def link(name: str, namespace: str = "") -> dict[str, Any]:
    """A link as `ip -d -j` reports it, its kind's own data beside the rest."""
    shown: dict[str, Any] = json.loads(ip("-d", "-j", "link", "show", "dev", name, namespace=namespace))[0]
    info = shown.get("linkinfo", {})
    if info.get("info_kind") == "netkit" and version(IP, "-V") < KNOWS_NETKIT:
        pytest.skip(f"the witness ip is too old to show netkit devices: {GET_ONE}")
    return {**shown, **info.get("info_data", {})}


def links(namespace: str = "") -> set[str]:
    """The names of all links but `lo`."""
    return {found["ifname"] for found in json.loads(ip("-j", "link", namespace=namespace))} - {"lo"}


def sysfs(name: str, attribute: str, namespace: str = "") -> str:
    """A file of /sys/class/net as seen inside a namespace."""
    path = f"/sys/class/net/{name}/{attribute}"
    if namespace:
        return sh(IP, "netns", "exec", namespace, "cat", path).strip()
    return sh("unshare", "--mount", "sh", "-c", f"mount -t sysfs nkform /sys && cat {path}").strip()


def dump(namespace: str = "") -> str:
    """All that `ip` can say about a namespace but counters and lifetimes, to compare byte for byte."""
    parts = [
        ip("-d", "link", namespace=namespace),
        ip("addr", namespace=namespace),
        ip("route", "show", "table", "all", namespace=namespace),
        ip("-6", "route", "show", "table", "all", namespace=namespace),
        ip("rule", namespace=namespace),
    ]
    return "\n".join(parts)


def pings(namespace: str, address: str, count: int = 1) -> bool:
    """Whether an address answers from inside a namespace."""
    words = [IP, "netns", "exec", namespace, "ping", "-c", str(count), "-W", "2", "-i", "0.2", address]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def reaches(namespace: str, address: str) -> bool:
    """Whether an address answers sooner or later: what goes out right after a link came up may be lost."""
    return any(pings(namespace, address) for _ in range(20))


@functools.cache
def features() -> frozenset[str]:
    """What the running kernel can do."""
    with Namespaces() as namespaces:
        return probe(namespaces, FEATURES)


def needs(*names: str) -> pytest.MarkDecorator:
    """Skips a test where the kernel lacks a feature, and says which."""
    missing = [name for name in names if name not in features()]
    said = ", ".join(f"{FEATURES[name].what} (Linux {FEATURES[name].since})" for name in missing)
    return pytest.mark.skipif(bool(missing), reason=f"this kernel has no {said}")


def kinds() -> list[Any]:
    """Both kinds of pair as parameters; netkit is skipped where the kernel has none."""
    return [pytest.param("veth"), pytest.param("netkit", marks=needs("netkit"))]
