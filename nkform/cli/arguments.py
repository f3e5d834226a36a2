"""Commands and options. Each command's code is imported when it runs."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from nkform import __version__

EPILOG = "Every command has --help. Specs are YAML; `nkform schema` prints their JSON Schema."


class UsageError(Exception):
    """Wrong words on the command line; the text is ready to print."""


class Parser(argparse.ArgumentParser):
    """Exits 1 on usage errors, as Terraform does: 2 is kept for `plan --detailed-exitcode`."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.format_usage()}{self.prog}: error: {message}")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Options, with `run` the command's function. Raises UsageError, and SystemExit(0) after --help."""
    return _parser().parse_args(arguments)


def _later(module: str, function: str = "run") -> Callable[[argparse.Namespace], int]:
    def run(options: argparse.Namespace) -> int:
        from importlib import import_module

        code: int = getattr(import_module(f"nkform.cli.{module}"), function)(options)
        return code

    return run


def _parser() -> Parser:  # noqa: PLR0915
    parser = Parser(
        prog="nkform",
        description="Declares netkit and veth pairs in YAML and makes a node so.",
        epilog=EPILOG,
    )
    parser.add_argument("-V", "--version", action="version", version=f"nkform {__version__}")
    parser.set_defaults(json=False, no_color=False)
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)

    def command(name: str, help: str, module: str, *, specs: str = "", function: str = "run") -> Parser:
        sub: Parser = commands.add_parser(name, help=help, description=help)
        sub.set_defaults(run=_later(module, function))
        sub.add_argument("--no-color", action="store_true", help="no colours, also on a terminal")
        if specs:
            sub.add_argument(
                "spec",
                nargs=specs,
                type=Path,
                metavar="SPEC",
                help="spec files, or folders of them; - is standard input",
            )
            sub.add_argument(
                "--var", action="append", default=[], metavar="NAME=VALUE", help="set a variable of the spec"
            )
            sub.add_argument(
                "--var-file",
                action="append",
                default=[],
                type=Path,
                metavar="FILE",
                help="set variables from a YAML file",
            )
        return sub

    def json_option(sub: Parser) -> None:
        sub.add_argument("--json", action="store_true", help="print JSON")

    def locking(sub: Parser) -> None:
        sub.add_argument(
            "--lock-timeout",
            default="60s",
            metavar="TIME",
            help="how long to wait for another run to end; 0 fails at once (default: 60s)",
        )

    def changing(sub: Parser) -> None:
        locking(sub)
        sub.add_argument("-y", "--yes", action="store_true", help="do not ask before changing the node")
        sub.add_argument("--summary", action="store_true", help="only say how many objects change")

    json_option(command("validate", "check a spec against schema and meaning, without a kernel", "validate", specs="+"))

    plan = command("plan", "show how the node differs from the spec", "plan", specs="+")
    json_option(plan)
    plan.add_argument("--detailed-exitcode", action="store_true", help="exit 2 if there is something to do")
    plan.add_argument("--summary", action="store_true", help="only say how many objects change")

    plan.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="keep the plan in a file that `apply` carries out"
    )

    apply = command("apply", "make the node as the spec says, or leave it as it was", "apply", specs="+")
    changing(apply)
    apply.add_argument(
        "--confirm", metavar="TIME", help="go back unless somebody confirms within this time, as 60s or 5m"
    )
    apply.add_argument(
        "--detach", action="store_true", help="with --confirm: do not wait here, `nkform confirm` will be run"
    )
    for sub in (plan, apply):
        sub.add_argument("--adopt", action="store_true", help="take over devices and namespaces that exist unmarked")
        sub.add_argument(
            "--target",
            action="append",
            default=[],
            metavar="DEVICE",
            help="only this device (may be repeated)",
        )

    watch = command("watch", "say how the node drifts from the spec, as it does; and mend it", "watch", specs="+")
    _following(watch)
    json_option(watch)

    destroy = command("destroy", "remove all that carries the node's mark", "apply", specs="*", function="destroy")
    changing(destroy)
    destroy.add_argument("--node", metavar="NAME", help="the node's name, instead of a spec")

    for name, help, module, function, options in (
        ("confirm", "keep what `apply --confirm` did", "confirm", "run", locking),
        ("rollback", "go back to what the node was before the last apply", "recover", "rollback", changing),
        ("recover", "take back a run that was killed", "recover", "run", changing),
    ):
        sub = command(name, help, module, function=function)
        options(sub)
        sub.add_argument("--node", metavar="NAME", help="which node, if there are several")

    status = command("status", "tell what devices and programs are doing", "status")
    status.add_argument("--node", metavar="NAME", help="which node's, if there are several")
    json_option(status)

    catalogue = command(
        "templates", "list the program templates, or print one's manual", "programs", function="templates"
    )
    catalogue.add_argument("name", nargs="?", metavar="NAME")
    catalogue.add_argument(
        "--templates", action="append", default=[], type=Path, metavar="DIR", help="a folder of templates of your own"
    )
    render = command("render", "print the C that a chain compiles to", "programs", specs="+", function="render")
    render.add_argument("device", metavar="DEVICE")
    render.add_argument("hook", metavar="HOOK", choices=("primary", "peer", "ingress", "egress"))
    build = command(
        "build", "compile a spec's programs for nodes without a compiler", "programs", specs="+", function="build"
    )
    build.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="the folder that the objects go to"
    )
    for sub in (plan, apply, watch, render):
        sub.add_argument(
            "--engine", choices=("auto", "clang", "bcc"), help="what compiles programs, instead of the spec's"
        )
    for sub in (plan, apply, watch):
        sub.add_argument("--objects", type=Path, metavar="DIR", help="objects of programs that were built elsewhere")

    show = command("show", "print the live state as a spec", "show")
    show.add_argument("--node", metavar="NAME", help="which node's, if there are several")
    json_option(show)

    json_option(command("doctor", "tell what this kernel and machine can do, and what to install", "doctor"))
    schema = command("schema", "print the JSON Schema of the spec, or of plans", "schema")
    schema.add_argument("of", nargs="?", choices=("spec", "plan"), default="spec")
    return parser


def _following(watch: Parser) -> None:
    watch.set_defaults(lock_timeout="0")  # another run at work: it is tried again anyway
    watch.add_argument("--heal", action="store_true", help="make the node as the spec says, as `apply -y` does")
    watch.add_argument(
        "--interval",
        type=float,
        default=5.0,
        metavar="SECONDS",
        help="how often to look for what the kernel does not tell by itself (5)",
    )
