import math

import numpy as np
import pytest

from minirlhf.reward_modeling.compare import compare, rescaled
from minirlhf.reward_modeling.quality import summaries_of
from minirlhf.statistics.bootstrap import Bootstrap

BOOTSTRAP = Bootstrap(0, 200)
# Of four comparisons the longer was chosen in three.
ROWS = [
    {"prompt": "p", "chosen": " aaa", "rejected": " b"},
    {"prompt": "p", "chosen": " aaa", "rejected": " cc"},
    {"prompt": "q", "chosen": " aaa", "rejected": " b"},
    {"prompt": "r", "chosen": " b", "rejected": " cc"},
]


def scored(by):
    return {summary: float(by(summary[1].strip())) for summary in summaries_of(ROWS)}


def test_models_side_by_side_by_hand():
    found = compare(
        ROWS, {"length": scored(len), "same": scored(lambda _: 1), "b": scored(lambda t: t == "b")}, BOOTSTRAP
    )
    assert (found["comparisons"], found["posts"]) == (4, 3)
    assert found["rules"]["longer"]["value"] == 0.75 and found["rules"]["coin"] == 0.5
    models = found["models"]
    assert [models[name]["accuracy"] for name in ("length", "same", "b")] == [0.75, 0.5, 0.375]
    assert models["length"]["minus_longer"] == {"value": 0, "low": 0, "high": 0}
    assert models["same"]["confidence"]["ties"] == 1 and models["same"]["intervals"]["brier"]["value"] == 0.25
    assert models["same"]["test_loss"] == pytest.approx(math.log(2), abs=1e-6)
    # Margins 2, 1, 2, -1: sigmoid(-2) squared and so on.
    off = [1 / (1 + math.exp(margin)) for margin in (2, 1, 2, -1)]
    assert models["length"]["intervals"]["brier"]["value"] == pytest.approx(np.mean(np.square(off)), abs=1e-6)
    assert models["length"]["rescaled"] is None  # three posts
    first, _, third = found["differences"]
    assert (first["one"], first["other"], first["value"], first["alike"]) == ("length", "same", 0.25, 0)
    # `b` orders as hits 0, 0.5, 0, 1 against 0.5 each.
    assert (third["value"], third["alike"]) == (pytest.approx(0.125), 0.25)
    assert found["labels"] == {"agreement": None, "position": None}
    assert models["length"]["slices"] == []  # all of them too small


def test_a_model_that_is_too_sure_loses_by_its_scale_alone():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=2000)
    rows = [{"prompt": str(number // 2)} for number in range(2000)]
    margins = np.where(rng.random(2000) < 1 / (1 + np.exp(-logits)), logits, -logits)
    honest, sure = (rescaled(margins * by, rows, BOOTSTRAP) for by in (1, 20))
    assert honest["scale"] == pytest.approx(1, abs=0.15) and sure["scale"] == pytest.approx(
        honest["scale"] / 20, rel=1e-3
    )
    assert sure["loss"]["value"] == pytest.approx(honest["loss"]["value"], abs=1e-4)
    assert np.logaddexp(0, -20 * margins).mean() > 3 * sure["loss"]["value"]
