"""A submission for Kaggle: one line an image, its id and what the head says of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from featstore.dataset.listing import natural_key, some
from featstore.errors import InputError, unknown_name
from featstore.progress import Progress, silent
from featstore.store import Store
from featstore.wording import counted, printable
from heads.apply import predict_with
from heads.bundles.bundle import read_bundle
from heads.bundles.card import Card
from heads.evaluation.clip import UNCLIPPED, clipped
from heads.predict import Prediction
from heads.report.sheets import to_csv

_MOST_CLIP = 0.5


@dataclass(frozen=True, slots=True)
class SubmitOptions:
    """positive : the class whose probability is the label; None is the second of two classes.
    per_class : a column for every class, instead of one called "label".
    clip : how near to 1 a probability may come, as in :func:`heads.evaluation.clip.clipped`; None is the bound that was
        fitted with the head.
    """

    positive: str | None = None
    per_class: bool = False
    clip: float | None = None


@dataclass(frozen=True, slots=True)
class Submission:
    """The lines of a submission: ``columns``, the first of them "id", and ``rows`` in the natural order of their ids.

    positive : the class that the column "label" gives the probability of; None if it holds names, or is not there.
    clip : how near to 1 a probability may come; None where there are names.
    rejected : images without features, each with the reason's code.
    notes : what a person should know.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    positive: str | None
    clip: float | None
    rejected: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]

    def summary(self, file: Path) -> str:
        """What was written, in a line."""
        of = f", probabilities of {self.positive!r}" if self.positive is not None else ""
        bound = f", none nearer to 1 than {self.clip:.3g}" if self.clip is not None and self.clip > UNCLIPPED else ""
        return f"{file}: {counted(len(self.rows), 'line')} of {some(self.columns)}{of}{bound}"

    def to_csv(self) -> str:
        """The file. Ids and classes are written exactly as they are, or Kaggle would not know them."""
        return to_csv([self.columns, *self.rows])

    def to_json(self) -> dict[str, Any]:
        """What ``submit --json`` prints beside the file's name; described in docs/JSON.md."""
        return {
            "columns": list(self.columns),
            "rows": len(self.rows),
            "positive": self.positive,
            "clip": self.clip,
            "rejected": [{"path": printable(path), "reason": reason} for path, reason in self.rejected],
            "notes": list(self.notes),
        }


def submit_files(
    bundle_folder: Path,
    images: Sequence[Path],
    *,
    store: Store,
    options: SubmitOptions | None = None,
    progress: Progress = silent,
) -> Submission:
    """The submission of the head in ``bundle_folder`` for ``images``: files, folders, zips, manifests and patterns.

    Raises InputError for options that do not fit the head, for two images with one id, and what
    :func:`heads.apply.predict_files` raises.
    """
    options = options or SubmitOptions()
    bundle = read_bundle(bundle_folder)
    _check(options, bundle.card)
    found = predict_with(bundle, images, store=store, progress=progress)
    return submission(bundle.card, found, options)


def submission(card: Card, found: Sequence[Prediction], options: SubmitOptions | None = None) -> Submission:
    """The lines for predictions ``found`` of the head with this ``card``.

    - two classes: ``id,label``, the label being the probability of the second, or of ``positive``;
    - more: ``id,label`` with the likeliest class's name, or with ``positive`` the probability of that one;
    - ``per_class``: ``id`` and a column for each class with its probability.

    An id is the file's name without its ending. An image without features gets each class's share of the held-out
    images, for a line must not be missing. The same file twice is one line.
    Raises InputError for options that do not fit the card, and for two files with one id.
    """
    options = options or SubmitOptions()
    _check(options, card)
    by_id = _by_id(found)
    prior = tuple(_prior(card).tolist())
    probabilities = np.array([prediction.probabilities or prior for prediction in by_id.values()], np.float64)
    bound = _bound(options, card)
    positive = options.positive or (card.classes[1] if len(card.classes) == 2 and not options.per_class else None)
    columns: tuple[str, ...] = ("id", "label")
    if options.per_class:
        columns = ("id", *map(printable, card.classes))
        cells = [tuple(map(repr, row)) for row in clipped(probabilities, bound).tolist()]
    elif positive is not None:
        of_positive = clipped(probabilities, bound)[:, card.classes.index(positive)]
        cells = [(repr(value),) for value in of_positive.tolist()]
    else:
        cells = [(printable(card.classes[place]),) for place in probabilities.argmax(axis=1)]
    rejected = tuple((p.path, p.reason.code) for p in by_id.values() if p.label is None)
    return Submission(
        columns=columns,
        rows=tuple((name, *row) for name, row in zip(by_id, cells, strict=True)),
        positive=None if positive is None else printable(positive),
        clip=bound if options.per_class or positive is not None else None,
        rejected=rejected,
        notes=tuple(_notes(card, options, rejected)),
    )


def _check(options: SubmitOptions, card: Card) -> None:
    if options.positive is not None and options.positive not in card.classes:
        raise unknown_name("class", options.positive, map(printable, card.classes), "--positive")
    if options.positive is not None and options.per_class:
        raise InputError(
            "one class and all of them cannot both be written", where="--positive, --per-class", expected="one of these"
        )
    if options.clip is not None and not 0 <= options.clip < _MOST_CLIP:
        raise InputError(
            "this is no bound", where="--clip", expected="a number from 0 to below 0.5", received=options.clip
        )


def _by_id(found: Sequence[Prediction]) -> dict[str, Prediction]:
    """The predictions by id, in natural order; raises InputError if two files have one id."""
    by_id: dict[str, Prediction] = {}
    doubled: list[str] = []
    for prediction in {prediction.path: prediction for prediction in found}.values():
        name = printable(PurePosixPath(prediction.path).stem)
        if name in by_id:
            doubled.append(f"{prediction.path} and {by_id[name].path}")
        by_id[name] = prediction
    if doubled:
        raise InputError(
            "several images have one id: the name of the file without its ending",
            where="IMAGES",
            expected="every name once",
            received=some(doubled, 3),
            todo="name one folder, or take `featstore predict --csv FILE`, which writes whole paths",
        )
    return {name: by_id[name] for name in sorted(by_id, key=natural_key)}


def _prior(card: Card) -> npt.NDArray[np.float64]:
    """Each class's share of the held-out images, float64 (K,); one image more a class, so that none is 0."""
    counts = {entry.name: entry.n for entry in card.held_out.per_class}
    shares = np.array([counts.get(name, 0) + 1 for name in card.classes], np.float64)
    return np.asarray(shares / shares.sum(), np.float64)


def _bound(options: SubmitOptions, card: Card) -> float:
    wanted = card.clip if options.clip is None else options.clip
    return UNCLIPPED if wanted is None else max(wanted, UNCLIPPED)


def _notes(card: Card, options: SubmitOptions, rejected: Sequence[tuple[str, str]]) -> list[str]:
    notes = []
    if options.clip is None and card.clip is None:
        notes.append("no bound was fitted with this head: probabilities are not clipped; --clip BOUND does it")
    if rejected:
        why = ", ".join(f"{count} {reason}" for reason, count in Counter(reason for _, reason in rejected).items())
        notes.append(
            f"{counted(len(rejected), 'image')} could not be read ({why}): "
            "in their place stands each class's share of the held-out images"
        )
    return notes
