"""One value in params.yaml chooses the retrain's encoder; the ranker's penalties act."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from features.errors import UsageError
from flows import config
from models import ranker, sequence
from models.encoders import ENCODERS
from models.history import Action, UserState
from models.training import LoopParams


@pytest.mark.parametrize("name", list(ENCODERS))
def test_one_value_in_params_yaml_names_the_encoder_and_it_survives_its_file(
    shop: Any, tmp_path: Path, name: str
) -> None:
    settings = config.parse({"train": {"sequence": {"encoder": name}}}).train.sequence
    assert settings.dim == sequence.SequenceParams().dim
    small = replace(settings, dim=8, blocks=1, negatives=16, loop=LoopParams(epochs=1))
    model, _ = sequence.train(shop.log.before(shop.cut_us(0.4)), small)
    sequence.save_model(model, tmp_path / name)
    loaded = sequence.load_model(tmp_path / name)
    assert loaded is not None and loaded.net.params.encoder == name
    state = UserState.build(None, [Action("i003", "view", shop.end_us)], shop.table.index)
    scores = loaded.scores(state, len(shop.table))
    np.testing.assert_array_equal(scores, model.scores(state, len(shop.table)))
    assert np.isfinite(scores).all() and scores.std() > 0


def test_a_wrong_encoder_is_told_with_the_right_names(shop: Any) -> None:
    with pytest.raises(UsageError, match="encoder 'grU' is unknown; one of mlp"):
        sequence.train(shop.log, replace(sequence.SequenceParams(), encoder="grU"))


def lists(n: int = 200) -> ranker.Lists:
    rng = np.random.default_rng(0)
    x_NKF = rng.normal(size=(n, 10, 6)).astype(np.float32)
    gain_NK = (x_NKF[:, :, 0] + rng.normal(size=(n, 10)) > 1).astype(np.float32)
    return ranker.Lists(x_NKF, gain_NK, np.ones((n, 10), dtype=bool))


def test_l1_l2_and_dropout_act_on_the_ranker() -> None:
    torch.set_num_threads(1)
    base = ranker.RankerParams(hidden=(8,), cross_rank=4, batch=16, loop=LoopParams(epochs=6, learning_rate=1e-2))

    def weights(params: ranker.RankerParams) -> tuple[float, float]:
        net, _ = ranker.train(lists(), params)
        linear = torch.cat([net.linear.weight.ravel(), net.down.weight.ravel()]).abs()
        return float(linear.detach().sum()), float((linear < 1e-2).float().mean())

    plain, held = weights(base), weights(replace(base, l1=0.1))
    assert held[0] < 0.5 * plain[0] and held[1] > plain[1]
    decayed = weights(replace(base, loop=replace(base.loop, weight_decay=3.0)))
    assert decayed[0] < plain[0]
    assert weights(replace(base, dropout=0.5)) != plain


def test_training_stops_where_validation_stops_rising_and_keeps_the_best() -> None:
    told = iter([0.1, 0.3, 0.2, 0.2, 0.2, 0.2])
    params = ranker.RankerParams(hidden=(8,), loop=LoopParams(epochs=6, patience=2))
    _, curves = ranker.train(lists(), params, validate=lambda _net: next(told))
    assert (curves.best_epoch, len(curves.train_loss), curves.stopped_early) == (2, 4, True)
