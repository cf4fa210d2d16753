"""Small datasets on disk, for the tests of opening them."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from featstore.dataset import open_dataset
from featstore.errors import InputError


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2)).save(buffer, "PNG")
    return buffer.getvalue()


PICTURE = picture()


def write(root: Path, *paths: str, data: bytes = PICTURE) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    return root


def zipped(path: Path, *names: str, **texts: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, PICTURE)
        for name, text in texts.items():
            archive.writestr(name.replace("__", "/") + ".csv", text)
    return path


def refusal(data: object) -> InputError:
    with pytest.raises(InputError) as caught:
        open_dataset(data)  # type: ignore[arg-type]
    return caught.value
