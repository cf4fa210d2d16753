"""The demo's dataset: patches of the photographs that scikit-image and scikit-learn ship inside their packages.

One class a photograph. The training patches come from one half of it and the test patches from the other, so no pixel
is in both; patches are grey and of random scale, so neither colour nor size gives the class away.
"""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

from featstore.errors import InputError, from_os_error

PHOTOGRAPHS = {
    "skimage/data": (
        "astronaut.png",
        "brick.png",
        "camera.png",
        "chelsea.png",
        "coffee.png",
        "coins.png",
        "grass.png",
        "gravel.png",
        "hubble_deep_field.jpg",
        "ihc.png",
        "moon.png",
        "motorcycle_left.png",
        "page.png",
        "retina.jpg",
        "rocket.jpg",
    ),
    "sklearn/datasets/images": ("china.jpg", "flower.jpg"),
}
"""Folder inside the installed packages → the photographs there; a class is called as its file."""

PATCH = 96
"""Height and width of a patch, in pixels."""

PER_CLASS = 30
"""Patches a class and split."""

_SCALES = (0.5, 2.0)
"""The side of the square that is cut out, as a multiple of PATCH: from enlarged twofold to reduced by half."""

_NOTE = """featstore demo images, version 1, seed {seed}

Grey patches cut from photographs that are part of the packages scikit-image and scikit-learn, one class a photograph.
train/ and test/ come from different halves of each. Where the photographs are from, and their licences:
https://scikit-image.org/docs/stable/api/skimage.data.html
https://scikit-learn.org/stable/api/sklearn.datasets.html (load_sample_images)
"""

Grey = npt.NDArray[np.floating]
"""A picture, float (H, W), 0 to 1."""


def write_demo_dataset(folder: Path, seed: int = 0) -> Path:
    """Write ``folder``/{train,test}/CLASS/*.png, all of it or nothing, and return ``folder``.

    The same seed gives the same bytes (with the same scikit-image and Pillow). A folder that was written before is left
    as it is. Raises InputError if scikit-image is missing or ``folder`` holds something else,
    ReadOnlyError, NoSpaceError or StorageError if it cannot be written.
    """
    note = _NOTE.format(seed=seed)
    note_file = folder / "README.txt"
    if note_file.is_file() and note_file.read_text(encoding="utf-8", errors="replace") == note:
        return folder
    photographs = find_photographs()
    temporary = folder.with_name(f".{folder.name}.new")
    try:
        if folder.is_dir() and any(folder.iterdir()):
            raise InputError(
                "this folder holds something else than the demo's images", where=folder, todo="name a new folder"
            )
        shutil.rmtree(temporary, ignore_errors=True)
        for number, photograph in enumerate(photographs):
            _write_class(temporary, photograph, np.random.default_rng([seed, number]))
        (temporary / "README.txt").write_text(note, encoding="utf-8")
        if folder.exists():
            folder.rmdir()
        temporary.rename(folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise from_os_error(error, "write the demo's images", folder) from error
    return folder


def find_photographs() -> list[Path]:
    """The photographs on this machine, one a class; raises InputError if any is missing."""
    found = []
    for place, names in PHOTOGRAPHS.items():
        package, _, inside = place.partition("/")
        spec = find_spec(package)
        home = Path(spec.origin).parent / inside if spec and spec.origin else None
        missing = [name for name in names if home is None or not (home / name).is_file()]
        if missing or home is None:
            raise InputError(
                "the demo's photographs are missing: they are part of scikit-image and scikit-learn",
                where=home or f"the package {package}",
                expected=", ".join(missing),
                todo="run: pip install scikit-image scikit-learn",
            )
        found += [home / name for name in names]
    return found


def cut_patches(picture: Grey, count: int, random: np.random.Generator) -> list[npt.NDArray[np.uint8]]:
    """``count`` square patches at random places and scales, each uint8 (PATCH, PATCH)."""
    from skimage.transform import resize

    largest = min(picture.shape)
    low, high = (min(int(scale * PATCH), largest) for scale in _SCALES)
    patches = []
    for _ in range(count):
        side = int(random.integers(low, high, endpoint=True))
        top, left = (int(random.integers(0, length - side, endpoint=True)) for length in picture.shape)
        patch = resize(picture[top : top + side, left : left + side], (PATCH, PATCH), anti_aliasing=True)
        patches.append(np.round(patch * 255).clip(0, 255).astype(np.uint8))
    return patches


def _halves(picture: Grey) -> tuple[Grey, Grey]:
    """Two halves along the longer side, without a pixel in common."""
    upright = picture if picture.shape[1] >= picture.shape[0] else picture.T
    middle = upright.shape[1] // 2
    first, second = upright[:, :middle], upright[:, middle:]
    return (first, second) if upright is picture else (first.T, second.T)


def _write_class(folder: Path, photograph: Path, random: np.random.Generator) -> None:
    from skimage.io import imread, imsave

    picture = imread(photograph, as_gray=True)
    grey = picture / 255 if picture.dtype == np.uint8 else picture
    for split, half in zip(("train", "test"), _halves(grey), strict=True):
        place = folder / split / photograph.stem
        place.mkdir(parents=True)
        for number, patch in enumerate(cut_patches(half, PER_CLASS, random)):
            imsave(place / f"{number:02}.png", patch, check_contrast=False)
