"""Plans in files, which are looked at now and carried out later: `nkform plan -o FILE` and `nkform apply FILE`."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nkform import __version__, files
from nkform.files import writable_by_others
from nkform.plan import saved
from nkform.plan.saved import Basis, Saved
from nkform.problem import fail
from nkform.session.prepared import PlanOptions
from nkform.spec import Spec

if TYPE_CHECKING:
    from nkform.session.session import Planned

FILE_MODE = 0o600


def text(planned: Planned, document: Mapping[str, Any]) -> str:
    """The text of a file that `apply` carries out. `document`: the plan's JSON."""
    from nkform.kernel import clock
    from nkform.kernel.place import place

    spec, options, programs = planned.prepared.spec, planned.prepared.options, planned.prepared.programs
    basis = Basis(
        nkform=__version__,
        place=place(),
        when=clock.now(),
        files=tuple(source.name for source in spec.sources),
        spec=spec.digest,
        desired=spec.node,
        templates=tuple(str(Path(folder).resolve()) for folder in spec.templates),
        engine=options.engine or spec.engine,
        objects=str(options.objects.resolve()) if options.objects else "",
        adopt=options.adopt,
        targets=tuple(options.targets),
        live=saved.relevant(planned.live),
        expedite=spec.expedite,
        given=programs.given() if programs else "",
    )
    return saved.write(document, basis)


def write(path: Path, text: str) -> None:
    """Writes a file, readable by its owner alone, whole or not at all. Raises NkformError."""
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


def load(path: Path) -> Saved | None:
    """The plan that a file holds; None where it holds something else, or is no file. Raises NkformError."""
    from nkform.kernel.place import place

    if not path.is_file():
        return None
    try:
        with os.fdopen(files.opened(path), encoding="utf-8", errors="surrogateescape") as file:
            if not saved.is_plan(file.read(200)):
                return None
            _check_owner(path, os.fstat(file.fileno()))
            file.seek(0)
            found = saved.read(file.read(), str(path))
    except OSError as error:
        raise fail("NK0101", f"{path} cannot be read: {error.strerror}") from error
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


def options_of(basis: Basis) -> PlanOptions:
    """How it was planned."""
    objects = Path(basis.objects) if basis.objects else None
    return PlanOptions(adopt=basis.adopt, targets=basis.targets, objects=objects)
