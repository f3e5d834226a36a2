"""The house is walked one way: rooms import only what lies below them, and the pure rooms touch no system."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "nkform"
EVERYWHERE = {"dataclass"}
ALLOWED: dict[str, set[str]] = {
    "dataclass": set(),
    "kinds": set(),
    "model": {"kinds", "namespace_key"},
    "problem": set(),
    "features": set(),
    "data": set(),
    "files": set(),
    "serial": set(),
    "attributes": {"model", "kinds"},
    "gateways": set(),
    "listing": set(),
    "nearest": set(),
    "namespace_key": set(),
    "macs": {"model", "attributes"},
    "entries": {"model"},
    "kernel": {"model", "namespace_key", "kinds", "attributes", "features", "files"},
    "document": {"model", "kinds", "attributes", "problem", "files", "nearest"},
    "bpf": {
        "model", "kinds", "entries", "macs", "problem", "data", "files", "kernel", "features", "document", "nearest",
    },
    "spec": {
        "model", "namespace_key", "kinds", "attributes", "features", "problem", "data", "files", "gateways", "document",
        "nearest",
    },
    "observe": {"model", "namespace_key", "kinds", "attributes", "entries", "kernel", "serial", "gateways", "listing"},
    "plan": {
        "model", "namespace_key", "kinds", "attributes", "macs", "features", "problem", "serial", "listing", "nearest",
    },
    "apply": {
        "model", "namespace_key", "entries", "macs", "problem", "serial", "kernel", "observe", "plan", "bpf", "listing",
    },
    "results": {"plan"},
    "report": {"model", "namespace_key", "attributes", "problem", "plan", "serial", "results", "listing"},
    "session": {
        "model",
        "namespace_key",
        "listing",
        "kinds",
        "macs",
        "features",
        "problem",
        "files",
        "kernel",
        "observe",
        "plan",
        "apply",
        "spec",
        "bpf",
        "report",
        "results",
    },
    "cli": {"model", "features", "problem", "data", "kernel", "plan", "spec", "report", "bpf", "session", "listing"},
    "__main__": {"cli"},
    "__init__": {"session", "spec", "problem"},
}  # fmt: skip
PURE = (
    "dataclass", "kinds", "model", "problem", "features", "attributes", "gateways", "entries", "serial", "document",
    "spec", "macs", "plan", "results", "report", "listing", "nearest",
    "namespace_key",
)  # fmt: skip
SYSTEM = {
    "_posixsubprocess", "asyncio", "builtins", "cffi", "concurrent", "ctypes", "datetime", "errno", "fcntl", "ftplib",
    "getpass", "glob", "grp", "http", "importlib", "io", "locale", "logging", "mmap", "multiprocessing", "os",
    "pathlib", "platform", "posix", "pty", "pwd", "pyroute2", "random", "resource", "secrets", "select", "selectors",
    "shutil", "signal", "socket", "socketserver", "ssl", "stat", "subprocess", "sys", "syslog", "tempfile", "termios",
    "threading", "time", "urllib", "uuid",
}  # fmt: skip
"""Modules by which Python reaches the system, or the clock, or chance."""

OF_SYSTEM = {
    "dataclass.py": {"exec": "makes the methods of data classes from text of its own, as the standard library does"},
    "entries.py": {
        "socket.AF_INET": "a number",
        "socket.AF_INET6": "a number",
        "socket.inet_ntop": "bytes to text, without a system call",
        "socket.inet_pton": "text to bytes, likewise",
    },
    "document/inet.py": {
        "socket.AF_INET": "a number",
        "socket.AF_INET6": "a number",
        "socket.inet_ntop": "bytes to text, without a system call",
        "socket.inet_pton": "text to bytes, likewise",
    },
    "document/source.py": {
        "sys": "a spec may come from the standard input",
        "pathlib.Path": "reads specs, through nkform/files.py, and lists folders of them: the one place that does",
    },
    "spec/decode_end.py": {"socket.AF_INET": "a number", "socket.AF_INET6": "a number"},
    "spec/meaning.py": {"socket.AF_INET6": "a number"},
    "spec/__init__.py": {"pathlib.Path": "names of files, for document/source.py to read"},
    "spec/loader.py": {"pathlib.Path": "names of files, and folders of templates beside them, made absolute"},
    "spec/schema.py": {"pathlib.Path": "writes the schema's file when it is run by `make docs`"},
    "spec/docs.py": {"pathlib.Path": "writes the manual's tables when it is run by `make docs`"},
    "report/colour.py": {"os": "NO_COLOR and TERM in the environment, which is memory"},
    "report/drift_text.py": {
        "datetime.datetime": "times out of records in words; it reads the time zone, never the clock",
        "datetime.UTC": "a constant",
    },
}  # fmt: skip
"""What pure rooms import of the system all the same, by file, and why. What is not used any more has to go."""


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


FILES = sorted(PACKAGE.rglob("*.py"))


def test_a_file_has_at_most_500_lines() -> None:
    top = PACKAGE.parent
    listed = [*FILES, *(path for folder in ("tests", "tools", "benchmarks") for path in (top / folder).rglob("*.py"))]
    assert [str(path.relative_to(top)) for path in listed if len(path.read_text().splitlines()) > 500] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_what_lies_below(path: Path) -> None:
    own = room(path)
    used = {name.split(".")[1] for name in imports(path) if name.startswith("nkform.")}
    used -= {own, "__version__"} | EVERYWHERE
    assert used <= ALLOWED[own], f"{own} may not import {sorted(used - ALLOWED[own])}"


def of_system(path: Path) -> set[str]:
    """What a file imports of the system: names out of modules, or whole modules."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] in SYSTEM}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in SYSTEM:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found |= {node.func.id} & {"open", "input", "exec", "eval", "__import__"}
    return found


