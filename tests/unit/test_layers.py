"""The house is walked one way: rooms import only what lies below them, and none but `kernel` makes system calls."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "nkform"
EVERYWHERE = {"dataclass", "numbers"}
ALLOWED: dict[str, set[str]] = {
    "dataclass": set(),
    "numbers": set(),
    "kinds": set(),
    "model": {"kinds", "namespace_key"},
    "problem": set(),
    "features": set(),
    "data": {"kernel"},
    "serial": set(),
    "attributes": {"model", "kinds"},
    "gateways": {"model"},
    "listing": set(),
    "device_sysctls": set(),
    "nearest": set(),
    "namespace_key": set(),
    "macs": {"model", "attributes"},
    "entries": {"model"},
    "kernel": {"model", "namespace_key", "kinds", "attributes", "features", "device_sysctls"},
    "document": {"model", "kinds", "attributes", "problem", "nearest"},
    "bpf": {"model", "kinds", "entries", "macs", "problem", "data", "kernel", "features", "document", "nearest"},
    "spec": {
        "model", "namespace_key", "kinds", "attributes", "features", "problem", "gateways", "document", "nearest",
        "listing",
    },
    "observe": {
        "model", "namespace_key", "kinds", "attributes", "entries", "kernel", "serial", "gateways", "listing",
        "device_sysctls",
    },
    "plan": {
        "model", "namespace_key", "kinds", "attributes", "macs", "features", "problem", "serial", "gateways", "listing",
        "nearest", "device_sysctls",
    },
    "apply": {
        "model", "namespace_key", "entries", "macs", "problem", "serial", "kernel", "observe", "plan", "bpf", "listing",
        "device_sysctls",
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

DOORS = {
    "document/source.py": {
        "nkform.kernel": "the package, which is empty",
        "nkform.kernel.files": "reads specs, and lists folders of them: the one place of the pure rooms that does",
    },
}
"""What a file imports all the same, and why."""

NO_SYSTEM = {
    "__future__", "argparse", "collections", "contextlib", "dataclasses", "difflib", "errno", "functools", "gc",
    "hashlib", "inspect", "ipaddress", "itertools", "json", "math", "operator", "re", "struct", "traceback", "types",
    "typing", "unicodedata", "zlib",
}  # fmt: skip
"""Modules of the standard library that neither reach the system, nor the clock, nor chance. All others do."""

THROUGH = {"bcc", "cffi", "pyroute2"}
"""Other packages that do."""

FUNCTIONS = {"__import__", "eval", "exec", "input", "open", "print"}
"""Built-in functions that do, or may."""

OF_PATHS = {
    "absolute", "chmod", "cwd", "exists", "expanduser", "glob", "hardlink_to", "home", "is_dir", "is_file", "is_mount",
    "is_symlink", "iterdir", "lstat", "mkdir", "read_bytes", "read_text", "readlink", "rglob", "rmdir", "samefile",
    "stat", "symlink_to", "touch", "unlink", "walk", "write_bytes", "write_text",
}  # fmt: skip
"""Methods of paths that make system calls, but for those that have names in common with methods of other things."""

NO_CALLS = {
    "pathlib.Path": "the name of a file; what is done with the file is found by OF_PATHS",
    "pathlib.PurePosixPath": "likewise",
    "socket.AF_INET": "a number",
    "socket.AF_INET6": "a number",
    "socket.inet_ntop": "bytes to text, without a system call",
    "socket.inet_pton": "text to bytes, likewise",
    "sys.byteorder": "a constant",
    "sys._getframe": "which code calls",
    "sys.modules": "what is loaded",
}
"""What those modules have that makes no system call, and may be used anywhere."""

OF_ROOMS = {
    "cli": {
        "print": "what the command line is for",
        "input": "and asking",
        "sys.argv": "and arguments, which are memory",
        "sys.stdin": "where it asks",
        "sys.stdout": "where it prints, through kernel/standard_streams.py",
        "sys.stderr": "likewise",
    }
}
"""What a room uses of the system all the same, and why."""

OF_SYSTEM = {
    "__init__.py": {"importlib.import_module": "the Python API loads nothing before it is used"},
    "dataclass.py": {"exec": "makes the methods of data classes from text of its own, as the standard library does"},
    "apply/chains.py": {"threading.Lock": "between two threads of one process, which share its programs"},
    "cli/arguments.py": {"importlib.import_module": "what a command does not need is not loaded"},
    "cli/common.py": {"os.environ": "NKFORM_TIMINGS in the environment, which is memory"},
    "cli/main.py": {
        "os._exit": "ends the process; a module in kernel/ for it is what `--version` would have to load",
        "os.environ": "NKFORM_DEBUG in the environment",
    },
    "cli/streams.py": {
        "io.TextIOWrapper": "text to bytes, which kernel/standard_streams.py writes",
        "sys": "puts streams in the places of stdout and stderr, by name",
    },
    "report/colour.py": {"os.environ": "NO_COLOR and TERM in the environment"},
    "report/drift_text.py": {
        "datetime.datetime": "times out of records in words; it reads the time zone, never the clock",
        "datetime.UTC": "a constant",
    },
    "session/preload.py": {"importlib.import_module": "loads code of ours by its name, as an import statement does"},
    "session/session.py": {"_thread.get_ident": "tells threads apart, and is memory"},
    "bpf/docs.py": {
        "Path.read_text": "brings the table of templates up to date when it is run by `make docs`",
        "Path.write_text": "likewise",
    },
    "spec/docs.py": {
        "Path.read_text": "brings the manual's tables up to date when it is run by `make docs`",
        "Path.write_text": "likewise",
    },
    "spec/loader.py": {"Path.absolute": "a folder of templates is known by its path wherever its plan is carried out"},
    "spec/schema.py": {"Path.write_text": "writes the schema's file when it is run by `make docs`"},
}  # fmt: skip
"""What files use of the system all the same, and why. What is not used any more has to go."""


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
    doors = DOORS.get(str(path.relative_to(PACKAGE)), {}).keys()
    used = {name.split(".")[1] for name in imports(path) - doors if name.startswith("nkform.")}
    used -= {own, "__version__"} | EVERYWHERE
    assert used <= ALLOWED[own], f"{own} may not import {sorted(used - ALLOWED[own])}"


def of_system(path: Path) -> set[str]:
    """What a file uses of the system: names out of modules, modules as a whole, functions, and methods of paths."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    plain = [each for node in nodes if isinstance(node, ast.Import) for each in node.names if is_of_system(each.name)]
    modules = {each.asname or _first(each.name): each.name if each.asname else _first(each.name) for each in plain}
    out_of = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    found = {f"{node.module}.{each.name}" for node in out_of if is_of_system(node.module or "") for each in node.names}
    taken = [node for node in nodes if isinstance(node, ast.Attribute) and _name(node.value) in modules]
    found |= {f"{modules[_name(node.value)]}.{node.attr}" for node in taken}
    within = {id(node.value) for node in taken}
    found |= {modules[_name(node)] for node in nodes if _name(node) in modules and id(node) not in within}
    found |= {name for name in modules.values() if not any(_first(use) == name for use in found)}
    ours = {each.asname or each.name for node in out_of if _first(node.module or "") == "nkform" for each in node.names}
    for call in (node.func for node in nodes if isinstance(node, ast.Call)):
        found |= {_name(call)} & FUNCTIONS
        if isinstance(call, ast.Attribute) and _name(call.value) not in ours:
            found |= {f"Path.{name}" for name in {call.attr} & OF_PATHS}
    return found


