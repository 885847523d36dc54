"""A small NDT and windows for it."""

import torch

from pipeline_lib.models.ndt.model import NDT
from pipeline_lib.models.ndt.network import Transformer
from pipeline_lib.models.ndt.settings import Config
from pipeline_lib.models.torch_model import Layout
from pipeline_lib.training.batches import Batch

SILENT = Config(layers=2, hidden=10, dropout=0.0, dropout_embedding=0.0, dropout_rates=0.0)
UNITS, BINS = 7, 13


def network(config: Config, sessions: int = 1) -> Transformer:
    """Always the same one."""
    torch.manual_seed(0)
    names = [f"s{number}" for number in range(sessions)]
    units = {name: list(range(UNITS)) for name in names}
    layout = Layout(20.0, BINS, 0, 0, 6, dict.fromkeys(names, UNITS), units, {name: ["a"] * UNITS for name in names})
    return NDT(config, 0).build(layout).train()


def windows(ragged: bool) -> Batch:
    counts = torch.poisson(torch.full((4, BINS, UNITS), 0.5), generator=torch.Generator().manual_seed(1))
    bins = torch.tensor([BINS, BINS - 4, BINS, BINS - 1]) if ragged else torch.full((4,), BINS)
    observed = (torch.arange(BINS) < bins[:, None])[:, :, None].expand(counts.shape)
    visible = observed & (torch.arange(UNITS) != 2)
    return Batch("s0", counts.to(torch.uint8), observed.clone(), visible, bins, 0, ragged=ragged)
