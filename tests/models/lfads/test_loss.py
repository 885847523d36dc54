"""The loss of the whole network against the plain one: the same expectation over dropouts and noise."""

from dataclasses import replace

import pytest
import torch

from pipeline_lib.models.lfads.model import LFADS
from pipeline_lib.models.lfads.settings import Config
from pipeline_lib.models.torch_model import Layout
from pipeline_lib.training.batches import Batch
from tests.models.lfads.plain import PlainLFADS

CONFIG = Config(
    initial_encoder=6, initial_conditions=3, input_encoder=5, controller=4, generator=7, factors=3, dropout=0.2,
    kl_ramp=(0, 0), l2_ramp=(0, 0), l2_encoders=1.0, prior_time_constant=3.0, kl_initial=2.0, kl_inputs=3.0,
)  # fmt: skip


@pytest.mark.parametrize("inputs", [0, 2], ids=["autonomous", "controlled"])
def test_the_loss_is_in_the_mean_that_of_the_plain_network(inputs: int) -> None:
    torch.manual_seed(0)
    bins, units, windows = 6, 5, 600
    layout = Layout(5.0, bins, 0, 0, 6, {"s": units}, {"s": list(range(units))}, {"s": ["a"] * units})
    network = LFADS(replace(CONFIG, inferred_inputs=inputs), 0).build(layout).train()
    for weight in network.parameters():  # away from zero, so that nothing cancels
        weight.data += 0.1 * torch.randn(weight.shape)
    counts = torch.poisson(torch.full((windows, bins, units), 1.2)).to(torch.uint8)
    ones = torch.ones_like(counts, dtype=torch.bool)
    batch = Batch("s", counts, ones, ones, torch.full((windows,), bins), 0)
    plain = PlainLFADS(network)
    with torch.no_grad():
        ours = torch.stack([torch.stack(list(network(batch, 5).values())).sum() for _ in range(40)])
        theirs = torch.stack([plain.loss(counts) for _ in range(40)])
    assert abs(ours.mean() - theirs.mean()) < 4 * (ours.var() / 40 + theirs.var() / 40).sqrt()
    assert ours.std() < 0.1 * ours.mean() and 0.7 < ours.std() / theirs.std() < 1.4
