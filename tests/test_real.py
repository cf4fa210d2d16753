"""The main job on real photographs with real weights, as the README promises it."""

from __future__ import annotations

import importlib
import shutil
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import featstore
from featstore import ExtractOptions, Request, Store
from featstore.dataset.listing import natural_key
from featstore.folders import cache_folder
from featstore.machine import fastest_safe_precision
from featstore.weights import read_tensors, resolve
from featstore.weights.keras_io import import_keras
from heads.bundles.bundle import read_bundle
from tests.commands import Done, good, spawn
from tests.reliability.campaign import FULL, takes_long

pytestmark = pytest.mark.real

IMAGES = 1399
BACKBONES = ("vgg16", "xception")
SIZE = ("--image-size", "150")
LEAST_ACCURACY = {"vgg16": 0.945, "xception": 0.965}


@dataclass(frozen=True)
class Cached:
    """The one long run of this file: both backbones over all photographs, as small as the tutorials have them, and the
    heads.
    """

    store: Path
    bundles: Path
    results: dict[str, dict[str, Any]]

    def extract(self, data: Path, *options: object) -> Done:
        """``featstore extract`` in a process of its own; it must succeed."""
        done = spawn("extract", data, *SIZE, *options, "--store", self.store, "--json")
        assert done.code == 0, done.err
        return done


