"""The codes of the controller, against the sentence that says so, and its gradient against finite differences."""

import pytest
import torch

from pipeline_lib.models.lfads.lagged_codes import lagged_codes

BINS = 5


@pytest.mark.parametrize("lag", [0, 1, 3, BINS, BINS + 2])
def test_a_bin_sees_the_past_from_one_side_and_the_future_from_the_other(lag: int) -> None:
    torch.manual_seed(0)
    states = torch.randn(2, BINS, 3, 4, dtype=torch.float64, requires_grad=True)
    codes = lagged_codes(states, lag)
    nothing = torch.zeros(3, 4, dtype=torch.float64)
    for t in range(BINS):
        ahead = states[0, t - lag] if t >= lag else nothing
        back = states[1, BINS - 1 - (t + lag)] if t + lag < BINS else nothing  # the second meets the last bin first
        assert torch.equal(codes[t], torch.cat([ahead, back], -1))
    assert torch.autograd.gradcheck(lambda x: lagged_codes(x, lag), states)
