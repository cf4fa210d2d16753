"""The convolutional bases that featstore knows, as plain data: nothing here needs Keras.

Every class of ``keras.applications`` (Keras 3.15) is here; the first eleven are the ones in the documentation.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urljoin

from featstore.errors import InputError, unknown_name
from featstore.spec import MOST_PIXELS_A_SIDE

IMAGENET_CLASSES = 1000

Normalisation = Literal["caffe", "tf", "torch", "included", "own"]
"""What ``preprocess_input`` does: ``caffe`` BGR minus the ImageNet mean, ``tf`` to -1..1, ``torch`` ImageNet mean and
deviation, ``included`` nothing (the base normalises 0..255 itself), ``own`` nothing (somebody's own model)."""


@dataclass(frozen=True, slots=True)
class Backbone:
    """A convolutional base without its weights.

    ``name`` is what people type, ``keras_name`` the class in ``keras.applications`` and ``module`` the submodule with
    its ``preprocess_input`` (both empty for somebody's own model). Sizes are pixels a side; ``features`` is the number
    of channels of ``last_layer``. ``weights_hash`` is what Keras publishes of ``weights_file`` (MD5 or SHA-256 in hex;
    None where it publishes none), ``weights_digest`` the known digest of the ImageNet tensors. ``classes`` is how many
    outputs the classifier on top has; 0 for the base alone.
    """

    name: str
    keras_name: str
    module: str
    default_size: int
    least_size: int
    normalisation: Normalisation
    features: int
    last_layer: str
    weights_file: str = ""
    weights_url: str = ""
    weights_hash: str | None = None
    weights_digest: str | None = None
    classes: int = 0

    @property
    def is_own(self) -> bool:
        """True for somebody's own ``.keras`` model."""
        return not self.keras_name


# class, module, default size, least size, normalisation, channels, last layer
_BASES = """
VGG16             vgg16               224 32 caffe     512 block5_pool
VGG19             vgg19               224 32 caffe     512 block5_pool
Xception          xception            299 71 tf       2048 block14_sepconv2_act
ResNet50          resnet              224 32 caffe    2048 conv5_block3_out
ResNet50V2        resnet_v2           224 32 tf       2048 post_relu
InceptionV3       inception_v3        299 75 tf       2048 mixed10
MobileNetV2       mobilenet_v2        224 32 tf       1280 out_relu
DenseNet121       densenet            224 32 torch    1024 relu
EfficientNetB0    efficientnet        224 32 included 1280 top_activation
EfficientNetV2B0  efficientnet_v2     224 32 included 1280 top_activation
ConvNeXtTiny      convnext            224 32 included  768 layer_normalization
ConvNeXtBase      convnext            224 32 included 1024 layer_normalization
ConvNeXtLarge     convnext            224 32 included 1536 layer_normalization
ConvNeXtSmall     convnext            224 32 included  768 layer_normalization
ConvNeXtXLarge    convnext            224 32 included 2048 layer_normalization
DenseNet169       densenet            224 32 torch    1664 relu
DenseNet201       densenet            224 32 torch    1920 relu
EfficientNetB1    efficientnet        240 32 included 1280 top_activation
EfficientNetB2    efficientnet        260 32 included 1408 top_activation
EfficientNetB3    efficientnet        300 32 included 1536 top_activation
EfficientNetB4    efficientnet        380 32 included 1792 top_activation
EfficientNetB5    efficientnet        456 32 included 2048 top_activation
EfficientNetB6    efficientnet        528 32 included 2304 top_activation
EfficientNetB7    efficientnet        600 32 included 2560 top_activation
EfficientNetV2B1  efficientnet_v2     240 32 included 1280 top_activation
EfficientNetV2B2  efficientnet_v2     260 32 included 1408 top_activation
EfficientNetV2B3  efficientnet_v2     300 32 included 1536 top_activation
EfficientNetV2L   efficientnet_v2     480 32 included 1280 top_activation
EfficientNetV2M   efficientnet_v2     480 32 included 1280 top_activation
EfficientNetV2S   efficientnet_v2     384 32 included 1280 top_activation
InceptionResNetV2 inception_resnet_v2 299 75 tf       1536 conv_7b_ac
MobileNet         mobilenet           224 32 tf       1024 conv_pw_13_relu
MobileNetV3Large  mobilenet_v3        224 32 included  960 activation_19
MobileNetV3Small  mobilenet_v3        224 32 included  576 activation_17
NASNetLarge       nasnet              331 32 tf       4032 activation_262
NASNetMobile      nasnet              224 32 tf       1056 activation_187
ResNet101         resnet              224 32 caffe    2048 conv5_block3_out
ResNet101V2       resnet_v2           224 32 tf       2048 post_relu
ResNet152         resnet              224 32 caffe    2048 conv5_block3_out
ResNet152V2       resnet_v2           224 32 tf       2048 post_relu
"""

_FILES_AT = "https://storage.googleapis.com/tensorflow/keras-applications/"
_USUAL = "_weights_tf_dim_ordering_tf_kernels_"

# class, file without top (* is the usual middle of its name), published hash, name in Keras's cache if another
_FILES = """
VGG16 vgg16/vgg16*notop.h5 6d6bbae143d832006294945121d1f1fc
VGG19 vgg19/vgg19*notop.h5 253f8cb515780f3b799900260a226db6
Xception xception/xception*notop.h5 b0042744bf5b25fce3cb969f33bebb97
ResNet50 resnet/resnet50*notop.h5 4d473c1dd8becc155b73f8504c6f6626
ResNet50V2 resnet/resnet50v2*notop.h5 fac2f116257151a9d068a22e544a4917
InceptionV3 inception_v3/inception_v3*notop.h5 bcbd6486424b2319ff4ef7d526e38f63
MobileNetV2 mobilenet_v2/mobilenet_v2*1.0_224_no_top.h5 -
DenseNet121 densenet/densenet121*notop.h5 30ee3e1110167f948a6b9946edeeb738
EfficientNetB0 /keras-applications/efficientnetb0_notop.h5 50bc09e76180e00e4465e1a485ddc09d
EfficientNetV2B0 efficientnet_v2/efficientnetv2-b0_notop.h5 893217f2bb855e2983157299931e43ff
ConvNeXtTiny convnext/convnext_tiny_notop.h5 d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1
ConvNeXtBase convnext/convnext_base_notop.h5 40a20c5548a5e9202f69735ecc06c990e6b7c9d2de39f0361e27baeb24cb7c45
ConvNeXtLarge convnext/convnext_large_notop.h5 96f02b6f0753d4f543261bc9d09bed650f24dd6bc02ddde3066135b63d23a1cd
ConvNeXtSmall convnext/convnext_small_notop.h5 6fc8009faa2f00c1c1dfce59feea9b0745eb260a7dd11bee65c8e20843da6eab
ConvNeXtXLarge convnext/convnext_xlarge_notop.h5 de3f8a54174130e0cecdc71583354753d557fcf1f4487331558e2a16ba0cfe05
DenseNet169 densenet/densenet169*notop.h5 b8c4d4c20dd625c148057b9ff1c1176b
DenseNet201 densenet/densenet201*notop.h5 c13680b51ded0fb44dff2d8f86ac8bb1
EfficientNetB1 /keras-applications/efficientnetb1_notop.h5 74c4e6b3e1f6a1eea24c589628592432
EfficientNetB2 /keras-applications/efficientnetb2_notop.h5 111f8e2ac8aa800a7a99e3239f7bfb39
EfficientNetB3 /keras-applications/efficientnetb3_notop.h5 af6d107764bb5b1abb91932881670226
EfficientNetB4 /keras-applications/efficientnetb4_notop.h5 ebc24e6d6c33eaebbd558eafbeedf1ba
EfficientNetB5 /keras-applications/efficientnetb5_notop.h5 38879255a25d3c92d5e44e04ae6cec6f
EfficientNetB6 /keras-applications/efficientnetb6_notop.h5 9ecce42647a20130c1f39a5d4cb75743
EfficientNetB7 /keras-applications/efficientnetb7_notop.h5 cbcfe4450ddf6f3ad90b1b398090fe4a
EfficientNetV2B1 efficientnet_v2/efficientnetv2-b1_notop.h5 0e80663031ca32d657f9caa404b6ec37
EfficientNetV2B2 efficientnet_v2/efficientnetv2-b2_notop.h5 1dfe2e7a5d45b6632553a8961ea609eb
EfficientNetV2B3 efficientnet_v2/efficientnetv2-b3_notop.h5 f6abf7b5849ac99a89b50dd3fd532856
EfficientNetV2L efficientnet_v2/efficientnetv2-l_notop.h5 b0b66b5c863aef5b46e8608fe1711615
EfficientNetV2M efficientnet_v2/efficientnetv2-m_notop.h5 1b8dc055df72dde80d614482840fe342
EfficientNetV2S efficientnet_v2/efficientnetv2-s_notop.h5 af0682fb74e8c54910f2d4393339c070
InceptionResNetV2 inception_resnet_v2/inception_resnet_v2*notop.h5 d19885ff4a710c122648d3b5c3b684e4
MobileNet mobilenet/mobilenet_1_0_224_tf_no_top.h5 -
MobileNetV3Large mobilenet_v3/weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5 07fb09a5933dd0c8eaafa16978110389
MobileNetV3Small mobilenet_v3/weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5 d3e8ec802a04aa4fc771ee12a9a9b836
NASNetLarge nasnet/NASNet-large-no-top.h5 d81d89dc07e6e56530c4e77faddd61b5 nasnet_large_no_top.h5
NASNetMobile nasnet/NASNet-mobile-no-top.h5 1ed92395b5b598bdda52abe5c0dbfd63 nasnet_mobile_no_top.h5
ResNet101 resnet/resnet101*notop.h5 88cf7a10940856eca736dc7b7e228a21
ResNet101V2 resnet/resnet101v2*notop.h5 c0ed64b8031c3730f411d2eb4eea35b5
ResNet152 resnet/resnet152*notop.h5 ee4c566cf9a93f14d82f913c2dc6dd0c
ResNet152V2 resnet/resnet152v2*notop.h5 ed17cf2e0169df9d443503ef94b23b33
"""

_DIGESTS = {
    "VGG16": "d9a27cc1fc7f975ef8cff49180e794ccd7c4bc868ebb49740803b3bbaa8dbefd",
    "Xception": "dd8fa9fc31ba124382395512a133fe425aa5c6667b16e5832bb79910d1b77829",
}


def _read_tables() -> tuple[Backbone, ...]:
    files = {name: rest for name, *rest in map(str.split, _FILES.strip().splitlines())}
    known = []
    for line in _BASES.strip().splitlines():
        name, module, default, least, normalisation, features, last_layer = line.split()
        path, published, *alias = files[name]
        url = urljoin(_FILES_AT, path.replace("*", _USUAL))
        known.append(
            Backbone(
                name=name.lower(),
                keras_name=name,
                module=module,
                default_size=int(default),
                least_size=int(least),
                normalisation=normalisation,  # type: ignore[arg-type]  # a test checks each against Keras
                features=int(features),
                last_layer=last_layer,
                weights_file=alias[0] if alias else url.rpartition("/")[2],
                weights_url=url,
                weights_hash=None if published == "-" else published,
                weights_digest=_DIGESTS.get(name),
            )
        )
    return tuple(known)


BACKBONES = _read_tables()
"""Every base known by name."""

DOCUMENTED = BACKBONES[:11]
"""The ones that lists for people show."""


def _key(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


_BY_KEY = {_key(backbone.name): backbone for backbone in BACKBONES}


def is_own_model(name: str) -> bool:
    """True if ``name`` is the path of somebody's own model rather than a name."""
    return name.lower().endswith(".keras")


def find(name: str) -> Backbone:
    """The base called ``name``; case, ``-`` and ``_`` do not matter.

    Raises InputError with the nearest names. Somebody's own ``.keras`` file is opened by
    :func:`featstore.weights.resolve`.
    """
    found = _BY_KEY.get(_key(name))
    if found is None:
        if Path(name).suffix in {".h5", ".hdf5"}:
            raise InputError(
                "an own base must be a .keras file",
                where="--backbone",
                received=name,
                todo="save it with model.save('base.keras'), or name its architecture and give the file to --weights",
            )
        raise unknown_name("backbone", name, [b.name for b in BACKBONES], "--backbone")
    return found


def check_image_size(backbone: Backbone, image_size: tuple[int, int]) -> None:
    """Raise InputError if ``image_size`` (height, width) in pixels is below the base's least, or absurdly large."""
    if max(image_size) > MOST_PIXELS_A_SIDE:
        raise InputError(
            "the images are too large for a convolutional base",
            where="--image-size",
            expected=f"at most {MOST_PIXELS_A_SIDE} pixels a side: a batch must fit into memory",
            received=f"{image_size[0]} × {image_size[1]}",
            todo=f"leave the option out for the default ({backbone.default_size})",
        )
    if min(image_size) < backbone.least_size:
        raise InputError(
            f"the images are too small for {backbone.name}",
            where="--image-size",
            expected=f"at least {backbone.least_size} pixels a side",
            received=f"{image_size[0]} × {image_size[1]}",
            todo=f"leave the option out for the default ({backbone.default_size})",
        )
