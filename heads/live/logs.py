"""The logs that TensorBoard shows of a training."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from featstore.errors import InputError, from_os_error

_NAMES = ("loss", "accuracy", "held_out_loss", "held_out_accuracy")


class Logs:
    """Logs in ``folder``; None writes none. Raises InputError without TensorBoard, or what a folder raises."""

    def __init__(self, folder: Path | None) -> None:
        self._writer = None if folder is None else _writer(folder)

    def write(self, epoch: int, row: tuple[float, float, float, float]) -> None:
        """Add an epoch, counted from 0: its loss and accuracy, and those on held-out images."""
        if self._writer is None:
            return
        import tensorflow as tf

        with self._writer.as_default():
            for name, value in zip(_NAMES, row, strict=True):
                tf.summary.scalar(name, value, step=epoch)
        self._writer.flush()


def _writer(folder: Path) -> Any:
    try:
        import tensorboard  # type: ignore[import-untyped] # noqa: F401
    except ImportError as error:
        raise InputError(
            "TensorBoard's logs need TensorBoard, which is not installed",
            where="--tensorboard",
            received=error,
            todo="pip install tensorboard",
        ) from error
    import tensorflow as tf

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):  # TensorFlow's own words for it are none
            pass
    except OSError as error:
        raise from_os_error(error, "write TensorBoard's logs", folder) from error
    return tf.summary.create_file_writer(str(folder))
