"""What the service answers, as it is written down in its reference. Every text can be written as UTF-8."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field

HEAD = "vgg16-avg-logreg-1a2b3c4d5e6f"
DIGEST = "0f3a6b1c2d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8"
"""Examples."""

_FINGERPRINT = "5d41402abc4b2a76b9719d911017c5925d41402abc4b2a76b9719d911017c592"
_ACCURACY = {"images": 200, "accuracy": {"value": 0.965, "interval": [0.93, 0.985]}}
_SPEC = {"backbone": "vgg16", "layer": "block5_pool", "image_size": [150, 150], "pooling": "avg"}

_HeadName = Annotated[str, Field(examples=[HEAD])]
_Digest = Annotated[str, Field(examples=[DIGEST], description="SHA-256 of the picture file, in hex.")]
_Class = Annotated[str, Field(examples=["cats"])]
_Classes = Annotated[list[str], Field(examples=[["cats", "dogs"]])]
_Count = Annotated[int, Field(examples=[200])]


class HeadSays(BaseModel):
    """What one head says of one picture."""

    head: _HeadName
    label: _Class = Field(description="The likeliest class.")
    probabilities: dict[str, float] = Field(examples=[{"cats": 0.98, "dogs": 0.02}])


class Picture(BaseModel):
    """A picture that was sent."""

    name: str = Field(examples=["cat.jpg"])
    digest: _Digest
    rejected: str | None = Field(examples=[None, "truncated"], description="Why the picture has no features.")
    from_cache: bool = Field(examples=[True], description="Whether its features were known before.")


class Predicted(Picture):
    """What all heads say of one picture; of a rejected one nothing."""

    heads: list[HeadSays]


class Predictions(BaseModel):
    """A picture after another, in the order in which they came."""

    predictions: list[Predicted]


class PictureFeatures(Picture):
    """The features of one picture by fingerprint of their spec."""

    features: dict[str, list[float]] = Field(examples=[{_FINGERPRINT: [0.0, 1.25, 0.5]}])


class FeatureList(BaseModel):
    """A picture after another, in the order in which they came."""

    pictures: list[PictureFeatures]


class HeadAbout(BaseModel):
    """A head that is served."""

    name: _HeadName
    backbone: str = Field(examples=["vgg16"])
    head: str = Field(examples=["logreg"])
    classes: _Classes
    held_out_accuracy: float = Field(examples=[0.965])
    test_accuracy: float | None = Field(examples=[None])


class HeadList(BaseModel):
    """The heads that are served, and the bundles that cannot be used."""

    heads: list[HeadAbout]
    problems: dict[str, str] = Field(examples=[{}], description="Folder → what is wrong with it.")


class Confusion(BaseModel):
    """Held-out images of class i (row) that were called class j (column), of the classes that are confused most."""

    classes: _Classes
    counts: list[list[int]] = Field(examples=[[[98, 2], [5, 95]]])
    more_classes: int = Field(examples=[0], description="Classes that are left out.")


class ReliabilityBins(BaseModel):
    """Means of the bins of the expected calibration error that have an image, and their images."""

    confidence: list[float] = Field(examples=[[0.62, 0.97]])
    accuracy: list[float] = Field(examples=[[0.6, 0.98]])
    counts: list[int] = Field(examples=[[10, 190]])


class MistakeAbout(BaseModel):
    """A held-out image that was called wrongly."""

    digest: _Digest
    truth: _Class
    of_truth: float = Field(examples=[0.08], description="The probability of its own class.")
    said: str = Field(examples=["dogs"])
    confidence: float = Field(examples=[0.92], description="The probability of what it was called.")


class HeadDetails(BaseModel):
    """All about a head that one looks at before trusting it."""

    name: _HeadName
    head: str = Field(examples=["logreg"])
    params: dict[str, Any] = Field(examples=[{"C": 0.1}])
    features: list[dict[str, Any]] = Field(examples=[[_SPEC]], description="The specs of the features that it takes.")
    chosen_on: str = Field(examples=["validation"])
    settings_tried: int = Field(examples=[7])
    fitted_on: list[str] = Field(examples=[["train"]])
    images: int = Field(examples=[999], description="Images that it was fitted on.")
    calibration: str = Field(examples=["temperature"])
    held_out: dict[str, Any] = Field(examples=[_ACCURACY], description="Metrics with their 95 % intervals.")
    test: dict[str, Any] | None = Field(
        examples=[None], description="The same on the test split, which was scored once."
    )
    confusion: Confusion
    reliability: ReliabilityBins
    mistakes: list[MistakeAbout] = Field(description="The worst ones: their own class was thought the least likely.")
    all_mistakes: int = Field(examples=[7])


class MapPoint(BaseModel):
    """An image on the map. x, y : 0 to 1."""

    digest: _Digest
    x: float = Field(examples=[0.25])
    y: float = Field(examples=[0.75])
    label: _Class
    said: str | None = Field(examples=["dogs"], description="What a held-out image was called; null for the others.")


class FeatureMap(BaseModel):
    """Images of a head in the plane, so that neighbours have like features (t-SNE). No test image is on it."""

    head: _HeadName
    total: int = Field(examples=[1399], description="The images that these were drawn from.")
    points: list[MapPoint]


class NeighbourAbout(BaseModel):
    """A stored image that looks alike."""

    digest: _Digest
    cosine: float = Field(examples=[0.93], description="Of both images' features, from -1 to 1.")
    label: str | None = Field(examples=["cats"], description="The class with which the head was fitted on it.")
    folder: str | None = Field(examples=["cats"], description="The folder that it was last seen in.")


class NeighbourList(BaseModel):
    """The nearest first."""

    fingerprints: list[str] = Field(
        examples=[[_FINGERPRINT]], description="Of the features that were compared, of all bases beside one another."
    )
    head: str | None = Field(
        examples=[HEAD], description="Among whose training images they were looked for; null: all stored ones."
    )
    neighbours: list[NeighbourAbout]


class Answered(BaseModel):
    """Pictures that this service has answered since it began."""

    cached: _Count
    computed: _Count
    rejected: _Count


class StoreAbout(BaseModel):
    """What the store holds, a namespace as `featstore store ls --json` prints it, and how often it helped."""

    namespaces: list[dict[str, Any]] = Field(examples=[[{"fingerprint": _FINGERPRINT, **_SPEC, "rows": 1399}]])
    answered: Answered


class Status(BaseModel):
    """How the service is."""

    status: str = Field(examples=["ok"])
    problems: list[str] = Field(examples=[[]])


class Problem(BaseModel):
    """Why there is no answer, in a sentence."""

    detail: str = Field(examples=["too much is waiting"])