def is_of_system(module: str) -> bool:
    first = _first(module)
    return first in THROUGH or (first in sys.stdlib_module_names and first not in NO_SYSTEM)


def _first(module: str) -> str:
    return module.partition(".")[0]


def _name(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else ""


ELSEWHERE = [path for path in FILES if room(path) != "kernel"]


@pytest.mark.parametrize("path", ELSEWHERE, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_room_kernel_makes_system_calls(path: Path) -> None:
    used = of_system(path) - NO_CALLS.keys() - OF_ROOMS.get(room(path), {}).keys()
    assert used == OF_SYSTEM.get(str(path.relative_to(PACKAGE)), {}).keys()


def test_exceptions_are_used_and_say_why() -> None:
    used = {name: set[str]() for name in ALLOWED}
    for path in ELSEWHERE:
        used[room(path)] |= of_system(path)
    assert [name for name in (*OF_SYSTEM, *DOORS) if not (PACKAGE / name).is_file()] == []
    assert NO_CALLS.keys() - set().union(*used.values()) == set()
    assert {name: left for name, names in OF_ROOMS.items() if (left := names.keys() - used[name])} == {}
    tables = (NO_CALLS, *OF_ROOMS.values(), *OF_SYSTEM.values(), *DOORS.values())
    assert all(why for table in tables for why in table.values())


@pytest.mark.parametrize(
    ("code", "uses"),
    [
        ("import os\nos.close(3)", {"os.close"}),
        ("import os.path\nos.path.exists('x')", {"os.path", "Path.exists"}),
        ("from os import close as shut", {"os.close"}),
        ("import os as o\ngetattr(o, 'close')(3)", {"os"}),
        ("import subprocess", {"subprocess"}),
        ("from pathlib import Path\nPath('x').read_text()", {"pathlib.Path", "Path.read_text"}),
        ("from nkform.kernel import files\nfiles.absolute(x)", set()),
        ("import pyroute2\npyroute2.NDB()", {"pyroute2.NDB"}),
        ("import mailbox\nmailbox.mbox('x')", {"mailbox.mbox"}),
        ("open('x')", {"open"}),
        ("import errno\nerrno.ENOENT", set()),
    ],
)
def test_a_system_call_is_found(code: str, uses: set[str], tmp_path: Path) -> None:
    path = tmp_path / "file.py"
    path.write_text(code)
    assert of_system(path) == uses


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
    assert not streams


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
