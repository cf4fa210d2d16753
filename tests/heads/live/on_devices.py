"""Training on two logical CPUs, in place of two GPUs: a program, because TensorFlow hears of them when it starts."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featstore import Request, Store, open_dataset
from featstore.errors import InputError
from featstore.weights.keras_io import float32_policy, import_keras
from heads.live.batches import MapBatches, Views
from heads.live.networks import shared_by
from heads.live.plan import LiveOptions, LivePlan, Stage
from heads.live.run import train_live
from heads.live.training import Trained, train_network
from tests.heads.conftest import make_table
from tests.pictures import class_folders

TWO = ("CPU:0", "CPU:1")
STAGES = (Stage(2, 1e-2),)


def see_two_devices() -> None:
    """Before TensorFlow starts."""
    import_keras()
    import tensorflow as tf

    [cpu] = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)


def learned(
    devices: tuple[str, ...], images: int = 66, checkpoint: Path | None = None, dropout: float = 0.0,
    dtype: str = "float32", **options: Any,
) -> Trained:  # fmt: skip
    """A small network trained on so many images and judged on seven, which two cannot share evenly.

    dtype : what its first layer computes in; float16 has its loss scaled.
    """
    keras = import_keras()
    keras.utils.set_random_seed(0)
    train, held_out = make_table(images, classes=3), make_table(7, classes=3, seed=1)
    with shared_by(devices), float32_policy():
        inputs = keras.Input((8,))
        values = keras.layers.Dense(6, activation="relu", dtype=dtype)(inputs)
        if dropout:
            values = keras.layers.Dropout(dropout, seed=3)(values)
        model = keras.Model(inputs, keras.layers.Dense(3, dtype="float32")(values))
        return train_network(
            model, lambda stage: None, STAGES, MapBatches(train, train.y, (8,)),
            MapBatches(held_out, held_out.y, (8,)), Views(), LiveOptions(16, devices=devices, **options),
            checkpoint=checkpoint,
        )  # fmt: skip


def same(one: Trained, other: Trained, tolerance: float = 1e-4) -> bool:
    """Whether two trainings have the same curves."""
    pairs = zip(
        (one.curve.loss, one.curve.held_out_loss, one.curve.held_out_accuracy),
        (other.curve.loss, other.curve.held_out_loss, other.curve.held_out_accuracy),
        strict=True,
    )
    return all(np.allclose(a, b, atol=tolerance) for a, b in pairs)


def small() -> None:
    """What two devices learn is what one learns; what cannot be shared is refused."""
    one, two = learned(()), learned(TWO)
    assert (two.images, len(two.seconds)) == (2 * 66, 2)
    assert same(one, two), (one, two)
    for devices, images in ((("CPU:0", "GPU:7"), 66), (TWO, 1)):
        with pytest.raises(InputError) as refused:
            learned(devices, images)
        assert refused.value.where == "--devices"


def stopped() -> None:
    """A training that was stopped goes on from its checkpoint on as many devices as there are now."""
    folder = Path(sys.argv[2])
    one, two = learned(()), learned(TWO)
    cut = learned(TWO, checkpoint=folder / "two.npz", seconds=1e-9)
    assert (len(cut.seconds), cut.cut_short) == (1, True)
    shutil.copyfile(folder / "two.npz", folder / "one.npz")
    again, alone = learned(TWO, checkpoint=folder / "two.npz"), learned((), checkpoint=folder / "one.npz")
    assert (again.before, alone.before) == (1, 1)
    assert same(again, two, 0), (again, two)
    assert same(alone, one), (alone, one)
    half = {"dtype": "mixed_float16", "dropout": 0.5}
    in_one_go = learned(TWO, **half)
    learned(TWO, checkpoint=folder / "half.npz", seconds=1e-9, **half)
    again = learned(TWO, checkpoint=folder / "half.npz", **half)
    assert same(again, in_one_go, 0), (again, in_one_go)
    assert learned(TWO, 65, dropout=0.5, balanced=True, patience=1).images in (64, 2 * 64)


def whole() -> None:
    """A live run on two devices ends with a bundle, as on one; the network's base is fine-tuned, without dropout."""
    folder = Path(sys.argv[2])
    photos, store = class_folders(folder / "photos"), Store.open(folder / "store")
    request = Request("vgg16", weights="random:0", image_size=32, precision="float32")
    plan = LivePlan("finetune", request, augment="flip", epochs=2, tuning_epochs=2, hidden=(8,), dropout=0.0)
    found = []
    for devices in ((), TWO):
        asked = replace(plan, options=LiveOptions(8, devices=devices, patience=2))
        found.append(train_live(open_dataset(photos), asked, store=store, out=folder / f"out-{len(devices)}"))
    one, two = found
    assert np.allclose(one.curve.loss, two.curve.loss, rtol=1e-3), (one.curve, two.curve)
    assert np.allclose(one.probabilities, two.probabilities, atol=1e-3)
    assert two.bundle.is_dir()
    assert two.base is not None
    assert (two.trainable, two.total) == (one.trainable, one.total)
    on_maps = replace(plan, augment=None, on_maps=True, request=replace(request, views=2), options=asked.options)
    assert train_live(open_dataset(photos), on_maps, store=store, out=folder / "maps").bundle.is_dir()


if __name__ == "__main__":
    see_two_devices()
    {"small": small, "stopped": stopped, "whole": whole}[sys.argv[1]]()
    print("the same")
