"""Commands and options. Each command's code is imported when it runs."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, Protocol

from nkform import __version__

EPILOG = "Every command has --help. Specs are YAML; `nkform schema` prints their JSON Schema."


Option = Callable[["Parser"], None]
"""Adds an option, or a few that belong together, to a command."""


class UsageError(Exception):
    """Wrong words on the command line; the text is ready to print."""


def _formatter(prog: str) -> argparse.HelpFormatter:
    """What argparse asks each option about when it is added: one that does not measure the terminal, which is slow."""
    return argparse.HelpFormatter(prog, width=80)


class Parser(argparse.ArgumentParser):
    """Exits 1 on usage errors, as Terraform does: 2 is kept for `plan --detailed-exitcode`."""

    def format_help(self) -> str:
        self.formatter_class = argparse.HelpFormatter
        return super().format_help()

    def format_usage(self) -> str:
        self.formatter_class = argparse.HelpFormatter
        return super().format_usage()

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.format_usage()}{self.prog}: error: {message}")


class Command(Protocol):
    """Adds a command: its name, what it does, the module of nkform.cli that does it and the function there. `more`:
    what its own help says beside."""

    def __call__(
        self, name: str, help: str, module: str, *options: Option, function: str = "run", more: str = ""
    ) -> None: ...


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Options, with `run` the command's function. Raises UsageError, and SystemExit(0) after --help."""
    named = arguments[0] if arguments and not arguments[0].startswith("-") else None
    options, rest = _parser(named).parse_known_args(arguments)
    if rest:
        of_nodes = hasattr(options, "node") and not hasattr(options, "spec")
        hint = "; name a node with --node" if of_nodes and not rest[0].startswith("-") else ""
        options.parser.error(f"unrecognized arguments: {' '.join(rest)}{hint}")
    return options


def _later(module: str, function: str = "run") -> Callable[[argparse.Namespace], int]:
    def run(options: argparse.Namespace) -> int:
        from importlib import import_module

        code: int = getattr(import_module(f"nkform.cli.{module}"), function)(options)
        return code

    return run


def _parser(only: str | None = None) -> Parser:
    """The parser of all commands, or of one: to make them all takes longer than to read a spec."""
    parser = Parser(
        prog="nkform",
        description="Declares netkit and veth pairs in YAML and makes a node so.",
        epilog=EPILOG,
        formatter_class=_formatter,
    )
    parser.add_argument("-V", "--version", action="version", version=f"nkform {__version__}")
    parser.set_defaults(json=False, no_color=False)
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)

    def command(name: str, help: str, module: str, *options: Option, function: str = "run", more: str = "") -> None:
        if only not in (None, name):
            return
        about = f"{help[0].upper()}{help[1:]}. {more}".rstrip()
        sub: Parser = commands.add_parser(name, help=help, description=about, formatter_class=_formatter)
        sub.set_defaults(run=_later(module, function), parser=sub)
        sub.add_argument("--no-color", action="store_true", help="no colours, also on a terminal")
        for option in options:
            option(sub)

    _from_specs(command)
    _on_nodes(command)
    _of_programs(command)
    command("doctor", "tell what this kernel and machine can do, and what to install", "doctor", _json)
    command("schema", "print the JSON Schema of the spec, or of plans", "schema", _schema_of)
    return parser if commands.choices else _parser()


def _from_specs(command: Command) -> None:
    """Commands that take specs and look at the node, or change it."""
    command(
        "validate", "check a spec against schema and meaning, without a kernel", "validate", _specs("+"), _json, _twice
    )
    planning = (_part, _compiling, _prebuilt)
    command(
        "plan", "show how the node differs from the spec", "plan",
        _specs("+"), *planning, _json, _short, _detailed, _keeping, _destroying,
    )  # fmt: skip
    command(
        "apply", "make the node as the spec says, or leave it as it was", "apply",
        _specs("+", "; or one file of `nkform plan -o`"), *planning,
        _short, _locking, _unasked, _in_parts, _on_trial, _waiting,
    )  # fmt: skip
    command(
        "watch", "report drift from the spec as it happens; with --heal, repair it", "watch",
        _specs("+"), _compiling, _prebuilt, _json, _following, _waiting,
    )  # fmt: skip
    command(
        "destroy", "remove everything that nkform made for a node", "apply",
        _specs("*"), _node, _short, _locking, _unasked, _waiting, function="destroy",
        more="Of SPEC only the node's name counts: what nkform made for that node goes, whether SPEC has it or not.",
    )  # fmt: skip


def _on_nodes(command: Command) -> None:
    """Commands about what was applied."""
    changing = (_node, _short, _locking, _unasked, _waiting)
    command("confirm", "keep what `apply --confirm` did", "confirm", _node, _locking)
    command(
        "rollback", "go back to what the node was before the last apply", "recover", *changing, function="rollback",
        more="A second rollback goes forward again. For a run that was killed, see `nkform recover`.",
    )  # fmt: skip
    command(
        "recover", "go back to what the node was before a run that was killed", "recover", *changing,
        more="Or before one that could not undo everything, or that nobody confirmed and that could not all go back."
        " For an apply that was carried out, see `nkform rollback`.",
    )  # fmt: skip
    command(
        "status", "tell what devices and programs are doing, and what waits to be confirmed", "status", _node, _json
    )
    command("show", "print the live state as a spec", "show", _node, _json)


