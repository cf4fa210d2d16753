"""The options that several commands share, in Typer's own words: each is written once, here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import typer

from featstore.spec import Fit, Pooling, Preprocessing, Resize, StoredDtype

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA", help="Image folder (or s3://…), zip of one, or CSV/TSV manifest (path, label, split)."
    ),
]
StorePath = Annotated[
    str | None,
    typer.Option(
        "--store", metavar="PLACE", help="The store, a folder or s3://… (default: $FEATSTORE_HOME or the user cache)."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Devices = Annotated[
    str | None,
    typer.Option("--devices", metavar="all|N|LIST", help="Several GPUs at once: all, how many, or which (0,2)."),
]
Backbones = Annotated[
    list[str],
    typer.Option(
        "--backbone", "-b", metavar="NAME", help="vgg16, xception, … or a .keras file; may repeat; a+b joins features."
    ),
]
Heads = Annotated[list[str], typer.Option("--head", metavar="NAME", help="logreg, linear-svm, …; may repeat.")]
Preprocessings = Annotated[list[str], typer.Option("--preprocessing", help="keras, rescale, none; may repeat.")]
Poolings = Annotated[list[str], typer.Option("--pooling", help="avg, max, flatten; may repeat.")]


@dataclass(frozen=True)
class DatasetFlags:
    """How labels and splits are found."""

    seed: Annotated[int, typer.Option(min=0, help="Seed of the split where the data has none, and of the heads.")] = 0
    label_pattern: Annotated[
        str | None, typer.Option(metavar="REGEX", help="For flat files: a regex whose group is the label.")
    ] = None
    outside: Annotated[
        bool, typer.Option("--outside", help="Let a manifest name images outside of its own folder.")
    ] = False


@dataclass(frozen=True)
class HeadFlags:
    """How heads are fitted and what they are fitted on."""

    class_weight: Annotated[
        Literal["none", "balanced"], typer.Option(help="balanced: rare classes weigh as much as frequent ones.")
    ] = "none"
    calibrate: Annotated[
        Literal["auto", "none", "temperature", "isotonic"],
        typer.Option(
            help="Probabilities from scores, fitted on held-out images; auto: for heads whose scores are none."
        ),
    ] = "auto"
    grid: Annotated[
        list[str],
        typer.Option(metavar="HEAD.NAME=V,V…", help="Values to try, as logreg.C=0.1,1 or dense.hidden=64,256x64."),
    ] = field(default_factory=list)
    refit: Annotated[
        Literal["train", "train+validation"], typer.Option(help="What the chosen head is fitted on in the end.")
    ] = "train"
    stream: Annotated[
        bool,
        typer.Option(
            "--stream", help="Learn from batches read from the store, as is done by itself if memory is too small."
        ),
    ] = False


@dataclass(frozen=True)
class GraphFlags:
    """Everything that changes a feature but its preprocessing and its pooling."""

    weights: Annotated[str, typer.Option(metavar="imagenet|random:SEED|PATH", help="Where the weights come from.")] = (
        "imagenet"
    )
    layer: Annotated[str | None, typer.Option(metavar="NAME", help="Layer to read (default: the last).")] = None
    image_size: Annotated[
        str | None, typer.Option(metavar="N|HxW", help="Input size in pixels (default: the base's own).")
    ] = None
    resize: Annotated[Resize, typer.Option(help="Interpolation.")] = "bilinear"
    fit: Annotated[Fit, typer.Option(help="How a picture fills the square.")] = "stretch"
    precision: Annotated[
        Literal["auto", "float32", "bfloat16", "float16", "int8"],
        typer.Option(help="Precision of the forward pass; int8 is calibrated on some of the images."),
    ] = "auto"
    dtype: Annotated[StoredDtype, typer.Option(help="Type of the stored numbers.")] = "float32"
    runtime: Annotated[
        Literal["auto", "openvino", "tensorflow"], typer.Option(help="What executes the base; it renames no row.")
    ] = "auto"
    device: Annotated[str | None, typer.Option(metavar="CPU|GPU|GPU:0", help="Device of the runtime.")] = None


@dataclass(frozen=True)
class ViewFlags:
    """Augmented views of the images to train on."""

    views: Annotated[
        int, typer.Option(metavar="K", min=1, help="Views of each training image, itself among them; kept like it.")
    ] = 1
    augment: Annotated[
        str,
        typer.Option(metavar="POLICY", help="How the others are made: tutorial, flip, keras-guide or NAME=VALUE,…"),
    ] = "tutorial"


@dataclass(frozen=True)
class SpecFlags(GraphFlags):
    """Everything that changes a feature."""

    preprocessing: Annotated[
        Preprocessing, typer.Option(help="keras = the base's own, rescale = 1/255, none = raw 0–255.")
    ] = "keras"
    pooling: Annotated[Pooling, typer.Option(help="map stores (H, W, C); the others follow from it for free.")] = "avg"
