"""`nkform plan -o FILE` and `nkform apply FILE`: plans that are looked at now and carried out later."""

from __future__ import annotations

import argparse
import errno
import os
import stat
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from nkform import __version__, files
from nkform.files import writable_by_others
from nkform.plan import saved
from nkform.plan.saved import Basis, Saved
from nkform.problem import fail
from nkform.spec import Spec

if TYPE_CHECKING:
    from nkform.cli.common import Look
    from nkform.plan.drift import Notes

FILE_MODE = 0o600
STDOUT = Path("-")


def save(path: Path, found: Look, drift: Notes, spec: Spec, options: argparse.Namespace, given: str) -> None:
    """Writes a plan for `apply`, readable by its owner alone. Raises NkformError."""
    from nkform.kernel.place import place
    from nkform.report.plan_json import document

    basis = Basis(
        nkform=__version__,
        place=place(),
        when=time.time(),
        files=tuple(str(file) for file in options.spec),
        spec=spec.digest,
        desired=spec.node,
        templates=tuple(str(Path(folder).resolve()) for folder in spec.templates),
        engine=options.engine or spec.engine,
        objects=str(options.objects.resolve()) if options.objects else "",
        adopt=options.adopt,
        targets=tuple(options.target),
        live=saved.relevant(found.live),
        expedite=spec.expedite,
        given=given,
    )
    text = saved.write(document(found.plan, drift), basis)
    if path == STDOUT:
        sys.stdout.write(text)
        return
    try:
        if _is_device(path):
            _write_into(path, text)
        else:
            _replace(path, text)
    except OSError as error:
        hint = "`-o -` is the standard output" if isinstance(error, files.NoFileError) else ""
        raise fail("NK0101", f"{path} cannot be written: {error.strerror}", hint=hint) from error


def _is_device(path: Path) -> bool:
    """Whether a plan is written into what is there, such as /dev/null, rather than put in its place.

    Raises NoFileError where neither will do.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISCHR(mode):
        return True
    if words := files.kind(mode):
        raise files.NoFileError(errno.EINVAL, f"it is {words}, and no file", str(path))
    if path.is_symlink() and str(path.readlink()).startswith("/proc/"):  # /dev/stdout, say
        raise files.NoFileError(errno.EINVAL, "it is a link into /proc, which is not put aside", str(path))
    return False


def _write_into(path: Path, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(text)


def _replace(path: Path, text: str) -> None:
    """Puts a file in place, whole or not at all; a link is put aside."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(fd)
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def load(options: argparse.Namespace) -> Saved | None:
    """The plan that the command line names in place of a spec, if it does. Raises NkformError."""
    from nkform.kernel.place import place

    if len(options.spec) != 1 or not options.spec[0].is_file():
        return None
    path: Path = options.spec[0]
    try:
        with os.fdopen(files.opened(path), encoding="utf-8", errors="surrogateescape") as file:
            if not saved.is_plan(file.read(200)):
                return None
            _check_owner(path, os.fstat(file.fileno()))
            file.seek(0)
            found = saved.read(file.read(), str(path))
    except OSError as error:
        raise fail("NK0101", f"{path} cannot be read: {error.strerror}") from error
    given = [name for name in ("target", "var", "var_file", "adopt", "engine", "objects") if getattr(options, name)]
    if given:
        said = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise fail("NK0602", f"{said}: a saved plan has its own", hint="give options to `nkform plan -o`")
    saved.check_origin(found.basis, __version__, place())
    return found


def _check_owner(path: Path, state: os.stat_result) -> None:
    if reason := writable_by_others(state):
        raise fail(
            "NK0624",
            f"cannot trust the plan {path}: {reason}",
            hint="plan again as the user who applies, into a folder that only this user can write to",
        )


def as_spec(basis: Basis) -> Spec:
    """The spec that a plan was made from, without its text."""
    return Spec(basis.desired, templates=basis.templates, engine=basis.engine, expedite=basis.expedite)