def _of_programs(command: Command) -> None:
    """Commands about templates, and what becomes of them."""
    command(
        "templates", "list the program templates, or print one's manual", "programs", _catalogue, function="templates"
    )
    command(
        "render", "print the C that a chain compiles to", "programs",
        _specs("+"), _place, _compiling, function="render",
    )  # fmt: skip
    command(
        "build", "compile a spec's programs for nodes without a compiler", "programs",
        _specs("+"), _into, function="build",
    )  # fmt: skip


# --- options ----------------------------------------------------------------------------


def _specs(number: str, more: str = "") -> Option:
    def add(sub: Parser) -> None:
        text = f"spec files, or folders of them; - is standard input{more}"
        sub.add_argument("spec", nargs=number, type=Path, metavar="SPEC", help=text)
        sub.add_argument("--var", action="append", default=[], metavar="NAME=VALUE", help="set a variable of the spec")
        sub.add_argument(
            "--var-file",
            action="append",
            default=[],
            type=Path,
            metavar="FILE",
            help="set variables from a YAML file",
        )

    return add


def _json(sub: Parser) -> None:
    sub.add_argument("--json", action="store_true", help="print JSON")


def _twice(sub: Parser) -> None:
    text = "validate with the package jsonschema as well; where it differs, that is a bug in nkform"
    sub.add_argument("--strict", action="store_true", help=text)


def _short(sub: Parser) -> None:
    sub.add_argument("--summary", action="store_true", help="only say how many objects change")
    sub.add_argument("-v", "--verbose", action="store_true", help="also say in which order programs are attached")


def _destroying(sub: Parser) -> None:
    sub.add_argument("--destroy", action="store_true", help="show what `nkform destroy` would remove")


def _detailed(sub: Parser) -> None:
    sub.add_argument("--detailed-exitcode", action="store_true", help="exit 2 if there is something to do")


def _keeping(sub: Parser) -> None:
    sub.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="keep the plan in a file that `apply` carries out (-: standard output)",
    )


def _part(sub: Parser) -> None:
    sub.add_argument(
        "--adopt", action="store_true", help="take over devices, namespaces, addresses and routes that exist unmarked"
    )
    sub.add_argument(
        "--target", action="append", default=[], metavar="DEVICE", help="only this device (may be repeated)"
    )


def _locking(sub: Parser) -> None:
    sub.add_argument(
        "--lock-timeout",
        default="60s",
        metavar="TIME",
        help="how long to wait for another run to end; 0 fails at once (default: 60s)",
    )


def _unasked(sub: Parser) -> None:
    sub.add_argument("-y", "--yes", action="store_true", help="do not ask before changing the node")


def _waiting(sub: Parser) -> None:
    sub.add_argument(
        "--no-expedite",
        action="store_true",
        help="leave the kernel's RCU grace periods as they are: attaching programs takes up to 100 times as long",
    )


def _on_trial(sub: Parser) -> None:
    sub.add_argument(
        "--confirm", metavar="TIME", help="go back unless somebody confirms within this time, as 60s or 5m"
    )
    sub.add_argument(
        "--detach", action="store_true", help="with --confirm: do not wait here, `nkform confirm` will be run"
    )


def _in_parts(sub: Parser) -> None:
    sub.add_argument(
        "--keep-going",
        action="store_true",
        help="apply what can be applied, where something is in the way of the rest; exit 1 and name the rest",
    )


def _following(sub: Parser) -> None:
    sub.set_defaults(lock_timeout="0")  # another run at work: it is tried again anyway
    sub.add_argument("--heal", action="store_true", help="make the node as the spec says, as `apply -y` does")
    sub.add_argument(
        "--interval",
        default="5s",
        metavar="TIME",
        help="how often to look for what the kernel does not tell by itself (default: 5s)",
    )


def _node(sub: Parser) -> None:
    sub.add_argument("--node", metavar="NAME", help="which node, if there are several")


def _compiling(sub: Parser) -> None:
    sub.add_argument("--engine", choices=("auto", "clang", "bcc"), help="what compiles programs, instead of the spec's")


def _prebuilt(sub: Parser) -> None:
    sub.add_argument("--objects", type=Path, metavar="DIR", help="compiled programs, from `nkform build`")


def _catalogue(sub: Parser) -> None:
    sub.add_argument("name", nargs="?", metavar="NAME", help="print the manual of this template")
    sub.add_argument(
        "--templates", action="append", default=[], type=Path, metavar="DIR", help="a folder of templates of your own"
    )


def _place(sub: Parser) -> None:
    hooks = ("primary", "peer", "ingress", "egress")
    sub.add_argument("device", metavar="DEVICE", help="a device of the spec")
    sub.add_argument("hook", metavar="HOOK", choices=hooks, help=f"one of its hooks: {', '.join(hooks)}")


def _into(sub: Parser) -> None:
    sub.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="the folder that the objects go to"
    )


def _schema_of(sub: Parser) -> None:
    sub.add_argument("of", nargs="?", choices=("spec", "plan"), default="spec")