@pytest.mark.parametrize(
    "path", [path for path in FILES if room(path) in PURE], ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_the_pure_rooms_touch_no_system(path: Path) -> None:
    assert of_system(path) == OF_SYSTEM.get(str(path.relative_to(PACKAGE)), {}).keys()


def test_exceptions_are_for_files_that_there_are_and_say_why() -> None:
    assert [name for name in OF_SYSTEM if not (PACKAGE / name).is_file() or room(PACKAGE / name) not in PURE] == []
    assert all(why for names in OF_SYSTEM.values() for why in names.values())


@pytest.mark.parametrize(
    "path", [path for path in FILES if room(path) == "session"], ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_a_session_has_no_terminal(path: Path) -> None:
    """It prints nothing, asks nothing, and knows no command line."""
    code = ast.parse(path.read_text())
    called = {node.func.id for node in ast.walk(code) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert not called & {"print", "input"}
    assert "argparse" not in imports(path)
    streams = {node.attr for node in ast.walk(code) if isinstance(node, ast.Attribute)} & {"stdin", "stdout", "stderr"}
    flushed = path.name == "guardian.py"  # ahead of its fork, so that nothing is written twice
    assert streams <= ({"stdout", "stderr"} if flushed else set())


def _loaded(statement: str) -> set[str]:
    words = [sys.executable, "-c", f"{statement}\nimport sys\nprint(*sys.modules)"]
    return set(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split())


def _run(words: str, out: object = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nkform", *words.split()]
    return subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True, check=False)  # type: ignore[call-overload,no-any-return]


def test_a_run_ends_with_all_said_and_its_code() -> None:
    from nkform.data import data_path

    schema = _run("schema")
    assert (schema.returncode, schema.stdout) == (0, data_path("schemas/spec.v1.json").read_text(encoding="utf-8"))
    wrong = _run("validate no-such-file.yaml")
    assert wrong.returncode == 1
    assert "no-such-file.yaml" in wrong.stderr
    with Path("/dev/full").open("w") as full:
        assert _run("--version", full).returncode == 1
        assert _run("schema", full).returncode == 1


def test_a_start_loads_only_what_it_needs() -> None:
    version = _loaded("from nkform.cli.main import main; main(['--version'])")
    assert not version & {"argparse", "yaml", "pyroute2", "jsonschema", "jinja2", "ctypes"}
    validate = _loaded("from nkform.cli.main import main; main(['validate', 'examples/anywhere.yaml'])")
    assert "yaml" in validate
    assert not validate & {"pyroute2", "jsonschema", "jinja2", "dataclasses", "inspect"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_data_classes_are_those_that_start_fast(path: Path) -> None:
    standard = {name for name in imports(path) if name.startswith("dataclasses.")} - {"dataclasses.asdict"}
    assert not standard or room(path) == "dataclass"
