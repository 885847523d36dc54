"""One descent at a time: steps that go too far, problems that cannot move, and neighbours that do not notice."""

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline_lib.models.glm.descent import CONVERGED, MOST_REJECTIONS, RUNNING, STALLED
from pipeline_lib.models.glm.optimiser import SmoothDescent, sweep
from pipeline_lib.models.glm.sparse import SparseDescent

CENTRE = torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=torch.float64)


def parabolas(points: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    away = points - CENTRE[rows]
    return 0.5 * (away**2).sum(1), away


def test_a_step_four_times_too_long_is_shortened_to_the_minimum_of_the_parabola() -> None:
    state = SmoothDescent.start(torch.zeros(2, 2), memory=3)
    for _ in range(3):  # the start, the step that is refused, the one that is taken
        sweep(state, parabolas, lambda gradient, rows: 4 * gradient, 1e-15, 1e-14)
    torch.testing.assert_close(state.point, CENTRE)
    assert (state.status == CONVERGED).all()
    assert (state.step == 1).all() and not state.rejected.any(), "the next step would be a whole one"


def test_a_problem_that_can_go_nowhere_is_given_up_and_holds_nobody_up() -> None:
    def walled(points: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = parabolas(points, rows)
        return torch.where((rows == 1) & (points != 0).any(1), torch.inf, value), gradient

    state = SmoothDescent.start(torch.zeros(2, 2), memory=3)
    for _ in range(2):
        sweep(state, walled, lambda gradient, rows: gradient, 1e-15, 1e-14)
    assert state.status.tolist() == [CONVERGED, RUNNING] and state.running.tolist() == [1]
    for _ in range(MOST_REJECTIONS):
        sweep(state, walled, lambda gradient, rows: gradient, 1e-15, 1e-14)
        if not len(state.running):
            break
    assert state.status.tolist() == [CONVERGED, STALLED] and not state.point[1].any()


@pytest.mark.parametrize("kind", [SmoothDescent, SparseDescent])
def test_written_down_and_read_back_it_is_the_same(kind) -> None:
    state = kind.start(torch.ones(3, 4), memory=2)
    again = kind.from_arrays(state.arrays())
    assert vars(again).keys() == vars(state).keys()
    for name, array in state.arrays().items():
        np.testing.assert_array_equal(array, again.arrays()[name], err_msg=name)
        assert array.dtype == again.arrays()[name].dtype
