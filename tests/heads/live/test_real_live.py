"""Real weights on real photographs: training on stored maps is training on the pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from featstore import Request, Store, open_dataset
from heads.live import run as module
from heads.live.batches import Views
from heads.live.plan import LiveOptions, LivePlan
from heads.live.run import train_live
from tests.reliability.campaign import takes_long

pytestmark = pytest.mark.real


@pytest.fixture
def private_cache(linked_cache: None) -> None:
    """With the ImageNet weights."""


@takes_long
def test_fine_tuning_vgg16_on_stored_maps_is_fine_tuning_it_on_the_pictures(
    few_photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, store = open_dataset(few_photographs), Store.open(tmp_path / "store")
    both = {"epochs": 1, "tuning_epochs": 1, "options": LiveOptions(batch_size=16)}
    request = Request("vgg16", image_size=96, precision="float32", views=2)
    maps = train_live(dataset, LivePlan("finetune", request, on_maps=True, **both), store=store, out=tmp_path / "maps")
    monkeypatch.setattr(module, "Views", lambda *given, **named: Views(2))  # the same two in turn, not new ones
    live = train_live(
        dataset, LivePlan("finetune", request, augment="tutorial", **both), store=store, out=tmp_path / "live"
    )
    assert (maps.trainable, maps.total) == (live.trainable, live.total) == (8_259_585, 15_894_849)
    np.testing.assert_allclose(maps.curve.loss, live.curve.loss, atol=1e-3)
    np.testing.assert_allclose(maps.curve.held_out_loss, live.curve.held_out_loss, atol=1e-3)
    np.testing.assert_allclose(maps.probabilities, live.probabilities, atol=1e-3)
