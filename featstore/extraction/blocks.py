"""The blocks that a run is dealt out in, where several compute: on the GPUs of one machine, or on a cluster."""

from __future__ import annotations

from collections.abc import Sequence

from featstore.extraction.engine import Work
from featstore.job import Job
from featstore.runtime import BATCH_SIZE

_ROUNDS = 8
"""Blocks that each of those who compute gets at least, if there are enough images: the last is not waited for long."""

_PIXELS_IN_BLOCK = 64 * 2**20
"""Bytes of pixels in a block at most, or those of one image."""


def parts_of(work: Work, shares: int) -> list[Sequence[int]]:
    """The images in their order, by block, for so many that compute.

    A block holds full batches of images, as many as are fair to all of them and as their pixels are allowed; fewer than
    one batch only where that would be more than is allowed.
    """
    allowed = max(1, _PIXELS_IN_BLOCK // bytes_of_image([one.job for one in work.missing]))
    fair = max(BATCH_SIZE, len(work.todo) // (shares * _ROUNDS))
    size = min(allowed, fair)
    if size >= BATCH_SIZE:
        size -= size % BATCH_SIZE
    return [work.todo[start : start + size] for start in range(0, len(work.todo), size)]


def bytes_of_image(jobs: Sequence[Job]) -> int:
    """Of all pictures that may be made of one image, which jobs of the same pixels share."""
    pictures = {(job.spec.pixels, view, job.spec.augmentation) for job in jobs for view in job.views}
    return sum(3 * pixels.image_size[0] * pixels.image_size[1] for pixels, _, _ in pictures)
