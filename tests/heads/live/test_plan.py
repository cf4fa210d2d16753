from __future__ import annotations

import math

import pytest

from featstore import Request
from featstore.errors import InputError
from heads.live.plan import LivePlan


@pytest.mark.parametrize("name", ["learning_rate", "tuning_rate"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_a_learning_rate_that_would_train_uphill_or_nowhere_is_refused(name: str, value: float) -> None:
    with pytest.raises(InputError, match="no learning rate") as refused:
        LivePlan("frozen", Request("vgg16"), **{name: value})
    assert refused.value.where == f"--{name.replace('_', '-')}"


def test_a_base_whose_last_block_nobody_knows_is_asked_about() -> None:
    plan = LivePlan("finetune", Request("nasnet_mobile"))
    with pytest.raises(InputError, match="where does fine-tuning of nasnet_mobile begin"):
        _ = plan.stages
    assert LivePlan("finetune", Request("nasnet_mobile"), layer="all").stages[-1].unfreeze == "all"
