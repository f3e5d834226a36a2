"""Plans in files, which are looked at now and carried out later: `nkform plan -o FILE` and `nkform apply FILE`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nkform import __version__
from nkform.kernel import files
from nkform.plan import saved
from nkform.plan.saved import Basis, Saved
from nkform.problem import fail
from nkform.session.prepared import PlanOptions
from nkform.spec import Spec

if TYPE_CHECKING:
    from nkform.session.session import Planned


def text(planned: Planned, document: Mapping[str, Any]) -> str:
    """The text of a file that `apply` carries out. `document`: the plan's JSON."""
    from nkform.kernel import clock
    from nkform.kernel.place import place

    spec, options = planned.prepared.spec, planned.prepared.options
    basis = Basis(
        nkform=__version__,
        place=place(),
        when=clock.now(),
        files=tuple(source.name for source in spec.sources),
        spec=spec.digest,
        desired=spec.node,
        templates=tuple(str(files.resolved(Path(folder))) for folder in spec.templates),
        engine=options.engine or spec.engine,
        objects=str(files.resolved(options.objects)) if options.objects else "",
        adopt=options.adopt,
        targets=tuple(options.targets),
        live=saved.relevant(planned.live),
        expedite=spec.expedite,
        given=planned.observation.given,
    )
    return saved.write(document, basis)


def write(path: Path, text: str) -> None:
    """Writes a file, readable by its owner alone, whole or not at all. Raises NkformError."""
    try:
        files.put(path, text)
    except OSError as error:
        hint = "`-o -` is the standard output" if isinstance(error, files.NoFileError) else ""
        raise fail("NK0101", f"{path} cannot be written: {error.strerror}", hint=hint) from error


def load(path: Path) -> Saved | None:
    """The plan that a file holds; None where it holds something else, or is no file. Raises NkformError."""
    from nkform.kernel.place import place

    if not files.is_file(path):
        return None
    try:
        with files.opened(path) as file:
            if not saved.is_plan(file.read(200)):
                return None
            _check_owner(path, files.distrust(file))
            file.seek(0)
            found = saved.read(file.read(), str(path))
    except OSError as error:
        raise fail("NK0101", f"{path} cannot be read: {error.strerror}") from error
    saved.check_origin(found.basis, __version__, place())
    return found


def _check_owner(path: Path, reason: str) -> None:
    if reason:
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
