"""Whole ImageNet classifiers: a known architecture with its top on."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from featstore.catalog import IMAGENET_CLASSES, Backbone
from featstore.errors import InputError
from featstore.progress import Progress, silent
from featstore.weights.base import Tensors
from featstore.weights.keras_files import random_tensors, tensors_of
from featstore.weights.keras_io import architecture, describe, load_own, set_tensors
from featstore.weights.own import inspect
from featstore.weights.resolve import existing, from_file, imagenet

# class, hash that Keras publishes of its weights with the top on (MobileNet and MobileNetV2: none)
_HASHES = """
VGG16 64373286793e3c8b2b4e3219cbf3544b
VGG19 cbe5617147190e668d6c5d5026f83318
Xception 0a58e3b7378bc2990ea3b43d5981f1f6
ResNet50 2cb95161c43110f7111970584f804107
ResNet50V2 3ef43a0b657b3be2300d5770ece849e0
InceptionV3 9a0d58056eeedaa3f26cb7ebd46da564
DenseNet121 9d60b8095a5708f2dcce2bca79d332c7
EfficientNetB0 902e53a9f72be733fc0bcb005b3ebbac
EfficientNetV2B0 21ecbf6da12460d5c40bb2f29ceb2188
ConvNeXtTiny 8ae6e78ce2933352b1ef4008e6dd2f17bc40771563877d156bc6426c7cf503ff
ConvNeXtBase 52cbb006d3dadd03f6e095a8ca1aca47aecdd75acb4bc74bce1f5c695d0086e6
ConvNeXtLarge 070c5ed9ed289581e477741d3b34beffa920db8cf590899d6d2c67fba2a198a6
ConvNeXtSmall ce1277d8f1ee5a0ef0e171469089c18f5233860ceaf9b168049cb9263fd7483c
ConvNeXtXLarge c1f5ccab661354fc3a79a10fa99af82f0fbf10ec65cb894a3ae0815f17a889ee
DenseNet169 d699b8f76981ab1b30698df4c175e90b
DenseNet201 1ceb130c1ea1b78c3bf6114dbdfd8807
EfficientNetB1 1d254153d4ab51201f1646940f018540
EfficientNetB2 b15cce36ff4dcbd00b6dd88e7857a6ad
EfficientNetB3 ffd1fdc53d0ce67064dc6a9c7960ede0
EfficientNetB4 18c95ad55216b8f92d7e70b3a046e2fc
EfficientNetB5 ace28f2a6363774853a83a0b21b9421a
EfficientNetB6 165f6e37dce68623721b423839de8be5
EfficientNetB7 8c03f828fec3ef71311cd463b6759d99
EfficientNetV2B1 069f0534ff22adf035c89e2d9547a9dc
EfficientNetV2B2 424e49f28180edbde1e94797771950a7
EfficientNetV2B3 1f1fc43bd98a6e4fd8fdfd551e02c7a0
EfficientNetV2L 27e6d408b53c7ebc868fefa357689935
EfficientNetV2M a3bf6aa3276309f4fc6a34aa114c95cd
EfficientNetV2S e1d88a8495beba45748fedd0cecbe016
InceptionResNetV2 e693bd0210a403b3192acc6073ad2e96
MobileNetV3Large 59e551e166be033d707958cf9e29a6a7
MobileNetV3Small 8768d4c2e7dee89b9d02b2d03d65d862
NASNetLarge 11577c9a518f0070763c2b964a382f17
NASNetMobile 020fb642bf7360b370c678b08e0adf61
ResNet101 f1aeb4b969a6efcfb50fad2f0c20cfc5
ResNet101V2 6343647c601c52e1368623803854d971
ResNet152 100835be76be38e30d865e96f2aaae62
ResNet152V2 a49b44d1979771252814e80f8ec446f9
"""


def full_model(backbone: Backbone, weights: str = "imagenet", progress: Progress = silent) -> Any:
    """The ``keras.Model`` from preprocessed images (N, size, size, 3) to probabilities (N, classes).

    The size is the backbone's default one.

    weights : "imagenet" (Keras's cache or download: its file is not copied into featstore's cache), "random:SEED", or
        the file of a whole model's weights (``.h5``, ``.weights.h5``, ``.npz``, or the model as a ``.keras`` file,
        which must carry no code). Classes are 1,000, or as many as a ``.npz`` or ``.keras`` file has.
    Raises InputError if they cannot be had or do not fit.
    """
    whole = with_top(backbone)
    if weights == "imagenet":
        return _filled(whole, imagenet(whole, progress)[0], "--weights imagenet")
    if seed := re.fullmatch(r"random(?::(\d{1,18}))?", weights):
        return _filled(whole, random_tensors(whole, int(seed[1] or 0)), weights)
    path = existing(weights)
    try:
        return _filled(whole, _read(whole, path), path)
    except InputError as error:
        raise _why_not(backbone, whole, path, error) from error


def with_top(backbone: Backbone) -> Backbone:
    """The whole network of a known base, and the file that Keras publishes of it."""
    hashes = dict(line.split() for line in _HASHES.strip().splitlines())
    return replace(
        backbone,
        name=f"the whole {backbone.name}",
        weights_file=_without_notop(backbone.weights_file),
        weights_url=_without_notop(backbone.weights_url),
        weights_hash=hashes.get(backbone.keras_name),
        weights_digest=None,
        classes=IMAGENET_CLASSES,
    )


def _without_notop(name: str) -> str:
    return re.sub(r"[-_]no[-_]?top(_v2)?(?=\.h5$)", "", name)


def _read(whole: Backbone, path: Path) -> Tensors:
    if path.suffix != ".keras":
        return from_file(whole, path)[0]
    inspect(path)
    return tensors_of(whole, load_own(path))


def _filled(whole: Backbone, tensors: Tensors, where: object) -> Any:
    """The model with these tensors; where only its last layer has another number of classes, with as many."""
    model = architecture(whole)
    if len(tensors) == len(model.weights) and (classes := tensors[-1].size) not in (0, whole.classes):
        kernel = (*model.weights[-2].shape[:-1], classes)
        if [tensor.shape for tensor in tensors[-2:]] == [kernel, (classes,)]:
            model = architecture(replace(whole, classes=classes))
    set_tensors(model, tensors, where)
    return model


def _why_not(backbone: Backbone, whole: Backbone, path: Path, error: InputError) -> InputError:
    """``error``, unless the file is one of the base alone: then that is what is wrong with it."""
    if str(error.received).startswith("("):  # a tensor is there, in another shape
        return error
    with suppress(InputError):
        set_tensors(architecture(backbone), from_file(backbone, path)[0], path)
        return InputError(
            f"these are the weights of {backbone.name} without its top: it cannot name what it sees",
            where=path,
            expected=f"a top as well: {describe(architecture(whole).weights[-1])}",
            received="the base alone",
            todo="save them from a model that was made with include_top=True",
        )
    return error
