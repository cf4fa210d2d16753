"""The four kinds of model files: how each is written, and how its own library opens it again.

What is told of the model (classes, specs) is inside each of them as one JSON text: a member ``featstore.json`` of the
``.keras`` archive, the metadata property ``featstore`` of ONNX, the runtime information ``featstore`` of OpenVINO, and
``assets.extra/featstore.json`` of a SavedModel.
"""

from __future__ import annotations

import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featstore import telemetry
from featstore.errors import FeatstoreError, InputError, unknown_name
from featstore.weights.keras_io import first_line, import_keras
from heads.export.model import OUTPUT

Images = Mapping[str, npt.NDArray[np.uint8]]
"""Pixels by the name of the input: uint8 (N, H, W, 3)."""

Predict = Callable[[Images], npt.NDArray[np.float32]]
"""Images → probabilities float32 (N, K)."""

NAME = "featstore"
"""What the JSON text is called inside every kind of file."""

_OPSET = 18
"""The newest version of ONNX's operators that tf2onnx 1.17 writes; ONNX Runtime reads it since 1.14."""


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of model file.

    name : for people. library : what opens it. files : the endings of its files, the last of which is the one to open;
    empty for a folder. prepare : raises InputError if a library that it needs is missing.
    write : (keras.Model, path, JSON text). open : a path to :data:`Predict`.
    """

    name: str
    library: str
    files: tuple[str, ...]
    prepare: Callable[[], object]
    write: Callable[[Any, Path, str], None]
    open: Callable[[Path], Predict]


def format_of(to: str) -> Format:
    """The format that the ending of ``to`` stands for; a folder for none. Raises InputError for an unknown ending."""
    ending = "" if to.endswith(("/", "\\")) else Path(to).suffix.lower()
    found = _FORMATS.get(ending)
    if found is None:
        raise unknown_name("file ending", ending, [e or "folder/" for e in _FORMATS], where="--to")
    return found


@contextmanager
def one_message(doing: str, where: Path) -> Iterator[None]:
    """Turn whatever a foreign library raises in the block into one InputError; its warnings are not for our users."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (FeatstoreError, OSError):
        raise
    except Exception as error:
        raise InputError(f"cannot {doing}", where=where, received=first_line(error)) from error


def _write_keras(model: Any, path: Path, about: str) -> None:
    model.save(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zipfile.ZipInfo(f"{NAME}.json"), about)  # ZipInfo's time is fixed: 1980


def _open_keras(path: Path) -> Predict:
    model = import_keras().saving.load_model(path, compile=False, safe_mode=True)
    return lambda images: np.asarray(_call(model, images))


def _write_saved_model(model: Any, path: Path, about: str) -> None:
    _save_graph(model, path)
    (path / "assets.extra").mkdir()
    (path / "assets.extra" / f"{NAME}.json").write_text(about, encoding="ascii")


def _save_graph(model: Any, path: Path | str) -> None:
    """A SavedModel whose inputs and output have our names; model.export would write every weight twice."""
    import tensorflow as tf

    module = tf.Module()
    module.weights = [weight.value for weight in model.weights]
    module.serve = tf.function(lambda **images: {OUTPUT: _call(model, images)}, autograph=False)
    signature = module.serve.get_concrete_function(**{spec.name: spec for spec in _signature(model)})
    tf.saved_model.save(module, str(path), signatures=signature)


def _signature(model: Any) -> list[Any]:
    import tensorflow as tf

    return [tf.TensorSpec(one.shape, tf.uint8, name=one.name) for one in model.inputs]


def _call(model: Any, images: Mapping[str, Any]) -> Any:
    """The model on its inputs by name; Keras takes several as a list."""
    values = [images[one.name] for one in model.inputs]
    return model(values if len(values) > 1 else values[0], training=False)


def _open_saved_model(path: Path) -> Predict:
    import_keras()
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    serve = loaded.signatures["serving_default"]

    def predict(images: Images) -> npt.NDArray[np.float32]:
        return np.asarray(serve(**{name: tf.constant(pixels) for name, pixels in images.items()})[OUTPUT])

    predict.keeps = loaded  # type: ignore[attr-defined] # a signature alone does not keep its variables alive
    return predict


def _write_openvino(model: Any, path: Path, about: str) -> None:
    openvino = _openvino()
    with tempfile.TemporaryDirectory(prefix="featstore-") as folder:
        _save_graph(model, folder)  # openvino.convert_model fails on Python 3.13
        converted = openvino.Core().read_model(folder)
        converted.set_rt_info(about, [NAME])
        openvino.save_model(converted, path, compress_to_fp16=False)


def _open_openvino(path: Path) -> Predict:
    openvino = _openvino()
    exact = {"INFERENCE_PRECISION_HINT": "f32"}  # left alone, a CPU that can would compute in bfloat16
    compiled = openvino.Core().compile_model(openvino.Core().read_model(path), "CPU", exact)
    return lambda images: np.array(compiled(dict(images))[0], np.float32)


def _write_onnx(model: Any, path: Path, about: str) -> None:
    import onnx
    import tensorflow as tf
    import tf2onnx

    signature = _signature(model)
    # model.export(format="onnx") would leave inputs in the graph that nothing uses, and patch NumPy for the process.
    names = [spec.name for spec in signature]
    call = tf.function(lambda *images: _call(model, dict(zip(names, images, strict=True))), autograph=False)
    proto, _ = tf2onnx.convert.from_function(call, signature, opset=_OPSET)
    graph = proto.graph
    used = {name for node in graph.node for name in node.input}
    for extra in [i for i in graph.input if i.name not in used]:
        graph.input.remove(extra)
    [output] = graph.output
    for node in graph.node:
        node.output[:] = [OUTPUT if name == output.name else name for name in node.output]
        node.input[:] = [OUTPUT if name == output.name else name for name in node.input]
    output.name = OUTPUT
    for value in (*graph.input, output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    onnx.helper.set_model_props(proto, {NAME: about})
    onnx.save(proto, str(path))
    onnx.checker.check_model(str(path))


def _open_onnx(path: Path) -> Predict:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda images: np.asarray(session.run([OUTPUT], dict(images))[0])


def _need_nothing() -> None:
    """Its libraries are always installed."""


def _need_onnx() -> None:
    import_keras()  # silently: tf2onnx imports TensorFlow, which tells of itself
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import tf2onnx  # noqa: F401
    except ImportError as error:
        raise InputError(
            "ONNX needs packages that are not installed",
            where="--to",
            expected="onnx, tf2onnx and onnxruntime",
            received=error,
            todo="pip install onnx tf2onnx onnxruntime",
        ) from error


def _openvino() -> Any:
    telemetry.forbid()
    import openvino

    return openvino


_FORMATS: Mapping[str, Format] = {
    ".keras": Format("Keras", "keras", (".keras",), _need_nothing, _write_keras, _open_keras),
    ".onnx": Format("ONNX", "onnxruntime", (".onnx",), _need_onnx, _write_onnx, _open_onnx),
    ".xml": Format("OpenVINO IR", "openvino", (".bin", ".xml"), _need_nothing, _write_openvino, _open_openvino),
    "": Format("SavedModel", "tensorflow", (), _need_nothing, _write_saved_model, _open_saved_model),
}