@pytest.fixture(scope="session")
def cached(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Cached:
    folder = tmp_path_factory.mktemp("real")
    both = [word for name in BACKBONES for word in ("-b", name)]
    places = ("--store", folder / "store", "--out", folder / "bundles")
    done = spawn("train", photographs, *both, *SIZE, "--head", "logreg", *places, "--json")
    assert done.code == 0, done.err
    print(done.err)
    return Cached(folder / "store", folder / "bundles", {r["backbone"]: r for r in done.json["results"]})


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosines (N,) of the rows of two tables (N, D)."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


# ---- the numbers -----------------------------------------------------------------------------------------------------


def plain_keras(name: str, weights: str, files: list[Path], size: int, interpolation: str) -> np.ndarray:
    """float32 (N, D) as anybody writes it with Keras alone, but for where the weights come from."""
    keras = import_keras()
    base = resolve(name, weights)
    module = importlib.import_module(f"keras.applications.{base.backbone.module}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras warns of sizes below the default
        model = getattr(module, base.backbone.keras_name)(include_top=False, weights=None)
    model.set_weights(read_tensors(base))
    pictures = [keras.utils.load_img(file, target_size=(size, size), interpolation=interpolation) for file in files]
    images = np.stack([keras.utils.img_to_array(picture) for picture in pictures])
    maps = model(module.preprocess_input(images), training=False)
    return np.asarray(keras.layers.GlobalAveragePooling2D()(maps))


@pytest.mark.parametrize("resize", ["nearest", "bilinear"] if FULL else ["bilinear"])
@pytest.mark.parametrize(
    ("name", "weights"), [("vgg16", "imagenet"), ("xception", "imagenet"), ("resnet50", "random:0")]
)
def test_rows_in_the_store_equal_plain_keras(
    name: str, weights: str, resize: Any, photographs: Path, tmp_path: Path
) -> None:
    files = sorted(photographs.rglob("*.jpg"))[::60][:24]
    expected = plain_keras(name, weights, files, 150, resize)
    request = Request(name, weights=weights, image_size=150, resize=resize, precision="float32")
    featstore.extract(files, request, store=tmp_path / "store")
    table = featstore.load_table(files, request, split="unlabelled", store=tmp_path / "store")
    assert table.X.shape == expected.shape == (24, expected.shape[1])
    off = np.abs(table.X - expected).max(axis=1) / np.abs(expected).max(axis=1)
    assert off.max() <= 1e-3
    if fastest_safe_precision("openvino") != "bfloat16":
        return  # this machine does not have it
    low = Request(name, weights=weights, image_size=150, resize=resize, precision="bfloat16")
    featstore.extract(files, low, store=tmp_path / "store")
    rows = featstore.load_table(files, low, split="unlabelled", store=tmp_path / "store").X
    assert not np.array_equal(rows, table.X), "bfloat16 was not used"
    assert cosine(rows, expected).min() >= 0.995


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_first_head_is_as_accurate_as_promised(backbone: str, photographs: Path, cached: Cached) -> None:
    result = cached.results[backbone]
    bundle = read_bundle(Path(result["bundle"]))
    test = featstore.load_table(photographs, bundle.card.specs[0], split="test", store=cached.store)
    right = int((bundle.probabilities(test.X).argmax(axis=1) == test.y).sum())
    images = result["held_out"]["n"] + len(test)
    pooled = (result["held_out"]["accuracy"]["value"] * result["held_out"]["n"] + right) / images
    print(f"{backbone}: {pooled:.4f} on {images} images, C = {result['params']['C']}")
    assert images == 399
    assert result["chosen_on"] == "validation"
    assert result["params"].keys() == {"C"}
    assert pooled >= LEAST_ACCURACY[backbone]


def test_a_head_that_learns_from_the_store_is_as_accurate(photographs: Path, cached: Cached, tmp_path: Path) -> None:
    asked = ("--head", "logreg", "--stream", "--store", cached.store, "--out", tmp_path, "--json")
    done = good("train", photographs, "-b", "vgg16", *SIZE, *asked).json
    [result], before = done["results"], cached.results["vgg16"]
    for split in ("held_out", "test"):
        if before[split] is not None:  # only the best of both backbones was scored on test
            assert result[split]["accuracy"]["value"] == pytest.approx(before[split]["accuracy"]["value"], abs=0.01)
    assert result["params"] == before["params"]
    assert any("learn from batches" in note for note in done["notes"])


# ---- once, and never again -------------------------------------------------------------------------------------------


def test_a_second_extract_computes_nothing_and_loads_no_network_library(photographs: Path, cached: Cached) -> None:
    started = time.perf_counter()
    done = cached.extract(photographs, "-b", "vgg16", "-b", "xception")
    print(f"a second extract of {IMAGES} images: {time.perf_counter() - started:.2f} s, start of Python included")
    assert done.json["images"] == IMAGES
    for spec in done.json["specs"]:
        assert (spec["hits"], spec["computed"], spec["rejected"]) == (IMAGES, 0, 0)
    assert done.loaded == ()


def test_renamed_and_moved_every_image_is_known_and_one_changed_byte_is_one_row(
    photographs: Path, cached: Cached, tmp_path: Path
) -> None:
    moved = tmp_path / "elsewhere"
    for i, file in enumerate(sorted(photographs.rglob("*.jpg"))):
        target = moved / file.parent.relative_to(photographs) / f"renamed-{i}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    done = cached.extract(moved)
    [spec] = done.json["specs"]
    assert (spec["hits"], spec["computed"]) == (IMAGES, 0)
    assert done.loaded == ()

    store = cached.store.parent / "changed"
    shutil.copytree(cached.store, store)  # the rows of the session stay those of the photographs
    cats = sorted((moved / "train" / "cats").iterdir())
    cats[0].write_bytes(cats[0].read_bytes() + b"\0")
    [spec] = spawn("extract", moved, *SIZE, "--store", store, "--json").json["specs"]
    assert (spec["hits"], spec["computed"], spec["rejected"]) == (IMAGES - 1, 1, 0)
    shutil.copyfile(
        photographs.parent / "odd-images" / "exif-orientation" / "Landscape_1.jpg", cats[0].parent / "new.jpg"
    )
    [spec] = spawn("extract", moved, *SIZE, "--store", store, "--json").json["specs"]
    assert (spec["hits"], spec["computed"], spec["rejected"]) == (IMAGES, 1, 0)
    shutil.rmtree(store)


@pytest.mark.parametrize(
    ("option", "field"),
    [
        (("--resize", "nearest"), "resize"),
        (("--layer", "block4_pool"), "layer"),
        (("--precision", "float32"), "precision"),
        (("--weights", "random:0"), "weights"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_another_spec_has_all_to_compute_and_plan_names_the_field(
    option: tuple[str, str], field: str, photographs: Path, cached: Cached
) -> None:
    precision = () if field == "precision" else ("--precision", precision_of(cached))
    if field == "precision" and precision_of(cached) == "float32":
        option = ("--precision", "bfloat16")
    value = good("plan", photographs, *SIZE, *precision, *option, "--store", cached.store, "--json").json
    [spec] = value["specs"]
    assert (spec["hits"], spec["to_compute"]) == (0, IMAGES)
    [reason] = spec["misses"]
    assert reason.startswith(f"{field}: ")


def precision_of(cached: Cached) -> str:
    return read_bundle(Path(cached.results["vgg16"]["bundle"])).card.specs[0].precision


def test_int8_is_calibrated_once_close_to_float32_and_keeps_its_rows_apart(
    photographs: Path, tmp_path: Path, linked_cache: None
) -> None:
    store, size = tmp_path / "store", ("--image-size", "64")
    some = tmp_path / "some"
    for path in sorted(photographs.rglob("*.jpg"))[::40]:
        place = some / path.relative_to(photographs)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    words = ("extract", some, "-b", "vgg16", *size, "--store", store, "--json")
    [first] = good(*words, "--precision", "int8").json["specs"]
    assert (first["precision"], first["hits"], first["computed"]) == ("int8", 0, 35)
    again = spawn(*words, "--precision", "int8")
    assert again.json["specs"][0]["hits"] == 35
    [exact] = good(*words, "--precision", "float32").json["specs"]
    assert exact["computed"] == 35
    mine, theirs = (
        featstore.load_table(some, "vgg16", store=store, image_size=64, precision=precision).X
        for precision in ("int8", "float32")
    )
    found = cosine(mine, theirs)
    assert found.min() > 0.98, found
    assert np.median(found) > 0.998
    trained = good(
        "train", some, "-b", "vgg16", *size, "--precision", "int8", "--store", store, "--out", tmp_path / "b", "--json"
    )
    bundle = trained.json["results"][0]["bundle"]
    unknown = next(
        path for path in sorted(photographs.rglob("*.jpg")) if not (some / path.relative_to(photographs)).exists()
    )
    [said] = good("predict", bundle, unknown, "--store", tmp_path / "other", "--json").json["predictions"]
    assert said["label"] in ("cats", "dogs")
    shutil.rmtree(cache_folder() / "calibrated")
    refused = spawn("predict", bundle, unknown, "--store", tmp_path / "another")
    assert refused.code == 2
    assert "the calibrated graph of these int8 features is not here" in refused.err


# ---- from training to prediction -------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", BACKBONES)
def test_predict_says_of_a_cached_file_exactly_what_training_said(
    backbone: str, photographs: Path, cached: Cached, tmp_path: Path
) -> None:
    bundle = read_bundle(Path(cached.results[backbone]["bundle"]))
    table = featstore.load_table(photographs, bundle.card.specs[0], split="test", store=cached.store)
    expected = bundle.probabilities(table.X)
    if tested := cached.results[backbone]["test"]:  # the better of the two
        assert (expected.argmax(axis=1) == table.y).mean() == pytest.approx(tested["accuracy"]["value"])
    chosen = list(range(0, len(table), 9))
    copies = [tmp_path / f"holiday-{i}.jpg" for i in chosen]
    for i, copy in zip(chosen, copies, strict=True):
        shutil.copyfile(photographs / table.paths[i], copy)
    done = spawn("predict", bundle.path, *copies, "--store", cached.store, "--json")
    found = done.json["predictions"]
    assert all(prediction["from_cache"] for prediction in found)
    assert done.loaded == ()
    for prediction, row in zip(found, expected[chosen], strict=True):
        assert prediction["label"] == bundle.card.classes[int(row.argmax())]
        assert [prediction["probabilities"][name] for name in bundle.card.classes] == row.tolist()


def test_evaluate_says_what_training_said_and_loads_no_network_library(photographs: Path, cached: Cached) -> None:
    bundles = [Path(result["bundle"]) for result in cached.results.values()]
    done = spawn("evaluate", photographs, *bundles, "--store", cached.store, "--json")
    assert (done.code, done.loaded) == (0, ()), done.err
    value = done.json
    assert (value["split"], value["images"], len(value["pairs"])) == ("test", 199, 1)
    for trained, result in zip(cached.results.values(), value["results"], strict=True):
        assert (result["fitted"], result["searched"]) == (1000, 1000)
        if trained["test"]:  # the better of the two
            assert result["metrics"]["confusion"] == trained["test"]["confusion"]
            assert result["metrics"]["log_loss"]["value"] == pytest.approx(trained["test"]["log_loss"]["value"])


def test_submit_clips_by_what_was_fitted_and_loads_no_network_library(
    photographs: Path, cached: Cached, tmp_path: Path
) -> None:
    file, bundle = tmp_path / "submission.csv", Path(cached.results["vgg16"]["bundle"])
    done = spawn("submit", bundle, photographs / "test", "--to", file, "--store", cached.store, "--json")
    assert (done.code, done.loaded) == (0, ()), done.err
    lines = [line.split(",") for line in file.read_text().splitlines()[1:]]
    assert done.json["clip"] == read_bundle(bundle).card.clip
    assert [name for name, _ in lines] == sorted((name for name, _ in lines), key=natural_key)
    right = sum((float(value) > 0.5) == name.startswith("dog") for name, value in lines)
    assert (len(lines), right / 199 > 0.9) == (199, True)


def test_predict_computes_for_an_unknown_store_the_very_same_rows(
    photographs: Path, cached: Cached, tmp_path: Path
) -> None:
    bundle = Path(cached.results["vgg16"]["bundle"])
    files = sorted((photographs / "test" / "dogs").iterdir())[:5]
    [known, fresh] = [
        spawn("predict", bundle, *files, "--store", store, "--json").json["predictions"]
        for store in (cached.store, tmp_path / "new")
    ]
    assert [prediction["from_cache"] for prediction in fresh] == [False] * 5
    assert [prediction["probabilities"] for prediction in fresh] == [
        prediction["probabilities"] for prediction in known
    ]


@takes_long
def test_the_tutorials_network_does_as_the_tutorials_say_and_logistic_regression_better(
    photographs: Path, cached: Cached, tmp_path: Path
) -> None:
    """Chollet's network on raw features of 150 pixels, as published; against the right preprocessing and averages."""
    settings = ("--image-size", "150", "--preprocessing", "rescale", "--pooling", "flatten", "--head", "chollet")
    places = ("--store", tmp_path / "store", "--out", tmp_path / "bundles")
    [tutorial] = good("train", photographs, "-b", "vgg16", *settings, *places, "--json").json["results"]
    assert tutorial["held_out"]["n"] == 200
    assert 0.86 <= tutorial["held_out"]["accuracy"]["value"] <= 0.92
    ours = cached.results["vgg16"]
    assert ours["held_out"]["accuracy"]["value"] > tutorial["held_out"]["accuracy"]["value"] + 0.03
    assert ours["feature_bytes"] * 10 < tutorial["feature_bytes"]


def test_a_sweep_on_stored_maps_and_a_prediction_pooled_in_the_graph_agree(photographs: Path, tmp_path: Path) -> None:
    """The sweep pools maps of the store; a fresh image is pooled by the graph: docs/decisions/0005 states how near."""
    photos = tmp_path / "photos"
    for split, count in (("train", 20), ("validation", 8), ("test", 6)):
        for label in ("cats", "dogs"):
            (photos / split / label).mkdir(parents=True)
            for file in sorted((photographs / split / label).iterdir())[:count]:
                shutil.copyfile(file, photos / split / label / file.name)
    settings = ("--image-size", "96", "--pooling", "avg", "--pooling", "max", "--head", "logreg", "--head", "rbf-svm")
    places = ("--store", tmp_path / "store", "--out", tmp_path / "out")
    best = good("sweep", photos, "-b", "vgg16", *settings, *places, "--json").json["results"][0]
    known, fresh = (
        good("predict", best["bundle"], photos / "test", "--store", tmp_path / store, "--json").json["predictions"]
        for store in ("store", "new")
    )
    assert all(prediction["from_cache"] for prediction in known)
    assert not any(prediction["from_cache"] for prediction in fresh)
    for one, other in zip(known, fresh, strict=True):
        assert one["label"] == other["label"]
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-6)


def test_copies_saved_again_are_found_across_splits_and_the_score_given_without_them(
    photographs: Path, cached: Cached, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    for split, chosen in (("train", slice(40)), ("validation", slice(15)), ("test", slice(10))):
        for label in ("cats", "dogs"):
            folder = photos / split / label
            folder.mkdir(parents=True)
            for file in sorted((photographs / split / label).iterdir())[chosen]:
                shutil.copyfile(file, folder / file.name)
    originals = sorted((photos / "train" / "cats").iterdir())[:3]
    for file in originals:
        with Image.open(file) as picture:
            picture.save(photos / "test" / "cats" / f"again-{file.name}", quality=60)
    shutil.copyfile(originals[0], photos / "validation" / "cats" / "same.jpg")
    value = good(
        "train", photos, "--precision", precision_of(cached), "--head", "logreg", "--store", cached.store,
        "--out", tmp_path / "bundles", "--json",
    ).json  # fmt: skip
    found = {(leak["path"], leak["exact"]): leak["original"] for leak in value["leaks"]}
    assert found == {
        ("validation/cats/same.jpg", True): f"train/cats/{originals[0].name}",
        **{(f"test/cats/again-{file.name}", False): f"train/cats/{file.name}" for file in originals},
    }
    [best] = value["results"]
    assert (best["test"]["n"], best["test_variants"]["without_leaks"]["n"]) == (23, 20)
    assert best["held_out_variants"]["without_leaks"]["n"] == 30


# ---- broken, odd and hostile files -----------------------------------------------------------------------------------

SMALL = Request("vgg16", image_size=96, precision="float32")


@pytest.fixture(scope="module")
def odd_run(odd_images: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], featstore.Extraction]:
    """Every file below odd-images, handed over one by one so that none is passed over, and what became of them."""
    files = sorted(path for path in odd_images.rglob("*") if path.is_file())
    return files, featstore.extract(files, SMALL, store=tmp_path_factory.mktemp("odd") / "store")


def outcome(extraction: featstore.Extraction) -> list[tuple[str, str, str]]:
    return sorted((r.path, r.digest, r.reason.code) for r in extraction.report.rejects)


def test_every_odd_file_is_a_row_or_a_reject_with_a_reason(
    odd_run: tuple[list[Path], featstore.Extraction],
) -> None:
    files, extraction = odd_run
    [spec] = extraction.report.specs
    print(f"{len(files)} files: {spec.computed} rows, {dict(extraction.report.reasons)}")
    assert extraction.report.images == len(files)
    assert spec.hits + spec.computed + spec.rejected == len(files)
    assert spec.computed > 200
    assert spec.rejected == len(extraction.report.rejects) > 20
    assert len(extraction.report.reasons) >= 4
    assert extraction.report.ledger is not None
    assert extraction.report.ledger.read_text(encoding="utf-8").count("\n") == spec.rejected + 1
    assert "not-finite" not in extraction.report.reasons


def test_odd_files_have_the_same_outcome_every_time(
    odd_run: tuple[list[Path], featstore.Extraction], tmp_path: Path
) -> None:
    files, first = odd_run
    store = Store.open(first.report.store)
    second = featstore.extract(files, SMALL, store=store)
    assert (second.report.specs[0].computed, outcome(second)) == (0, outcome(first))
    retried = featstore.extract(files, SMALL, store=store, options=ExtractOptions(retry_rejected=True))
    assert (retried.report.specs[0].computed, outcome(retried)) == (0, outcome(first))
    elsewhere = featstore.extract(files, SMALL, store=tmp_path / "store", options=ExtractOptions(workers=1))
    assert outcome(elsewhere) == outcome(first)
    tables = [
        featstore.load_table(files, SMALL, split="unlabelled", store=place) for place in (store, tmp_path / "store")
    ]
    assert tables[0].ids == tables[1].ids
    assert tables[0].X.tobytes() == tables[1].X.tobytes()


def test_odd_files_as_a_folder_are_the_same(odd_run: tuple[list[Path], featstore.Extraction], odd_images: Path) -> None:
    _, first = odd_run
    done = good("extract", odd_images, "--image-size", "96", "--precision", "float32", "--store", first.report.store)
    assert "Traceback" not in done.err
    done = good(
        "extract", odd_images, "--image-size", "96", "--precision", "float32", "--store", first.report.store, "--json"
    )
    [spec] = done.json["specs"]
    assert spec["computed"] == 0
    assert spec["hits"] + spec["rejected"] == done.json["images"] > 350


ROTATED = ("Landscape", "Portrait")


@pytest.fixture(scope="module")
def without_digits(odd_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rotated photographs without the digit that each has in its middle, with their tag (.jpg) and without (.png).

    One digit for another is a different picture: at 150 pixels it alone takes VGG16's cosine to 0.94.
    """
    folder = tmp_path_factory.mktemp("rotated")
    for path in sorted((odd_images / "exif-orientation").glob("*.jpg")):
        with Image.open(path) as picture:
            exif, pixels = picture.getexif(), picture.convert("RGB")
        across, down = pixels.width // 2, pixels.height // 2
        pixels.paste((128, 128, 128), (across - 150, down - 150, across + 150, down + 150))
        pixels.save(folder / path.name, quality=95, exif=exif)
        pixels.resize((300, 300)).save(folder / f"{path.stem}.png")
    return folder


def to_upright(folder: Path, name: str, ending: str, size: int, store: Path) -> np.ndarray:
    """Cosines (9,) of the photographs of the orientations 0 to 8 to that of 1, which is upright as it is."""
    files = [folder / f"{name}_{i}{ending}" for i in range(9)]
    request = Request("vgg16", image_size=size)
    featstore.extract(files, request, store=store)
    table = featstore.load_table(files, request, split="unlabelled", store=store)
    assert len(table) == 9
    found = cosine(table.X, np.repeat(table.X[1:2], 9, axis=0))
    print(name, ending, size, found.round(4))
    return found


@pytest.mark.parametrize("name", ROTATED)
def test_rotated_photographs_agree_with_the_upright_one(
    name: str, odd_images: Path, without_digits: Path, tmp_path: Path
) -> None:
    assert to_upright(odd_images / "exif-orientation", name, ".jpg", 64, tmp_path).min() >= 0.99
    assert to_upright(without_digits, name, ".jpg", 224, tmp_path).min() >= 0.99


@pytest.mark.parametrize("name", ROTATED)
def test_without_their_tag_they_would_not_agree(name: str, without_digits: Path, tmp_path: Path) -> None:
    """So the agreement above means something; the first two are upright as they are."""
    found = to_upright(without_digits, name, ".png", 224, tmp_path)
    assert found[:2].min() >= 0.99
    assert found[2:].max() < 0.99


def test_a_served_picture_has_the_row_that_an_extraction_gives_it(
    photographs: Path, cached: Cached, tmp_path: Path
) -> None:
    """One picture is computed in a batch of one, an extraction's in batches of 32: the bits are the same."""
    from featstore.job import job_for
    from featstore.online import OnlineRows

    [spec] = read_bundle(Path(cached.results["vgg16"]["bundle"])).card.specs
    namespace = Store.open(cached.store).namespace(spec)
    rows = OnlineRows(job_for(spec, "vgg16"), Store.open(tmp_path / "fresh", create=True))
    files = sorted((photographs / "test" / "cats").iterdir())[:12]
    single = rows.ask(files[0].read_bytes()).result(60)
    asked = [rows.ask(file.read_bytes()) for file in files]
    found = [single, *(future.result(60) for future in asked[1:])]
    rows.close()
    digests = np.stack([np.frombuffer(row.digest, np.uint8) for row in found])
    features = np.stack([row.features for row in found if row.features is not None])
    assert features.tobytes() == namespace.snapshot().read(digests).tobytes()
