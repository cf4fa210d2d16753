"""Write a bundle as one model file that is known to predict the same, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featstore.dataset import Dataset
from featstore.errors import DamageError, InputError, from_os_error
from featstore.job import Job
from featstore.progress import Progress, silent
from featstore.versions import installed_versions
from featstore.wording import printable
from heads.apply import jobs_of
from heads.bundles.bundle import Bundle, read_bundle
from heads.export.check import count, drawn_pictures, exported_probabilities, own_probabilities, real_pictures
from heads.export.formats import Format, Images, format_of, one_message
from heads.export.model import OUTPUT, ImageInput, build_model, inputs_of

EXPORT_FORMAT = "featstore model"
EXPORT_VERSION = 1
"""Rises when a field of the JSON inside an exported model changes its meaning."""

TOLERANCE = 1e-3
"""The most that a probability may differ from the bundle's at float32; libraries differ by 1e-6 to 1e-5."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A model file that was written and checked.

    format, library : its kind, and what opened it again for the check.
    images : how many pictures it was checked on; ``drawn`` if they were made for it.
    difference : the largest difference of a probability to the bundle's own code at float32; at most ``tolerance``.
    precision : what the bundle's features are computed in. difference_there : the same, to the bundle's numbers in
        that precision; None where it is float32, or where this machine cannot compute in it.
    """

    path: Path
    format: str
    library: str
    bytes: int
    classes: tuple[str, ...]
    inputs: tuple[ImageInput, ...]
    images: int
    drawn: bool
    difference: float
    tolerance: float
    precision: str
    difference_there: float | None

    def to_json(self) -> dict[str, Any]:
        """What ``heads export --json`` prints."""
        return {
            "file": printable(str(self.path)),
            "format": self.format,
            "bytes": self.bytes,
            "inputs": [{"name": one.name, "image_size": list(one.pixels.image_size)} for one in self.inputs],
            "output": OUTPUT,
            "classes": [printable(name) for name in self.classes],
            "check": {
                "library": self.library,
                "images": self.images,
                "drawn": self.drawn,
                "difference": self.difference,
                "tolerance": self.tolerance,
                "precision": self.precision,
                "difference_there": self.difference_there,
            },
        }


def export_bundle(
    folder: Path, to: str, *, check: Dataset | None = None, force: bool = False, progress: Progress = silent
) -> Exported:
    """Write the bundle in ``folder`` with its bases to ``to``, in the format of its ending, checked on pictures.

    ``check`` are images to check it on, in place of drawn ones; ``force`` lets it replace what is there. Nothing is
    left of a model that fails.
    Raises InputError for a bundle, an ending or weights that cannot be used or a file that is in the way, DamageError
    for a model that does not predict the same, and NoSpaceError, ReadOnlyError or StorageError.
    """
    kind, target = format_of(to), Path(to)
    _check_target(target, kind, force)
    kind.prepare()
    bundle = read_bundle(folder)
    jobs = jobs_of(bundle, progress)
    inputs = inputs_of(bundle.card.specs)
    images = drawn_pictures(inputs) if check is None else real_pictures(inputs, check)
    try:
        private = Path(tempfile.mkdtemp(dir=target.absolute().parent, prefix=".featstore-"))
    except OSError as error:
        raise from_os_error(error, "write a model", target) from error
    try:
        with progress("export", 3, "steps") as advance:
            draft = private / "new" / target.name
            draft.parent.mkdir()
            with one_message(f"write this head as {kind.name}", target):
                kind.write(build_model(bundle, [job.base for job in jobs]), draft, about(bundle, inputs))
            advance(1)
            differences = _differences(kind, draft, target, bundle, jobs, images)
            advance(2)
            size = _settle(draft.parent)
            _publish(draft, target, kind, private / "old")
    except OSError as error:
        raise from_os_error(error, "write a model", target) from error
    finally:
        shutil.rmtree(private, ignore_errors=True)
    precisions = "+".join(dict.fromkeys(job.spec.precision for job in jobs))
    return Exported(
        *(target, kind.name, kind.library, size, bundle.card.classes, inputs, count(images), check is None),
        *(differences[0], TOLERANCE, precisions, differences[1]),
    )


def about(bundle: Bundle, inputs: Sequence[ImageInput]) -> str:
    """What the file says of itself, as JSON in plain ASCII: classes, inputs, specs, and which bundle it was."""
    card = bundle.card
    return json.dumps(
        {
            "format": EXPORT_FORMAT,
            "version": EXPORT_VERSION,
            "inputs": [{"name": one.name, "layout": "NHWC", "colours": "RGB", **asdict(one.pixels)} for one in inputs],
            "output": OUTPUT,
            "classes": [printable(name) for name in card.classes],
            "specs": [json.loads(spec.to_json()) for spec in card.specs],
            "computes_in": "float32",
            "head": {"kind": card.kind, "params": dict(card.params), "calibration": card.calibration.method},
            "trained_on": {"rows": card.rows, "sha256": card.rows_digest},
            "versions": installed_versions(),
        },
        sort_keys=True,
    )


def _differences(
    kind: Format, draft: Path, target: Path, bundle: Bundle, jobs: Sequence[Job], images: Images
) -> tuple[float, float | None]:
    """To the bundle at float32, and at the precision of its features; raises DamageError above the tolerance."""
    with one_message(f"open the model again with {kind.library}", target):
        found = exported_probabilities(kind.open(draft), images)
    inputs = inputs_of(bundle.card.specs)
    expected = own_probabilities(bundle, jobs, inputs, images, as_stored=False)
    difference = _largest(found, expected)
    if not difference <= TOLERANCE:  # written so that nan fails
        raise DamageError(
            f"the model that {kind.library} opened does not predict what the bundle predicts: nothing was kept",
            where=target,
            expected=f"probabilities within {TOLERANCE:g}",
            received=f"{difference:.3g} at most, on {count(images)} pictures",
            todo="export to another format, or train a head of another kind",
        )
    if all((job.spec.precision, job.spec.dtype) == ("float32", "float32") for job in jobs):
        return difference, None
    try:
        return difference, _largest(found, own_probabilities(bundle, jobs, inputs, images, as_stored=True))
    except InputError:  # this machine cannot compute in that precision
        return difference, None


def _largest(found: Any, expected: Any) -> float:
    if found.shape != expected.shape:
        return float("inf")
    return float(np.max(np.abs(found - expected)))


def _check_target(target: Path, kind: Format, force: bool) -> None:
    if not target.absolute().parent.is_dir():
        raise InputError(
            "there is no such folder", where=target.absolute().parent, todo="make it, or name another place"
        )
    for file in _files(target, kind):
        if not os.path.lexists(file):
            continue
        ours = file.is_file() if kind.files else (file / "saved_model.pb").is_file()
        if not (force and ours):
            raise InputError(
                "there is something already" if ours else "there is something else already",
                where=file,
                todo="name another place" + (", or give --force to replace it" if ours else ""),
            )


def _files(target: Path, kind: Format) -> tuple[Path, ...]:
    """All that the format puts at ``target``, what is opened last."""
    return (*(target.with_suffix(ending) for ending in kind.files[:-1]), target)


def _settle(folder: Path) -> int:
    """Force every file to the disk; their bytes in all."""
    size = 0
    for file in (path for path in folder.rglob("*") if path.is_file()):
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
        size += file.stat().st_size
    return size


def _publish(draft: Path, target: Path, kind: Format, old: Path) -> None:
    """Move what was written into place; what was there goes to the folder ``old``, and comes back if that fails."""
    targets = _files(target, kind)
    old.mkdir()
    moved: list[Path] = []
    try:
        for file in reversed(targets):  # what is opened goes first: a crash leaves no model made of two
            if os.path.lexists(file):
                os.replace(file, old / file.name)
        for file in targets:
            os.replace(draft.with_name(file.name), file)
            moved.append(file)
    except OSError:
        for file in moved:
            with suppress(OSError):
                os.replace(file, draft.with_name(file.name))
        for file in old.iterdir():
            with suppress(OSError):
                os.replace(file, target.with_name(file.name))
        raise
