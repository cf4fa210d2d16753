"""Somebody's own ``.keras`` model, looked at before Keras opens it."""

from __future__ import annotations

import errno
import hashlib
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from featstore.errors import InputError, from_os_error
from featstore.weights.files import MAX_CONFIG_BYTES, check_archive
from featstore.whole import open_regular

_CODE = {"Lambda", "__lambda__", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"}
"""What runs code or programs which the file carries or names."""

_READERS = {"StringLookup", "IntegerLookup", "TextVectorization"}
"""Layers for text that read whatever file their config names."""

_PLAIN = re.compile(
    r"keras|keras(\.src)?\.(activations|constraints|dtype_policies|initializers|layers|losses|metrics|models|ops"
    r"|optimizers|quantizers|random|regularizers)(\.\w+)*"
)
"""Modules of classes. Not so ``keras.utils`` and ``keras.saving``: these fetch, unpack and load."""


def inspect(path: Path) -> str:
    """The first 16 hex digits of the SHA-256 of the model's config; raises InputError if it must not be loaded.

    Refused are archives beyond the limits of :mod:`featstore.weights.files`, layers that carry code, and classes from
    anywhere but Keras.
    """
    try:
        with open_regular(path) as opened, zipfile.ZipFile(opened) as archive:
            check_archive(archive)
            with archive.open("config.json") as file:
                text = file.read(MAX_CONFIG_BYTES + 1)
        if len(text) > MAX_CONFIG_BYTES:
            raise ValueError(f"config.json has more than {MAX_CONFIG_BYTES} bytes")
        refused = sorted(set(_foreign(json.loads(text))))
    except FileNotFoundError as error:
        raise InputError("there is no such model", where=path, expected="a .keras file") from error
    except Exception as error:  # zipfile and json raise nearly anything on nonsense
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # that one: an archive names a place before it
            raise from_os_error(error, "read a model", path) from error
        raise InputError(
            "this is not a model that featstore can open",
            where=path,
            expected="a .keras file of Keras 3",
            received=str(error),
            todo="save it with model.save('base.keras')",
        ) from error
    if refused:
        raise InputError(
            "this model carries or needs code of its own, which featstore does not run",
            where=path,
            expected="layers of Keras alone",
            received=", ".join(refused),
            todo="save the convolutional base without them",
        )
    return hashlib.sha256(text).hexdigest()[:16]


def _foreign(node: Any) -> Iterator[str]:
    """The names of all objects in a config that are not plain Keras ones; raises ValueError for what is no name."""
    if isinstance(node, dict):
        name = node.get("class_name")
        if name is not None and ("config" in node or "module" in node):
            if not isinstance(name, str):
                raise ValueError(f"a class_name that is no name but a {type(name).__name__}")
            module = node.get("module") or "keras"
            # registered_name is "Package>Class" for classes that somebody registered
            registered = str(node.get("registered_name") or "")
            builtin = module == "builtins" and name in {"tuple", "list", "dict", "slice", "set"}
            plain = builtin or (_PLAIN.fullmatch(str(module)) and name.isidentifier())
            if name in _CODE | _READERS or not plain or ">" in registered:
                yield f"{name} ({module})"
        for value in node.values():
            yield from _foreign(value)
    elif isinstance(node, list):
        for value in node:
            yield from _foreign(value)
