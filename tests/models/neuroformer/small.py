"""A small network and batches for it, without any file."""

from dataclasses import replace

import numpy as np
import torch

from pipeline_lib.models.neuroformer.context import Context
from pipeline_lib.models.neuroformer.independent import IndependentNeuroformer
from pipeline_lib.models.neuroformer.layers import Rows
from pipeline_lib.models.neuroformer.network import Neuroformer, Shapes
from pipeline_lib.models.neuroformer.reading import Last
from pipeline_lib.models.neuroformer.sampling import Sampling
from pipeline_lib.models.neuroformer.session import Head
from pipeline_lib.models.neuroformer.settings import Config
from pipeline_lib.models.neuroformer.tokens import Tokens, pack
from pipeline_lib.models.torch_model import Layout
from pipeline_lib.training.batches import Batch

SMALL = Config(window=0.05, past=0.1, width=16, heads=2, dropout=0.0, steps=4, warmup=1, evaluate_every=2, batch=8)


def network(
    units: int = 6,
    heldout: int = 0,
    spread: float = 0.3,
    config: Config = SMALL,
    decode: dict[str, int] | None = None,
    **shapes: object,
) -> Neuroformer:
    """A network of 10-ms bins with random weights everywhere, the zeros of its start included; `decode`: classes of
    what is read out, 0 of a number."""
    torch.manual_seed(0)
    heldin = list(range(units - heldout))
    layout = Layout(10.0, 40, 10, 0, 3, {"one": units}, {"one": heldin}, {"one": [""] * units})
    kind = IndependentNeuroformer if config.compat else Neuroformer
    made = kind(config, layout, Shapes(classes={"one": decode or {}}, **shapes))  # type: ignore[arg-type]
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if "ln" not in name and "again" not in name:
                weight.normal_(std=spread)
    made.head("one").start_at(torch.linspace(0.1, 0.3, units), {})
    return made.eval()


def batch(counts: np.ndarray, heldout: int = 0, history: int = 10, bins: np.ndarray | None = None) -> Batch:
    """A batch of counts [B, L, N], all observed up to `bins` of each window."""
    samples, length, units = counts.shape
    lengths = torch.full((samples,), length) if bins is None else torch.as_tensor(bins)
    observed = (torch.arange(length) < lengths[:, None])[:, :, None].expand(-1, -1, units).clone()
    visible = observed.clone()
    visible[:, :, units - heldout :] = False
    values = torch.as_tensor(counts.astype(np.uint8)) * observed
    return Batch("one", values, observed, visible, lengths, history)


def poisson(samples: int = 5, length: int = 32, units: int = 6, rate: float = 0.2, seed: int = 0) -> np.ndarray:
    """Counts of independent units [samples, length, units]."""
    return np.random.default_rng(seed).poisson(rate, (samples, length, units))


def with_settings(**changes: object) -> Config:
    """The small settings, changed."""
    return replace(SMALL, **changes)  # type: ignore[arg-type]


@torch.inference_mode()
def write_anew(network: Neuroformer, head: Head, context: Context, width: torch.Tensor, sampling: Sampling) -> Tokens:
    """What `generation.write` gives: a window after the other, everything computed anew for each token."""
    windows, bins, units = [list[int]() for _ in range(3)]
    for row in torch.arange(len(width)).split(1):
        own, unit, bin = context.rows(row), torch.tensor([-1]), torch.tensor([0])
        while len(unit) <= sampling.most:
            rows, last = Rows(1, len(unit)), Last(bin[-1:], unit[-1:], width[row], None)
            x = network.embed(head, unit, bin, torch.arange(len(unit)))
            states = rows.spread(network.states(x, rows, own, None)[0])[:, -1]
            following = sampling.draw(network.bin_log_probabilities(head, states, last), None)
            if int(following) >= network.bins:
                break
            pair, bias = own.who_with(network.who.pair(x, rows), None)
            asked = network.unit_states(states, following, Rows(1, 1), pair, bias)
            same = (unit[-1:] >= 0) & (bin[-1:] == following)
            chosen = sampling.draw(network.unit_log_probabilities(head, asked, last, same), None)
            unit, bin = torch.cat([unit, chosen]), torch.cat([bin, following])
        windows += [int(row)] * (len(unit) - 1)
        bins, units = bins + bin[1:].tolist(), units + unit[1:].tolist()
    return pack(torch.tensor(windows), torch.tensor(bins), torch.tensor(units), len(width))
