"""What a training knows of itself: rows of its history, which weights are the best, and the way through a file."""

import math

import numpy as np
import pytest
import torch

from pipeline_lib.errors import InputError
from pipeline_lib.training.checkpoint import Progress, pack, read_about, unpack
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
