"""What a training knows of itself: rows of its history, which weights are the best, and the way through a file."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline_lib.errors import InputError
from pipeline_lib.training.checkpoint import Progress, pack, read_about, unpack
from pipeline_lib.training.schedule import learning_rate
from pipeline_lib.training.settings import TrainingSettings

PLATEAU = TrainingSettings(schedule="plateau", decay=0.5, decay_patience=2)


def test_a_row_tells_the_mean_since_the_last_one_and_terms_where_there_are_several() -> None:
    progress = Progress(step=2, losses=[1.0, 3.0])
    row = progress.row({"nll": 2.0, "kl": 0.5}, 0.1)
    assert list(row.items()) == [
        ("step", 2),
        ("loss", 2.0),
        ("learning_rate", 0.1),
        ("validation_loss", 2.5),
        ("validation_nll", 2.0),
        ("validation_kl", 0.5),
    ]
    progress.losses.append(5.0)
    assert progress.row({"nll": 2.0}, 0.1) == {"step": 2, "loss": 5.0, "learning_rate": 0.1, "validation_loss": 2.0}
    progress.losses.append(5.0)
    assert "validation_loss" not in progress.row({}, 0.1)


@pytest.mark.parametrize("selects", [None, "nll"])
def test_the_best_weights_are_those_of_the_lowest_selected_term(selects: str | None) -> None:
    progress = Progress()
    terms = [{"nll": 3.0, "kl": 0.0}, {"nll": 2.0, "kl": 2.0}, {"nll": 2.5, "kl": 0.0}, {"nll": 4.0, "kl": 4.0}]
    better = [progress.judge(each, selects, PLATEAU) for each in terms]
    assert better == ([True, False, True, False] if selects is None else [True, True, False, False])
    assert progress.stale == better[::-1].index(True)
    assert progress.factor == (0.5 if selects else 1.0)
    best, stale = progress.best, progress.stale
    assert not progress.judge({"nll": best, "kl": 0.0}, selects, PLATEAU)  # as good is not better
    assert (progress.best, progress.stale) == (best, stale + 1)


def test_a_plateau_lowers_the_rate_after_every_so_many_evaluations_without_a_gain() -> None:
    losses = (3.0, 3.0, 3.5, 2.0, 2.1, 2.1, 2.1, 2.1)
    for settings, expected in (
        (PLATEAU, [1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.125]),
        (TrainingSettings(schedule="constant", decay=0.5, decay_patience=2), [1] * 8),
    ):
        progress, factors = Progress(), []
        for loss in losses:
            progress.judge({"nll": loss}, None, settings)
            factors.append(progress.factor)
        assert factors == expected and progress.stale == 4


def test_plateaus_and_patience_follow_a_running_mean_and_the_best_weights_the_loss_itself() -> None:
    """0.3 of the old and 0.7 of the new, as published for LFADS; a loss that is no number is left out of it."""
    settings = replace(PLATEAU, validation_smoothing=0.3, decay_patience=1, patience=2)
    progress, seen = Progress(), []
    for progress.step, loss in zip(range(50, 400, 50), (4.0, 2.0, 2.5, math.nan, 2.4, 1.9), strict=False):
        better = progress.judge({"nll": loss, "kl": 9.0}, "nll", settings)
        seen.append((better, progress.smoothed, progress.stale, progress.factor, progress.hopeful(settings)))
    means = [4.0, 0.3 * 4 + 0.7 * 2.0]
    means.append(0.3 * means[1] + 0.7 * 2.5)  # below the mean before, though the loss is not
    means += [means[2], 0.3 * means[2] + 0.7 * 2.4]
    means.append(0.3 * means[4] + 0.7 * 1.9)
    assert [each[1] for each in seen] == pytest.approx(means) and means[1] > means[2] > means[4] > means[5]
    assert [each[0] for each in seen] == [True, True, False, False, False, True]
    assert [each[2:] for each in seen] == [(0, 1, True)] * 3 + [(1, 0.5, True)] + [(0, 0.5, True)] * 2
    progress.losses.append(1.0)
    assert progress.row({"nll": 1.9, "kl": 9.0}, 0.1)["validation_smoothed"] == progress.smoothed


def test_a_plateau_stops_at_the_least_rate() -> None:
    settings = replace(PLATEAU, learning_rate=1e-3, least_learning_rate=2e-4, decay_patience=1)
    progress, rates = Progress(), []
    for loss in (1.0, 2.0, 2.0, 2.0, 2.0):
        progress.judge({"nll": loss}, None, settings)
        rates.append(learning_rate(settings, 1000, progress.factor))
    assert rates == pytest.approx([1e-3, 5e-4, 2.5e-4, 2e-4, 2e-4], rel=1e-12)


def test_patience_counts_from_the_end_of_a_ramp() -> None:
    settings = TrainingSettings(evaluate_every=50, patience=2, patience_start=120)
    progress, hopes = Progress(), []
    for progress.step in range(50, 350, 50):
        progress.judge({"nll": float(progress.step)}, None, settings)  # worse and worse
        hopes.append(progress.hopeful(settings))
    assert hopes == [True, True, True, False, False, False]  # at 150 one evaluation has counted, at 200 two
    assert not Progress(step=100, stale=2).hopeful(replace(settings, patience_start=0))


@pytest.mark.parametrize(
    "settings",
    [
        {"least_learning_rate": 0.1},
        {"validation_smoothing": 1.0},
        {"patience_start": -1},
        {"weight_decay_ramp": (5, 2)},
        {"weight_decay_ramp": (-1, 2)},
        {"average": 1.0},
        {"betas": (0.9, 1.0)},
        {"clip": 0.0},
        {"decay": 0.0},
        {"final_rate": -0.1},
        {"patience": 0},
    ],
    ids=str,
)
def test_settings_that_mean_nothing_are_named(settings: dict) -> None:
    with pytest.raises(InputError, match=next(iter(settings))):
        TrainingSettings(**settings)


def test_a_single_term_may_select_and_an_unknown_one_is_named() -> None:
    progress = Progress()
    assert progress.judge({"nll": 3.0}, "nll", PLATEAU)
    with pytest.raises(InputError, match="selects: found 'likelihood'; accepted: a term of the loss: nll"):
        progress.judge({"nll": 3.0}, "likelihood", PLATEAU)


def test_without_validation_the_last_weights_are_the_best() -> None:
    progress = Progress()
    for progress.step in (5, 10, 15):
        assert progress.judge({}, "nll", PLATEAU)


def test_what_is_packed_comes_back() -> None:
    network = {"a.weight": torch.randn(3, 2), "b": torch.tensor(4)}
    state = pack({"loss": 0.1 + 0.2, "best": math.inf}, network=network, empty={})
    assert all(isinstance(array, np.ndarray) for array in state.values())
    copy = {name: torch.zeros_like(tensor) for name, tensor in network.items()}
    unpack(state, network=copy, empty={})
    assert all(torch.equal(copy[name], network[name]) for name in network)
    assert read_about(state) == {"loss": 0.1 + 0.2, "best": math.inf}
